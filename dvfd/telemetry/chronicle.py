"""What each run of a job came to: its beginning, and how and when it ended. Reads no clock.

Looks at a job lie seconds apart, so its ends are between two of them, and a short run is whole
between two. What is known the moment that it is over is kept here, as one small document a run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dvfd.telemetry.rank import Link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.telemetry.job import Job
    from dvfd.telemetry.rank import Rank

KIND = "ran"
"""The store's documents of this."""

LIMIT = 64
"""Runs that are remembered, of all jobs together: the newest."""

Documents = dict[tuple[str, str], dict[str, Any] | None]


class Chronicle:
    """The newest runs, oldest first. The book of jobs holds its lock around every method."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._news: Documents = {}

    def restore(self, documents: Mapping[str, dict[str, Any]]) -> None:
        """Take up what an earlier daemon kept; its sums over the ranks' rows are lost."""
        found = [(key, document) for key, document in documents.items() if _is_ours(document)]
        for key, document in sorted(found, key=lambda each: float(each[1]["began"] or 0.0)):
            self._kept[key] = {**document, "whole": document["whole"] and bool(document["how"])}

    def joined(self, job: Job, rank: Rank, at: float, *, fresh: bool) -> None:
        """*rank* took its seat at Unix time *at*: a run begins, unless it goes on. *fresh* says
        that no rank is waited for there.
        """
        key = self._newest(job.label)
        known = self._kept[key] if key else {}
        if key and known["run"] == job.run and _goes_on(known, rank):
            if known["how"]:
                late = str(rank.rank) not in known["ranks"]  # no process was lost for it
                whole = known["whole"] and late
                self._keep(key, {**known, "how": "", "why": "", "ended": None, "whole": whole})
        elif fresh:
            self._keep(f"{job.label}@{at:.3f}", _begun(job, at))

    def look(self, job: Job, at: float, *, blind: bool = False) -> None:
        """See whether *job* is over now; *blind* says that nobody looked when that came."""
        if job.live or not job.ranks:
            return
        key = self._newest(job.label)
        if key is None or self._kept[key]["run"] != job.run:
            key = f"{job.label}@{at:.3f}"
            self._keep(key, {**_begun(job, at), "began": None, "whole": False})
        known, (how, why) = self._kept[key], _how(job)
        if not known["how"]:
            self._keep(key, {**known, **_done(job, known), "how": how, "why": why,
                             "ended": at, "blind": blind})  # fmt: skip
        elif (how, why) != (known["how"], known["why"]):
            self._keep(key, {**known, "how": how, "why": why})

    def forgotten(self, job: Job, at: float) -> None:
        """Nobody waits for *job* any more."""
        key = self._newest(job.label)
        if key is not None and not self._kept[key]["how"]:
            known = self._kept[key]
            self._keep(key, {**known, **_done(job, known), "how": "forgotten", "ended": at})

    def news(self) -> Documents:
        """What must be written since this was asked last."""
        found, self._news = self._news, {}
        return found

    def _newest(self, label: str) -> str | None:
        return next((k for k, d in reversed(self._kept.items()) if d["job"] == label), None)

    def _keep(self, key: str, document: dict[str, Any]) -> None:
        self._kept[key] = self._news[KIND, key] = document
        while len(self._kept) > LIMIT:
            over = (k for k, d in self._kept.items() if d["how"])
            oldest = next(over, next(iter(self._kept)))
            del self._kept[oldest]
            self._news[KIND, oldest] = None


def _goes_on(known: Mapping[str, Any], rank: Rank) -> bool:
    """Whether a run that may have ended was not over: a rank came back, or came only now."""
    return known["how"] != "forgotten" and (
        known["how"] != "ended" or str(rank.rank) not in known["ranks"]
    )


def _is_ours(document: Mapping[str, Any]) -> bool:
    return {"job", "run", "began", "how", "whole", "base"} <= document.keys()


def _begun(job: Job, at: float) -> dict[str, Any]:
    """A run that has begun. `base` is where counters stood that go on over runs."""
    return {
        "job": job.label,
        "run": job.run,
        "began": at,
        "ended": None,
        "how": "",
        "why": "",
        "blind": False,
        "whole": True,
        "world": job.world_size,
        "here": job.local_world_size,
        "base": {
            "saved": job.saves.saved,
            "failed": job.counters.failed,
            "steps": {str(number): rank.steps_total for number, rank in job.ranks.items()},
        },
        "ranks": {},
        "samples": None,
        "loss": None,
        "saved": None,
        "failed": None,
    }


def _done(job: Job, known: Mapping[str, Any]) -> dict[str, Any]:
    """What it came to; samples only if this daemon heard every row of it."""
    base = known["base"]
    samples = math.fsum(rank.totals.samples for rank in job.ranks.values())
    return {
        "world": job.world_size,
        "here": job.local_world_size,
        "ranks": {str(number): _of_rank(rank) for number, rank in job.ranks.items()},
        "samples": samples if known["whole"] and samples else None,
        "loss": job.loss,
        "saved": max(0, job.saves.saved - base["saved"]),
        "failed": max(0, job.counters.failed - base["failed"]),
    }


def _of_rank(rank: Rank) -> dict[str, float | None]:
    """Its counter of steps, and the means of its sections in seconds."""
    totals = rank.totals
    return {
        "steps": rank.steps_total,
        "step": totals.interval / totals.intervals if totals.intervals else None,
        "compute": totals.compute / totals.computes if totals.computes else None,
    }


def _how(job: Job) -> tuple[str, str]:
    """How a job that is over ended, and why."""
    if any(rank.link is Link.FAILED for rank in job.ranks.values()):
        return "failed", job.exception
    lost = [rank for rank in job.ranks.values() if rank.link is not Link.ENDED]
    if not lost:
        return "ended", ""
    pids = ", ".join(str(rank.pid) for rank in lost[:4])
    more = ", ..." if len(lost) > 4 else ""
    gone = f"process{'es' if len(lost) > 1 else ''} {pids}{more} left without a word"
    return "gone", "; ".join(filter(None, (gone, job.exception)))

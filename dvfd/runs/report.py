"""The report of a run as a document: what it was, what every criterion was worth, and why. Pure.

Everything in it is from the run's file and from what it is judged with: the same file gives the
same bytes. HTML and JUnit are made of this document alone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dvfd import __version__
from dvfd.jsonable import jsonable
from dvfd.masking import masked
from dvfd.model import Severity, Verdict, worst
from dvfd.runs.courses import courses
from dvfd.runs.happened import happened
from dvfd.runs.run import Stage
from dvfd.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dvfd.model import Check
    from dvfd.runs.rows import Rows
    from dvfd.runs.run import Run
    from dvfd.runs.verdicts import Judged

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def document(
    run: Run,
    check: Check,
    rows: Rows,
    judged: Sequence[Judged],
    goodput: Mapping[str, Any] | None,
    *,
    hashes: Mapping[str, str],
    overrides: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The report as JSON types. `goodput` says where time went, as dvfd.runs.goodput has it;
    `environment` is what the node was, by name.
    """
    until = run.ended_t if run.ended_t is not None else run.seen_t
    verdict = worst(
        each.result.verdict
        for each in judged
        if each.result.criterion.severity is Severity.CRITICAL
    )
    against = uncounted(run)
    found = {
        "schema": SCHEMA,
        "kind": "stability run",
        "check": check.id,
        "title": check.title,
        "clause": check.clause,
        "phase": check.phase,
        "node": run.node,
        "run": _ordered(run),
        "stage": run.stage.value,
        "reason": masked(run.reason),
        "at": run.armed_at if run.ended_at is None else run.ended_at,
        "times": times(run, until),
        "verdict": verdict.value,
        "counts": not against,
        "uncounted": against,
        "headline": headline(run, verdict, against, judged),
        "results": [masked(each.to_document()) for each in judged],
        "series": courses(run, rows, judged, until),
        "goodput": None if goodput is None else dict(goodput),
        "hashes": dict(hashes),
        "overrides": list(overrides),
        "environment": masked(dict(environment)),
        "versions": {"dvfd": __version__, "report": SCHEMA},
        **happened(run, rows.events(), until),
    }
    plain: dict[str, Any] = jsonable(found)
    return plain


def _ordered(run: Run) -> dict[str, Any]:
    """What was ordered, and how the run went on; without what a report cannot know of itself."""
    found = run.shown()
    found.pop("frozen")
    found["plan"]["shortened"] = run.plan.shortened
    return found


def uncounted(run: Run) -> list[str]:
    """Why a pass of *run* counts for nothing; empty if it does."""
    against = list(run.plan.uncounted)
    if run.stage is Stage.ABORTED:
        against.insert(0, f"aborted: {masked(run.reason) or 'nobody said why'}")
    elif run.stage is not Stage.COMPLETE:
        against.insert(0, f"not over: it is {run.stage}")
    return against


def headline(run: Run, verdict: Verdict, against: Sequence[str], judged: Sequence[Judged]) -> str:
    """One sentence for who reads no further."""
    rows = [(each.result.verdict, each.result.criterion.severity) for each in judged]
    found = f"Of {len(rows)} criteria, {counted(rows)}." if rows else "No criterion was judged."
    if verdict is Verdict.FAIL and against:
        return f"{found} A run that does not count can fail; it cannot pass."
    if verdict is Verdict.UNKNOWN and run.stage is Stage.COMPLETE and _well(judged):
        return f"{found} Each would pass if the run counted."
    return found


def _well(judged: Sequence[Judged]) -> bool:
    """Whether every criterion that applies would pass."""
    applying = [each.so_far for each in judged if each.so_far is not Verdict.NOT_APPLICABLE]
    return bool(applying) and set(applying) == {Verdict.PASS}


def times(run: Run, until: float) -> dict[str, Any]:
    """The moments of a run: run seconds, Unix seconds, and UTC as people write it."""
    moments = {"armed": run.armed_t, "began": run.began_t, "warm": run.warm_t, "ended": run.ended_t}
    return {
        **{name: _moment(run, name, t) for name, t in moments.items()},
        "elapsed": run.elapsed(until),
        "duration": run.plan.duration,
        "planned": run.plan.planned,
    }


def _moment(run: Run, name: str, t: float | None) -> dict[str, Any] | None:
    if t is None:
        return None
    at = (
        run.ended_at
        if name == "ended" and run.ended_at is not None
        else run.armed_at + t - run.armed_t
    )
    return {"t": t, "at": at, "iso": iso(at)}


def iso(at: float) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_text(report: Mapping[str, Any]) -> str:
    """Byte by byte the same for the same report."""
    return json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

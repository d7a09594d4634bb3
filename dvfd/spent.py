"""Where the time of a job went that no run watches: from the series that the store has. Pure.

The store keeps how many steps were made and how long one took, not when each was: so between two
looks the steps of the rank that did least take their time, what is left of it went otherwise.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.model import labels
from dvfd.query import near
from dvfd.runs.goodput import NO_DATA, Goodput, Part, account

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.model import Labels, Sample
    from dvfd.runs.rows import Rows
    from dvfd.runs.run import Run
    from dvfd.state import Past

OBSERVED, UP = "job_observed_seconds_total", "job_up_seconds_total"
STEPS, STEP, COMPUTE = "rank_steps_total", "rank_step_seconds", "rank_compute_seconds"
PROCESSES, RESTARTS = "job_processes", "rank_restarts_total"
COMMUNICATION = "job_communication_ratio"

ROUNDING = 1e-3
"""Seconds by which two sums of the same spans may differ: far above a float's last digit, far below
the time between two looks."""

ROLLED = 3600.0
"""Seconds before the first look from which a rollup may stand for what was so at it."""

AHEAD = 3
"""Samples in which a counter must reach its peak again for a fall of it to be a clock that was
set back: the samples of both times then lie between each other."""

OF_STORE = (
    "saving and loading checkpoints and announced pauses are in other: the store keeps no times "
    "of them"
)
OF_AGAIN = (
    "{:g} ranks came back as new processes: steps done again are among the productive "
    "ones, since the store keeps how many there were and not which"
)
OF_NODE = "these are the ranks of this node, {} of {}"


def jobs(past: Past) -> list[str]:
    """The jobs that have not ended and were looked at."""
    return sorted(dict(sample.labels)["job"] for sample in past.latest(OBSERVED))


def of_job(past: Past, job: str, *, since: float, until: float) -> Goodput:
    """What is known of *job* inside [since, until], Unix seconds: from its first to its last look.

    Raises DvfdError if there was none.
    """
    looks = forward(past.series(OBSERVED, labels(job=job), since=since, until=until))
    if len(looks) < 2:
        others = jobs(past)
        meant = near(job, others)
        hint = f"; did you mean {meant!r}?" if meant else f"; live ones: {', '.join(others)}"
        raise DvfdError(f"job {job!r} was not looked at twice in that time{hint if others else ''}")
    ledger = Ledger(past, job, looks)
    return ledger.goodput()


def forward(counter: Sequence[Sample]) -> list[Sample]:
    """*counter* without what a clock that was set back put between its samples: it falls there and
    is at its peak again soon after. One that began again is left as it is.
    """
    found: list[Sample] = []
    peak = -math.inf
    for place, sample in enumerate(counter):
        soon = counter[place + 1 : place + 1 + AHEAD]
        fell = sample.value < peak and not sample.span  # a rollup has one value for both times
        if fell and any(later.value >= peak for later in soon):
            continue
        peak = sample.value
        found.append(sample)
    return found


def of_run(run: Run, rows: Rows) -> Goodput:
    """A run's own account, from the rows of its file."""
    since = run.began_t or 0.0
    until = run.seen_t if run.ended_t is None else run.ended_t
    events = list(rows.events())

    def every() -> Iterator[Any]:
        yield from rows.windows()
        yield from events

    return account(every(), since=since, until=until, plan=run.plan, run=run.id)


@dataclass(frozen=True, slots=True)
class Course:
    """One series: what it was at a moment, and how much a counter grew."""

    samples: Sequence[Sample]

    def at(self, t: float) -> float | None:
        """Its newest value at *t*."""
        place = bisect_right(self.samples, t, key=lambda sample: sample.at) - 1
        return self.samples[place].value if place >= 0 else None

    def heard(self, since: float) -> bool:
        """Whether it was told anything from *since* on."""
        return bool(self.samples) and self.samples[-1].at >= since

    def grown(self, since: float, until: float) -> float:
        """How much it grew; one that began again grew by what it is now."""
        before, after = self.at(since), self.at(until)
        if after is None or before is None:
            return 0.0
        return after - before if after >= before else after


@dataclass(frozen=True, slots=True)
class Worker:
    """What is known of one rank here."""

    steps: Course
    step: Course
    compute: Course

    def stepping(self, since: float, until: float) -> float:
        """Seconds of the steps between two looks."""
        return self.steps.grown(since, until) * (self.step.at(until) or 0.0)


class Ledger:
    """One job's time between the looks at it."""

    def __init__(self, past: Past, job: str, looks: Sequence[Sample]) -> None:
        self._looks = looks
        self._ends = looks[0].at, looks[-1].at
        self._past = past
        self._job = job
        self._observed = Course(looks)
        self._up = self._course(UP, labels(job=job))
        self._restarts = self._course(RESTARTS, labels(job=job))
        self._communication = self._course(COMMUNICATION, labels(job=job))
        processes = self._course(PROCESSES, labels(job=job)).samples
        self._world = int(max((sample.value for sample in processes), default=0))
        workers = map(self._worker, range(self._world))
        self._workers = [w for w in workers if w.steps.heard(looks[0].at)]
        self._untold = False
        self._spent: list[tuple[Part, float]] = []
        self._loose: list[tuple[Part, float]] = []  # without steps so far

    def goodput(self) -> Goodput:
        """Its parts."""
        stage = Part.INITIALISATION
        spans = list(pairwise(look.at for look in self._looks))
        for since, until in spans:
            stage = self._split(since, until, stage)
        spent = [*self._spent, *self._loose]
        found = {part: math.fsum(s for p, s in spent if p is part) for part in Part}
        least = [sum(worker.steps.grown(*span) for span in spans) for worker in self._workers]
        return Goodput(
            run="",
            job=self._job,
            since=self._ends[0],
            until=self._ends[1],
            parts=found,
            steps=int(min(least, default=0)),
            notes=tuple(self._notes()),
        )

    def _split(self, since: float, until: float, stage: Part) -> Part:
        """Share out the time between two looks; what time without steps is after it."""
        whole, steps = until - since, self._least(since, until)
        share = self._share(until) if steps else 0.0
        here = min(whole, steps)
        self._step(here + self._earlier(steps - here), share)
        observed = self._observed.grown(since, until)
        unseen = min(whole - here, max(0.0, whole - observed))
        down = observed - self._up.grown(since, until) > ROUNDING
        if (down or self._restarts.grown(since, until)) and stage is not Part.INITIALISATION:
            stage = Part.RECOVERY
        self._loose += [(Part.UNOBSERVED, unseen), (stage, whole - here - unseen)]
        return Part.OTHER if steps else stage

    def _step(self, length: float, share: float) -> None:
        self._spent += [(Part.PRODUCTIVE, length * (1 - share)), (Part.DATA, length * share)]

    def _earlier(self, length: float) -> float:
        """Steps that ended here began before: take their time from what was left there, the newest
        first; how much that was.
        """
        wanted = length
        while self._loose and wanted > 0:
            part, free = self._loose.pop()
            taken = min(free, wanted)
            wanted -= taken
            if free > taken:
                self._loose.append((part, free - taken))
        return length - wanted

    def _least(self, since: float, until: float) -> float:
        return min((worker.stepping(since, until) for worker in self._workers), default=0.0)

    def _share(self, t: float) -> float:
        """Of a step's time, what went into waiting for data: the mean over the ranks here."""
        steps = [worker.step.at(t) for worker in self._workers]
        computes = [worker.compute.at(t) for worker in self._workers]
        exchange = self._communication.at(t)
        if self._world == 1:
            exchange = exchange or 0.0
        if None in steps or None in computes or exchange is None or not steps:
            self._untold = True
            return 0.0
        step = math.fsum(s for s in steps if s is not None)
        compute = math.fsum(c for c in computes if c is not None)
        return min(1.0, max(0.0, 1.0 - compute / step - exchange)) if step > 0 else 0.0

    def _notes(self) -> Iterator[str]:
        yield OF_STORE
        if self._untold:
            yield NO_DATA
        if restarts := self._restarts.grown(*self._ends):
            yield OF_AGAIN.format(restarts)
        if len(self._workers) < self._world:
            yield OF_NODE.format(len(self._workers), self._world)

    def _worker(self, rank: int) -> Worker:
        own = labels(job=self._job, rank=rank)
        return Worker(self._course(STEPS, own), self._course(STEP, own), self._course(COMPUTE, own))

    def _course(self, metric: str, own: Labels) -> Course:
        since, until = self._ends
        found = self._past.series(metric, own, since=since - ROLLED, until=until)
        first = bisect_left(found, since, key=lambda sample: sample.at)
        if first < len(found) and found[first].at == since:
            found = found[first:]  # what was before it is another run's
        return Course(forward(found) if metric.endswith("_total") else found)

"""The ends of a job's runs, from what was kept when each was over, beside the looks at it. Pure.

Looks lie seconds apart and go on after a job died, since somebody is to be called. Here a run
begins with its first rank and ends with its last one: a look is put at either end, and what was
looked at after it is left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dvfd.model import Sample, labels
from dvfd.spent import COMPUTE, OBSERVED, PROCESSES, STEP, STEPS, UP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dvfd.model import Labels
    from dvfd.state import Past, Run

SAMPLES, LOSS = "job_samples_total", "job_loss"

NEAR = 60.0
"""Seconds from an end to the look next to it in which the daemon was surely there: it heard the
rank come, or go.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run; Unix seconds. `how` is empty while it goes on, else one of ended, failed, gone and
    forgotten; `blind` says that nobody looked when it ended, which was before `ended`.
    """

    job: str
    began: float | None
    ended: float | None = None
    how: str = ""
    why: str = ""
    blind: bool = False
    world: int = 0
    here: int = 0
    base: Mapping[str, float] = field(default_factory=dict)  # steps before it, by rank
    ranks: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    samples: float | None = None
    loss: float | None = None
    saved: int | None = None
    failed: int | None = None

    @property
    def first(self) -> float:
        """When it began; long ago if that is not known."""
        return 0.0 if self.began is None else self.began

    @property
    def last(self) -> float:
        """When it was over."""
        return float("inf") if self.ended is None else self.ended

    @property
    def steps(self) -> int | None:
        """Steps of the rank here that did least; None while it goes on."""
        counts = [self.end(name, "steps") for name in self.ranks]
        known = [count - self.base.get(n, 0.0) for n, count in zip(self.ranks, counts, strict=True)
                 if count is not None]  # fmt: skip
        return int(max(0.0, min(known))) if known else None

    def end(self, rank: str, what: str) -> float | None:
        """A rank's figure at the end."""
        return self.ranks.get(rank, {}).get(what)


def runs_of(documents: Iterable[Mapping[str, Any]], job: str = "") -> tuple[Ran, ...]:
    """The runs of *job*, or of all, as `dvfd.telemetry.chronicle` keeps them, oldest first."""
    found = [_ran(document) for document in documents if not job or document["job"] == job]
    return tuple(sorted(found, key=lambda ran: (ran.first, ran.last)))


def _ran(document: Mapping[str, Any]) -> Ran:
    plain = {
        key: document[key]
        for key in Ran.__slots__
        if key in document and key != "base"
    }  # fmt: skip
    return Ran(**plain, base=document["base"]["steps"])


class Ends:
    """A past in which the runs of one job have their ends. Implements dvfd.state.Past."""

    def __init__(self, past: Past, job: str, ran: Sequence[Ran]) -> None:
        self._past = past
        self._own = labels(job=job)
        self.ran = [each for each in ran if each.job == job]

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series of *metric*, however old."""
        return self._past.latest(metric)

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """The newest kept runs of a check, newest first."""
        return self._past.reports(check_id, limit)

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series, without what was looked at between runs."""
        told = self._past.series(metric, labels, since=since, until=until)
        if not self.ran or not set(self._own) <= set(labels):
            return told
        kept = sorted(self._inside(told), key=_at)
        found = {sample.at: sample for sample in kept}
        for ran in self.ran:
            if ran.last < since or ran.first > until:
                continue
            inside = kept[
                bisect_left(kept, ran.first, key=_at) : bisect_right(kept, ran.last, key=_at)
            ]
            whole = since <= ran.first and ran.last <= until
            course = _Course(ran, dict(labels).get("rank", ""), told, inside, whole)
            for at, value in course.ends(metric):
                if since <= at <= until:
                    found[at] = Sample(metric, value, at, labels)
        return [found[at] for at in sorted(found)]

    def _inside(self, told: Sequence[Sample]) -> Iterator[Sample]:
        """What is of a run. A mean over an end is cut there; a counter's last is left out."""
        firsts = [ran.first for ran in self.ran]
        for sample in told:
            place = bisect_left(firsts, sample.at)
            ran = self.ran[place - 1] if place else None
            if ran is None or sample.at <= ran.last:
                yield sample
            elif sample.at - sample.span < ran.last and not sample.metric.endswith("_total"):
                yield replace(sample, at=ran.last, span=ran.last - sample.at + sample.span)


def _at(sample: Sample) -> float:
    return sample.at


@dataclass(frozen=True, slots=True)
class _Course:
    """One series about one run: all that was read of it, and what of that was inside. `whole` says
    that all of the run was asked for.
    """

    ran: Ran
    rank: str
    told: Sequence[Sample]
    inside: Sequence[Sample]
    whole: bool

    def ends(self, metric: str) -> Iterator[tuple[float, float]]:
        """Moment and value at the beginning and at the end, as far as they are known."""
        known = _VALUES[metric](self) if metric in _VALUES else (None, None)
        moments = self.ran.began, None if self.ran.blind else self.ran.ended
        for at, value in zip(moments, known, strict=True):
            if at is not None and value is not None:
                yield at, value

    def steps(self) -> Two:
        """A rank's counter."""
        sat = self.inside or self.rank in self.ran.ranks
        return self.ran.base.get(self.rank, 0.0) if sat else None, self.ran.end(self.rank, "steps")

    def mean(self, what: str) -> Two:
        """Of a rank's section: what it was at the last look, or over the run."""
        return None, self.inside[-1].value if self.inside else self.ran.end(self.rank, what)

    def seconds(self) -> Two:
        """Of a counter of seconds: the daemon was there from an end to the look next to it."""
        ran = self.ran
        if not self.inside:
            lived = ran.last - ran.first
            return 0.0, lived if self.whole and ran.how and not ran.blind else None
        first, last = self.inside[0], self.inside[-1]
        head, tail = first.at - ran.first, ran.last - last.at
        began = first.value - (head if head <= NEAR + first.span else 0.0)
        return began, last.value + (tail if tail <= NEAR + last.span else 0.0)

    def samples(self) -> Two:
        """Of a counter that goes on from run to run, or begins anew."""
        if not self.inside:
            return None, None
        place = bisect_left(self.told, self.ran.first, key=_at)
        before = self.told[place - 1].value if place else 0.0
        return before if before <= self.inside[0].value else 0.0, None


Two = tuple[float | None, float | None]
"""A value at the beginning and one at the end."""

_VALUES: Mapping[str, Callable[[_Course], Two]] = {
    OBSERVED: _Course.seconds,
    UP: _Course.seconds,
    STEPS: _Course.steps,
    STEP: lambda course: course.mean("step"),
    COMPUTE: lambda course: course.mean("compute"),
    PROCESSES: lambda course: (float(course.ran.world), float(course.ran.world)),
    SAMPLES: _Course.samples,
    LOSS: lambda course: (None, course.ran.loss),
}
"""What each series is at the ends of a run."""

"""Make the figures of a list: how each live job did over the days that it is about. No judging.

What they rest on is what the store has at that moment. Where too little of it was observed there is
no figure, and the words say how much there is and how much is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from dvfd.config import Cost
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError, HistoryError
from dvfd.model import REVIEW, Sample, labels
from dvfd.reduce import seconds
from dvfd.reviews import cost, trend
from dvfd.reviews.accepted import Yardstick, yardstick
from dvfd.reviews.period import DAY, Days, Job, Past, Period
from dvfd.reviews.trend import Trend, by_hour
from dvfd.reviews.uptime import HOUR, Stretch, Uptime, counted, grown, uptime

if TYPE_CHECKING:
    from dvfd.config import Maintenance
    from dvfd.drills.drill import Runner
    from dvfd.model import Check, Clock, Criterion
    from dvfd.reviews.restore import Restored
    from dvfd.runs.baselines import Accepted

AVAILABILITY, TREND = "job_availability_ratio", "job_throughput_trend_ratio"
EFFICIENCY, ACCEPTED_EFFICIENCY = "job_efficiency_ratio", "accepted_efficiency_ratio"
COMMUNICATION, ACCEPTED_COMMUNICATION = "job_communication_ratio", "accepted_communication_ratio"
SYNC, RESTORED = "gradient_sync_accuracy_ratio", "checkpoint_restored"

METRICS = (
    *(AVAILABILITY, TREND, EFFICIENCY, ACCEPTED_EFFICIENCY, ACCEPTED_COMMUNICATION),
    *(SYNC, RESTORED),
)  # fmt: skip
"""Everything that is made here."""

UP, OBSERVED = "job_up_seconds_total", "job_observed_seconds_total"
COMPARED, DIFFERED = "job_hash_comparisons_total", "job_hash_mismatches_total"
THROUGHPUT, PROCESSES = "job_throughput_samples_per_second", "job_processes"

BEFORE = DAY
"""Seconds before a period in which the value that a counter had at its start is looked for."""

NOT_RESTORED = "no checkpoint is restored here"

Found = Sample | Remark | Trouble | Fact


class Named(Past, Protocol):
    """A past, and in words whose it is."""

    @property
    def words(self) -> str:
        """Once all was asked."""
        ...


class History(Protocol):
    """Who has the past where the store is not asked for it."""

    def over(self, since: float, until: float) -> Named:
        """This node's in [since, until]. Raises HistoryError, as does what it gives."""
        ...


class Standing(Protocol):
    """What is asked of the accepted runs."""

    def standing(self) -> Sequence[Accepted]:
        """Those that stand."""
        ...


class Reviews:
    """Makes the findings of lists. Any thread."""

    def __init__(
        self,
        past: Past,
        accepted: Standing,
        clock: Clock,
        *,
        restored: Callable[[str], Restored] = lambda _job: (None, NOT_RESTORED),
        capacity: Callable[[], Iterable[Fact]] = tuple,
        price: Cost | None = None,
        excused: Sequence[Maintenance] = (),
        keep: Callable[[Iterable[Sample]], None] = lambda _samples: None,
        run: Runner | None = None,
        history: History | None = None,
    ) -> None:
        """*history* has the past that is asked in the place of *past*, where there is one;
        *restored* restores the newest checkpoint of a job; *capacity* says how far all this
        would scale; *excused* is maintenance that was declared in advance; *keep* takes every
        figure, for `dvfd history`.
        """
        self._past = past
        self._accepted = accepted
        self._clock = clock
        self._restored = restored
        self._capacity = capacity
        self._price = price or Cost()
        self._excused = [(m.since.timestamp(), m.until.timestamp()) for m in excused]
        self._keep = keep
        self._run = run
        self._history = history

    def of(self, check: Check) -> Findings | None:
        """What can be said now for *check*; None if no criterion of it rests on a review."""
        criteria = [c for c in check.criteria if c.source == REVIEW and not c.inapplicable]
        if not criteria:
            return None
        began = self._clock.now()
        found = [*self._restorations(criteria)]  # minutes, after which the figures are of now
        with ThreadPoolExecutor(1) as beside:  # another child, for a second or two
            capacity = beside.submit(lambda: list(self._capacity()))
            found += self._found(criteria, self._clock.now())
            found += capacity.result()
        ended = self._clock.now()
        samples = tuple(replace(s, at=ended) for s in found if isinstance(s, Sample))
        self._keep(samples)
        return Findings(
            check=check.id,
            began=began,
            ended=ended,
            samples=samples,
            remarks=tuple(f for f in found if isinstance(f, Remark)),
            troubles=tuple(f for f in found if isinstance(f, Trouble)),
            facts=tuple(f for f in found if isinstance(f, Fact)),
        )

    def _restorations(self, criteria: Sequence[Criterion]) -> Iterator[Found]:
        """The newest checkpoint of each job restored, where that is asked for."""
        if all(criterion.metric != RESTORED for criterion in criteria):
            return
        for newest in self._past.latest(OBSERVED):
            job = dict(newest.labels)["job"]
            own, (equal, why) = labels(job=job), self._restored(job)
            if equal is None:
                yield Trouble(RESTORED, f"job {job}: {why}", own)
            else:
                yield Sample(RESTORED, float(equal), 0.0, own)
                yield Remark(RESTORED, f"job {job}: {why}", own)

    def _found(self, criteria: Sequence[Criterion], now: float) -> Iterator[Found]:
        wanted = Wanted(criteria)
        for name in wanted.periods:
            period = Period.ending(name, now)
            if self._history is None:
                yield from self._over(self._past, period, wanted)
            else:
                yield from self._by_history(self._history, period, wanted)

    def _by_history(self, history: History, period: Period, wanted: Wanted) -> Iterator[Found]:
        """The figures as the engine has them; the store's where that is away, if it has them all,
        and else why there are none.
        """
        named = f"source of {period.name}"
        try:
            past = history.over(period.since - BEFORE, period.until)
            found = list(self._over(past, period, wanted))  # all of them, or none
            yield Fact(named, past.words)
        except HistoryError as error:
            if self._holds(period):
                found = list(self._over(self._past, period, wanted))
                yield Fact(named, f"this node's store, which holds all of it; not {error}")
            else:
                found = [Trouble(c.metric, str(error), c.where) for c in wanted.over(period)]
                yield Fact(named, f"none: {error}; this node's store does not reach so far back")
        yield from found

    def _holds(self, period: Period) -> bool:
        """Whether the store knows of each job from before the period began."""
        since, until = period.since - BEFORE, period.until
        newest = self._past.latest(OBSERVED)
        courses = [self._past.series(OBSERVED, s.labels, since=since, until=until) for s in newest]
        return all(course and course[0].at <= period.since for course in courses)

    def _over(self, past: Past, period: Period, wanted: Wanted) -> Iterator[Found]:
        """The figures of a *period* by *past*."""
        jobs = [job_of(past, sample, period) for sample in past.latest(OBSERVED)]
        if not jobs:
            yield Fact("jobs", "no job that has not ended was looked at")
        for job, slope in zip(jobs, trends(jobs, run=self._run), strict=True):
            yield from self._of_job(past, job, period, wanted, slope)

    def _of_job(
        self,
        past: Past,
        job: Job,
        period: Period,
        wanted: Wanted,
        slope: Trend | str,
    ) -> Iterator[Found]:
        accepted = yardstick(self._accepted.standing(), job.name, job.processes)
        yield from availability(job, period, self._excused)
        yield from stability(job, period, slope, wanted.coverage(TREND))
        yield from efficiency(job, period, slope, accepted, wanted.coverage(EFFICIENCY))
        yield from communication(job, accepted)
        yield from agreement(past, job, period, wanted.coverage(SYNC))
        try:
            yield from list(cost.facts(past, job, period, self._price))
        except HistoryError as error:  # nothing is judged on it
            yield Fact(f"cost of {job.name}", f"not known: {error}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the criteria of a list ask for."""

    criteria: Sequence[Criterion]

    @property
    def periods(self) -> list[str]:
        """The periods that they name, each once."""
        named = [dict(c.where).get("period", "") for c in self.criteria]
        return list(dict.fromkeys(filter(None, named)))

    def over(self, period: Period) -> list[Criterion]:
        """The criteria of a period."""
        return [c for c in self.criteria if dict(c.where).get("period") == period.name]

    def coverage(self, metric: str) -> float:
        """The share of the period that must be known for a figure of *metric*."""
        return max((c.coverage for c in self.criteria if c.metric == metric), default=0.0)


# --- One figure each ----------------------------------------------------------------------------


def trends(jobs: Sequence[Job], *, run: Runner | None = None) -> list[Trend | str]:
    """That of each; why there is none where there is none."""
    if not jobs:
        return []
    try:
        return trend.ask([job.pace for job in jobs], run=run)
    except DvfdError as error:
        return [str(error)] * len(jobs)


def job_of(past: Days, newest: Sample, period: Period) -> Job:
    """The job of the series OBSERVED that *newest* is of."""
    name = dict(newest.labels)["job"]
    of, since, until = labels(job=name), period.since, period.until
    up, observed = (
        past.series(metric, of, since=since - BEFORE, until=until) for metric in (UP, OBSERVED)
    )
    pace, processes = (
        by_hour(past.medians(metric, of, since=since, until=until))
        for metric in (THROUGHPUT, PROCESSES)
    )
    now = [s.value for s in past.latest(PROCESSES) if s.labels == of]
    alike = {h: v for h, v in pace.items() if now and processes.get(h) == now[0]}
    return Job(name, up, observed, int(now[0]) if now else 0, alike)


def availability(job: Job, period: Period, excused: Sequence[Stretch]) -> Iterator[Found]:
    """The share of the period in which the job was up, between its bounds."""
    own = labels(job=job.name, period=period.name)
    found = uptime(job.up, job.observed, since=period.since, until=period.until, excused=excused)
    if found is None:
        yield Trouble(AVAILABILITY, "all of the period is declared maintenance", own)
        return
    yield Sample(AVAILABILITY, found.low, 0.0, own, found.low, found.high)
    yield Remark(AVAILABILITY, f"job {job.name}: {_spent(found)}", own)
    yield Fact(f"uptime of {job.name}", _spent(found))


def _spent(found: Uptime) -> str:
    down, away = found.whole - found.most, max(0.0, found.whole - found.seen)
    return (
        f"of {seconds(found.whole)} up for {seconds(found.least)}, down for {seconds(down)}, "
        f"unobserved for {seconds(away)}: between {found.low:.5%} and {found.high:.5%}"
    )


def stability(job: Job, period: Period, found: Trend | str, wanted: float) -> Iterator[Found]:
    """The slope of the throughput over the period, as a share of its median."""
    own = labels(job=job.name, period=period.name)
    if lack := _too_few(job, period, found, wanted):
        yield Trouble(TREND, lack, own)
    if isinstance(found, str):
        return
    slope = found.slope.times(period.length / HOUR)
    text = (
        f"{slope.value:+.2%} in {period.name} ({slope.low:+.2%} to {slope.high:+.2%}, 95 %) of "
        f"{found.level.value:.5g} samples/s, from {found.count} of {period.hours} hours, worth "
        f"{found.effective:.3g} that are independent"
    )
    yield Fact(f"trend of {job.name}", text)
    if not lack:
        yield Sample(TREND, slope.value, 0.0, own, slope.low, slope.high)
        yield Remark(TREND, f"job {job.name}: {text}", own)


def efficiency(
    job: Job, period: Period, found: Trend | str, accepted: Yardstick, wanted: float
) -> Iterator[Found]:
    """Throughput per process over that of the accepted single process, beside what was accepted."""
    own = labels(job=job.name, period=period.name)
    lack = accepted.no_efficiency or _too_few(job, period, found, wanted)
    if lack or isinstance(found, str) or accepted.single is None or accepted.efficiency is None:
        yield Trouble(EFFICIENCY, lack, own)
        return
    share = found.level.times(1.0 / (job.processes * accepted.single))
    yield Sample(EFFICIENCY, share.value, 0.0, own, share.low, share.high)
    yield Sample(ACCEPTED_EFFICIENCY, accepted.efficiency, 0.0, job.labels)
    words = accepted.run.words if accepted.run else ""
    text = (
        f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%}, 95 %), "
        f"accepted {accepted.efficiency:.2%}, {words}"
    )
    beyond = " (super-linear: verify the baseline)" if share.value > 1.0 else ""
    yield Remark(EFFICIENCY, f"job {job.name}: {text}{beyond}", own)
    yield Fact(f"efficiency of {job.name}", f"{text}{beyond}")


def communication(job: Job, accepted: Yardstick) -> Iterator[Found]:
    """What exposed communication was accepted for the job."""
    if accepted.communication is None:
        yield Trouble(COMMUNICATION, accepted.no_communication, job.labels)
        return
    yield Sample(ACCEPTED_COMMUNICATION, accepted.communication, 0.0, job.labels)
    words = accepted.run.words if accepted.run else ""
    yield Remark(COMMUNICATION, f"job {job.name}: {words}", job.labels)


def agreement(past: Days, job: Job, period: Period, wanted: float) -> Iterator[Found]:
    """Hash comparisons that agreed, of those that were made, between bounds."""
    courses = [
        past.series(metric, job.labels, since=period.since - BEFORE, until=period.until)
        for metric in (COMPARED, DIFFERED)
    ]
    made, differed = (counted(course, period.since, period.until) for course in courses)
    own = labels(job=job.name, period=period.name)
    seen = uptime(job.up, job.observed, since=period.since, until=period.until)
    share = seen.coverage if seen else 0.0
    if made[0] <= 0:
        yield Trouble(SYNC, f"job {job.name}: no hash was compared in {period.name}", own)
    elif share < wanted:
        yield Trouble(SYNC, f"job {job.name}: {little(share, wanted, period)}", own)
    elif why := seldom(job, courses[0], period, wanted):
        yield Trouble(SYNC, f"job {job.name}: {why}", own)
    else:
        low, high = agreed(made, differed)
        yield Sample(SYNC, low, 0.0, own, low, high)
        count = " to ".join(dict.fromkeys(f"{each:.0f}" for each in differed))
        text = f"job {job.name}: {count} of {made[0]:.0f} comparisons differed"
        yield Remark(SYNC, f"{text}, {share:.2%} of {period.name} observed", own)


def agreed(made: tuple[float, float], differed: tuple[float, float]) -> tuple[float, float]:
    """The least and the greatest share that agreed: each that may have differed was made too."""
    worst = differed[1] / (made[0] + differed[1] - differed[0])
    best = differed[0] / made[1]
    return 1.0 - min(1.0, worst), 1.0 - min(1.0, best, worst)


def _too_few(job: Job, period: Period, found: Trend | str, wanted: float) -> str:
    """Why the hours do not speak for the whole period; empty if they do."""
    have = len(job.pace)
    if have < wanted * period.hours:
        need = math.ceil(wanted * period.hours)
        on = f" on {job.processes} processes" if job.processes else ""
        return (
            f"job {job.name}: throughput is known of {have} of {period.hours} hours{on}, "
            f"wanted at least {need}"
        )
    return f"job {job.name}: {found}" if isinstance(found, str) else ""


def little(share: float, wanted: float, period: Period) -> str:
    """That too little was observed."""
    return f"{share:.2%} of {period.name} was observed, wanted at least {wanted:.0%}"


def seldom(job: Job, made: Sequence[Sample], period: Period, wanted: float) -> str:
    """That in too few of the hours in which the job was up any hashes were compared, or nothing."""
    hours = [period.since + HOUR * number for number in range(period.hours)]
    up = [hour for hour in hours if grown(job.up, hour, hour + HOUR) > 0.0]
    compared = sum(grown(made, hour, hour + HOUR) > 0.0 for hour in up)
    if compared >= wanted * len(up):
        return ""
    return f"hashes were compared in {compared} of {len(up)} hours, wanted in {wanted:.0%}"

"""The jobs' ranks: alive, progress, pace, loss, stragglers, from what they reported themselves.

Rates are taken between the ranks' own step times, so that packets, which come about once a second,
do not blur them. What was not reported since the last look brings no sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter, sub
from typing import TYPE_CHECKING

from dvfd.derive import communication_ratio, straggler_ratio
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes.uptime import Tally
from dvfd.telemetry.jobs import COUNTERS, told
from dvfd.telemetry.rank import PACKET_DELAY, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dvfd.model import Clock
    from dvfd.telemetry.job import Job
    from dvfd.telemetry.jobs import JobBook
    from dvfd.telemetry.rank import Rank

LOSSES = frozenset({"job_nonfinite_total", "job_loss_spikes_total"})
"""Counters that say nothing while a rank is silent: what it computes, nobody sees."""

TALLIES = {
    "job_up_seconds_total": "up",
    "job_observed_seconds_total": "observed",
    "job_samples_total": "samples",
}
"""Counters that this probe folds itself, by the field of the tally that holds them."""

_TOTALS = attrgetter(*Totals.__slots__)  # astuple would copy every number deeply

PAST_PERCENT = 10.0
PAST_MEDIANS = 10
"""A rank's own past counts from ten minutes of it on, as its fastest tenth: procedures 16."""


@dataclass(slots=True)
class _Mark:
    """Where a rank stood at the last look."""

    rank: Rank
    totals: Totals
    stepped: float | None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """What a rank did since the last look."""

    rank: Rank
    totals: Totals
    rate: float | None


class Ranks:
    """Every metric whose source is `ranks`."""

    name = "ranks"
    metrics = (
        "rank_responding", "rank_stall_ratio", "rank_steps_total", "rank_step_seconds",
        "rank_compute_seconds", "rank_straggler_ratio", "job_absent", "job_ranks_missing",
        "job_step_skew", "job_throughput_samples_per_second", "job_loss", "job_validation_loss",
        "job_gradient_norm", "job_communication_ratio", "job_allreduce_seconds", "job_processes",
        *COUNTERS, *TALLIES,
    )  # fmt: skip
    deadline = 0.0

    def __init__(
        self,
        book: JobBook,
        clock: Clock,
        *,
        interval: float = 5.0,
        remembered: Callable[[str], Sequence[Sample]] = lambda _metric: (),
    ) -> None:
        """*remembered* gives the newest samples of a metric: counters go on from there."""
        self.interval = interval
        self._book = book
        self._clock = clock
        self._remembered = remembered
        self._tallies: dict[str, Tally] = {}
        self._marks: dict[tuple[str, int], _Mark] = {}
        self._validated: dict[str, float] = {}

    def sample(self, at: float) -> Iterable[Sample]:
        """Measure every job that has not ended; no job at all is no sample, and no error.

        Raises ProbeError while nobody has listened to the ranks: their silence is then ours.
        """
        if seconds := self._book.deaf():
            raise ProbeError(f"nobody has listened to the ranks for {seconds:.0f} s")
        self._book.look()
        with self._book.lock:
            now = self._clock.boot()
            jobs = self._book.jobs()
            seats = {(job.label, rank) for job in jobs for rank in job.ranks}
            self._marks = {seat: mark for seat, mark in self._marks.items() if seat in seats}
            known = {job.label for job in jobs}
            self._validated = {k: at for k, at in self._validated.items() if k in known}
            self._tallies = {k: tally for k, tally in self._tallies.items() if k in known}
            found = [s for job in jobs for s in self._job(job, at, now)]
            found += self._absent(at)
        return found

    def silence(self, at: float) -> list[Sample]:
        """How long each rank has been silent: what can become a breach without any news."""
        if self._book.deaf():
            return []
        with self._book.lock:
            now = self._clock.boot()
            return [s for job in self._book.jobs() for s in _silence(job, at, now)]

    def _absent(self, at: float) -> Iterator[Sample]:
        for name, absent in self._book.absent().items():
            yield Sample("job_absent", float(absent), at, labels(job=name))

    def _job(self, job: Job, at: float, now: float) -> Iterator[Sample]:
        by_job = labels(job=job.label)
        silent = job.silent(now)
        for metric in COUNTERS:
            count = None if silent and metric in LOSSES else told(job, metric)
            if count is not None:
                yield Sample(metric, count, at, by_job)
        yield Sample("job_ranks_missing", float(job.missing), at, by_job)
        yield Sample("job_processes", float(job.world_size), at, by_job)
        if job.skew is not None:
            yield Sample("job_step_skew", float(job.skew), at, by_job)
        if job.val_loss is not None and self._validated.get(job.label) != job.val_at:
            self._validated[job.label] = job.val_at
            yield Sample("job_validation_loss", job.val_loss, at - (now - job.val_at), by_job)
        yield from _silence(job, at, now)
        changes = [self._change(job, rank, now) for rank in job.ranks.values()]
        yield from self._tallied(job, changes, at, now)
        yield from _means(changes, at, by_job)
        yield from self._throughput(job, changes, at)
        for change in changes:
            yield from _rank(job, change, at)

    def _change(self, job: Job, rank: Rank, now: float) -> _Change:
        """What *rank* did since the last look; of a new process, all that it did."""
        key, totals = (job.label, rank.rank), rank.totals
        mark = self._marks.get(key)
        if mark is None or mark.rank is not rank:
            mark = _Mark(rank, Totals(), None)
        stands = _TOTALS(totals)
        moved = Totals(*map(sub, stands, _TOTALS(mark.totals)))
        rate = _rate(mark, moved, job, now)
        stepped = rank.stepped if moved.steps else mark.stepped
        self._marks[key] = _Mark(rank, Totals(*stands), stepped, rate)
        return _Change(rank, moved, rate)

    def _tallied(self, job: Job, changes: list[_Change], at: float, now: float) -> Iterator[Sample]:
        """What only grows: seconds up, seconds observed, and samples if the job tells any."""
        tally = self._tallies.get(job.label) or self._resumed(job.label)
        self._tallies[job.label] = tally
        restarts = job.counters.restarts
        tally.look(well=job.up(now), restarts=restarts, now=now, interval=self.interval)
        tally.samples += sum(change.totals.samples for change in changes)
        for metric, name in TALLIES.items():
            count = getattr(tally, name)
            if count or name != "samples":
                yield Sample(metric, count, at, labels(job=job.label))

    def _resumed(self, label: str) -> Tally:
        """The counters of a job as the store last had them, or new ones. What came between that
        and the end of the last daemon, one interval at most, is not counted.
        """
        tally, where = Tally(), labels(job=label)
        for metric, name in TALLIES.items():
            for sample in self._remembered(metric):
                if sample.labels == where:
                    setattr(tally, name, sample.value)
        return tally

    def _throughput(self, job: Job, changes: list[_Change], at: float) -> Iterator[Sample]:
        """Samples a second over the world: what is reported here, scaled by the ranks elsewhere."""
        rates = [c.rate for c in changes if c.rate is not None]
        reporting = [c for c in changes if c.rank.totals.samples or c.rate is not None]
        if rates and len(rates) == len(reporting):
            scaled = sum(rates) * job.world_size / len(rates)
            yield Sample("job_throughput_samples_per_second", scaled, at, labels(job=job.label))


def _silence(job: Job, at: float, now: float) -> Iterator[Sample]:
    for number, rank in job.ranks.items():
        alive, _ = job.responding(rank, now)
        by_rank = labels(job=job.label, rank=number)
        if alive is not None:
            yield Sample("rank_responding", float(alive), at, by_rank)
            age, limit, _ = job.stall(rank, now)
            yield Sample("rank_stall_ratio", max(0.0, age) / limit, at, by_rank)


def _rate(mark: _Mark, moved: Totals, job: Job, now: float) -> float | None:
    """Samples a second of one rank: 0 once it hangs or is gone, never more than its silence allows.

    Between two looks without a step, the next step has not come: at most the last step's samples
    over the time since it, which tends to 0 as the silence grows.
    """
    rank = mark.rank
    age, limit, _ = job.stall(rank, now)
    if rank.step is not None and (not rank.live or rank.stopped or age >= limit):
        return 0.0
    if moved.steps and rank.step_samples is not None:
        if mark.stepped is None or rank.stepped is None or rank.stepped <= mark.stepped:
            return None
        return moved.samples / (rank.stepped - mark.stepped)
    if mark.rate is None or rank.step_samples is None or rank.stepped is None:
        return None
    if age < PACKET_DELAY:
        return None  # the next steps may be done and on their way
    return min(mark.rate, rank.step_samples / max(now - rank.stepped, 1e-9))


def _means(changes: list[_Change], at: float, by_job: tuple[tuple[str, str], ...]) -> list[Sample]:
    """Means over the steps of all ranks here since the last look."""
    total = [c.totals for c in changes]
    found = {
        "job_loss": _ratio(sum(t.loss for t in total), sum(t.losses for t in total)),
        "job_gradient_norm": _ratio(
            sum(t.grad_norm for t in total), sum(t.grad_norms for t in total)
        ),
        "job_communication_ratio": communication_ratio(
            sum(t.communication for t in total), sum(t.stepping for t in total)
        ),
        "job_allreduce_seconds": max(
            (t.allreduce / t.allreduces for t in total if t.allreduces), default=None
        ),
    }
    return [
        Sample(metric, value, at, by_job) for metric, value in found.items() if value is not None
    ]


def _rank(job: Job, change: _Change, at: float) -> Iterator[Sample]:
    rank, totals = change.rank, change.totals
    by_rank = labels(job=job.label, rank=rank.rank)
    if rank.live:
        yield Sample("rank_steps_total", float(rank.steps_total), at, by_rank)
    if totals.intervals:
        yield Sample("rank_step_seconds", totals.interval / totals.intervals, at, by_rank)
    if totals.computes:
        yield Sample("rank_compute_seconds", totals.compute / totals.computes, at, by_rank)
        ratio = _straggling(job, rank)
        if ratio is not None:
            yield Sample("rank_straggler_ratio", ratio, at, by_rank)


def _straggling(job: Job, rank: Rank) -> float | None:
    """The smaller of the fastest rank's median and the rank's own past over its median now."""
    own = rank.compute.median()
    medians = [r.compute.median() for r in job.ranks.values() if r.live]
    references = [median for median in medians if median]
    if len(rank.past) >= PAST_MEDIANS:
        references += [past for past in [rank.past.percentile(PAST_PERCENT)] if past]
    if own is None or not references:
        return None
    return straggler_ratio(own, min(references))


def _ratio(amount: float, count: int) -> float | None:
    return amount / count if count else None

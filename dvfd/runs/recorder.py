"""What a run's file gets besides windows: minutes of probes, transitions, failures, checkpoints.

Called from several threads by its conductor, one at a time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.model import Kind, labels
from dvfd.runs.rows import Event, Minute, What
from dvfd.runs.saves import Save
from dvfd.telemetry.rank import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.model import Check, Labels, Metric, Sample
    from dvfd.runs.rows import Pen
    from dvfd.runs.run import Run
    from dvfd.runs.saves import Saves
    from dvfd.telemetry.job import Job
    from dvfd.telemetry.jobs import JobBook
    from dvfd.telemetry.rank import Rank
    from dvfd.telemetry.wire import Event as Told

SHOWN = (
    "cpu_temperature_celsius", "cpu_package_energy_joules_total", "node_memory_used_ratio",
    "rank_cpu_ratio", "node_cpu_ratio", "gpu_utilization_ratio", "gpu_temperature_celsius",
    "gpu_memory_used_ratio", "job_hash_comparisons_total", "job_hash_mismatches_total",
)  # fmt: skip
"""Metrics that a report shows or counts whether a criterion is on them or not."""

OWN = {
    "run_gradient_norm_excursions_total": ("norm_excursions", "norms"),
    "run_gradient_norm_disagreements_total": ("norm_disagreements", "norm_comparisons"),
}
"""Counters of a job that only a run looks at: the field that holds each, and the one that is 0
while there was nothing to count."""


STEP = 1.0
"""Seconds by which wall and boot clock must part to be a step, or boot and monotonic a suspend."""

SAVING = 120.0
"""Seconds after which nobody waits any more, at a run's end, for a save that was begun in it."""

SKEWED = 1
"""Steps between ranks of one step; more is a synchronisation issue (reading 40)."""


@dataclass(slots=True)
class Fold:
    """One series' minute so far."""

    minute: int
    count: int = 0
    sum: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    last: float = 0.0
    grown: float = 0.0
    covered: float = 0.0


@dataclass(slots=True)
class Track:
    """One series: its last value, and its minute so far."""

    metric: Metric
    fold: Fold
    t: float | None = None
    value: float = 0.0

    def add(self, value: float, t: float) -> None:
        """Take the next value, at run second *t*; it is not before the last one."""
        fold = self.fold
        if self.t is not None:
            fold.covered += min(t - self.t, self.metric.max_age)
            if self.metric.kind is Kind.COUNTER:
                fold.grown += value - self.value if value >= self.value else value
        fold.count += 1
        fold.sum += value
        fold.low, fold.high = min(fold.low, value), max(fold.high, value)
        fold.last = self.value = value
        self.t = t


class Recorder:
    """Writes what happens to one run's job on this node."""

    def __init__(
        self,
        run: Run,
        check: Check,
        *,
        metrics: Mapping[str, Metric],
        book: JobBook,
        pen: Pen,
        saves: Saves,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = run.node
        self._job = run.plan.job
        self._axis = run.axis
        self._metrics = metrics
        named = {c.metric for c in check.criteria}
        self._wanted = {n for n in (*named, *SHOWN) if n in metrics} - OWN.keys()
        self._book = book
        self._pen = pen
        self._saves = saves
        self._monotonic = monotonic
        self._tracks: dict[tuple[str, Labels], Track] = {}
        self._state: tuple[What, str] | None = None
        self._failed: set[tuple[int, str]] = set()
        self._restarts: int | None = None
        self._skewed = False
        self._injected = self._healed = False
        self._healed_t: float | None = None
        self._shifts: tuple[float, float] | None = None
        self._stopped = False
        self._gap: float | None = None  # since when nobody looked
        self._begun: dict[int | None, float] = {}  # saves that are under way, by step
        self._now = (0.0, 0.0)

    # --- What comes from outside ----------------------------------------------------------------

    def sampled(self, samples: Iterable[Sample]) -> None:
        """Fold what the probes measured of what the run needs."""
        t = self._now[0]
        for sample in samples:
            if sample.metric in self._wanted and self._ours(sample.labels):
                self._fold(sample.metric, sample.labels, sample.value, t)

    def heard(self, job: Job, rank: Rank, told: Told) -> None:
        """What a rank told of itself: checkpoints, probed collectives. Called by the book."""
        if job.name != self._job or (self._stopped and told.step not in self._begun):
            return
        step, t, at = told.step, *self._now
        match told.event:
            case "checkpoint_begin":
                self._begun[step] = t
                self._write(What.BEGUN, t, at, rank=rank.rank, step=step, text=told.path)
            case "checkpoint_saved":
                self._begun.pop(step, None)
                took = job.saves.took
                self._write(
                    What.SAVED, t, at, rank=rank.rank, step=step, text=told.path, value=took
                )
                why = self._saves.add(Save(self._node, step or 0, told.path, rank.pid or None))
                if why:
                    words = f"{told.path}: {why}"
                    self._write(What.UNVERIFIED, t, at, step=step, text=words)
            case "checkpoint_loaded":
                took = float(told.seconds)
                self._write(
                    What.RESTORED, t, at, rank=rank.rank, step=step, text=told.path, value=took
                )
            case "checkpoint_failed":
                self._begun.pop(step, None)
                self._write(What.FAILED, t, at, rank=rank.rank, step=step, text=told.error)
            case "exception":
                words = ": ".join(filter(None, (told.type, told.error)))[:500]
                self._write(What.NOTE, t, at, rank=rank.rank, step=step, text=f"exception: {words}")

    def injected(self, text: str) -> None:
        """A fault was injected on purpose: what follows from it is planned."""
        self._injected = True
        self._write(What.INJECTED, *self._now, text=text)

    def healed(self) -> None:
        """It was taken back."""
        self._healed_t = self._now[0]
        self._write(What.HEALED, *self._now)

    # --- The beat -------------------------------------------------------------------------------

    def tick(self, t: float, at: float, boot: float) -> None:
        """Look at the job and the clocks, at run second *t*."""
        self._now = (t, at)
        self._saves.tick(t, at)
        if self._stopped:
            return
        self._clocks(t, at, boot)
        with self._book.lock:
            self._look(self._found(), t, at, boot)
        self._flush(math.floor(t / 60.0))

    def resumed(self, t: float, at: float) -> None:
        """Nobody looked since run second *t*: the daemon was away."""
        self._gap = t
        self._move(What.UNSEEN, "no daemon looked", t, at)

    def stop(self, t: float) -> None:
        """The run is over: write what is open."""
        self._stopped = True
        for track in self._tracks.values():
            if track.t is not None:
                track.fold.covered += max(0.0, min(t - track.t, track.metric.max_age))
        self._flush(None)
        self._write(What.NOTE, t, self._now[1], text="recording ended")

    def idle(self) -> bool:
        """Whether no checkpoint is being saved, or waits for its verification."""
        since = self._now[0] - SAVING
        return self._saves.idle and not any(t > since for t in self._begun.values())

    # --- Clocks ---------------------------------------------------------------------------------

    def _clocks(self, t: float, at: float, boot: float) -> None:
        """Say where the wall clock was stepped, and where the machine slept."""
        wall, slept = at - boot, boot - self._monotonic()
        before, self._shifts = self._shifts, (wall, slept)
        if before is None:
            return
        if abs(wall - before[0]) > STEP:
            self._write(What.CLOCK, t, at, value=wall - before[0])
        if slept - before[1] > STEP:
            self._write(What.SUSPENDED, t, at, value=slept - before[1])

    # --- The job --------------------------------------------------------------------------------

    def _found(self) -> Job | None:
        jobs = [job for job in self._book.all() if job.name == self._job]
        return max(
            jobs, key=lambda job: max((r.since for r in job.ranks.values()), default=0.0),
            default=None,
        )  # fmt: skip

    def _look(self, job: Job | None, t: float, at: float, boot: float) -> None:
        if job is None:
            self._move(What.DOWN, f"job {self._job} is not here", t, at)
            return
        up = job.up(boot)
        if up and self._gap is not None:
            self._fill(job, t, at)
        if job.ended is not None:
            self._move(What.DOWN, f"job {self._job} has ended", t, at)
        elif up is None:
            self._move(What.UNSEEN, "it cannot be said whether all ranks are well", t, at)
        else:
            self._move(What.UP if up else What.DOWN, "" if up else _why(job, boot), t, at)
        self._count(job, t)
        self._compare(job, t, at)
        self._losses(job, t, at)
        self._back(job, t, at)

    def _fill(self, job: Job, t: float, at: float) -> None:
        """Say that a gap was none where the ranks' own records, sent again from their rings, show
        progress all through it.
        """
        gap, self._gap = self._gap or 0.0, None
        for rank in job.ranks.values():
            ends = [gap, *(end for boot, _ in rank.ends if (end := self._axis.t(boot)) > gap), t]
            if any(after - before > rank.limit for before, after in pairwise(ends)):
                return
        words = "told afterwards: the ranks made progress while no daemon looked"
        self._write(What.UP, gap, at, text=words)

    def _move(self, what: What, text: str, t: float, at: float) -> None:
        """Write a state once, when it begins."""
        if self._state is None or self._state[0] is not what:
            self._write(what, t, at, text=text)
        self._state = (what, text)

    def _count(self, job: Job, t: float) -> None:
        where = labels(job=job.label)
        for metric, (name, evidence) in OWN.items():
            if getattr(job.counters, evidence):
                self._fold(metric, where, float(getattr(job.counters, name)), t)

    def _compare(self, job: Job, t: float, at: float) -> None:
        skew = job.skew
        if skew is None:
            return
        self._fold("run_step_skew", labels(job=job.label), float(skew), t)
        if skew > SKEWED and not self._skewed:
            self._write(What.ISSUE, t, at, text=f"skew: ranks lie {skew} steps apart")
        self._skewed = skew > SKEWED

    def _losses(self, job: Job, t: float, at: float) -> None:
        """Every process that died, failed or left, once; every one that came back, once."""
        what = What.PLANNED if self._injected else What.FAILURE
        for number, rank in sorted(job.ranks.items()):
            seat = (number, rank.session)
            if seat not in self._failed and (fault := _fault(job, rank)):
                self._failed.add(seat)
                self._write(what, t, at, rank=number, step=rank.step, text=fault)
        restarts = job.counters.restarts
        known, self._restarts = self._restarts, restarts
        for _ in range(restarts - (restarts if known is None else known)):
            self._write(What.RESTART, t, at, text="a rank came back as a new process")
            if not self._failed:
                self._write(what, t, at, text="a process was replaced before it was seen to end")

    def _back(self, job: Job, t: float, at: float) -> None:
        """The first step of all ranks after a fault was healed."""
        if self._healed_t is None:
            return
        ends = [self._axis.t(r.stepped) for r in job.ranks.values() if r.stepped is not None]
        if len(ends) == job.local_world_size and min(ends) > self._healed_t:
            self._write(What.RECOVERED, t, at, value=max(ends) - self._healed_t)
            self._healed_t, self._injected = None, False

    # --- Writing --------------------------------------------------------------------------------

    def _ours(self, own: Labels) -> bool:
        """Whether a series is of the run's job, or of no job."""
        job = dict(own).get("job")
        return job is None or job == self._job or job.startswith(f"{self._job}~")

    def _fold(self, metric: str, own: Labels, value: float, t: float) -> None:
        minute = math.floor(t / 60.0)
        key = (metric, own)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = Track(self._metrics[metric], Fold(minute))
        if track.fold.minute != minute:
            self._put(key, track)
            track.fold = Fold(minute)
        track.add(value, t)

    def _flush(self, minute: int | None) -> None:
        """Write every minute that is over; with None all that is open."""
        for key, track in self._tracks.items():
            if track.fold.count and (minute is None or track.fold.minute < minute):
                self._put(key, track)
                track.fold = Fold(track.fold.minute if minute is None else minute)

    def _put(self, key: tuple[str, Labels], track: Track) -> None:
        fold = track.fold
        if not fold.count:
            return
        self._pen.add([
            Minute(
                node=self._node, metric=key[0], labels=key[1], minute=fold.minute,
                count=fold.count, sum=fold.sum, low=fold.low, high=fold.high, last=fold.last,
                grown=fold.grown, covered=fold.covered,
            )
        ])  # fmt: skip

    def _write(self, what: What, t: float, at: float, **more: object) -> None:
        self._pen.add([Event(node=self._node, t=t, at=at, what=what, **more)])  # type: ignore[arg-type]


def _fault(job: Job, rank: Rank) -> str:
    """How a process was lost, or nothing."""
    if rank.link is Link.ENDED:
        return ""
    if rank.link is Link.FAILED:
        return f"rank {rank.rank} ended by a failure: {job.exception or 'no word why'}"
    if rank.dead:
        return f"rank {rank.rank}: process {rank.pid} is gone"
    if rank.link is Link.LEFT:
        return f"rank {rank.rank}: process {rank.pid} closed its line without saying so"
    return ""


def _why(job: Job, boot: float) -> str:
    """Why not all ranks are up."""
    said = [
        f"rank {number}: {why}"
        for number, rank in sorted(job.ranks.items())
        for well, why in [job.responding(rank, boot)]
        if (why and well is not True) or job.stalled(rank, boot)
    ]
    if job.missing:
        said.append(f"{job.missing} of {job.local_world_size} ranks here are missing")
    return "; ".join(said)[:500] or "not all ranks make progress"

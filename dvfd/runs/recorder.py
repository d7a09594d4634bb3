"""What a run's file gets besides windows: minutes of probes, transitions, failures, checkpoints.

`sampled`, `tick` and the rest are called by the conductor, one at a time; `heard` by the book of
jobs, under its lock.
"""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from dvfd.derive import HANG_FLOOR
from dvfd.model import labels
from dvfd.probes.ranks import LOSSES
from dvfd.runs.folding import Folds
from dvfd.runs.intervals import SKEWED
from dvfd.runs.rows import Event, What
from dvfd.runs.saves import Save
from dvfd.telemetry.jobs import told
from dvfd.telemetry.rank import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.model import Check, Clock, Labels, Metric, Sample
    from dvfd.runs.rows import Minute, Pen, Rows
    from dvfd.runs.run import Run
    from dvfd.runs.saves import Saves
    from dvfd.telemetry.job import Job
    from dvfd.telemetry.jobs import JobBook
    from dvfd.telemetry.rank import Rank
    from dvfd.telemetry.wire import Event as Told

SHOWN = (
    "cpu_temperature_celsius", "cpu_package_energy_joules_total", "node_memory_used_ratio",
    "rank_cpu_ratio", "node_cpu_ratio", "gpu_utilization_ratio", "gpu_temperature_celsius",
    "gpu_memory_used_ratio",
)  # fmt: skip
"""Metrics of probes that a report shows whether a criterion is on them or not."""

RESTARTS = "rank_restarts_total"

COUNTED = (
    "job_nonfinite_total", "job_loss_spikes_total", "job_hash_comparisons_total",
    "job_hash_mismatches_total", RESTARTS,
)  # fmt: skip
"""Counters of the job that are read from it at every look, from what they stood at when the run
was armed: a probe comes every few seconds, and what its first sample holds already has no growth.
"""

PLENTY = frozenset({"job_hash_comparisons_total"})
"""Counters whose growth is no news and may come with every step: they are told by the minute."""

OWN = {
    "run_gradient_norm_excursions_total": ("norm_excursions", "norms"),
    "run_gradient_norm_disagreements_total": ("norm_disagreements", "norm_comparisons"),
}
"""Counters of a job that only a run looks at: the field that holds each, and the one that is 0
while there was nothing to count."""

STEP = 1.0
"""Seconds by which wall and boot clock must part to be a step, or boot and monotonic a suspend."""

BLIND = 5.0
"""Seconds between two looks above which nobody looked: what a transition is resolved to."""

SAVING = 120.0
"""Seconds after which nobody waits any more, at a run's end, for a save that was begun in it."""

SHARDS = 2.0
"""Seconds without news of a save after which it is whole, if no rank is writing: ranks that write
shards of one checkpoint do not begin at the same moment."""

REPLAYED = 30.0
"""Seconds in which ranks send again what no daemon heard: they look for one every five seconds."""

SPARSE = 5
"""Steps of which at most one hash goes to the node that leads: 70,000 in two days at most."""

TIMEOUT = re.compile(r"time[sd]?[ -]?out", re.IGNORECASE)
"""In the words of an exception: Gloo says `Timed out waiting`, NCCL's watchdog `timeout`."""


class Gap(NamedTuple):
    """A time in which nobody looked; run seconds. A silence in it may be as long as the rank's
    limit was at its beginning: what came afterwards has the silence itself in it.
    """

    since: float
    until: float
    limits: dict[int, float]


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
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of a run that is armed now; see `resume` for one that goes on."""
        self._node = run.node
        self._job = run.plan.job
        self._axis = run.axis
        named = {c.metric for c in check.criteria}
        self._wanted = {n for n in (*named, *SHOWN) if n in metrics} - {*OWN, *COUNTED}
        self._book = book
        self._pen = pen
        self._saves = saves
        self._clock = clock
        self._monotonic = monotonic
        self._folds = Folds(run.node, metrics, pen)
        self._based: set[str] = set()  # labels of jobs whose counters have a beginning
        self._state: What | None = None
        self._limits: dict[int, float] = {}  # of the ranks, at the last look
        self._gap: Gap | None = None  # the newest that the ranks may still explain
        self._looked: tuple[float, float] | None = None  # t and Unix time of the last look
        self._shifts: tuple[float, float | None] | None = None
        self._label = self._job
        self._seats: dict[int, str] = {}  # rank: session of who sits there
        self._lost: set[tuple[int, str]] = set()  # (rank, session) that was told to be lost
        self._ended: set[tuple[int, str]] = set()
        self._mourned: dict[int, int] = {}  # losses told by another daemon, by rank
        self._world: int | None = None
        self._skewed = False
        self._injected = False
        self._healed: float | None = None
        self._until = math.inf  # run second at which it counts as healed
        self._several = run.plan.nodes > 1
        self._blocks: dict[str, tuple[str, int]] = {}  # of the newest hash written, by kind
        self._stopped = run.stage.over
        self._unheard = run.armed_t  # run second from which on events may wait in the ranks
        self._begun: dict[tuple[int, int | None], float] = {}  # (rank, step): saves under way
        self._shards: dict[str, tuple[float, Save]] = {}  # saves told and perhaps not whole
        with book.lock:
            for job in book.all():
                self._base(job, fresh=False)

    # --- What comes from outside ----------------------------------------------------------------

    def sampled(self, samples: Iterable[Sample]) -> None:
        """Fold what the probes measured of what the run needs."""
        t = self._axis.t(self._clock.boot())
        for sample in samples:
            if sample.metric in self._wanted and self._ours(sample.labels):
                self._folds.add(sample.metric, sample.labels, sample.value, t)

    def heard(self, job: Job, rank: Rank, told: Told) -> None:
        """What a rank told of itself: checkpoints, probed collectives. Called by the book."""
        seat = (rank.rank, told.step)
        if job.name != self._job or (self._stopped and seat not in self._begun):
            return
        t, at = self._when(told)
        match told.event:
            case "checkpoint_begin":
                self._begun[seat] = t
                self._hand_over_older(told.path, told.step)
                self._saves.begun(told.path, told.step)
                self._tell(What.BEGUN, t, at, rank, told, text=told.path)
            case "checkpoint_saved":
                began = self._begun.pop(seat, None)
                took = job.saves.took if began is None else max(0.0, t - began)
                self._tell(What.SAVED, t, at, rank, told, text=told.path, value=took)
                save = Save(self._node, told.step or 0, told.path, rank.pid or None)
                self._shards[save.key] = (self._axis.t(self._clock.boot()), save)
            case "checkpoint_loaded":
                took = float(told.seconds)
                self._tell(What.RESTORED, t, at, rank, told, text=told.path, value=took)
            case "checkpoint_failed":
                self._begun.pop(seat, None)
                self._tell(What.FAILED, t, at, rank, told, text=told.error)
            case "collective":
                self._tell(What.PROBED, t, at, rank, told, text=told.message, value=told.took)
            case "exception":
                words = ": ".join(filter(None, (told.type, told.error)))[:500]
                self._tell(What.NOTE, t, at, rank, told, text=f"exception: {words}")
                if TIMEOUT.search(words):
                    self._tell(What.ISSUE, t, at, rank, told, text=f"timeout {words}")

    def injected(self, text: str, seconds: float = math.inf) -> None:
        """A fault was injected on purpose: what follows from it is planned. After *seconds* it
        counts as healed, though nobody says so: who injected it may be gone.
        """
        t, at = self._moment()
        self._injected, self._healed, self._until = True, None, t + seconds
        value = seconds if math.isfinite(seconds) else None
        self._write(What.INJECTED, t, at, value=value, text=text)

    def healed(self) -> None:
        """It was taken back."""
        if not self._injected or self._healed is not None:
            return
        t, at = self._moment()
        self._healed = t
        self._write(What.HEALED, t, at)

    # --- The beat -------------------------------------------------------------------------------

    def tick(self, t: float, at: float, boot: float) -> None:
        """Look at the job and the clocks, at run second *t*."""
        with self._book.lock:
            job = self._found()
            self._hand_over(job, t, at)
            if not self._stopped:
                self._clocks(t, at, boot)
                if t >= self._until:
                    self.healed()
                self._look(job, t, at, boot)
        self._saves.tick(t, at)
        if not self._stopped:
            self._folds.flush(math.floor(t / 60.0))

    def resume(self, rows: Rows, *, t: float, at: float) -> None:
        """Go on after another daemon, which looked last at run second *t* and Unix time *at*."""
        self._unheard = t
        self._take_over(rows.minutes())
        events = [event for event in rows.events() if event.node == self._node]
        for event in events:
            self._remember(event)
        with self._book.lock:
            job = self._found()
            ranks = job.ranks.values() if job else ()
            self._saves.resume(events, {rank.rank: rank.pid for rank in ranks if rank.pid})
        if not self._stopped:
            self._move(What.UNSEEN, "no daemon looked", t, at)
            limits = {rank.rank: rank.limit for rank in ranks}
            now = self._axis.t(self._clock.boot())
            self._gap = Gap(t, now, limits)
            self._write(What.DAEMON, now, self._clock.now(), value=now - t, text="looks again")
        self._shifts = (at - (t - self._axis.offset), None)

    def stop(self, t: float) -> None:
        """The run is over: write what is open."""
        self._stopped = True
        self._folds.close(t)
        self._write(What.NOTE, t, self._clock.now(), text="recording ended")

    def idle(self) -> bool:
        """Whether no checkpoint is being saved, or waits for its verification."""
        since = self._axis.t(self._clock.boot()) - SAVING
        with self._book.lock:
            saving = any(t > since for t in self._begun.values())
            return not (saving or self._shards) and self._saves.idle

    # --- Clocks ---------------------------------------------------------------------------------

    def _clocks(self, t: float, at: float, boot: float) -> None:
        """Say where the wall clock was stepped, the machine slept, or nobody looked."""
        wall, asleep = at - boot, boot - self._monotonic()
        before, self._shifts = self._shifts, (wall, asleep)
        looked, self._looked = self._looked, (t, at)
        if before is None:
            return
        if abs(wall - before[0]) > STEP:
            self._write(What.CLOCK, t, at, value=wall - before[0])
        slept = 0.0 if before[1] is None else asleep - before[1]
        if slept > STEP:
            self._write(What.SUSPENDED, t, at, value=slept)
        if looked is not None and t - looked[0] > BLIND:
            words = "the machine was suspended" if slept > STEP else "the daemon did not look"
            self._write(What.UNSEEN, *looked, text=words)
            self._state = What.UNSEEN
            self._gap = Gap(looked[0], t, self._limits)
            self._write(What.DAEMON, t, at, value=t - looked[0], text="looks again")

    def _when(self, told: Told) -> tuple[float, float]:
        """Run second and Unix time of an event: its own, for it may have waited in the rank while
        no daemon was there. Never in the future, nor before a daemon looked last.
        """
        t, at = self._moment()
        if not told.stamp.boot:
            return t, at
        age = max(0.0, told.stamp.wall - told.at)
        own = max(self._unheard, self._axis.t(told.stamp.boot - age))
        return (own, at - (t - own)) if own < t else (t, at)

    def _moment(self) -> tuple[float, float]:
        return self._axis.t(self._clock.boot()), self._clock.now()

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
        self._label = job.label
        up = job.up(boot)
        if up and self._gap is not None:
            self._fill(job, self._gap, t, at)
        if job.ended is not None:
            self._move(What.DOWN, f"job {self._job} has ended", t, at)
        elif up is None:
            self._move(What.UNSEEN, "it cannot be said whether all ranks are well", t, at)
        else:
            self._move(What.UP if up else What.DOWN, "" if up else _why(job, boot), t, at)
        self._limits = {number: rank.limit for number, rank in job.ranks.items()}
        restarts = self._count(job, t, boot)
        self._compare(job, t, at)
        self._hashes(job, t, at)
        self._losses(job, restarts, t, at)
        self._back(job, t, at)

    def _fill(self, job: Job, gap: Gap, t: float, at: float) -> None:
        """Say that a gap was none where the ranks' own records, sent again from their rings, show
        progress all through it. They come with the first step that a rank reports afterwards.
        """
        tracks = [[self._axis.t(boot) for boot, _ in r.ends] for r in job.ranks.values()]
        if t - gap.until > REPLAYED:
            self._gap = None
        if not all(ends and ends[-1] > gap.until for ends in tracks):
            return
        self._gap = None
        for number, track in zip(job.ranks, tracks, strict=True):
            ends = [gap.since, *(end for end in track if end > gap.since)]
            limit = gap.limits.get(number, HANG_FLOOR)
            if any(after - before > limit for before, after in pairwise(ends)):
                return
        words = "told afterwards: the ranks made progress while no daemon looked"
        self._write(What.UP, gap.since, at, text=words)

    def _move(self, what: What, text: str, t: float, at: float) -> None:
        """Write a state once, when it begins."""
        if self._state is not what:
            self._write(what, t, at, text=text)
        self._state = what

    def _base(self, job: Job, *, fresh: bool) -> None:
        """Where the counters of a job begin: at 0 if it came after the run was armed (*fresh*)."""
        self._based.add(job.label)
        where = labels(job=job.label)
        for metric in (*COUNTED, *OWN):
            self._folds.seed(metric, where, 0.0 if fresh else _counter(job, metric) or 0.0)

    def _count(self, job: Job, t: float, boot: float) -> int:
        """Fold the job's counters; how many of its ranks came back since the last look."""
        if job.label not in self._based:
            self._base(job, fresh=True)
        where, silent, restarts = labels(job=job.label), job.silent(boot), 0.0
        for metric in (*COUNTED, *OWN):
            value = None if silent and metric in LOSSES else _counter(job, metric)
            if value is None:
                continue
            first = self._folds.fresh(metric, where)
            grown = self._folds.add(metric, where, value, t)
            if first or (grown and metric not in PLENTY):
                self._folds.write(metric, where)
            restarts += grown if metric == RESTARTS else 0.0
        return round(restarts)

    def _compare(self, job: Job, t: float, at: float) -> None:
        skew = job.skew
        if skew is None:
            return
        self._folds.add("run_step_skew", labels(job=job.label), float(skew), t)
        if skew > SKEWED and not self._skewed:
            self._write(What.ISSUE, t, at, text=f"skew of {skew} steps between the ranks")
        self._skewed = skew > SKEWED

    def _hashes(self, job: Job, t: float, at: float) -> None:
        """Write a hash of every few steps where other nodes have the same steps: who leads compares
        them. Which steps these are follows from their numbers, as on the other nodes.
        """
        firsts = job.hashes.firsts
        while firsts:
            first = firsts.popleft()
            block = (first.kind, first.step // SPARSE)
            own = self._axis.t(first.boot)
            if not self._several or block == self._blocks.get(first.kind) or own < self._unheard:
                continue
            self._blocks[first.kind] = block
            text, origin = (
                f"{first.kind} {first.value:016x}",
                f"{first.kind}/{own:.3f}/{first.step}",
            )
            moment = (min(own, t), at - max(0.0, t - own))
            self._write(What.HASHED, *moment, step=first.step, text=text, origin=origin)

    # --- Losses ---------------------------------------------------------------------------------

    def _losses(self, job: Job, restarts: int, t: float, at: float) -> None:
        """Every process that died, failed or left, once; every one that came back, once."""
        changed = self._changed(job)
        for number, rank in sorted(job.ranks.items()):
            if fault := _fault(job, rank):
                self._lose((number, rank.session), fault, t, at, step=rank.step)
            elif rank.link is Link.ENDED:
                self._ended.add((number, rank.session))
        back = [*changed, *[None] * restarts][:restarts]
        for rank_back in back:
            if rank_back is None:
                self._lose(None, "a process was replaced while nobody looked", t, at)
            else:
                words = f"rank {rank_back[0]}: its process was replaced before it was seen to end"
                self._lose(rank_back, words, t, at)
            number_back = None if rank_back is None else rank_back[0]
            text = "a rank came back as a new process"
            self._write(What.RESTART, t, at, rank=number_back, text=text)
        if self._world not in {None, job.world_size}:
            words = f"the world changed from {self._world} to {job.world_size} processes"
            self._write(self._loss, t, at, text=words)
        self._world = job.world_size

    def _changed(self, job: Job) -> list[tuple[int, str]]:
        """Seats in which another process sits now than at the last look, but for planned ends."""
        now = {number: rank.session for number, rank in job.ranks.items()}
        changed = [
            (number, session)
            for number, session in sorted(self._seats.items())
            if now.get(number, session) != session and (number, session) not in self._ended
        ]
        self._seats |= now
        return changed

    def _lose(
        self, seat: tuple[int, str] | None, words: str, t: float, at: float, step: int | None = None
    ) -> None:
        """Tell a loss unless this daemon told it, or the one before it did."""
        if seat is not None and seat in self._lost:
            return
        if seat is not None:
            self._lost.add(seat)
        number = next(iter(self._mourned), None) if seat is None else seat[0]
        if number is not None and self._mourned.get(number):
            self._mourned[number] -= 1
            if not self._mourned[number]:
                del self._mourned[number]
            return
        self._write(self._loss, t, at, rank=None if seat is None else number, step=step, text=words)

    @property
    def _loss(self) -> What:
        """What a loss is now."""
        return What.PLANNED if self._injected else What.FAILURE

    def _back(self, job: Job, t: float, at: float) -> None:
        """The first step of all ranks after a fault was healed."""
        healed = self._healed
        if healed is None:
            return
        after = [
            next((e for ended, _ in rank.ends if (e := self._axis.t(ended)) > healed), None)
            for rank in job.ranks.values()
        ]
        firsts = [end for end in after if end is not None]
        if len(firsts) == len(after) == job.local_world_size:
            self._write(What.RECOVERED, t, at, value=max(firsts) - healed)
            self._healed, self._injected = None, False

    # --- Checkpoints ----------------------------------------------------------------------------

    def _hand_over_older(self, path: str, step: int | None) -> None:
        """A checkpoint that another one is written over is no longer what it was."""
        for key, (_, save) in list(self._shards.items()):
            if save.path == path and save.step != step:
                del self._shards[key]
                self._saves.add(save)

    def _hand_over(self, job: Job | None, t: float, at: float) -> None:
        """Have checkpoints verified that no rank is writing any more."""
        if job is not None and any(rank.section is not None for rank in job.ranks.values()):
            return
        for key, (told_t, save) in list(self._shards.items()):
            if t - told_t < SHARDS:
                continue
            del self._shards[key]
            if why := self._saves.add(save):
                text = f"{save.path}: {why}"
                self._write(What.UNVERIFIED, t, at, step=save.step, text=text)

    # --- After a restart ------------------------------------------------------------------------

    def _take_over(self, minutes: Iterable[Minute]) -> None:
        """Counters go on from what the file has of them. One of the job's that it has nothing of
        began after the last look, since the first look at it is written at once.
        """
        newest = {(m.metric, m.labels): m.last for m in minutes if m.node == self._node}
        if any(metric in COUNTED for metric, _ in newest):
            for label in self._based:
                for metric in (*COUNTED, *OWN):
                    self._folds.seed(metric, labels(job=label), 0.0)
        for (metric, own), value in newest.items():
            self._folds.seed(metric, own, value)

    def _remember(self, event: Event) -> None:
        """Take up what another daemon told."""
        number, step = event.rank, event.step
        match event.what:
            case What.FAILURE | What.PLANNED if number is not None:
                self._mourned[number] = 1
            case What.RESTART if number is not None:
                self._mourned.pop(number, None)
            case What.INJECTED:
                self._injected, self._healed = True, None
                self._until = math.inf if event.value is None else event.t + event.value
            case What.HEALED:
                self._healed = event.t
            case What.RECOVERED:
                self._injected, self._healed = False, None
            case What.BEGUN if number is not None:
                self._begun[number, step] = event.t
            case What.SAVED | What.FAILED if number is not None:
                self._begun.pop((number, step), None)

    # --- Writing --------------------------------------------------------------------------------

    def _ours(self, own: Labels) -> bool:
        """Whether a series is of the run's job, or of no job."""
        return dict(own).get("job", self._label) == self._label

    def _tell(
        self, what: What, t: float, at: float, rank: Rank, told: Told, *, text: str,
        value: float | None = None,
    ) -> None:  # fmt: skip
        origin = f"{rank.session}/{told.stamp.first}"
        self._write(
            what, t, at, rank=rank.rank, step=told.step, text=text, value=value, origin=origin
        )

    def _write(
        self, what: What, t: float, at: float, *, rank: int | None = None, step: int | None = None,
        value: float | None = None, text: str = "", origin: str = "",
    ) -> None:  # fmt: skip
        event = Event(
            node=self._node, t=t, at=at, what=what, rank=rank, step=step, value=value, text=text,
            origin=origin,
        )  # fmt: skip
        self._pen.add([event])


def _counter(job: Job, metric: str) -> float | None:
    """The value of a job's counter; None while there was nothing to count."""
    if metric not in OWN:
        return told(job, metric)
    name, evidence = OWN[metric]
    return float(getattr(job.counters, name)) if getattr(job.counters, evidence) else None


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

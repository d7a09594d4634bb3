"""One job on this node: its ranks, its counters, its checkpoints. Reads no clock, keeps no file."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from dvfd.derive import LossWatch, NormWatch
from dvfd.masking import redacted
from dvfd.telemetry.checkpoint_state import CheckpointState
from dvfd.telemetry.rank import PACKET_DELAY, START_LIMIT, Link, Rank

if TYPE_CHECKING:
    from dvfd.telemetry.wire import Event, Hello, Row

SECTION_FLOOR = 60.0
SECTION_TIMES = 5.0
"""A checkpoint hangs after max(60 s, 5 x the longest seen): as steps do, on a larger scale."""

NORM_CLOSE, NORM_NEAR = 1e-5, 1e-7
"""The source's allclose(rtol, atol) for gradient norms in float32 (reading 20)."""

HASH_STEPS = 256
"""Steps whose hashes wait for the other ranks' ones: further apart than this, ranks are skewed."""


@dataclass(slots=True)
class Counters:
    """What only grows, over restarts of ranks and of the daemon."""

    restarts: int = 0
    nonfinite: int = 0
    spikes: int = 0
    exceptions: int = 0
    comparisons: int = 0
    mismatches: int = 0
    weighed: int = 0  # 1 once any loss or gradient norm came
    losses: int = 0  # 1 once any loss of training came
    failed: int = 0
    lost: int = 0
    norms: int = 0  # 1 once any gradient norm came
    norm_excursions: int = 0
    norm_comparisons: int = 0  # 1 once any two ranks' norms of a step were compared
    norm_disagreements: int = 0  # steps


@dataclass(slots=True)
class Saves:
    """What the job said of its checkpoints. Times are Unix seconds."""

    every: int = 0
    base: int | None = None  # the step at which counting began
    saved: int = 0
    path: str = ""
    step: int = 0
    saved_at: float | None = None
    began_at: float | None = None
    pid: int | None = None
    longest: float = 0.0
    took: float | None = None  # seconds, of the newest


_COUNTERS, _SAVES = attrgetter(*Counters.__slots__), attrgetter(*Saves.__slots__)


class Norms:
    """Gradient norms of recent steps: after the reduction all ranks have the same one."""

    def __init__(self) -> None:
        self._steps: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._odd: OrderedDict[int, None] = OrderedDict()

    def compare(self, step: int, rank: int, norm: float) -> tuple[bool, bool]:
        """Whether there was another rank's norm to compare with, and whether the step disagrees,
        which it does once.
        """
        first = self._steps.get(step)
        if first is None:
            self._steps[step] = (rank, norm)
            _bound(self._steps)
            return False, False
        if first[0] == rank:
            return False, False
        same = math.isclose(first[1], norm, rel_tol=NORM_CLOSE, abs_tol=NORM_NEAR)
        if same or step in self._odd:
            return True, False
        self._odd[step] = None
        _bound(self._odd)
        return True, True

    def clear(self) -> None:
        """Forget: ranks that came back do their steps again."""
        self._steps.clear()
        self._odd.clear()


def _bound(steps: OrderedDict[int, Any]) -> None:
    while len(steps) > HASH_STEPS:
        steps.popitem(last=False)


class First(NamedTuple):
    """The hash that came first of a step, to be compared with other nodes' ones."""

    kind: str
    step: int
    value: int
    boot: float  # CLOCK_BOOTTIME at which the step ended


class Hashes:
    """Gradient and parameter hashes of recent steps, compared as they come."""

    def __init__(self) -> None:
        self._steps: OrderedDict[tuple[str, int], tuple[int, int]] = OrderedDict()
        self.firsts: deque[First] = deque(maxlen=4 * HASH_STEPS)  # whoever takes one takes it away

    def compare(self, kind: str, step: int, rank: int, value: int, boot: float) -> bool | None:
        """Whether *value* is what another rank had at this step, made at *boot*; None if this is
        the first.
        """
        if (kind, step) not in self._steps:
            self.firsts.append(First(kind, step, value, boot))
        first = self._steps.setdefault((kind, step), (rank, value))
        while len(self._steps) > HASH_STEPS:
            self._steps.popitem(last=False)
        return None if first[0] == rank else first[1] == value

    def clear(self) -> None:
        """Forget: ranks that came back do their steps again."""
        self._steps.clear()


@dataclass(slots=True)
class Job:
    """What is known of one job: `label` names its series, `name` is what it calls itself."""

    label: str
    name: str
    run: str
    uid: int
    world_size: int
    local_world_size: int
    ranks: dict[int, Rank] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    saves: Saves = field(default_factory=Saves)
    hashes: Hashes = field(default_factory=Hashes)
    norms: Norms = field(default_factory=Norms)
    norm_watch: NormWatch = field(default_factory=NormWatch)
    loss_watch: LossWatch = field(default_factory=LossWatch)
    loss_rank: int | None = None
    loss: float | None = None  # of its newest step
    val_loss: float | None = None
    val_at: float = 0.0
    resumed: float = 0.0  # boot time at which the last checkpoint section ended
    ended: float | None = None
    late: float | None = None  # boot time at which something went wrong after that
    exception: str = ""
    kept: dict[str, Any] = field(default_factory=dict)  # its document as last handed out

    @property
    def live(self) -> bool:
        """Whether any of its ranks is."""
        return any(rank.live for rank in self.ranks.values())

    @property
    def tells(self) -> bool:
        """Whether there is anything to say of it."""
        return self.ended is None or self.late is not None

    def silent(self, now: float) -> bool:
        """Whether some rank that has not ended is not heard from: what it computes is not seen.

        Nor is what was lost of the file that speaks for it.
        """
        return any(
            now < rank.unread
            or (
                rank.link is not Link.ENDED
                and (not rank.live or rank.stopped or self.stalled(rank, now))
            )
            for rank in self.ranks.values()
        )

    def stalled(self, rank: Rank, now: float) -> bool:
        """Whether the rank's silence has reached its limit."""
        age, limit, _ = self.stall(rank, now)
        return age >= limit

    def adopt(self, hello: Hello) -> None:
        """Take over what a hello says of the job as a whole; a new run starts without ranks."""
        if hello.run != self.run:
            self.ranks.clear()
            self.hashes.clear()
            self.norms.clear()
            self.norm_watch, self.loss_watch = NormWatch(), LossWatch()
            self.saves = Saves()
            self.loss = None
            self.exception = ""
        self.run, self.ended, self.late = hello.run, None, None
        self.world_size, self.local_world_size = hello.world_size, hello.local_world_size
        self.saves.every = hello.checkpoint_every

    # --- Rows -----------------------------------------------------------------------------------

    def take(self, rank: Rank, row: Row, now: float) -> set[str]:
        """Add one row; the metrics that it moved in a way that must be known at once."""
        rank.take(row, now)
        if self.saves.base is None:
            self.saves.base = row.step
        hashed = row.grad_hash is not None or row.param_hash is not None
        touched = self._compare(rank, row) if hashed else set()
        given = [v for v in (row.loss, row.grad_norm, row.val_loss) if v is not None]
        if given:
            touched |= self._values(rank, row, given)
        return touched

    def _values(self, rank: Rank, row: Row, given: list[float]) -> set[str]:
        """Take the losses and norms of a row; one rank's make one series, so only one's course is
        watched.
        """
        touched: set[str] = set()
        counters, norm = self.counters, _finite(row.grad_norm)
        watches = (row.loss is not None or norm is not None) and self._watches(rank)
        counters.weighed = 1
        if not all(map(math.isfinite, given)):
            counters.nonfinite += sum(not math.isfinite(value) for value in given)
            touched.add("job_nonfinite_total")
        if row.loss is not None:
            counters.losses = 1
            if watches and math.isfinite(row.loss):
                self.loss = row.loss
            if watches and self.loss_watch.add(row.loss):
                counters.spikes += 1
                touched.add("job_loss_spikes_total")
        if norm is not None:
            self._weigh(rank, row.step, norm, watches=watches)
        if (val_loss := _finite(row.val_loss)) is not None:
            self.val_loss, self.val_at = val_loss, rank.progress
        return touched

    def _watches(self, rank: Rank) -> bool:
        """Whether *rank* is the one whose course is watched; another takes over if that is lost."""
        watched = self.ranks.get(-1 if self.loss_rank is None else self.loss_rank)
        if watched is None or not watched.live:
            self.loss_rank = rank.rank
        return self.loss_rank == rank.rank

    def _weigh(self, rank: Rank, step: int, norm: float, *, watches: bool) -> None:
        """Hold a gradient norm against its own course, and against the other ranks'."""
        counters = self.counters
        counters.norms = 1
        if watches:
            counters.norm_excursions += self.norm_watch.add(norm)
        compared, differs = self.norms.compare(step, rank.rank, norm)
        counters.norm_comparisons |= compared
        counters.norm_disagreements += differs

    def _compare(self, rank: Rank, row: Row) -> set[str]:
        touched = set()
        for kind, value in (("grad", row.grad_hash), ("param", row.param_hash)):
            if value is None:
                continue
            same = self.hashes.compare(kind, row.step, rank.rank, value, row.boot)
            self.counters.comparisons += same is not None
            if same is False:
                self.counters.mismatches += 1
                touched.add("job_hash_mismatches_total")
        return touched

    # --- Events ---------------------------------------------------------------------------------

    def hear(self, rank: Rank, event: Event, now: float, wall: float) -> set[str]:
        """Take an event; the metrics that it moved in a way that must be known at once."""
        rank.progress = now
        rank.broken |= event.event != "collective"  # that takes milliseconds of the next step
        match event.event:
            case "checkpoint_begin":
                rank.section, self.saves.began_at = now, wall
            case "checkpoint_staged":  # written in the background: the job goes on
                self._close_section(rank, now)
            case "checkpoint_saved":
                self._saved(rank, event, now, wall)
                return {"checkpoint_age_seconds", "checkpoint_missing", "checkpoint_intact"}
            case "checkpoint_failed":
                self.counters.failed += 1
                self._close_section(rank, now)
                return {"checkpoint_failures_total", "checkpoint_missing"}
            case "pause":
                rank.pause = float(event.seconds)
                for other in self.ranks.values():
                    other.broken = True  # they wait for this one: that is no step either
            case "exception":
                self.counters.exceptions += 1
                self.exception = _without_secrets(event)
                return {"job_exceptions_total"}
            case "end":
                rank.link = Link.FAILED if event.failed else Link.ENDED
                return {"rank_responding", "job_ranks_missing"}
        return set()

    def _saved(self, rank: Rank, event: Event, now: float, wall: float) -> None:
        self.saves.took = None if rank.section is None else now - rank.section
        if rank.section is not None:
            self.saves.longest = max(self.saves.longest, now - rank.section)
        self._close_section(rank, now)
        again = event.step is not None and event.step == self.saves.step and self.saves.saved
        self.saves.saved += not again  # every rank may report the shard of one checkpoint
        self.saves.path, self.saves.step = event.path, event.step or 0
        self.saves.saved_at, self.saves.pid = wall, rank.pid

    def _close_section(self, rank: Rank, now: float) -> None:
        if rank.section is not None:
            self.resumed = now
        rank.section = None
        self._settle_saves()

    def _settle_saves(self) -> None:
        """No save is under way once no rank is in one."""
        if all(rank.section is None for rank in self.ranks.values()):
            self.saves.began_at = None

    def close_overdue(self, now: float) -> bool:
        """Count saves that outlived their limit as failed; whether there was one."""
        late = [r for r in self.ranks.values() if self._overdue(r, now)]
        for rank in late:
            rank.section = None
            self.counters.failed += 1
        if late:
            self._settle_saves()
        return bool(late)

    def _overdue(self, rank: Rank, now: float) -> bool:
        return rank.section is not None and (
            not rank.live or now - rank.section > self.section_limit
        )

    @property
    def section_limit(self) -> float:
        """Seconds that writing a checkpoint may take."""
        return max(SECTION_FLOOR, SECTION_TIMES * self.saves.longest)

    # --- What follows ---------------------------------------------------------------------------

    def stall(self, rank: Rank, now: float) -> tuple[float, float, str]:
        """Seconds since the rank's progress, the limit for them, and what it is doing.

        While one rank writes a checkpoint, or said that it pauses, the others wait for it: its
        limit is theirs.
        """
        basis = max(rank.progress, rank.since if rank.step is None else self.resumed)
        writing, pause = self._waits()
        if writing:
            return now - basis, max(rank.limit, self.section_limit), "in a checkpoint"
        if rank.step is None:
            return now - basis, max(START_LIMIT, pause), "before its first step"
        if pause > rank.limit:
            return now - basis, pause, "in a pause that the job announced"
        return now - basis, rank.limit, "between steps"

    def _waits(self) -> tuple[bool, float]:
        """Whether a live rank writes a checkpoint, and the longest pause that one announced."""
        writing, pause = False, 0.0
        for rank in self.ranks.values():
            if (rank.pause or rank.section is not None) and rank.live:
                writing |= rank.section is not None
                pause = max(pause, rank.pause)
        return writing, pause

    def responding(self, rank: Rank, now: float) -> tuple[bool | None, str]:
        """Whether the rank responds, and why not; None while that cannot be said."""
        if rank.link is Link.ENDED:
            return None, "ended"
        if fault := self._fault(rank):
            return False, fault
        age, limit, doing = self.stall(rank, now)
        silence = f"no progress for {age:.0f} s of {limit:.0f}, {doing}"
        if rank.link is Link.AWAITED:
            return (False if age >= limit else None), f"not heard from again: {silence}"
        if rank.process is None and age >= limit:
            where = rank.feed or "its process cannot be seen from here"
            return False, f"{silence}; {where}: progress is all there is to judge by"
        return True, "" if age < limit else silence

    def up(self, now: float) -> bool | None:
        """Whether every expected rank here lives and its progress is within its limit; None while
        that cannot be said of one and no other is known to fail.
        """
        if self.missing:
            return False
        ranks = [rank for rank in self.ranks.values() if rank.link is not Link.ENDED]
        words = [self._well(rank, now) for rank in ranks]
        if False in words:
            return False
        return None if None in words or not words else True

    def _well(self, rank: Rank, now: float) -> bool | None:
        alive, _ = self.responding(rank, now)
        return alive and not self.stalled(rank, now)

    def _fault(self, rank: Rank) -> str:
        """What is known to be wrong with a rank, apart from its progress."""
        if rank.link is Link.FAILED:
            return "ended by a failure" + (f": {self.exception}" if self.exception else "")
        if rank.dead:
            return f"process {rank.pid} is gone" + (
                f", which wrote {rank.feed}" if rank.feed else ""
            )
        if rank.link is Link.LEFT:
            return f"process {rank.pid} closed its line without saying so"
        return f"process {rank.pid} is stopped" if rank.stopped else ""

    @property
    def skew(self) -> int | None:
        """Largest less smallest step of the live ranks at one moment: the newest that all of them
        have reported, as each does so about once a second at its own time. Who says nothing for
        longer than that is behind.
        """
        ranks = [r for r in self.ranks.values() if r.live]
        ends = [r.stepped for r in ranks if r.stepped is not None]
        if not ends:
            return None
        moment = max(min(ends), max(ends) - PACKET_DELAY)
        steps = [r.step_at(moment) for r in ranks if r.stepped is not None]
        known = [step for step in steps if step is not None]
        return max(known) - min(known) if known and len(known) == len(steps) else None

    @property
    def missing(self) -> int:
        """Ranks of this node that never reported or left without saying so."""
        return max(0, self.local_world_size - self.present)

    @property
    def present(self) -> int:
        """Ranks of this node that live, or ended as they should."""
        return sum(r.live or r.link is Link.ENDED for r in self.ranks.values())

    def checkpoints(self) -> CheckpointState:
        """What the checkpoint probe asks for."""
        saves, step = self.saves, max((r.step or 0 for r in self.ranks.values()), default=0)
        due = 0
        if saves.every and saves.base is not None:
            # Those before the newest step: the one that is due now is yet to be begun.
            due = max(0, (step - 1) // saves.every - max(0, saves.base - 1) // saves.every)
        return CheckpointState(
            job=self.label,
            every=saves.every,
            due=due,
            saved=saves.saved,
            failed=self.counters.failed,
            path=saves.path,
            step=saves.step,
            saved_at=saves.saved_at,
            began_at=saves.began_at,
            pid=saves.pid,
            shared=self.world_size > self.local_world_size,
        )

    def to_document(self) -> dict[str, Any]:
        """What must survive a restart of the daemon, ranks apart."""
        return {
            "label": self.label,
            "name": self.name,
            "run": self.run,
            "uid": self.uid,
            "world_size": self.world_size,
            "local_world_size": self.local_world_size,
            "ended": self.ended is not None,
            "exception": self.exception,
            "counters": dict(zip(Counters.__slots__, _COUNTERS(self.counters), strict=True)),
            "saves": dict(zip(Saves.__slots__, _SAVES(self.saves), strict=True)),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], now: float) -> Job:
        """Bring a job back. Raises KeyError, TypeError or ValueError on what is none of ours."""
        return cls(
            label=str(document["label"]),
            name=str(document["name"]),
            run=str(document["run"]),
            uid=int(document["uid"]),
            world_size=int(document["world_size"]),
            local_world_size=int(document["local_world_size"]),
            counters=Counters(**document["counters"]),
            saves=Saves(**document["saves"]),
            resumed=now,
            ended=now if document["ended"] else None,
            exception=str(document.get("exception", "")),  # one from before did not say
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _without_secrets(event: Event) -> str:
    """The beginning of what *event* says of an exception; secrets go before it is cut."""
    return redacted(": ".join(filter(None, (event.type, event.error))))[:500]

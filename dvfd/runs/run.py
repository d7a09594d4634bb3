"""One stability run: what was ordered, where it stands, and how it may move on. Pure."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.masking import masked, redacted_command
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.model import Check

WARM_UP_SECONDS = 600.0
WARM_UP_BATCHES = 1000
"""Throughput counts from the earlier of the two on (procedures, 7)."""

SHORT_WARM_UP = 0.1
"""Of a shortened run: the warm-up is at most this share of it."""


class Stage(StrEnum):
    """Where a run stands. It never goes back."""

    ARMED = "armed"  # ordered; the job has not made its first step with all its ranks
    WARM_UP = "warm-up"
    RUNNING = "running"
    COMPLETE = "complete"  # it ran for as long as it was to run
    ABORTED = "aborted"  # it ended before that; `reason` says why

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self in {Stage.COMPLETE, Stage.ABORTED}


ORDER = tuple(Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was ordered. Durations in seconds, intervals in batches.

    `planned` is what the check asks for; a run of less than that never counts, nor does one with
    `discounts`: reasons like ranks that share processors, accepted by who ordered it.
    """

    check: str
    planned: float
    duration: float
    nodes: int
    processes: int
    every: int
    checkpoint_every: int
    job: str
    on_failure: str = "continue"  # or "stop": what follows when a criterion can no longer be met
    by: str = ""
    note: str = ""
    argv: tuple[str, ...] = ()
    directory: str = "/"
    discounts: tuple[str, ...] = ()

    @classmethod
    def of(cls, check: Check, *, job: str, duration: float | None = None, **more: Any) -> Plan:
        """The plan for *check*. Raises DvfdError if that is no stability run."""
        if not check.every:
            raise DvfdError(f"{check.id} is no stability run")
        return cls(
            check=check.id,
            planned=check.duration,
            duration=check.duration if duration is None else duration,
            nodes=check.nodes,
            processes=check.processes,
            every=check.every,
            checkpoint_every=check.checkpoint_every,
            job=job,
            **more,
        )

    @property
    def shortened(self) -> str:
        """How much of it was to run if that is less, like `20 min of 24 h`; else nothing."""
        if self.duration >= self.planned:
            return ""
        return f"{seconds(self.duration)} of {seconds(self.planned)}"

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Why a pass of it never counts; empty if it does."""
        return (*([f"shortened: {self.shortened}"] if self.shortened else []), *self.discounts)

    @property
    def warm_up(self) -> float:
        """Seconds after which throughput counts at the latest."""
        return min(WARM_UP_SECONDS, SHORT_WARM_UP * self.duration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """How run seconds follow from this boot's CLOCK_BOOTTIME: `t = boot + offset`."""

    boot_id: str
    offset: float

    def t(self, boot: float) -> float:
        """Run seconds at *boot*."""
        return boot + self.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """What was started for a run: a unit of systemd's, or a process that is found again by its
    start time (clock ticks since boot) and its mark in the environment.
    """

    unit: str = ""
    pid: int = 0
    start: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. Times of the form `*_t` are run seconds, `*_at` Unix seconds."""

    id: str
    plan: Plan
    node: str
    stage: Stage = Stage.ARMED
    armed_at: float
    armed_t: float = 0.0  # nodes of a cluster count from a minute of UTC, so that theirs coincide
    axis: Axis
    launched: Launched | None = None
    began_t: float | None = None  # the first step that all ranks had made
    warm_t: float | None = None  # the end of the warm-up
    ended_t: float | None = None
    ended_at: float | None = None
    seen_t: float = 0.0  # the newest moment at which a daemon looked
    seen_at: float = 0.0
    reason: str = ""
    exited: str = ""  # how the training command ended, once it did
    stopped_by: str = ""  # the person who ended it: its training is to end, too
    frozen: str = ""  # SHA-256 of its report, once there is one
    hashes: Mapping[str, str] = field(default_factory=dict)
    leader: str = ""  # the node that decides and judges; empty: this one
    of: str = ""  # the leader's run that this one is part of, once that is known
    peers: Mapping[str, str] = field(default_factory=dict)  # of the leader: node, and its run there

    def elapsed(self, t: float) -> float:
        """Seconds of the run itself at run second *t*, 0 before its first step."""
        if self.began_t is None:
            return 0.0
        until = t if self.ended_t is None else min(t, self.ended_t)
        return max(0.0, until - self.began_t)

    def left(self, t: float) -> float:
        """Seconds that are left of it at *t*."""
        return 0.0 if self.stage.over else max(0.0, self.plan.duration - self.elapsed(t))

    def moved(self, stage: Stage, **changes: Any) -> Run:
        """The run in *stage*. Raises DvfdError for a step back or out of an end."""
        if self.stage.over or ORDER.index(stage) < ORDER.index(self.stage):
            raise DvfdError(f"run {self.id} is {self.stage}: it cannot become {stage}")
        return replace(self, stage=stage, **changes)

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def shown(self) -> dict[str, Any]:
        """As JSON for people: without the secrets in its command and its words."""
        found: dict[str, Any] = masked(self.to_document())
        found["plan"]["argv"] = redacted_command(self.plan.argv)
        return found

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Run:
        """Of what `to_document` made. Raises DvfdError on what is none of ours."""
        try:
            found = dict(document)
            plan = dict(found.pop("plan"))
            for name in ("argv", "discounts"):
                plan[name] = tuple(map(str, plan[name]))
            launched = found.pop("launched")
            return cls(
                plan=Plan(**plan),
                stage=Stage(found.pop("stage")),
                axis=Axis(**found.pop("axis")),
                launched=Launched(**launched) if launched else None,
                **{f.name: found[f.name] for f in fields(cls) if f.name in found},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DvfdError(f"no run of ours: {error!r}") from None


def name(check: str, at: float) -> str:
    """A new run's name: unique, sorts by time, and may be an instance of a systemd unit."""
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{check.removeprefix('stability_')}_{moment}_{secrets.token_hex(2)}"


def caught_up(run: Run, told: Run) -> Run:
    """*run* moved on to where *told* is, the same run as its file has it: transitions are on the
    disk there before they are in the store.
    """
    if run.stage.over or ORDER.index(told.stage) <= ORDER.index(run.stage):
        return run
    return replace(
        run, stage=told.stage, plan=told.plan, began_t=told.began_t, warm_t=told.warm_t,
        ended_t=told.ended_t, ended_at=told.ended_at, reason=told.reason,
        stopped_by=told.stopped_by,
    )  # fmt: skip


def passed(run: Run) -> list[tuple[Stage, float]]:
    """The stages that *run* has been in, and the run second of each beginning."""
    every = ((Stage.ARMED, run.armed_t), (Stage.WARM_UP, run.began_t), (Stage.RUNNING, run.warm_t))
    found = [(stage, t) for stage, t in every if t is not None]
    if run.stage.over:
        found.append((run.stage, run.seen_t if run.ended_t is None else run.ended_t))
    return found


def reanchored(run: Run, *, boot_id: str, boot: float, now: float) -> Run:
    """*run* on the clock of this boot. After a reboot the wall clock says how long nobody looked:
    a gap is never shorter than nothing, whatever was done to that clock.
    """
    if run.axis.boot_id == boot_id:
        return run
    gap = max(0.0, now - run.seen_at)
    return replace(run, axis=Axis(boot_id=boot_id, offset=run.seen_t + gap - boot))

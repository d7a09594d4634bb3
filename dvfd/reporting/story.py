"""What is known of one run of a job, whoever told it. Nouns only.

Times named `t` are seconds since the run's first look, or its first step if a stability run's file
tells of it; `at`, `since` and `until` are Unix seconds. What is not known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.reporting.ran import Ran
    from dvfd.runs.goodput import Goodput

Span = tuple[float, float]
"""From and until."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Ranks that came back as new processes, and what that cost.

    `lost` is the seconds without steps around it; `most` says that other pauses may be in them.
    """

    t: float
    ranks: int
    lost: float | None = None
    most: bool = False
    again: int | None = None  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Saves, as far as they are known: `times` in t, `seconds` of all of them together."""

    times: tuple[float, ...] = ()
    seconds: float | None = None
    longest: float | None = None
    failed: int | None = None
    whole: bool = False  # every save is among `times`
    saved: int | None = None  # all of them, as the job counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one rank computes. `slowest` is the share of the time of the steps in which no rank of
    those heard computed longer, `cost` the seconds that the others waited for it then.
    """

    rank: int
    node: str
    compute: float  # seconds of a step, mean
    slowest: float
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stragglers:
    """How far ranks held each other up: seconds of the steps, `compared` of them with two or more
    ranks that told their compute sections. `reason` says why there is nothing.
    """

    paces: tuple[Pace, ...] = ()
    compared: float = 0.0
    reason: str = ""

    @property
    def cost(self) -> float:
        """Seconds, all ranks."""
        return sum(pace.cost for pace in self.paces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One energy counter over the run. `covered` is the share of the run in which it was read."""

    source: str  # "processor package" or "GPU"
    name: str
    node: str
    joules: float
    covered: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One course: means, least and greatest of columns of `step` seconds; None where unseen."""

    id: str
    title: str
    unit: str
    step: float
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One run of one job."""

    job: str
    node: str
    source: str  # "store", or "run file"
    since: float
    until: float
    goodput: Goodput
    live: bool = False
    ran: Ran | None = None  # what was kept of this run: its ends
    run: str = ""  # the name of a stability run
    number: int = 1  # among the runs of this job in the period that was asked of
    spans: tuple[Span, ...] = ()  # those runs, oldest first
    asked: Span = (0.0, 0.0)
    grain: float = 0.0  # seconds between two looks, at the coarsest
    world: int = 0
    ranks: int = 0  # that told steps
    nodes: int = 1  # whose ranks and hours are in this
    observed: float | None = None  # share of the time in which somebody looked
    samples: float | None = None
    lines: tuple[Line, ...] = ()
    by_step: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    numbered: bool = False  # steps of `by_step` are the job's own numbers, not counts
    restarts: tuple[Restart, ...] = ()
    checkpoints: Checkpoints = Checkpoints()
    gaps: tuple[Span, ...] = ()  # in t: nobody looked
    stragglers: Stragglers = Stragglers()
    meters: tuple[Meter, ...] = ()
    beside: tuple[str, ...] = ()  # other jobs on the node at the time
    hashes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.goodput.whole

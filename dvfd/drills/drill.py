"""The nouns of active tests: what a drill is given, and what it may yield. Runs nothing.

A drill is the tuple of its parts, in the order of the source's items; `dvfd.drills.supervise` runs
them and is the one place that catches what goes wrong in one. A part measures and never judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dvfd.drills import tree
from dvfd.drills.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dvfd.config import Config
    from dvfd.model import Check, Clock, Labels, Sample
    from dvfd.shell import Output


@dataclass(frozen=True, slots=True)
class Remark:
    """What a figure cannot say for itself: shown beside every result on *metric*.

    With *labels* only where they agree with what the criterion or its result names.
    """

    metric: str
    text: str
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why *metric* (of these labels) has no sample, in the tool's own words: part of an UNKNOWN."""

    metric: str
    text: str
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """Something a reader of the report wants to know and nothing judges, such as a topology."""

    name: str
    text: str


OF = "run of "
"""How the fact begins that names the stability run of a phase that the figures speak of."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Seconds of the check's duration that the figures stand for, earlier and resumed runs
    included. Without one it is the time that the drill took, and never more than was chosen.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class About:
    """How many processes the run is about, of the counts that the check tells apart."""

    processes: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """This node took part, and another has what there is to judge: it is judged there alone."""

    node: str


@dataclass(frozen=True, slots=True)
class Options:
    """What the person who started the drill chose.

    `duration` in seconds is None for the check's own; a shorter one makes the report say so, and
    it then cannot pass. `soak` is False to leave out what takes minutes.
    """

    soak: bool = True
    force: bool = False
    duration: float | None = None
    fresh: bool = False  # leave aside what an earlier, unfinished run left
    inside: bool = False  # we are a rank of a torchrun: the ranks are there already
    consent: bool = False  # something may be broken on purpose, as reliability does
    job: str = ""  # that is harmed; empty: the reference job, started for it
    halfway: bool = False  # processes join in two steps
    nodes: int = 0  # that take part in a test between nodes; 0 for the check's own number
    processes: int = 0  # that the run is about, of those that the check judges; 0 for its own
    listen: str = ""  # HOST:PORT at which Alertmanager's webhook delivers the test alert


class Runner(Protocol):
    """`tree.run`, or a fake of it."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Output:
        """Run to the end. Raises ToolError, ToolTimeout; leaves no process behind."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The world of one run of a drill. Everything that a part touches comes in here."""

    check: Check
    config: Config
    clock: Clock
    scratch: Path  # an empty directory, removed afterwards
    state: Path  # a directory kept between runs of this drill: what can be resumed
    options: Options = field(default_factory=Options)
    training: str = ""  # which training runs here now, in words; empty if none was found
    say: Callable[[str], None] = lambda _line: None  # progress, for a person
    run: Runner = tree.run
    memo: Memo = field(default_factory=Memo)  # shared by the checks of one command
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    @property
    def python(self) -> str:
        """The job's interpreter, in which torch is looked for."""
        return str(self.config.drills.interpreter)

    @property
    def processes(self) -> int:
        """Ranks on this node."""
        return self.config.profile.processes_per_node

    @property
    def planned(self) -> float:
        """Seconds that a timed drill is to run: the person's, else the check's own."""
        chosen = self.options.duration
        return self.check.duration if chosen is None else chosen

    def limit(self, criterion: str) -> float | None:
        """The limit in force of `CHECK.criterion`: how much a drill has to provoke."""
        name = f"{self.check.id}.{criterion}"
        return next((c.limit.value for c in self.check.criteria if c.id == name), None)


class Part(Protocol):
    """One item of a drill. Building one touches nothing."""

    @property
    def name(self) -> str:
        """What it looks at, in a word or two for a person: `cores`, `idle power`."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that it yields."""
        ...

    def run(
        self, task: Task
    ) -> Iterator[Sample | Remark | Trouble | Fact | Ran | About | Elsewhere]:
        """Measure. Raises NotApplicable (there is none here) or another DvfdError (it broke)."""
        ...

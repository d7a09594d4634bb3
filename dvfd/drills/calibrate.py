"""Measure this node for a baseline: its cores, its ranks' all-reduce, its memory, a training.

What tells that the node is ill comes first, and ends it: a baseline of an ill node would make
illness the norm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import bandwidth, collectives, known_answers
from dvfd.drills.interpreter import BARE
from dvfd.drills.trial import GRACE, WARM_UP, Throughput, trial
from dvfd.errors import DvfdError, ProbeError

if TYPE_CHECKING:
    from dvfd.drills.drill import Task

MESSAGES = ("1KiB", "8KiB", "64KiB", "512KiB", "4MiB", "bucket")

STARTING = 15.0
"""Seconds from the launcher's start to the first step: 10 on two cores; for the plan only."""

RANKS = re.compile(r"--nproc[-_]per[-_]node")
MPIRUN = {"mpirun": ("-n", "-np", "--n", "--np"), "mpiexec": ("-n", "-np", "--n", "--np")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to measure. No *command* is the reference job; *single* is the same with one process,
    found in *command* if not given.
    """

    command: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it. `ill` says why this node is no baseline, `left_out` what has no figure."""

    throughput: Throughput | None = None
    single: Throughput | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    ill: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def trainings(self) -> dict[str, Throughput]:
        """Those that were measured, by the key of the profile that each gives."""
        found = {"expected_throughput": self.throughput, "single_process_throughput": self.single}
        return {key: each for key, each in found.items() if each is not None}

    @property
    def profile(self) -> dict[str, float]:
        """The values that criteria are held against."""
        return {key: each.median for key, each in self.trainings.items()}


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement, and the seconds that it takes, about."""

    name: str
    text: str
    seconds: float


# --- What would be done ---------------------------------------------------------------------------


def steps(task: Task, wish: Wish) -> list[Step]:
    """All that would be measured, in order. Raises ProbeError if it could not be."""
    command, one = commands(task, wish)
    training = STARTING + WARM_UP + wish.seconds
    found = [
        Step("cores", "the same work with known answers on every processor in turn", 10.0),
        Step("all-reduce", f"{', '.join(MESSAGES)} among {task.processes} ranks", 25.0),
        Step("memory", f"copy and triad by {_counted({1, task.processes})} at once", 25.0),
        Step("training", f"{wish.seconds:g} s of: {' '.join(command)}", training),
    ]
    if task.processes == 1:
        found = [step for step in found if step.name != "all-reduce"]
    if one and one != command:
        found.append(Step("one process", f"{wish.seconds:g} s of: {' '.join(one)}", training))
    return found


def commands(task: Task, wish: Wish) -> tuple[list[str], list[str]]:
    """The training with all processes and with one; that is empty if it cannot be told."""
    profile = task.config.profile
    if not wish.command:
        if profile.nodes > 1:
            raise ProbeError(
                f"profile.nodes is {profile.nodes}: give the command that trains on all of them, "
                "and start it on the other nodes as well"
            )
        return reference(task, task.processes), reference(task, 1)
    command = list(wish.command)
    if wish.single:
        return command, list(wish.single)
    if profile.nodes * task.processes == 1:
        return command, command
    return command, [] if profile.nodes > 1 else alone(command)


def reference(task: Task, processes: int) -> list[str]:
    """The reference job with its own options, in the job's interpreter."""
    return [
        task.python, "-m", "torch.distributed.run", "--standalone",
        f"--nproc_per_node={processes}", str(BARE), "dvfd.drills.reference_job",
        f"--backend={task.config.profile.backend}",
    ]  # fmt: skip


def alone(command: Sequence[str]) -> list[str]:
    """*command* with one process in place of several; nothing if it does not say how many."""
    found, tool = list(command), Path(command[0]).name
    for at, word in enumerate(command):
        name, equals, _ = word.partition("=")
        if not RANKS.fullmatch(name) and word not in MPIRUN.get(tool, ()):
            continue
        if equals:
            found[at] = f"{name}=1"
        elif at + 1 < len(found):
            found[at + 1] = "1"
        return found
    return []


def _counted(numbers: set[int]) -> str:
    return " and ".join(f"{number} process{'es' * (number > 1)}" for number in sorted(numbers))


# --- Doing it -------------------------------------------------------------------------------------


def measure(task: Task, wish: Wish) -> Found:
    """All of it. Raises DvfdError if there is no throughput to be had."""
    command, one = commands(task, wish)
    figures: dict[str, Any] = {}
    ill: list[str] = []
    left_out: list[str] = []
    for name, look in _node(task):
        task.say(name)
        try:
            figures |= look(ill)
        except DvfdError as error:
            left_out.append(f"{name}: {error}")
        if ill:
            return Found(figures=figures, ill=tuple(ill), left_out=tuple(left_out))
    world = task.config.profile.nodes * task.processes
    task.say("training")
    throughput = trial(task, command, seconds=wish.seconds, processes=world, here=task.processes)
    single = None
    try:
        single = throughput if one == command else _single(task, one, wish)
    except DvfdError as error:
        left_out.append(f"one process: {error}")
    return Found(throughput, single, figures, (), tuple(left_out))


def _single(task: Task, command: Sequence[str], wish: Wish) -> Throughput:
    if not command:
        raise ProbeError("the command does not say how many processes: give --single COMMAND")
    task.say("training with one process")
    return trial(task, command, seconds=wish.seconds, processes=1, here=1)


Look = Callable[[list[str]], dict[str, Any]]


def _node(task: Task) -> Iterator[tuple[str, Look]]:
    """What is measured of the node itself; each adds what is ill."""
    yield "cores", lambda ill: {"core": _cores(task, ill)}
    if task.processes > 1:
        yield "all-reduce", lambda ill: {"allreduce": _all_reduce(task, ill)}
    yield "memory", lambda _ill: {"memory": [asdict(row) for row in bandwidth.measure(task)]}


def _cores(task: Task, ill: list[str]) -> list[dict[str, Any]]:
    answers = known_answers.measure(task)
    for core in answers:
        ill += [f"processor {core.cpu}: {failure}" for failure in core.failures]
    return [{"cpu": core.cpu, "seconds": core.seconds} for core in answers if core.seconds]


def _all_reduce(task: Task, ill: list[str]) -> list[dict[str, Any]]:
    found = collectives.benchmark(task, ranks=task.processes, messages=MESSAGES)
    if found.failures or found.ended:
        words = [collectives.told(failure) for failure in found.failures[:1]]
        raise ProbeError("; ".join(filter(None, (found.ended, *words))))
    for each in found.measured:
        if each.wrong:
            wrong = f"{each.wrong} of {each.verified} sums are wrong; {each.example}"
            ill.append(f"all-reduce of {each.message}: {wrong}")
    kept = ("message", "bytes", "iterations", "median", "low", "high", "p95", "p99", "busbw")
    return [{key: getattr(each, key) for key in kept} for each in found.measured]


def duration(planned: Sequence[Step]) -> float:
    """Seconds of all, about, rounded up to ten."""
    return math.ceil((sum(step.seconds for step in planned) + GRACE / 4) / 10) * 10.0

"""What mpirun and torchrun give to the ranks that they start: both are started, on small children.

In the environment of the person who runs the check, which is what a job of theirs would have.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import interpreter, openmpi
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.interface import Interface, interfaces
from dvfd.drills.interpreter import BARE, ended, last_words, read_answer
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.drills.drill import Task
    from dvfd.shell import Output

CORRECT = "environment_correct"

WORKER = "dvfd.drills.workers.launched"

STARTING = 60.0
"""Seconds for mpirun and its children: 0.1 here; it looks for its own node's name first."""

AROUND = ("OMPI_COMM_", "OMPI_UNIV", "SLURM_")
"""Variables of what we run in: in a step of Slurm mpirun takes that for its nodes, not --host."""

ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
"""Open MPI refuses to run as root without both."""

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Launched:
    """What one process that a launcher started was given."""

    environment: Mapping[str, str]
    processors: frozenset[int]  # by its affinity
    cgroup: str  # the text of its /proc/self/cgroup
    master: str = ""  # why the master's address does not resolve
    threads: int | None = None  # of torch; None if it was not asked, or could not say
    trouble: str = ""  # why it could not


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes that answered, and how the launcher itself failed, if it did."""

    ranks: tuple[Launched, ...]
    failed: str = ""

    @property
    def by_rank(self) -> dict[int, Launched]:
        """Those of torchrun whose rank is a number, by it."""
        numbered = [(number(r.environment.get("RANK")), r) for r in self.ranks]
        return {n: rank for n, rank in sorted(numbered, key=_first) if n is not None}


def _first(pair: tuple[int | None, Launched]) -> int:
    return -1 if pair[0] is None else pair[0]


def number(text: str | None) -> int | None:
    """A whole number, None for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


# --- Starting -------------------------------------------------------------------------------------


def mpirun(task: Task) -> Launch:
    """Start mpirun on as many children as the node has ranks. Raises ToolError."""
    place = Path(tempfile.mkdtemp(dir=task.scratch))
    count = task.processes
    child = [sys.executable, str(BARE), WORKER, str(place)]
    # As many slots as ranks, whatever the cores: the universe is the number of slots.
    command = ["mpirun", "--host", f"localhost:{count}", "--bind-to", "none", "-n", str(count)]
    ours = {k: v for k, v in os.environ.items() if not k.startswith(AROUND)}
    env = ours | (ROOT if os.geteuid() == 0 else {})
    output = task.run([*command, *child], timeout=STARTING, env=env)
    return _launch(place, f"{ended(output.code)}: {_framed(output)}" if output.code else "")


def torchrun(task: Task) -> Launch:
    """Start torchrun on as many children as the node has ranks, once for all that ask.

    Raises ToolError.
    """
    return task.memo.get(("torchrun", task.python), lambda: _torchrun(task), task.clock)


def _torchrun(task: Task) -> Launch:
    place = Path(tempfile.mkdtemp(dir=task.scratch))
    command = [
        task.python, "-m", "torch.distributed.run",
        "--nnodes=1", f"--nproc_per_node={task.processes}", "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0", "--max-restarts=0",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k not in TORCHRUN}
    limit = 2 * interpreter.LOADING  # the launcher loads torch, then the ranks do
    output = task.run([*command, str(BARE), WORKER, str(place), "torch"], timeout=limit, env=env)
    return _launch(place, _failure(output) if output.code else "")


def _launch(place: Path, failed: str) -> Launch:
    return Launch(tuple(_launched(path) for path in sorted(place.glob("[0-9]*.json"))), failed)


def _framed(output: Output) -> str:
    """What mpirun says in its first frame of dashes: that is the cause, the rest follows of it."""
    frames = re.split(r"^-{20,}$", output.stderr, flags=re.MULTILINE)
    text = " ".join(frames[1].split()) if len(frames) > 1 else ""
    return text[:400] or last_words(output)


def _failure(output: Output) -> str:
    """torchrun ends with a frame around what it saw: the first exit code of a child says most."""
    lines = (line.strip() for line in output.stderr.splitlines())
    said = next((line for line in lines if line.startswith("exitcode") and ": 0" not in line), "")
    return f"{last_words(output)}; {said}" if said else last_words(output)


def _launched(path: Path) -> Launched:
    said = read_answer(path)
    try:
        return Launched(
            environment={str(k): str(v) for k, v in said["environment"].items()},
            processors=frozenset(map(int, said["processors"])),
            cgroup=str(said["cgroup"]),
            master=str(said["master"]),
            threads=_threads(said),
            trouble=str(said.get("trouble", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"{path.name}: a child's answer lacks something: {error!r}") from None


def _threads(said: Mapping[str, Any]) -> int | None:
    return int(said["threads"]) if "threads" in said else None


# --- What is wrong --------------------------------------------------------------------------------


def differ(ranks: Sequence[Launched], name: str, wanted: int) -> list[str]:
    """What is wrong with a number that all ranks should have alike."""
    values = sorted({r.environment.get(name, "not set") for r in ranks} - {str(wanted)})
    return [f"{name} is {' and '.join(values)}, wanted {wanted}"] if values else []


def incomplete(ranks: Sequence[Launched], name: str, wanted: int) -> list[str]:
    """What is wrong with a number that must be 0 to *wanted* - 1, each once."""
    values = sorted(r.environment.get(name, "not set") for r in ranks)
    complete = sorted(map(str, range(wanted)))
    return (
        [] if values == complete else [f"{name} is {', '.join(values)}, wanted 0 to {wanted - 1}"]
    )


def answered(ranks: Sequence[Launched], wanted: int) -> list[str]:
    """Whether all processes came to say anything."""
    return [] if len(ranks) == wanted else [f"{len(ranks)} of {wanted} processes answered"]


def mpi_faults(ranks: Sequence[Launched], wanted: int) -> list[str]:
    """What is wrong with what mpirun gave."""
    return [
        *answered(ranks, wanted),
        *differ(ranks, "OMPI_UNIVERSE_SIZE", wanted),
        *differ(ranks, "OMPI_COMM_WORLD_SIZE", wanted),
        *incomplete(ranks, "OMPI_COMM_WORLD_RANK", wanted),
    ]


def torch_faults(ranks: Sequence[Launched], wanted: int) -> list[str]:
    """What is wrong with what torchrun gave to the ranks of one node."""
    return [
        *answered(ranks, wanted),
        *differ(ranks, "WORLD_SIZE", wanted),
        *differ(ranks, "LOCAL_WORLD_SIZE", wanted),
        *incomplete(ranks, "RANK", wanted),
        *incomplete(ranks, "LOCAL_RANK", wanted),
        *_rendezvous(ranks),
    ]


def _rendezvous(ranks: Sequence[Launched]) -> list[str]:
    found = []
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        values = sorted({r.environment.get(name, "not set") for r in ranks})
        if len(values) > 1 or "not set" in values:
            found.append(f"{name} is {' and '.join(values)}, wanted one for all")
    ports = {r.environment["MASTER_PORT"] for r in ranks if "MASTER_PORT" in r.environment}
    found += [f"MASTER_PORT is {p!r}: no port" for p in sorted(ports) if number(p) not in PORTS]
    return found + sorted({r.master for r in ranks if r.master})


def unknown_networks(wanted: Sequence[str], there: Mapping[str, Interface]) -> list[str]:
    """What in btl_tcp_if_include is neither an interface nor a network of one."""
    addresses = [a for interface in there.values() for a in interface.addresses]
    return [w for w in wanted if w not in there and not any(_inside(a, w) for a in addresses)]


def _inside(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


# --- Parts ----------------------------------------------------------------------------------------


class Mpirun:
    """OMPI_UNIVERSE_SIZE, the ranks, and the interfaces that MPI is told to take."""

    name = "mpirun"
    metrics = (CORRECT,)

    def __init__(
        self,
        *,
        which: Callable[[str], str | None] = shutil.which,
        there: Callable[[], Mapping[str, Interface]] = interfaces,
    ) -> None:
        self._which = which
        self._there = there

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """One sample, unless the site does without OpenMPI."""
        if not openmpi.wanted(task):
            return
        where = labels(part="mpirun")
        if self._which("mpirun") is None:
            yield from verdict([f"mpirun is not on the PATH: {openmpi.MEND}"], task, where)
            return
        try:
            said = openmpi.version(task, "mpirun")
            yield Fact("mpirun", f"{said}, {self._which('mpirun')}")
            launch = mpirun(task)
            named = unknown_networks(openmpi.tcp_interfaces(task), self._there())
        except DvfdError as error:  # of this launcher only
            yield Trouble(CORRECT, str(error), where)
            return
        if launch.failed:
            yield Trouble(CORRECT, f"mpirun: {launch.failed}", where)
            return
        wrong = mpi_faults(launch.ranks, task.processes)
        wrong += [f"btl_tcp_if_include names {n!r}: no interface or network here" for n in named]
        yield from verdict(wrong, task, where)


class Torchrun:
    """The variables that take the place of MPI's, complete and consistent."""

    name = "torchrun"
    metrics = (CORRECT,)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """One sample."""
        where = labels(part="torchrun")
        try:
            torch = interpreter.torch(task)
            if not torch.version:
                yield from verdict([f"{task.python} has no torch: {interpreter.MEND}"], task, where)
                return
            launch = torchrun(task)
        except DvfdError as error:  # of this launcher only
            yield Trouble(CORRECT, str(error), where)
            return
        yield Fact("torchrun", f"torch {torch.version}, Python {torch.python}, {task.python}")
        if launch.failed and len(launch.ranks) < task.processes:
            yield Trouble(CORRECT, f"torchrun: {launch.failed}", where)
            return
        yield Fact("OMP_NUM_THREADS", threading(launch))
        if launch.failed:
            yield Remark(CORRECT, f"torchrun itself: {launch.failed}", where)
        yield from verdict(torch_faults(launch.ranks, task.processes), task, where)


def threading(launch: Launch) -> str:
    """What OMP_NUM_THREADS is here and in the ranks, in words."""
    ours = os.environ.get("OMP_NUM_THREADS", "not set")
    ranks = sorted({r.environment.get("OMP_NUM_THREADS", "not set") for r in launch.ranks})
    return f"{ours} in this environment, {' and '.join(ranks)} in the ranks"


def verdict(
    wrong: Sequence[str], task: Task, where: tuple[tuple[str, str], ...]
) -> Iterator[Sample | Remark]:
    """A measured yes or no, and every reason for a no."""
    yield Sample(CORRECT, float(not wrong), task.clock.now(), where)
    if wrong:
        yield Remark(CORRECT, "; ".join(wrong), where)

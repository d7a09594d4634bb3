"""torch in the job's interpreter: its version and backends, the processors and threads it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.drills import interpreter, launchers
from dvfd.drills.allotted import allotted
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.version import encode
from dvfd.errors import DvfdError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.drills.drill import Task

VERSION, BACKEND = "software_version", "backend_available"
CORES, THREADS = "torch_visible_cores", "torch_threads_ratio"

GLOO_VERSION = "Gloo cannot be asked which version it is: the torch that carries it is judged"


class TorchInside:
    """The version of torch, and what its distributed package was built with."""

    name = "torch"
    metrics = (VERSION, BACKEND)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Samples of what is there; a torch that is not is a measured 0."""
        package = labels(package="torch")
        yield Trouble(VERSION, GLOO_VERSION, labels(package="gloo"))
        try:
            torch = interpreter.torch(task)
            number = encode(torch.version) if torch.version else 0.0
        except DvfdError as error:  # OpenMPI's version is another's concern
            yield Trouble(VERSION, str(error), package)
            yield Trouble(BACKEND, str(error))
            return
        at = task.clock.now()
        there = torch.backends or {task.config.profile.backend: False, "gloo": False}
        yield Sample(VERSION, number, at, package)
        for backend, has in there.items():
            yield Sample(BACKEND, float(has), at, labels(backend=backend))
        if torch.version:
            yield from _told(task, torch)
        else:
            text = f"{task.python} has no torch: {interpreter.MEND}"
            yield Remark(VERSION, text, package)
            yield Remark(BACKEND, text)


def _told(task: Task, torch: interpreter.Torch) -> Iterator[Remark | Fact]:
    has = [name for name, there in sorted(torch.backends.items()) if there]
    lacks = [name for name, there in sorted(torch.backends.items()) if not there]
    yield Fact("torch", f"{torch.version} in {task.python}, Python {torch.python}")
    yield Fact(
        "backends", f"{', '.join(has) or 'none'}; not built in: {', '.join(lacks) or 'none'}"
    )
    for name in lacks:
        text = f"torch {torch.version} was built without {name}: {interpreter.MEND}"
        yield Remark(BACKEND, text, labels(backend=name))


class VisibleCores:
    """Processors that the job's interpreter sees, whatever of them it may use."""

    name = "cores"
    metrics = (CORES,)

    def run(self, task: Task) -> Iterator[Sample | Remark]:
        """One sample. Raises ToolError, ProbeError."""
        torch = interpreter.torch(task)
        yield Sample(CORES, float(torch.processors), task.clock.now())
        if torch.usable < torch.processors:
            yield Remark(CORES, f"its affinity allows {torch.usable} of {torch.processors} of them")


class Threads:
    """The threads of each rank that torchrun starts, over the cores that are its own."""

    name = "threads"
    metrics = (THREADS,)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """A sample for each rank. Raises ToolError, ProbeError."""
        torch = interpreter.torch(task)
        if not torch.version:
            yield Trouble(THREADS, f"{task.python} has no torch: {interpreter.MEND}")
            return
        launch = launchers.torchrun(task)
        cores = allotted(task, launch)
        for rank in range(task.processes):
            yield from _rank(task, launch, rank, cores.get(rank, 0.0))
        yield Fact("OMP_NUM_THREADS", launchers.threading(launch))


def _rank(
    task: Task, launch: launchers.Launch, rank: int, cores: float
) -> Iterator[Sample | Remark | Trouble]:
    where = labels(rank=rank)
    found = launch.by_rank.get(rank)
    if found is None or not found.threads or not cores:
        why = found.trouble if found else ""
        yield Trouble(THREADS, why or launch.failed or "the rank did not say", where)
        return
    yield Sample(THREADS, found.threads / cores, task.clock.now(), where)
    if found.threads < cores:
        text = f"{found.threads} of {cores:g} cores: export OMP_NUM_THREADS={int(cores)}"
        yield Remark(THREADS, text, where)

"""Hardware item 2: every rank's memory, all at once: taken, written, held and read back.

It takes only what is free with a margin, its children are the first that the kernel kills, and it
refuses beside a training job. What cannot fit is not tried: nothing was allocated is then measured.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING

from dvfd.drills import crew, room
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.numa import pages
from dvfd.drills.processors import listed
from dvfd.drills.training import unseen
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dvfd.drills.drill import Task
    from dvfd.drills.room import Room
    from dvfd.model import Labels

BYTES, INCIDENTS = "hardware_allocated_bytes", "hardware_memory_incidents"

MARGIN = 0.1
"""Share of what is free that stays free: procedures of the framework, 1."""

FLOOR = MARGIN / 2
"""Share of what was free at first below which the ranks stop: others take memory meanwhile."""

HOLD = 10.0
"""Seconds that all hold it: procedures of the framework, 1."""

SHORT_HOLD = 1.0
"""The same without soak."""

SLOWEST = 0.2e9
"""Bytes a second in all: what is slower has hung. First touches take long, 0.4 GB/s where a
virtual machine's host has yet to find the pages; this is half of it."""

SHORT = 10 * SLOWEST
"""Bytes in all up to which it is done without soak too: seconds."""

SCATTERED = 0.01
"""Share of a rank's memory from which on a second node is told; less is the interpreter's."""

NO_MEMORY = os.strerror(errno.ENOMEM)
"""How a rank says that the kernel refused."""

KILLED = "killed"

GB = 1e9


class Allocation:
    """Every rank the bytes of `memory_rank`, and more if `memory_total` needs more."""

    name = "memory"
    metrics = (BYTES, INCIDENTS)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Raises ToolError if the children hang, ProbeError if what is free cannot be seen."""
        if task.training and not task.options.force:
            yield from _left_out(f"a training job runs: {task.training}; --force takes it anyway")
            return
        each = wanted(task)
        free = room.narrowest(task.proc, task.sys, ranks=task.processes)
        if others := unseen(task.proc):
            yield Remark(BYTES, f"pid {listed(others)}: not ours to look into: does one train?")
        yield Fact("memory", f"{_gb(each)} for each of {task.processes} ranks; free: {free}")
        if each * task.processes > free.bytes * (1 - MARGIN):
            yield from _insufficient(task, each, free)
        elif not task.options.soak and each * task.processes > SHORT:
            longest = seconds(each * task.processes / SLOWEST)
            why = f"{_gb(each * task.processes)} may take {longest}"
            yield from _left_out(f"left out: --no-soak, and {why}")
        else:
            yield from _allocate(task, each, free)


def wanted(task: Task) -> int:
    """Bytes for each rank. Raises ProbeError if the criteria have no limit."""
    rank, total = task.limit("memory_rank"), task.limit("memory_total")
    if rank is None or total is None:
        raise ProbeError("memory_rank or memory_total has no limit: how much to allocate?")
    return math.ceil(max(rank, total / task.processes))


def _left_out(why: str) -> Iterator[Trouble]:
    for metric in Allocation.metrics:
        yield Trouble(metric, why)


def _insufficient(task: Task, each: int, free: Room) -> Iterator[Sample | Remark | Trouble]:
    why = (
        f"insufficient: needs {_gb(each * task.processes)}, free are {free}, of which"
        f" {MARGIN:.0%} must stay free: nothing was allocated"
    )
    for rank in range(task.processes):
        yield Sample(BYTES, 0.0, task.clock.now(), labels(rank=rank))
    yield Remark(BYTES, why)
    yield Trouble(INCIDENTS, why)


# --- Doing it ---------------------------------------------------------------------------------


def _allocate(task: Task, each: int, free: Room) -> Iterator[Sample | Remark | Trouble | Fact]:
    hold = HOLD if task.options.soak else SHORT_HOLD
    before = room.harm(task.proc, task.sys)
    answer = crew.muster(
        task,
        size=each,
        hold=hold,
        floor=int(free.bytes * FLOOR),
        timeout=crew.PATIENCE + hold + each * task.processes / SLOWEST,
        on_line=_progress(task, each),
    )
    kills, swapped = room.harm(task.proc, task.sys).since(before)
    yield from _held(task, answer, kills)
    yield from _incidents(task, answer, kills, swapped)
    if answer.seconds:
        yield Fact("memory speed", _speed(answer, each * task.processes))
    if hold < HOLD:
        yield Remark(BYTES, f"held for {hold:g} s instead of {HOLD:g}: --no-soak")


def _progress(task: Task, each: int) -> Callable[[str], None]:
    """Tell a person about every tenth of the way."""
    told = -1

    def tell(line: str) -> None:
        nonlocal told
        word, _, number = line.partition(" ")
        if word != "wrote":
            return
        tenth = int(number) * 10 // max(each, 1)
        if tenth != told:
            told = tenth
            task.say(f"memory: {_gb(int(number))} of {_gb(each)} written in each rank")

    return tell


def _held(
    task: Task, answer: crew.Answer, kills: float | None
) -> Iterator[Sample | Remark | Trouble]:
    """Bytes of each rank; where the ranks stopped early, only of those that could not get it."""
    at = task.clock.now()
    for rank, held in enumerate(answer.held):
        where = labels(rank=rank)
        if not answer.lost:
            yield Sample(BYTES, float(held.wrote), at, where)
            yield from _scattered(rank, answer, where)
        elif held.ended and (NO_MEMORY in held.ended or (held.ended == KILLED and kills)):
            yield Sample(BYTES, 0.0, at, where)
            yield Remark(BYTES, f"rank {rank}: {held.ended} after {_gb(held.wrote)}", where)
    if answer.lost:
        yield Trouble(BYTES, _why(answer))


def _scattered(rank: int, answer: crew.Answer, where: Labels) -> Iterator[Remark]:
    """Tell where a rank's node had not room enough: the kernel then goes to the next."""
    placed = pages(str(answer.ranks[rank].get("numa_maps", "")))
    if sum(size >= SCATTERED * sum(placed.values()) for size in placed.values()) > 1:
        each = ", ".join(
            f"{_gb(size)} on NUMA node {node}" for node, size in sorted(placed.items())
        )
        yield Remark(BYTES, f"rank {rank}: {each}", where)


def _incidents(
    task: Task, answer: crew.Answer, kills: float | None, swapped: float | None
) -> Iterator[Sample | Trouble]:
    """Of each kind that was counted to the end; the trouble keeps the rest from passing."""
    wrong = sum(held.wrong or 0 for held in answer.held)
    counts = {"oom_kill": kills, "swap_in": swapped, "wrong_page": float(wrong)}
    for kind, count in counts.items():
        if count is None:
            yield Trouble(INCIDENTS, f"{kind}: not counted by this kernel", labels(kind=kind))
        else:
            yield Sample(INCIDENTS, count, task.clock.now(), labels(kind=kind))
    if answer.lost:
        yield Trouble(INCIDENTS, _why(answer))


# --- Words ------------------------------------------------------------------------------------


def _why(answer: crew.Answer) -> str:
    """Why the ranks stopped early, and who began it."""
    ended = [
        f"rank {rank}: {held.ended} after it wrote {_gb(held.wrote)}"
        for rank, held in enumerate(answer.held)
        if held.ended
    ]
    return f"all ranks stopped: {', '.join(ended) or answer.lost}"


def _speed(answer: crew.Answer, total: int) -> str:
    first, back = (_rate(total, answer.seconds.get(name, 0.0)) for name in ("write", "read"))
    return f"first touch {first}, read back {back}, all ranks together"


def _rate(total: int, seconds: float) -> str:
    return f"{total / seconds / GB:.3g} GB/s" if seconds else "not timed"


def _gb(size: float) -> str:
    return f"{size / GB:.4g} GB"

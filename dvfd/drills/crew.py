"""The ranks of this node as the kernel sees them: a running job's, else children in their place.

A job's ranks are only looked at. Children are bound as `profile.rank_cores` says and otherwise left
unbound, as a plain torchrun leaves its ranks.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.drills.interpreter import BARE, last_words, read_answer
from dvfd.drills.processors import listed
from dvfd.drills.topology import cpus
from dvfd.drills.training import training, words
from dvfd.errors import ProbeError
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dvfd.drills.drill import Task
    from dvfd.drills.training import Rank

PATIENCE = 60.0
"""Seconds for children to start, answer and end on a busy node; measured: 0.3 for four."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One rank: what /proc/PID says, as it stands there."""

    rank: int
    pid: int  # 0 for a child of ours, which has ended by now
    status: str
    stat: str
    cgroup: str
    numa_maps: str

    @property
    def who(self) -> str:
        """The rank, and where it can be looked up."""
        return f"rank {self.rank} (pid {self.pid})" if self.pid else f"rank {self.rank}"


@dataclass(frozen=True, slots=True)
class Look:
    """All ranks of the node, and which they are, in words."""

    ranks: tuple[Seen, ...]
    whose: str


@dataclass(frozen=True, slots=True)
class Held:
    """What came of one child's memory, in bytes and pages."""

    wrote: int
    wrong: int | None  # None if it was not read back to the end
    ended: str  # `killed`, or its own words; empty if it saw the end


@dataclass(frozen=True, slots=True)
class Answer:
    """What a crew of children brought back. `lost` says why it stopped early."""

    ranks: tuple[Mapping[str, Any], ...]
    held: tuple[Held, ...]
    seconds: Mapping[str, float]
    lost: str


def look(task: Task, *, touch: int = 0) -> Look:
    """Look at the ranks of the job that runs here, else at children holding *touch* bytes each.

    Raises ProbeError if a job's ranks are not those that the profile announces, or cannot be read.
    """
    if found := training(task.proc):
        return _job(task, found)
    answer = muster(task, size=touch)
    if answer.lost:
        raise ProbeError(f"children in the place of ranks: {answer.lost}")
    ranks = (
        Seen(number, 0, *(_text(said, name) for name in ("status", "stat", "cgroup", "numa_maps")))
        for number, said in enumerate(answer.ranks)
    )
    bound = task.config.profile.rank_cores
    how = f"bound as profile.rank_cores says ({'; '.join(bound)})" if bound else "not bound"
    return Look(tuple(ranks), f"{task.processes} children in the place of ranks, {how}")


def _job(task: Task, found: Sequence[Rank]) -> Look:
    twice = [rank for rank, count in Counter(r.rank for r in found).items() if count > 1]
    if twice or len(found) != task.processes:
        raise ProbeError(
            f"found {words(found)}; the profile announces {task.processes} ranks of one job here:"
            " set profile.processes_per_node, or let one job run at a time"
        )
    return Look(tuple(_seen(task.proc, rank) for rank in found), words(found))


def _seen(proc: Path, rank: Rank) -> Seen:
    place = proc / str(rank.pid)
    return Seen(
        rank.rank,
        rank.pid,
        files.text(place / "status"),
        files.text(place / "stat"),
        files.text_or(place / "cgroup"),
        files.text_or(place / "numa_maps"),
    )


def muster(
    task: Task,
    *,
    size: int = 0,
    hold: float = 0.0,
    floor: int = 0,
    timeout: float = PATIENCE,
    on_line: Callable[[str], None] | None = None,
) -> Answer:
    """Start a child for each rank, all in step, each with *size* bytes held for *hold* seconds.

    They stop when less than *floor* bytes of the node's memory are left. Raises ToolError,
    ToolTimeout, ProbeError; none is left running.
    """
    plan, answer = task.scratch / "crew-plan.json", task.scratch / "crew.json"
    answer.unlink(missing_ok=True)
    ranks = bindings(task)
    document = {"ranks": ranks, "bytes": size, "hold": hold, "floor": floor, "answer": str(answer)}
    plan.write_text(json.dumps(document))
    output = task.run(
        [sys.executable, str(BARE), "dvfd.drills.workers.crew", str(plan)],
        timeout=timeout,
        on_line=on_line,
    )
    if output.code:
        raise ProbeError(f"children in the place of ranks: {last_words(output)}")
    return _answer(read_answer(answer), len(ranks))


def bindings(task: Task) -> list[list[int] | None]:
    """The processors of each child, None where it is not bound. Raises ProbeError."""
    lists = task.config.profile.rank_cores
    if not lists:
        return [None] * task.processes
    online = cpus(files.text(task.sys / "devices/system/cpu/online"))
    for rank, text in enumerate(lists):
        if absent := cpus(text) - online:
            raise ProbeError(
                f"profile.rank_cores gives rank {rank} processors {text}: {listed(absent)} not"
                f" online, wanted from {listed(online)}"
            )
    return [sorted(cpus(text)) for text in lists]


def _answer(document: Mapping[str, Any], wanted: int) -> Answer:
    """Distrust what a crew wrote. Raises ProbeError."""
    try:
        ranks = tuple(document["ranks"])
        held = tuple(_held(said) for said in ranks)
        seconds = {str(name): _finite(value) for name, value in document["seconds"].items()}
        lost = str(document["lost"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProbeError(f"children in the place of ranks answered {error!r}") from None
    if len(ranks) != wanted and not lost:
        raise ProbeError(f"{len(ranks)} children answered, wanted {wanted}")
    return Answer(ranks, held, seconds, lost)


def _held(said: Mapping[str, Any]) -> Held:
    wrong = said.get("wrong")
    return Held(int(said["wrote"]), None if wrong is None else int(wrong), str(said["ended"]))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _text(said: Mapping[str, Any], name: str) -> str:
    text = said.get(name)
    if not isinstance(text, str):
        raise ProbeError(f"children in the place of ranks: no {name} in their answer")
    return text

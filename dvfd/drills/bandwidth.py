"""The memory bandwidth of this node, by how many processes want it at once. Asks a worker."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import processors
from dvfd.drills.collectives import median_interval
from dvfd.drills.interpreter import BARE, LOADING, last_words, read_answer
from dvfd.errors import ProbeError, ToolError
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dvfd.drills.drill import Task

WORKER = "dvfd.drills.workers.bandwidth"

TIMES = 4
"""Each array is so many times the last-level caches together: STREAM's rule."""

SHARE = 8
"""Three arrays may take one in so many bytes of what is available."""

USUAL = 64 << 20
"""Bytes of last-level cache where sysfs shows none, as in some virtual machines."""

ROUNDS = 10

WORKING = 300.0
"""Seconds for all rounds: 20 here, more where caches and so arrays are large."""

UNITS = {"K": 1 << 10, "M": 1 << 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """Bytes a second with *ranks* processes at once; `low` and `high` bound the median."""

    operation: str
    ranks: int
    median: float
    low: float
    high: float
    best: float  # what STREAM reports
    array_bytes: int  # of each of the three arrays, all ranks together


def measure(task: Task) -> list[Bandwidth]:
    """Of one process and of as many as the node has ranks. Raises ToolError, ProbeError."""
    place = Path(tempfile.mkdtemp(dir=task.scratch))
    counts = sorted({1, task.processes})
    answer, plan = place / "answer.json", place / "plan.json"
    asked = {
        "answer": str(answer),
        "ranks": counts,
        "elements": array(task.proc, task.sys) // 8,
        "rounds": ROUNDS,
        "pins": [sorted(files.cpus(cores)) for cores in task.config.profile.rank_cores],
    }
    plan.write_text(json.dumps(asked), encoding="utf-8")
    argv = [task.python, str(BARE), WORKER, str(plan)]
    env = processors.alone()
    output = task.run(argv, timeout=LOADING + WORKING, env=env, on_line=task.say)
    if output.code:
        raise ToolError(f"memory bandwidth: {last_words(output)}")
    return read(read_answer(answer), counts)


def read(said: Mapping[str, Any], counts: Sequence[int]) -> list[Bandwidth]:
    """What the worker wrote. Raises ProbeError if that is not it."""
    try:
        found = [_row(row) for row in said["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"memory bandwidth: {error!r}: wanted what the worker writes") from None
    seen = {(each.operation, each.ranks) for each in found}
    if seen != {(kernel, count) for kernel in ("copy", "triad") for count in counts}:
        raise ProbeError(f"memory bandwidth: the worker measured {sorted(seen)}")
    return found


def _row(row: Mapping[str, Any]) -> Bandwidth:
    times = [int(each) / 1e9 for each in row["nanoseconds"]]
    if len(times) != ROUNDS or min(times) <= 0:
        raise ValueError(f"rounds took {times} s, wanted {ROUNDS} of them")
    rates = [row["bytes"] / each for each in times]
    low, high = median_interval(rates)
    arrays = 2 if row["operation"] == "copy" else 3
    return Bandwidth(
        operation=str(row["operation"]),
        ranks=int(row["ranks"]),
        median=statistics.median(rates),
        low=low,
        high=high,
        best=max(rates),
        array_bytes=int(row["bytes"]) // arrays,
    )


def array(proc: Path, sys: Path) -> int:
    """Bytes of each array. Raises ProbeError if memory does not leave room for one that is larger
    than the caches.
    """
    cache = last_level(sys) or USUAL
    found = re.search(r"^MemAvailable:\s*(\d+) kB", files.text(proc / "meminfo"), re.MULTILINE)
    if not found:
        raise ProbeError(f"{proc}/meminfo: no MemAvailable")
    room = int(found[1]) * 1024 // SHARE // 3
    if room < cache:
        raise ProbeError(
            f"memory bandwidth: arrays of {room} bytes would fit the caches, {cache} bytes: free "
            "some memory"
        )
    return min(TIMES * cache, room)


def last_level(sys: Path) -> int:
    """Bytes of all last-level caches together; 0 where sysfs shows none."""
    caches: dict[tuple[int, str], int] = {}
    base = sys / "devices/system/cpu"
    for cpu in files.names(base, r"cpu\d+"):
        for index in files.names(base / cpu / "cache", r"index\d+"):
            place = base / cpu / "cache" / index
            size = re.fullmatch(r"(\d+)([KM])", files.text_or(place / "size"))
            if size and files.text_or(place / "type") in {"Unified", "Data"}:
                level = int(files.text_or(place / "level", "0"))
                shared = files.text_or(place / "shared_cpu_list", cpu)
                caches[level, shared] = int(size[1]) * UNITS[size[2]]
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last)

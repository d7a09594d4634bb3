"""How much memory may be taken here without harm, and what was harmed. Reads, never allocates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.probes import cgroups, files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KB = 1024

STRICT = "2"
"""vm.overcommit_memory under which promises are counted, not only pages: proc(5)."""

GB = 1e9


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that one bound leaves for all ranks together."""

    bytes: float
    bound: str

    def __str__(self) -> str:
        return f"{self.bytes / GB:.4g} GB ({self.bound})"


@dataclass(frozen=True, slots=True)
class Harm:
    """Counters that a want of memory moves."""

    kills: Mapping[str, float]  # by what counts them: the node, and each control group of ours
    swapped_in: float | None  # pages; None where the kernel does not tell

    def since(self, before: Harm) -> tuple[float | None, float | None]:
        """Kills and pages swapped in meanwhile, None where nothing counted them both times.

        Several counters may count the same kill, so the largest difference stands.
        """
        both = self.kills.keys() & before.kills.keys()
        kills = max((self.kills[name] - before.kills[name] for name in both), default=None)
        if self.swapped_in is None or before.swapped_in is None:
            return kills, None
        return kills, self.swapped_in - before.swapped_in


def narrowest(proc: Path, sys: Path, *, ranks: int) -> Room:
    """The bound that leaves least. Raises ProbeError if one cannot be seen."""
    membership = files.text_or(proc / "self/cgroup")
    if why := cgroups.hidden(membership, sys, "memory"):
        raise ProbeError(f"how much memory may be taken: {why}")
    rooms = [*_node(proc), *_process(proc, ranks)]
    for group, left in cgroups.room(membership, sys).items():
        rooms.append(Room(left, f"the limit of control group {group}"))
    return min(rooms, key=lambda room: room.bytes)


def _node(proc: Path) -> Iterator[Room]:
    text = files.text(proc / "meminfo")
    yield Room(_meminfo(text, "MemAvailable"), "MemAvailable")
    if files.text_or(proc / "sys/vm/overcommit_memory") == STRICT:
        promised = _meminfo(text, "CommitLimit") - _meminfo(text, "Committed_AS")
        yield Room(promised, "CommitLimit: vm.overcommit_memory is 2")


def _meminfo(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    if not found:
        raise ProbeError(f"/proc/meminfo: no {name}, wanted to know how much memory may be taken")
    return float(found[1]) * KB


def _process(proc: Path, ranks: int) -> Iterator[Room]:
    """Limits of one process, as bytes for all ranks."""
    text = files.text(proc / "self/limits")
    for name, limit in (("address space", "RLIMIT_AS"), ("data size", "RLIMIT_DATA")):
        found = re.search(rf"^Max {name}\s+(\S+)", text, re.MULTILINE)
        if not found:
            raise ProbeError(f"/proc/self/limits: read {text[:40]!r}, wanted Max {name}")
        each = math.inf if found[1] == "unlimited" else float(found[1])
        yield Room(each * ranks, f"{limit} of each process")


def harm(proc: Path, sys: Path) -> Harm:
    """The counters now. A kernel without swapping has no count of it, and nothing to count."""
    text = files.text_or(proc / "vmstat")
    kills = cgroups.kills(files.text_or(proc / "self/cgroup"), sys)
    of_node, swapped_in = _vmstat(text, "oom_kill"), _vmstat(text, "pswpin")
    if of_node is not None:
        kills["node"] = of_node
    return Harm(kills, swapped_in if swapped_in is not None or not text else 0.0)


def _vmstat(text: str, name: str) -> float | None:
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return float(found[1]) if found else None

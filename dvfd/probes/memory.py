"""How full the memory of each NUMA node is. Page cache that can be dropped counts as free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Memory:
    """node_memory_used_ratio of every NUMA node that has memory."""

    name = "memory"
    metrics = ("node_memory_used_ratio",)
    deadline = 0.0

    def __init__(
        self, *, proc: Path = Path("/proc"), sys: Path = Path("/sys"), interval: float = 5.0
    ) -> None:
        self.interval = interval
        self._proc = proc
        self._sys = sys

    def sample(self, at: float) -> Iterator[Sample]:
        """One sample for each node. Raises ProbeError, after the rest, if one cannot be read."""
        problems: list[str] = []
        for node, path in self._places():
            try:
                ratio = used_ratio(fields(files.text(path)))
            except ProbeError as error:
                problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                continue
            if ratio is not None:
                yield Sample("node_memory_used_ratio", ratio, at, labels(numa_node=node))
        files.raise_all(problems)

    def _places(self) -> list[tuple[str, Path]]:
        """Each node's number and meminfo.

        A kernel without NUMA has devices/system/cpu but no devices/system/node: the machine is
        then one node, and /proc/meminfo is its. Without either, sysfs itself is hidden.
        """
        system = self._sys / "devices/system"
        nodes = files.names(system / "node", r"node\d+")
        if nodes:
            return [
                (node.removeprefix("node"), system / "node" / node / "meminfo") for node in nodes
            ]
        if (system / "cpu").is_dir() and not (system / "node").exists():
            return [("0", self._proc / "meminfo")]
        raise ProbeError(f"{system}/node: no node in it: is sysfs hidden from the daemon?")


def fields(meminfo: str) -> dict[str, int]:
    """Sizes by name, in kB, from a meminfo of a node (`Node 0 MemTotal: 1 kB`) or of /proc."""
    found: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, value = line.rpartition(":")
        amount = value.split()
        if name and amount and amount[0].isdigit():
            found[name.split()[-1]] = int(amount[0])
    return found


def used_ratio(sizes: Mapping[str, int]) -> float | None:
    """(MemTotal - MemFree - FilePages + Shmem - SReclaimable) / MemTotal; None without memory.

    /proc/meminfo has no FilePages: there it is Cached + Buffers + SwapCached, by the kernel's
    fs/proc/meminfo.c. Raises ProbeError naming what is missing.
    """
    if "FilePages" not in sizes and "Cached" in sizes:
        cache = sizes["Cached"] + sizes.get("Buffers", 0) + sizes.get("SwapCached", 0)
        sizes = {**sizes, "FilePages": cache}
    wanted = ("MemTotal", "MemFree", "FilePages", "Shmem", "SReclaimable")
    missing = [name for name in wanted if name not in sizes]
    if missing:
        raise ProbeError(f"meminfo has no {', '.join(missing)}")
    total, free, cache, shared, slab = (sizes[name] for name in wanted)
    return (total - free - cache + shared - slab) / total if total else None

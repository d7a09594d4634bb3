"""Hardware item 3: NUMA nodes, the ranks' processors and pages on them, and the cards' nodes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dvfd.drills import crew
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.processors import listed
from dvfd.drills.topology import NumaNode, allowed, homes, nodes, topology
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dvfd.drills.drill import Task

TOUCHED = 64 << 20
"""Bytes that a child holds so that its pages say something: the interpreter's are about 8 MB."""

PROCESSOR = 36
"""The processor last run on, in /proc/PID/stat after the name: field 39 of proc(5)."""

ADVICE = (
    "bind each rank to the processors of one node (numactl --cpunodebind, mpirun --map-by numa) and"
    " say so in profile.rank_cores"
)

GB = 1e9


class Numa:
    """Nodes that have both memory and processors; what the others are is told."""

    name = "NUMA nodes"
    metrics = ("hardware_numa_nodes",)

    def run(self, task: Task) -> Iterator[Sample | Remark | Fact]:
        """Raises ProbeError where sysfs shows no node."""
        found = nodes(task.sys)
        yield Fact("NUMA nodes", "; ".join(map(_described, found)))
        yield from _cards(task)
        whole = sum(node.whole for node in found)
        yield Sample("hardware_numa_nodes", float(whole), task.clock.now())
        if memoryless := [node.number for node in found if not node.bytes]:
            text = f"node {listed(memoryless)} has processors and no memory: is a module missing?"
            yield Remark("hardware_numa_nodes", text)


class RankNuma:
    """Where the ranks and their pages lie. One node passes: nothing can lie on the wrong one."""

    name = "NUMA nodes of the ranks"
    metrics = (
        "hardware_rank_numa_nodes",
        "hardware_local_memory_ratio",
        "hardware_numa_imbalance",
    )

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Raises ProbeError where nodes or ranks cannot be looked at."""
        found = nodes(task.sys)
        seen = crew.look(task, touch=TOUCHED)
        yield Fact("ranks on NUMA nodes", seen.whose)
        yield from _bound(task, found, seen)
        for rank in seen.ranks:
            yield from _local(task, found, rank)
        if len(found) == 1:
            for metric in self.metrics:
                yield Remark(metric, "one NUMA node: nothing can lie on another")


# --- The node ---------------------------------------------------------------------------------


def _cards(task: Task) -> Iterator[Fact]:
    for name in files.names(task.sys / "class/net"):
        device = task.sys / "class/net" / name / "device"
        if device.exists():  # lo and bridges have none
            yield Fact(f"NUMA node of {name}", _card(device))


def _described(node: NumaNode) -> str:
    cpus = f"processors {listed(node.cpus)}" if node.cpus else "no processors (CXL memory?)"
    distances = f", distances {node.distances}" if node.distances else ""
    return f"{node.number}: {cpus}, {node.bytes / GB:.1f} GB{distances}"


def _card(device: Path) -> str:
    """The node of a card, or of what it hangs on: virtio devices have their own below PCI's."""
    text = files.text_or(device / "numa_node") or files.text_or(
        device.resolve().parent / "numa_node"
    )
    return text if text not in {"", "-1"} else "not told by the firmware"


# --- The ranks --------------------------------------------------------------------------------


def _bound(task: Task, found: Sequence[NumaNode], seen: crew.Look) -> Iterator[Sample | Remark]:
    """On how many nodes each rank may run, and how evenly they are spread.

    A rank that may run on several nodes counts on each by its share of processors there.
    """
    at, known = task.clock.now(), topology(task.sys)
    masks = {rank: allowed(rank.status, known) for rank in seen.ranks}
    for rank, mask in masks.items():
        where = labels(rank=rank.rank)
        yield Sample("hardware_rank_numa_nodes", float(len(homes(mask, found))), at, where)
    crowd = {
        n.number: sum(len(m & n.cpus) / len(m) for m in masks.values()) for n in found if n.whole
    }
    if not crowd:
        raise ProbeError("no NUMA node has both memory and processors: nothing to be spread over")
    # Shares such as 3 x 1/3 are whole ranks to within a rounding error.
    uneven = round(max(crowd.values()) - min(crowd.values()), 9)
    yield Sample("hardware_numa_imbalance", uneven, at)
    if uneven:
        spread = ", ".join(f"{count:.3g} on node {number}" for number, count in crowd.items())
        yield Remark("hardware_numa_imbalance", f"ranks: {spread}")
    if loose := [f"{r.who} on {listed(m)}" for r, m in masks.items() if len(homes(m, found)) > 1]:
        yield Remark("hardware_rank_numa_nodes", f"{', '.join(loose)}: {ADVICE}")


def _local(
    task: Task, found: Sequence[NumaNode], rank: crew.Seen
) -> Iterator[Sample | Trouble | Remark]:
    """The share of a rank's own pages on the node that it runs on."""
    metric, where = "hardware_local_memory_ratio", labels(rank=rank.rank)
    held = pages(rank.numa_maps)
    if not held:
        why = "no pages in /proc/PID/numa_maps: run as the job's user or with CAP_SYS_PTRACE"
        yield Trouble(metric, f"{rank.who}: {why}", where)
        return
    (home,) = homes({running_on(rank.stat)}, found)
    ratio = held.get(home, 0) / sum(held.values())
    yield Sample(metric, ratio, task.clock.now(), where)
    if ratio < 1:
        lies = ", ".join(f"{size / GB:.3g} GB on node {n}" for n, size in sorted(held.items()))
        yield Remark(metric, f"{rank.who} runs on node {home} and has {lies}", where)


def pages(numa_maps: str) -> dict[int, int]:
    """Bytes on each node that are the process's own: others may have placed those of files."""
    found: dict[int, int] = {}
    for line in numa_maps.splitlines():
        if " file=" in line:
            continue
        size = re.search(r"kernelpagesize_kB=(\d+)", line)
        for node, count in re.findall(r" N(\d+)=(\d+)", line):
            found[int(node)] = (
                found.get(int(node), 0) + int(count) * int(size[1] if size else 4) * 1024
            )
    return found


def running_on(stat: str) -> int:
    """The processor that a process last ran on. Raises ProbeError."""
    fields = stat.rpartition(")")[2].split()
    try:
        return int(fields[PROCESSOR])
    except (IndexError, ValueError):
        raise ProbeError(f"/proc/PID/stat: read {stat[:40]!r}, wanted a processor") from None

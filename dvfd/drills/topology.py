"""Which processors share a core, a package, a NUMA node: what sysfs says. Judges nothing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.drills.processors import listed
from dvfd.errors import ProbeError
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

HIGHEST = 8191
"""CONFIG_NR_CPUS is at most 8192: a list with more is a slip, and must not fill our memory."""

KB = 1024
"""Node meminfo counts in kB of 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The processors that are online, each with its core and its package.

    A core is named by the lowest processor on it: core ids repeat from one die to the next.
    """

    cores: Mapping[int, int]
    packages: Mapping[int, int]

    @property
    def online(self) -> frozenset[int]:
        """Logical processors that run."""
        return frozenset(self.cores)

    @property
    def threads(self) -> int:
        """Logical processors on the fullest core: more than 1 is SMT."""
        return max(Counter(self.cores.values()).values())

    def physical(self, cpus: Iterable[int]) -> frozenset[int]:
        """The cores that *cpus* lie on; those that are not online lie on none."""
        return frozenset(self.cores[cpu] for cpu in cpus if cpu in self.cores)


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One node of `devices/system/node`; either of processors and memory may be missing."""

    number: int
    cpus: frozenset[int]
    bytes: int
    distances: str

    @property
    def whole(self) -> bool:
        """Whether it has both: CXL memory comes as a node of its own without processors."""
        return bool(self.cpus and self.bytes)


def topology(sys: Path) -> Topology:
    """The cores below *sys*. Raises ProbeError if it does not show them, or contradicts itself."""
    base = sys / "devices/system/cpu"
    cores, packages = {}, {}
    for cpu in sorted(cpus(files.text(base / "online"))):
        place = base / f"cpu{cpu}/topology"
        siblings = cpus(_siblings(place))
        if cpu not in siblings:
            raise ProbeError(f"{place}: processor {cpu} is not among its own siblings")
        cores[cpu] = min(siblings)
        packages[cpu] = files.number(place / "physical_package_id")
    if not cores:
        raise ProbeError(f"{base}/online: names no processor")
    return Topology(cores, packages)


def _siblings(place: Path) -> str:
    """The list of processors on one core, by its name since Linux 5.3 or the one before."""
    return files.text_or(place / "core_cpus_list") or files.text(place / "thread_siblings_list")


def nodes(sys: Path) -> tuple[NumaNode, ...]:
    """Every NUMA node below *sys*, in order.

    Raises ProbeError if there is none: a kernel without NUMA and a container that hides it look
    the same.
    """
    base = sys / "devices/system/node"
    found = tuple(_node(base / name) for name in files.names(base, r"node\d+"))
    if not found:
        raise ProbeError(
            f"{base}: shows no node: the kernel was built without NUMA, or a container hides it"
        )
    return found


def _node(place: Path) -> NumaNode:
    text = files.text(place / "meminfo")
    total = re.search(r"MemTotal:\s*(\d+) kB", text)
    if not total:
        raise ProbeError(f"{place}/meminfo: read {text[:40]!r}, wanted MemTotal")
    return NumaNode(
        int(place.name.removeprefix("node")),
        cpus(files.text(place / "cpulist")),
        int(total[1]) * KB,
        files.text_or(place / "distance"),
    )


def homes(mask: Iterable[int], places: Sequence[NumaNode]) -> frozenset[int]:
    """The nodes that processors lie on. Raises ProbeError if one lies on none."""
    wanted = frozenset(mask)
    lost = wanted.difference(*(node.cpus for node in places))
    if lost:
        raise ProbeError(f"processors {listed(lost)} lie on no NUMA node that sysfs shows")
    return frozenset(node.number for node in places if node.cpus & wanted)


def allowed(status: str, topology: Topology) -> frozenset[int]:
    """Where a process may run, from the text of /proc/PID/status: only what is online.

    A mask without a cpuset names every processor that could ever be plugged in.
    """
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
    if not found:
        raise ProbeError(f"/proc/PID/status: read {status[:40]!r}, wanted Cpus_allowed_list")
    mask = cpus(found[1]) & topology.online
    if not mask:
        raise ProbeError(f"may run on processors {found[1]}, of which none is online")
    return mask


def cpus(text: str) -> frozenset[int]:
    """The numbers in a kernel list. Raises ProbeError if it is none or names what cannot be."""
    if any(int(number) > HIGHEST for number in re.findall(r"\d+", text)):
        raise ProbeError(f"read {text[:40]!r}, wanted processors up to {HIGHEST}")
    return files.cpus(text)

"""Whether the ranks of a node are placed as a run wants: cores of their own, on one NUMA node."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.drills.processors import listed
from dvfd.drills.topology import allowed, homes, nodes, topology
from dvfd.errors import ProbeError
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dvfd.drills.topology import Topology


def misplaced(
    pids: Mapping[int, int], *, proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> tuple[str, ...]:
    """What is wrong with where the ranks may run, by rank and pid; empty if nothing is.

    What cannot be looked at is wrong, too: a binding that nobody saw is none.
    """
    try:
        known = topology(sys)
        masks = {
            rank: allowed(files.text(proc / str(pid) / "status"), known)
            for rank, pid in pids.items()
        }
        found = [*_shared(masks, known), *_split(masks, sys)]
    except ProbeError as error:
        return (f"the binding of the ranks cannot be seen: {error}",)
    return tuple(found)


def _shared(masks: Mapping[int, frozenset[int]], known: Topology) -> Iterator[str]:
    """Ranks that may run on one core; all of them in one line where they share all."""
    cores = {rank: known.physical(mask) for rank, mask in masks.items()}
    if len(cores) > 2 and len(set(cores.values())) == 1:
        yield f"ranks {listed(cores)} may all run on the cores {listed(next(iter(cores.values())))}"
        return
    for one, other in combinations(sorted(cores), 2):
        if both := cores[one] & cores[other]:
            yield f"ranks {one} and {other} may both run on core {listed(both)}"


def _split(masks: Mapping[int, frozenset[int]], sys: Path) -> Iterator[str]:
    places = nodes(sys)
    for rank, mask in sorted(masks.items()):
        if len(on := homes(mask, places)) > 1:
            yield f"rank {rank} may run on the NUMA nodes {listed(on)}"

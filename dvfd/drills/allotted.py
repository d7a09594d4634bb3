"""How many physical cores each rank of a launch has to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.probes import files
from dvfd.probes.cgroups import quotas
from dvfd.probes.cpu import Bounds, allotments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.drills.drill import Task
    from dvfd.drills.launchers import Launch


def allotted(task: Task, launch: Launch) -> dict[int, float]:
    """Cores by rank: those that the profile gives it, else its share of what it may run on.

    Threads of one core count once. A core or a quota that several ranks have is shared evenly.
    Raises ProbeError.
    """
    given = task.config.profile.rank_cores
    bounds = {
        rank: Bounds(
            physical(task, files.cpus(given[rank]) if given else found.processors),
            quotas(found.cgroup, task.sys),
        )
        for rank, found in launch.by_rank.items()
        if rank < task.processes
    }
    return allotments(bounds)


def physical(task: Task, processors: Iterable[int]) -> frozenset[int]:
    """The cores of *processors*, each by the first of its threads; all of them without topology."""
    cpus = task.sys / "devices/system/cpu"
    found = set()
    for cpu in processors:
        siblings = files.text_or(cpus / f"cpu{cpu}/topology/thread_siblings_list", str(cpu))
        found.add(min(files.cpus(siblings), default=cpu))
    return frozenset(found)

"""Which processors a drill may load: those that the profile allots to ranks, else its own.

Processor means logical processor throughout, as the kernel numbers them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dvfd.drills.drill import Task

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""What keeps each library to one thread, so that a pinned process is one busy processor."""


def allotted(task: Task) -> frozenset[int]:
    """Of all ranks together. It may name some that are offline or forbidden: that is to be told."""
    given = task.config.profile.rank_cores
    if given:
        return frozenset().union(*map(files.cpus, given))
    return frozenset(os.sched_getaffinity(0))


def listed(processors: Iterable[int]) -> str:
    """As the kernel writes them: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(processors):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1][1:] = [cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)


def alone() -> Mapping[str, str]:
    """Our environment for a worker that computes with one thread."""
    return {**os.environ, **ONE_THREAD}


def crowding(task: Task) -> str:
    """Why the ranks of this node wait for each other's turns, or an empty string."""
    cores = len(allotted(task))
    if task.processes <= cores:
        return ""
    return f"{task.processes} ranks share {cores} processors: they wait for each other's turns"

"""How fast memory moves, as STREAM counts it: `bare.py dvfd.drills.workers.bandwidth PLAN`.

Several processes at once, each with arrays of its own that it touched first and one thread. A
round lasts from the first that begins it to the last that ends it. Bytes are those that the code
names, 16 an element for a copy and 24 for a triad: what a cache reads to write is not counted.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dvfd.drills.workers.answer import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

WAITING = 60.0
"""Seconds for the others to come: touching a GB takes about one, on a busy machine five."""

SCALAR = 3.0

KERNELS = {"copy": 16, "triad": 24}
"""Bytes an element, all of float64."""

PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Share:
    """What one of the processes is to do: *count* rounds on arrays of *elements*."""

    elements: int
    count: int
    cores: Sequence[int]  # to stay on; none: anywhere
    parent: int


def rounds(ranks: int, shares: Sequence[Share]) -> dict[str, list[int]]:
    """Nanoseconds of each round by kernel. Raises EOFError if one of the processes dies."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(ranks)
    lines = []
    for share in shares:
        ours, theirs = context.Pipe(duplex=False)
        context.Process(target=_work, args=(share, barrier, theirs), daemon=True).start()
        theirs.close()
        lines.append(ours)
    noted = [line.recv() for line in lines]
    return {
        kernel: [
            max(end for _, end in each) - min(begin for begin, _ in each)
            for each in zip(*(note[kernel] for note in noted), strict=True)
        ]
        for kernel in KERNELS
    }


def _work(share: Share, barrier: Barrier, line: Connection) -> None:
    """Be one of the processes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != share.parent:
        return
    if share.cores:
        os.sched_setaffinity(0, share.cores)
    torch.set_num_threads(1)
    size = (share.elements,)
    a, b, c = (torch.full(size, value, dtype=torch.float64) for value in (1.0, 2.0, 0.5))
    noted = {
        "copy": _timed(lambda: c.copy_(b), barrier, share.count),
        "triad": _timed(lambda: torch.add(b, c, alpha=SCALAR, out=a), barrier, share.count),
    }
    if not bool((c == 2.0).all() and (a == 2.0 + SCALAR * 2.0).all()):
        raise ValueError("what was copied and added is not what came out")
    line.send(noted)


def _timed(kernel: Callable[[], object], barrier: Barrier, count: int) -> list[tuple[int, int]]:
    """When each round began and ended here; the first is left out, as STREAM does."""
    noted = []
    for _ in range(count + 1):
        barrier.wait(WAITING)
        began = time.monotonic_ns()
        kernel()
        noted.append((began, time.monotonic_ns()))
    return noted[1:]


def main(path: Path) -> None:
    """Carry out the plan; write the answer."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for ranks in plan["ranks"]:
        elements = plan["elements"] // ranks
        cores = plan["pins"] or [[]] * ranks
        took = rounds(
            ranks, [Share(elements, plan["rounds"], cores[r], os.getpid()) for r in range(ranks)]
        )
        print(f"memory bandwidth: {ranks} at once: done", flush=True)  # noqa: T201  # progress
        for kernel, size in KERNELS.items():
            row = {"operation": kernel, "ranks": ranks, "bytes": size * elements * ranks}
            found.append({**row, "nanoseconds": took[kernel]})
    write(Path(plan["answer"]), {"rows": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

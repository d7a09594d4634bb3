"""What the hardware test's memory item finds, how fast, and what it leaves behind.

A random bit of a block is flipped, or held where it is, and looked for: every trial must find one
wrong page. Ranks with real memory are killed in the middle: nothing of them may be left. And how
fast all ranks together write memory for the first time and read it back, which says how long the
framework's 256 GB take on a machine like this one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.harness import chosen, finish
from bench.record import Figure, at_most, exactly
from dvfd.clock import SystemClock
from dvfd.drills import crew, tree
from dvfd.drills.workers.pattern import Memory

fakes = importlib.import_module("fakes_drills")

SIZE = 16 << 20
"""Bytes in which a bit is looked for: sixteen blocks."""

HELD = 500_000_000
"""Bytes of each rank whose speed is measured."""

TOML = "[profile]\nprocesses_per_node = 2\n"


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    flips = 20 if options.short else 1000
    kills = 2 if options.short else 20
    missed = sum(not _flipped(seed) for seed in range(flips))
    stuck = sum(not _stuck(seed) for seed in range(flips))
    with tempfile.TemporaryDirectory() as place:
        task = fakes.task("hardware", Path(place), toml=TOML, clock=SystemClock(), run=tree.run)
        left, ended = zip(*(_killed(task) for _ in range(kills)), strict=True)
        speeds = crew.muster(task, size=HELD).seconds
    total = 2 * HELD / 1e9
    figures = [
        exactly("flips_missed", f"flipped bits not found, of {flips}", missed, "bits", 0),
        exactly("stuck_missed", f"stuck bits not found, of {flips}", stuck, "bits", 0),
        exactly("left", f"processes left of {kills} killed crews", sum(left), "processes", 0),
        at_most("ended", "from a rank's death to the end of all, worst", max(ended), "s", 5),
        Figure("write", "memory touched first, two ranks", total / speeds["write"], "GB/s"),
        Figure("read", "memory read back, two ranks", total / speeds["read"], "GB/s"),
    ]
    finish("hardware", options, figures, {"ended": ended, "seconds": dict(speeds)})


def _filled(seed: int) -> Memory:
    memory = Memory(SIZE, seed=seed)
    memory.write(0, memory.size)
    return memory


def _flipped(seed: int) -> bool:
    """Whether one flipped bit is one wrong page."""
    memory, chance = _filled(seed), random.Random(-seed)
    memory.bytes[chance.randrange(memory.size)] ^= 1 << chance.randrange(8)
    return memory.wrong() == 1


def _stuck(seed: int) -> bool:
    """Whether a bit that is always 1 shows in the pattern or in its complement, not in both."""
    memory, chance = _filled(seed), random.Random(-seed)
    at, bit = chance.randrange(memory.size), 1 << chance.randrange(8)
    memory.bytes[at] |= bit
    wrong = memory.wrong()
    memory.invert()
    memory.write(0, memory.size)
    memory.bytes[at] |= bit
    return wrong + memory.wrong() == 1


def _killed(task: Any) -> tuple[int, float]:
    """Processes left, and seconds until all had ended, after the last of two ranks was killed.

    The last: the first is heard at once, it only when the first has done its step.
    """
    died, mark = 0.0, f"{os.getpid()}-{time.monotonic_ns()}"

    def heard(line: str) -> None:
        nonlocal died
        if line.startswith("ranks "):
            time.sleep(0.2)
            os.kill(int(line.rsplit(maxsplit=1)[-1]), signal.SIGKILL)
            died = time.monotonic()

    def run(argv: Any, *, timeout: float, on_line: Any = None) -> Any:
        environment = {**os.environ, "DVFD_BENCH": mark}
        return tree.run(argv, timeout=timeout, env=environment, on_line=on_line)

    answer = crew.muster(replace(task, run=run), size=HELD, on_line=heard)
    if answer.held[1].ended != "killed":
        raise RuntimeError(f"rank 1 was not killed: {answer.lost!r}")
    return _left(mark), time.monotonic() - died


def _left(mark: str) -> int:
    """Processes whose environment holds *mark*."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            found += entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes()
    return found


if __name__ == "__main__":
    main()

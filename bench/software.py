"""How long OpenMPI, torch and both launchers take to be asked, whether they answer alike each time,
and whether anything of theirs is left.

The parts of openmpi_gloo and pytorch but for the ring, which has a measurement of its own. Each
round is a command's: torch is asked, and torchrun started, once for both checks.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import chosen, finish
from bench.record import Figure, at_most, exactly
from dvfd import drills, log
from dvfd.clock import SystemClock
from dvfd.drills import tree
from dvfd.drills.memo import Memo
from dvfd.drills.supervise import supervise
from dvfd.model import Sample

fakes = importlib.import_module("fakes_drills")

CHECKS = ("openmpi_gloo", "pytorch")

RING = "dvfd.drills.ring"

BUDGET = 30.0
"""Half of the minute that hardware, openmpi_gloo and pytorch may take together."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    log.setup("error")
    rounds = 2 if options.short else 20
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    os.environ["DVFD_BENCH"] = mark
    found = [_round() for _ in range(rounds)]
    left = _left(mark)
    took = [sum(seconds.values()) for seconds, _ in found]
    answers = {samples for _, samples in found}
    each = {name: statistics.median(seconds[name] for seconds, _ in found) for name in found[0][0]}
    figures = [
        at_most("both", "both checks without the ring, longest", max(took), "s", BUDGET),
        *(Figure(name, f"{name}, median", value, "s") for name, value in each.items()),
        exactly("answers", f"different answers in {rounds} rounds", len(answers), "answers", 1),
        exactly("left", f"processes left of {rounds} rounds", left, "processes", 0),
    ]
    finish("software", options, figures, {"seconds": [seconds for seconds, _ in found]})


def _round() -> tuple[dict[str, float], Any]:
    """Seconds of each part, and all samples without their times."""
    memo = Memo()
    seconds: dict[str, float] = {}
    samples: list[Sample] = []
    for check in CHECKS:
        with tempfile.TemporaryDirectory() as place:
            world = {"clock": SystemClock(), "run": tree.run, "memo": memo}
            task = fakes.task(check, Path(place), **world)
            for part in drills.build(check):
                if type(part).__module__ == RING:
                    continue
                began = time.monotonic()
                samples += supervise(task, [part]).samples
                seconds[f"{check} {part.name}"] = time.monotonic() - began
    return seconds, frozenset((s.metric, s.labels, s.value) for s in samples)


def _left(mark: str) -> int:
    """Processes but for this one whose environment holds *mark*."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                found += f"DVFD_BENCH={mark}".encode() in (entry / "environ").read_bytes()
    return found


if __name__ == "__main__":
    main()

"""Whether a calibration tells the truth, and how long one takes.

The same training is measured from outside by `dvfd.drills.trial` and says its own speed on stdout:
the median over windows of the one over the median of the other, run by run. Triad is held against
a plain loop in numpy over arrays of the same size, in alternating pairs. Both loops share no code
with what they check.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.harness import chosen, finish
from bench.record import Figure, at_most, exactly
from dvfd import log
from dvfd.clock import SystemClock
from dvfd.drills import bandwidth, tree
from dvfd.drills.trial import trial

fakes = importlib.import_module("fakes_drills")

TEE = """
import subprocess, sys, time
with open(sys.argv[1], "w") as file:
    child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        print(time.monotonic(), line, end="", file=file, flush=True)
sys.exit(child.wait())
"""
"""Keep what a command prints, each line with its time. Ended by SIGTERM it leaves the command to
whoever ended it.
"""

SPEED = re.compile(r"^([\d.]+) step=\d+ .* samples_per_second=([\d.]+)", re.MULTILINE)

TRIAD = """
import sys, time
import numpy
n = int(sys.argv[1]) // 8
a, b, c = (numpy.full(n, value) for value in (1.0, 2.0, 0.5))
scaled = numpy.empty(1 << 15)
best = []
for _ in range(11):
    began = time.perf_counter()
    for at in range(0, n, scaled.size):
        part = slice(at, min(n, at + scaled.size))
        room = scaled[: part.stop - at]
        numpy.multiply(c[part], 3.0, out=room)
        numpy.add(b[part], room, out=a[part])
    best.append(24 * n / (time.perf_counter() - began))
print(sorted(best[1:])[5])
"""
"""a = b + 3 c by blocks that stay in a core's own cache: numpy has no single step for it."""

CLOSE = 0.1
"""How far two measurements of one thing may lie apart: what is asked of all-reduce figures too."""

LONGEST = 180.0
"""Seconds: about two minutes, and as much again as a busy machine's launcher takes."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    log.setup("error")
    rounds, seconds = (2, 15.0) if options.short else (6, 30.0)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    os.environ["OUR_BENCH"] = mark
    with tempfile.TemporaryDirectory() as place:
        task = fakes.task("openmpi_gloo", Path(place), clock=SystemClock(), run=tree.run)
        trainings = [_training(task, Path(place), seconds) for _ in range(rounds)]
        triads = [_triad(task) for _ in range(rounds)]
        whole, code = _whole(Path(place))
    figures = [
        _ratio("throughput", "calibrated throughput over what the job itself printed", trainings),
        _ratio("triad", "triad over a plain loop in numpy, one process", triads),
        at_most("whole", "a whole calibration of the reference job", whole, "s", LONGEST),
        exactly("code", "its exit code", code, "", 0),
        exactly("left", "processes left of all", _left(mark), "processes", 0),
    ]
    finish("calibrate", options, figures, {"throughput": trainings, "triad": triads})


def _training(task: Any, place: Path, seconds: float) -> tuple[float, float]:
    """Ours and the job's own of the same last *seconds*, samples a second."""
    said = place / "said"
    command = [
        sys.executable, "-c", TEE, str(said), sys.executable, "-m", "torch.distributed.run",
        "--standalone", "--nproc_per_node=4", "-m", "dvfd.drills.reference_job", "--print-every=10",
    ]  # fmt: skip
    ours = trial(task, command, seconds=seconds, processes=4, here=4).median
    found = SPEED.findall(said.read_text(encoding="utf-8"))
    own = [(float(at), float(speed)) for at, speed in found]
    return ours, _over_time([speed for at, speed in own if at > own[-1][0] - seconds])


def _over_time(speeds: Sequence[float]) -> float:
    """The median over time of speeds of ten steps each: slow steps take more of it."""
    ordered = sorted(speeds)
    half = sum(1 / speed for speed in ordered) / 2
    passed = itertools.accumulate(1 / speed for speed in ordered)
    return next(speed for speed, until in zip(ordered, passed, strict=True) if until >= half)


def _triad(task: Any) -> tuple[float, float]:
    """Ours and the plain loop's, bytes a second."""
    rows = bandwidth.measure(task)
    ours = next(row for row in rows if (row.operation, row.ranks) == ("triad", 1))
    argv = [sys.executable, "-c", TRIAD, str(ours.array_bytes)]
    plain = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
    return ours.median, float(plain.stdout)


def _whole(place: Path) -> tuple[float, int]:
    """Seconds and exit code of the command as it is typed."""
    argv = [sys.executable, "-m", "dvfd", "calibrate", "--force", "-o", str(place / "c.toml")]
    env = {**os.environ, "DVFD_CONFIG": str(place / "dvfd.toml")}
    (place / "dvfd.toml").touch()
    began = time.monotonic()
    code = subprocess.run(argv, env=env, check=False, timeout=600).returncode
    return time.monotonic() - began, code


def _ratio(name: str, text: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    """The median over pairs, with their range."""
    ratios = [ours / other for ours, other in pairs]
    median = statistics.median(ratios)
    wanted = f"{1 - CLOSE:g} to {1 + CLOSE:g}"
    figure = Figure(name, text, median, "", wanted, abs(median - 1) <= CLOSE)
    return replace(figure, low=min(ratios), high=max(ratios))


def _left(mark: str) -> int:
    """Processes but for this one whose environment holds *mark*."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                found += f"OUR_BENCH={mark}".encode() in (entry / "environ").read_bytes()
    return found


if __name__ == "__main__":
    main()

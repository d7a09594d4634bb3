"""How far the figures of an all-reduce lie from those of a plain loop of the same definition.

Four ranks time it in both ways, in pairs whose order alternates. The ratio is taken within each
pair; its interval is the order statistics' of the median (the sign test's) over the pairs. Before
that, the ring's part is run once as the check runs it.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.harness import chosen, finish
from bench.record import Figure, at_most
from dvfd import log
from dvfd.clock import SystemClock
from dvfd.drills import tree
from dvfd.drills.ring import Ring
from dvfd.drills.supervise import supervise

fakes = importlib.import_module("fakes_drills")

RANKS = 4

SIGN_TEST = {6: 1, 40: 14}
"""The order statistic that bounds a median with 95 % confidence, by number: Conover (1999), A3."""

LIMIT = 10.0
"""Percent."""

BUDGET = 20.0
"""Seconds: a third of the minute that hardware, openmpi_gloo and pytorch may take together."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    log.setup("error")
    took = _ring()
    found = _pairs(6 if options.short else 40)
    figures = [
        *(_difference(message, pairs) for message, pairs in found.items()),
        at_most("ring", "the ring's part as the check runs it", took, "s", BUDGET),
    ]
    finish("allreduce", options, figures, {"pairs": found})


def _ring() -> float:
    """Seconds of the part."""
    with tempfile.TemporaryDirectory() as place:
        task = fakes.task("openmpi_gloo", Path(place), run=tree.run, clock=SystemClock())
        began = time.monotonic()
        found = supervise(task, [Ring()])
        took = time.monotonic() - began
    if found.troubles:
        raise RuntimeError(found.troubles[0].text)
    return took


def _pairs(count: int) -> dict[str, list[tuple[float, float]]]:
    """By message."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pairs.json"
        argv = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={RANKS}", "-m", "bench.allreduce_pairs", str(path), str(count),
        ]  # fmt: skip
        subprocess.run(argv, check=True, timeout=1800, stdout=subprocess.DEVNULL)
        found: dict[str, list[tuple[float, float]]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _difference(message: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    """In percent of the plain loop's. An interval across the mark says neither yes nor no."""
    ratios = sorted(ours / plain for ours, plain in pairs)
    k = SIGN_TEST[len(ratios)]
    value, low, high = (
        100 * (ratio - 1) for ratio in (statistics.median(ratios), ratios[k - 1], ratios[-k])
    )
    text = f"all-reduce of {message}: the worker's median over a plain loop's, difference"
    wanted = f"-{LIMIT:g} to {LIMIT:g} %"
    figure = Figure(message, text, value, "%", wanted, abs(value) <= LIMIT, low, high)
    inside, outside = max(-low, high) <= LIMIT, low > LIMIT or high < -LIMIT
    if inside or outside:
        return figure
    return replace(figure, wanted=f"{wanted}; interval straddles it: unknown", reached=None)


if __name__ == "__main__":
    main()

"""One rank that times an all-reduce in both ways, in turns: `torchrun -m bench.allreduce_pairs
FILE PAIRS` leaves, for each message, pairs of medians in seconds: the worker's, the plain loop's.

In one start of the ranks, so that the two of a pair are a second apart and not twenty.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from torch import distributed

from bench.plain_allreduce import median_seconds
from dvfd.drills import world
from dvfd.drills.collectives import FEW, MANY, TIMEOUT, size
from dvfd.drills.workers.collective import Bench, Exercise
from dvfd.drills.world import World

MESSAGES = {"64KiB": MANY, "bucket": FEW}
"""How often each is timed in a half of a pair: as often as where it is not judged."""


def main(path: str, pairs: str) -> None:
    """Take part."""
    place = world.join("gloo", timeout=60.0)
    found = {
        message: timed(place, message, count, int(pairs)) for message, count in MESSAGES.items()
    }
    if place.leads:
        Path(path).write_text(json.dumps(found), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


def timed(place: World, message: str, count: int, pairs: int) -> list[tuple[float, float]]:
    """The pairs of one message; the plain loop is first in every other one."""
    bench = Bench(place, [Exercise("all_reduce", "builtin", size(message), count)], timeout=TIMEOUT)
    halves: list[Callable[[], float]] = [
        lambda: worker(bench, count),
        lambda: median_seconds(size(message), count),
    ]
    found = []
    for number in range(pairs):
        if number % 2:
            plain, ours = halves[1](), halves[0]()
        else:
            ours, plain = halves[0](), halves[1]()
        found.append((ours, plain))
    return found


def worker(bench: Bench, count: int) -> float:
    """The worker's median of its next *count* iterations, in seconds."""
    [(_, series)] = bench.run()
    return statistics.median(series.slowest[-count:]) / 1e9


if __name__ == "__main__":
    main(*sys.argv[1:])

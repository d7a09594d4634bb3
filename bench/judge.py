"""What a pass of the judge costs, and what the loss watch finds, misses and invents."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from bench.record import Figure, at_most, keep
from dvfd.derive import LOSS_WINDOW, LossWatch
from dvfd.judge import judge
from dvfd.model import Comparison, Criterion, Limit, Range, Sample, labels

NOW = 1_800_000_000.0
SERIES = 8
SAMPLES = 24
EVERY = 5.0
REDUCERS = ["latest"] * 17 + ["mean", "max", "min", "median", "p99"] + ["increase"] * 3


def main() -> None:
    """Measure and keep."""
    clean, step = _clean(100_000)
    found = _found(2000)
    keep(
        "judge",
        [
            at_most("pass", "Judging 25 criteria on 8 series of 24 samples", _pass(), "ms", 5.0),
            at_most("loss_step", "Loss watch, per step", step, "us", 20.0),
            at_most("false_spikes", "False spikes in 100,000 clean steps", clean, "events", 1),
            Figure(
                "found_spikes", "Spikes of 9 sigma found", found, "of 1", ">= 0.99", found >= 0.99
            ),
        ],
    )


def _pass() -> float:
    """Milliseconds of a pass over all criteria: the best of 50, for the noise only adds."""
    samples = [
        Sample("m", 1.0, NOW - EVERY * i, labels(job="gpt", rank=rank))
        for rank in range(SERIES)
        for i in reversed(range(SAMPLES))
    ]
    criteria = [_criterion(reduce) for reduce in REDUCERS]
    return 1e3 * min(
        _timed(lambda: [judge(c, samples, at=NOW) for c in criteria]) for _ in range(50)
    )


def _criterion(reduce: str) -> Criterion:
    return Criterion(
        id="bench.m",
        item="beyond the source",
        clause="",
        text="m is as wanted",
        metric="m",
        unit="bool",
        comparison=Comparison.AT_LEAST,
        limit=Limit(value=0.0),
        reduce=reduce,
        window=0.0 if reduce == "latest" else 120.0,
        possible=Range(0, 1),
        source="bench",
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _noise(seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    while True:
        yield chance.gauss(3.0, 0.1)


def _clean(steps: int) -> tuple[int, float]:
    """False events in Gaussian noise, and microseconds a step."""
    losses = [loss for loss, _ in zip(_noise(1), range(steps), strict=False)]
    watch = LossWatch()
    seconds = _timed(lambda: [watch.add(loss) for loss in losses])
    return watch.spikes, 1e6 * seconds / steps


def _found(spikes: int) -> float:
    """The share found of spikes 9 sigma above the mean, each alone in noise."""
    noise, watch, found = _noise(2), LossWatch(), 0
    for _ in range(LOSS_WINDOW):
        watch.add(next(noise))
    for _ in range(spikes):
        for _ in range(50):
            watch.add(next(noise))
        found += watch.add(3.0 + 9 * 0.1)
    return found / spikes


if __name__ == "__main__":
    main()

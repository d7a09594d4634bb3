"""The series of a node made up, and told so: what a store holds where months are simulated.

An hour at a time, every 5 s a value. Two in five series are ratios and seconds as they are
computed, with all digits of a double: a slow wander, a day's swing, white noise. One in five is a
temperature in steps of half a degree, one a counter of whole steps, one an answer that is nearly
always yes. Real nodes have more of the last two; noise in every digit is what nothing makes small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dvfd.model import Labels, labels

EVERY = 5
HOUR = 3600
DAY = 86400
BEATS = HOUR // EVERY

KINDS = ("ratio", "ratio", "temperature", "counter", "yes")
METRICS = {
    "ratio": "rank_step_seconds",
    "temperature": "cpu_temperature_celsius",
    "counter": "rank_steps_total",
    "yes": "rank_responding",
}
SEED = 35

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One of them."""

    number: int
    metric: str
    labels: Labels
    kind: str


def series(count: int) -> tuple[Series, ...]:
    """*count* of them; ranks and packages are numbered through."""
    return tuple(_series(number) for number in range(count))


def _series(number: int) -> Series:
    kind = KINDS[number % len(KINDS)]
    of = {"package": str(number)} if kind == "temperature" else {"job": "j", "rank": str(number)}
    return Series(number, METRICS[kind], labels(**of), kind)


def hours(count: int, start: int, number: int) -> Iterator[tuple[int, Values]]:
    """For each of *number* hours from *start* its first second and values[series, beat]."""
    kinds = np.array([KINDS[place % len(KINDS)] for place in range(count)])
    counted = np.zeros(count)
    slow = _slow(count, start)
    for at in range(start, start + number * HOUR, HOUR):
        later = _slow(count, at + HOUR)
        chance = np.random.default_rng((SEED, at))
        values = _wander(slow, later, at) + chance.normal(0.0, 0.02, (count, BEATS))
        steps = counted[:, None] + np.cumsum(chance.poisson(50, (count, BEATS)), axis=1)
        counted, slow = steps[:, -1], later
        yield at, _shaped(kinds, values, steps, chance)


def _slow(count: int, at: int) -> Values:
    """Where each series has wandered to at the hour *at*."""
    return np.random.default_rng((SEED, 1, at)).normal(1.0, 0.05, count)


def _wander(slow: Values, later: Values, at: int) -> Values:
    """From one hour's level to the next one's, with the day's swing."""
    share = np.linspace(0.0, 1.0, BEATS, endpoint=False)
    swing = 0.05 * np.sin(2 * np.pi * (at % DAY + share * HOUR) / DAY)
    return slow[:, None] + np.outer(later - slow, share) + swing


def _shaped(
    kinds: NDArray[np.str_], values: Values, steps: Values, chance: np.random.Generator
) -> Values:
    """Each series as its kind is measured."""
    found = 0.1 * values
    found[kinds == "temperature"] = np.round(2 * 60 * values[kinds == "temperature"]) / 2
    found[kinds == "counter"] = steps[kinds == "counter"]
    found[kinds == "yes"] = chance.random(values[kinds == "yes"].shape) > 1e-5
    return found

"""Intervals by drawing again: how sure a median, and a ratio of medians, is. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

DRAWS = 1000
SURE = 0.95

Pair = tuple[float, float]
Interval = tuple[float, float]
Item = TypeVar("Item")


def interval(values: Sequence[float]) -> Interval:
    """Where values drawn again lie, without the rarest at both ends: 95 % of them."""
    ordered = sorted(values)
    aside = round(len(ordered) * (1 - SURE) / 2)
    return ordered[aside], ordered[-1 - aside]


def median_interval(values: Sequence[float]) -> Interval:
    """The bootstrap interval of the median of one value or more."""
    chance = random.Random(1)
    return interval([statistics.median(_again(values, chance)) for _ in range(DRAWS)])


def ratio_of_medians(strata: Sequence[Sequence[Pair]]) -> tuple[float, float, float]:
    """Median of the second of all pairs over that of the first, and its bootstrap interval.

    Pairs are drawn whole, each stratum from itself: a trial's two ways stay together, and every
    class keeps its weight.
    """
    chance = random.Random(1)
    drawn = [_medians([p for s in strata for p in _again(s, chance)]) for _ in range(DRAWS)]
    low, high = interval(drawn)
    return _medians([pair for stratum in strata for pair in stratum]), low, high


def mean_interval(
    values: Sequence[float], turn: Callable[[float], float] = lambda mean: mean
) -> tuple[float, float, float]:
    """The mean of *values* and its bootstrap interval, each given to *turn*: exp for logarithms."""
    chance = random.Random(1)
    drawn = [statistics.mean(_again(values, chance)) for _ in range(DRAWS)]
    low, high = interval(drawn)
    return turn(statistics.mean(values)), turn(low), turn(high)


def _medians(pairs: Sequence[Pair]) -> float:
    return statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)


def _again(values: Sequence[Item], chance: random.Random) -> list[Item]:
    return chance.choices(values, k=len(values))

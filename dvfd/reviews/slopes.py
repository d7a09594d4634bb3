"""Slope and level of hourly medians, each with an interval: JSON in, JSON out. Judges nothing.

`python -m dvfd.reviews.slopes` is a process of its own, since numpy never loads in the daemon.

The slope is Theil's and Sen's, the median of the slopes of all pairs. One hour resembles the next,
so n hours tell less than n: by the first autocorrelation r of what is left beside the slope only
n (1 - r) / (1 + r) count. The variance of Kendall's S, and with it the ranks of the slopes that
bound the interval (Sen 1968), is larger by as much (after Hamed and Rao 1998), and Student's t
stands for the Gaussian. `bench/trend.py` measures what that comes to.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]

FEWEST = 24
"""Hours without which there is no slope to speak of: a day."""

MAD_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""

APART = 4.0
"""Deviations beyond which an hour (a restart, a validation) says nothing of how its neighbours
resemble each other: 6e-5 of a Gaussian's are out there."""

MOST = 0.97
"""The greatest resemblance that a week can tell from 1: 2.6 of 168 hours count then."""

FEWEST_FREE = 3.0
"""Degrees of freedom at the least: below, the series for Student's t means nothing."""

MEDIAN_ERROR = 1.2533
"""Standard error of a Gaussian's median over that of its mean: sqrt(pi / 2)."""

Z = 1.959964
"""The 97.5th percentile of the Gaussian."""


class Unmeasured(Exception):
    """There is no figure, and the message says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Trend:
    """`slope` an hour, over the median; `level` the median; `count` hours, of which only
    `effective` tell something of their own.
    """

    slope: Figure
    level: Figure
    count: int
    effective: float


def trend(hours: Array, values: Array) -> Trend:
    """Of *values* at whole *hours*, ascending. Raises Unmeasured."""
    count = len(hours)
    if count < FEWEST:
        raise Unmeasured(f"{count} hours, wanted at least {FEWEST}")
    middle = float(np.median(values))
    if middle <= 0.0:
        raise Unmeasured(f"a median of {middle:g}: nothing is a share of that")
    later, earlier = np.tril_indices(count, -1)
    slopes = np.sort((values[later] - values[earlier]) / (hours[later] - hours[earlier]))
    slope = float(np.median(slopes))
    left = values - slope * hours
    left -= np.median(left)
    effective = count / excess(resemblance(hours, left))
    low, high = _bounds(slopes, count, effective)
    half = student(effective - 1.0) * MEDIAN_ERROR * _noise(left) / effective**0.5
    return Trend(
        slope=Figure(slope / middle, low / middle, high / middle),
        level=Figure(middle, middle - half, middle + half),
        count=count,
        effective=effective,
    )


def resemblance(hours: Array, left: Array) -> float:
    """The autocorrelation of what is *left* from one hour to the next, from 0 to MOST.

    A line that was fitted takes some of it away, (2 + 4 r) / n where it is r: that is added back.
    """
    kept = np.abs(left) <= APART * _noise(left)
    pairs = np.flatnonzero(kept[1:] & kept[:-1] & (np.diff(hours) == 1))
    spread = float(np.mean(left[kept] ** 2)) if kept.any() else 0.0
    if len(pairs) < FEWEST // 2 or spread == 0.0:
        return 0.0 if spread == 0.0 else MOST
    seen = float(np.mean(left[pairs] * left[pairs + 1])) / spread
    count = len(left)
    return min(max(0.0, (count * seen + 2.0) / (count - 4.0)), MOST)


def excess(resembling: float) -> float:
    """How many times larger the variance of a mean is for a resemblance."""
    return (1.0 + resembling) / (1.0 - resembling)


def student(free: float) -> float:
    """The 97.5th percentile of Student's t, by the series of Cornish and Fisher."""
    free = max(free, FEWEST_FREE)
    one = (Z**3 + Z) / 4
    two = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    three = (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384
    return Z + one / free + two / free**2 + three / free**3


def _bounds(slopes: Array, count: int, effective: float) -> tuple[float, float]:
    """The slopes between which the true one lies in 95 of 100 cases."""
    variance = count * (count - 1) * (2 * count + 5) / 18 * count / effective
    reach = student(effective - 2.0) * variance**0.5 / 2
    first, last = int(len(slopes) / 2 - reach), int(len(slopes) / 2 + reach) + 1
    return float(slopes[max(0, first)]), float(slopes[min(len(slopes) - 1, last)])


def _noise(left: Array) -> float:
    return MAD_SIGMA * float(np.median(np.abs(left)))


def answer(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trend of each of *asked*, or why there is none."""
    found: list[dict[str, Any]] = []
    for row in asked:
        hours, values = (np.array(row[key], dtype=np.float64) for key in ("hours", "values"))
        try:
            found.append(asdict(trend(hours, values)))
        except Unmeasured as error:
            found.append({"trouble": str(error)})
    return found


def main() -> int:
    """Answer `[{"hours": [...], "values": [...]}, ...]` on stdin."""
    sys.stdout.write(json.dumps(answer(json.load(sys.stdin))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

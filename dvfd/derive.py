"""Compute metrics from metrics: ratios, quantiles, counters, loss spikes. Pure: no clock, no I/O.

What has no value (nothing to divide by, too few points) is None: its sample is left out, and the
criterion on it is UNKNOWN. The constants here are parts of the definitions of metrics, not limits;
each names its source.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections import deque
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HANG_FLOOR = 10.0
HANG_STEPS = 5.0
"""A rank hangs after max(10 s, 5 x P99 step interval) without progress (procedures, 16). Both
define the metric rank_stall_ratio; the criterion's own limit is 1."""

STEP_WINDOW = 256
"""Step intervals remembered for a P99: two or three lie above it, and a rank costs 2 KiB."""

LOSS_WINDOW = 101
LOSS_POINTS = 21
SPIKE_Z = 6.6
SPIKE_GAP = 21
"""A loss spike is a robust z above 6.6 against the rolling median and MAD of 101 steps
(procedures, 6). Simulated on Gaussian noise: 5e-8 false points a step once 101 are known, 1e-4
with the first 21, 1e-3 with fewer. Spikes with less than 21 steps between them are one event."""

MAD_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation: 1 / 0.6745."""

MEAN_AD_SIGMA = 1.2533
"""Standard deviation of a Gaussian over its mean absolute deviation: sqrt(pi / 2)."""

BFLOAT16_RESOLUTION = 2.0**-9
"""Half the relative step of bfloat16, the coarsest number that a loss is kept in."""

NORM_BLOCK = 7
NORM_BLOCKS = 2
"""Steps of which one median is taken, and held as a loss is against the 101 before it; and such
medians that must stand out one after the other. Simulated on norms that decay tenfold: no false
excursion in 1.7 million steps each of Gaussian (20 %) and log-normal (40 %) noise, where a single
median had two in 1.4 million; none in 2646 steps of the reference job. Three times the norm, or a
third of it, for 30 steps was found 200 times of 200."""

SMALLEST_NORM = 1e-300
"""Stands for a norm of 0, which no model that learns has."""

SMALLEST_STEP = 2.0**-24
"""The smallest float16 above zero: below it a loss of exactly 0 has not moved."""


def percentile(
    values: Sequence[float], percent: float, weights: Sequence[float] | None = None
) -> float:
    """The *percent*-th percentile (0 to 100) of one value or more, by linear interpolation.

    With *weights* it is the least value that has as much of the weight at or below it.
    """
    if weights is not None:
        return _weighted_percentile(values, percent, weights)
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100.0
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _weighted_percentile(
    values: Sequence[float], percent: float, weights: Sequence[float]
) -> float:
    ordered = sorted(zip(values, weights, strict=True))
    reached = list(accumulate(weight for _, weight in ordered))
    place = bisect_left(reached, reached[-1] * percent / 100.0)
    return ordered[place][0]


def median(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """The median of one value or more."""
    return percentile(values, 50.0, weights)


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """The arithmetic mean of one value or more; their order does not matter."""
    if weights is None:
        middle = math.fsum(values) / len(values)
    else:
        middle = math.fsum(map(mul, values, weights)) / math.fsum(weights)
    # Rounding may put the mean of equal values beside them, and so beside a limit they meet.
    return min(max(middle, min(values)), max(values))


def stdev(values: Sequence[float], weights: Sequence[float] | None = None) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than two values.

    With *weights* that of the whole: weighted values stand for many.
    """
    if len(values) < 2:
        return None
    middle = mean(values, weights)
    squares = [(v - middle) * (v - middle) for v in values]
    if weights is not None:
        return math.sqrt(mean(squares, weights))
    return math.sqrt(math.fsum(squares) / (len(values) - 1))


def fraction_within(
    values: Sequence[float], band: float, weights: Sequence[float] | None = None
) -> float | None:
    """The share of *values* in their mean +- *band*, ends included; None for fewer than two."""
    if len(values) < 2:
        return None
    middle = mean(values, weights)
    return mean([float(abs(v - middle) <= band) for v in values], weights)


def spread(values: Sequence[float]) -> float | None:
    """max |x - mean| / |mean| (readings, 46); None if the mean is 0 and not all values are."""
    middle = mean(values)
    if middle == 0.0:
        return None if any(values) else 0.0
    return max(abs(v - middle) for v in values) / abs(middle)


def counter_increase(values: Sequence[float]) -> float:
    """How much a counter grew over *values* in order of time. A drop is a reset to 0 before it."""
    grown = 0.0
    for i in range(1, len(values)):
        before, after = values[i - 1], values[i]
        grown += after - before if after >= before else after
    return grown


def unwrap(before: float, after: float, wrap: float) -> float:
    """How much a counter grew that restarts from 0 beyond *wrap*, at most once in between.

    RAPL's energy_uj wraps at max_energy_range_uj, in about 17 minutes at 250 W: read it every
    10 s or more often.
    """
    return after - before if after >= before else wrap - before + after


def communication_ratio(communication: float, step: float) -> float | None:
    """Exposed communication over step time, both in seconds; not clamped: above 1 is a mistake."""
    return communication / step if step > 0 and communication >= 0 else None


def saturation(
    received: float, sent: float, seconds: float, *, bits_per_second: float
) -> float | None:
    """The busier direction of a full-duplex link over its speed; *received*, *sent* in bytes."""
    if seconds <= 0 or bits_per_second <= 0 or min(received, sent) < 0:
        return None
    return max(received, sent) * 8.0 / seconds / bits_per_second


def straggler_ratio(own: float, reference: float) -> float | None:
    """Reference over own median compute section, in seconds: 1 keeps pace, 0.5 takes twice as long.

    The reference (procedures, 16) is the fastest rank's median now, or the smallest of it and the
    10th percentile of the rank's own past medians (a StepStats fed with one a minute).
    """
    if not (0 < own < math.inf and 0 < reference < math.inf):
        return None
    return reference / own


def hang_limit(p99: float | None) -> float:
    """Seconds without progress after which a rank hangs: max(10, 5 x P99 of its step interval).

    None, before any interval is known, gives 10: start-up has a state of its own.
    """
    return HANG_FLOOR if p99 is None else max(HANG_FLOOR, HANG_STEPS * p99)


def stall_ratio(since_progress: float, p99: float | None) -> float:
    """Seconds since a rank's last progress over its hang limit; above 1 it hangs."""
    return max(0.0, since_progress) / hang_limit(p99)


class StepStats:
    """The last durations of one rank's steps (or compute sections), for their quantiles.

    Constant memory: 8 bytes for each of *size* durations.
    """

    __slots__ = ("_next", "_ring", "_size")

    def __init__(self, size: int = STEP_WINDOW) -> None:
        self._ring = array("d")
        self._size = size
        self._next = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, seconds: float) -> None:
        """Remember a duration, in place of the oldest; one that no clock can give is left out."""
        if not 0.0 <= seconds < math.inf:
            return
        if len(self._ring) < self._size:
            self._ring.append(seconds)
            return
        self._ring[self._next] = seconds
        self._next = (self._next + 1) % self._size

    def extend(self, durations: Iterable[float]) -> None:
        """Remember several, oldest first."""
        for seconds in durations:
            self.add(seconds)

    def percentile(self, percent: float) -> float | None:
        """The *percent*-th percentile in seconds; None before the first duration."""
        return percentile(self._ring, percent) if self._ring else None

    def median(self) -> float | None:
        """The median in seconds; None before the first duration."""
        return self.percentile(50.0)

    def p99(self) -> float | None:
        """The 99th percentile in seconds; None before the first duration."""
        return self.percentile(99.0)

    def hang_limit(self) -> float:
        """Seconds without progress after which the rank hangs."""
        return hang_limit(self.p99())


class LossWatch:
    """Counts the spikes in one stream of losses, one loss a step.

    Each loss is held against the median and MAD of the 101 before it, and only upwards: a fall
    is what training is for. A level that stays high is one event, until it is the new median.
    Losses that are not finite are counted apart and take no part.
    """

    __slots__ = ("_ordered", "_quiet", "_recent", "nonfinite", "out", "spikes")

    def __init__(self) -> None:
        self.spikes = 0
        self.nonfinite = 0
        self.out = False  # whether the newest loss stands out
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []
        self._quiet = SPIKE_GAP

    def add(self, loss: float) -> bool:
        """Take the next loss; whether a new spike event begins with it."""
        if not math.isfinite(loss):
            self.nonfinite += 1
            return False
        self.out = spiked = self._stands_out(loss)
        begins = spiked and self._quiet >= SPIKE_GAP
        self._quiet = 0 if spiked else self._quiet + 1
        self.spikes += begins
        self._remember(loss)
        return begins

    def _stands_out(self, loss: float) -> bool:
        """Whether loss - median > 6.6 x 1.4826 x MAD, without computing the MAD.

        It holds if more than half of the window lies closer to the median than the excess over
        6.6 x 1.4826: two bisections in place of a sort at every step.
        """
        ordered = self._ordered
        size = len(ordered)
        if size < LOSS_POINTS:
            return False
        middle = ordered[size // 2]
        reach = (loss - middle) / (SPIKE_Z * MAD_SIGMA)
        if reach <= 0.0:
            return False
        near = bisect_left(ordered, middle + reach) - bisect_right(ordered, middle - reach)
        if 2 * near <= size:
            return False
        equal = bisect_right(ordered, middle) - bisect_left(ordered, middle)
        return 2 * equal <= size or loss - middle > SPIKE_Z * _coarse_sigma(ordered, middle)

    def _remember(self, loss: float) -> None:
        if len(self._recent) == LOSS_WINDOW:
            oldest = self._recent.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
        self._recent.append(loss)
        insort(self._ordered, loss)


class NormWatch:
    """Counts where a stream of gradient norms leaves the band of its own recent course, up or down.

    Single steps of two and three times the norm are healthy training, about one in a thousand, so
    medians of NORM_BLOCK steps are watched; on logarithms, since the noise of a norm is a factor.
    A level that stays is one excursion, until it is the new course.
    """

    __slots__ = ("_block", "_down", "_known", "_quiet", "_row", "_up", "excursions")

    def __init__(self) -> None:
        self.excursions = 0
        self._block: list[float] = []
        self._known = 0
        self._row = [0, 0]  # medians that stood out one after the other, above and below
        self._quiet = SPIKE_GAP
        self._up, self._down = LossWatch(), LossWatch()

    def add(self, norm: float) -> bool:
        """Take the next norm; whether an excursion is seen with it. NaN takes no part."""
        if not math.isfinite(norm):
            return False
        self._block.append(math.log(max(norm, SMALLEST_NORM)))
        if len(self._block) < NORM_BLOCK:
            return False
        height = median(self._block)
        self._block.clear()
        self._known += 1
        for side, (watch, value) in enumerate(((self._up, height), (self._down, -height))):
            watch.add(value)
            self._row[side] = self._row[side] + 1 if watch.out else 0
        lasts = max(self._row) >= NORM_BLOCKS and self._known > LOSS_WINDOW
        begins = lasts and self._quiet >= SPIKE_GAP
        self._quiet = 0 if lasts else self._quiet + 1
        self.excursions += begins
        return begins


def _coarse_sigma(values: Sequence[float], middle: float) -> float:
    """The noise of values more than half of which are equal, so that their MAD is 0.

    Their mean deviation, but no less than what rounding to bfloat16 may hide.
    """
    deviation = mean([abs(v - middle) for v in values])
    rounding = max(BFLOAT16_RESOLUTION * abs(middle), SMALLEST_STEP)
    return max(MEAN_AD_SIGMA * deviation, rounding)

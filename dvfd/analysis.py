"""Statistics of loss curves in a process of its own: JSON in, JSON out. Judges nothing.

`python -m dvfd.analysis` is the only home of scipy; nobody imports this file but its tests and
the simulations. Definitions are those of the metrics in checks/metrics.toml.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from dvfd.derive import LOSS_POINTS, LOSS_WINDOW, MAD_SIGMA, SPIKE_GAP, LossWatch
from dvfd.drills import curve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dvfd.drills.curve import Curve

Array = NDArray[np.float64]

HALF_LIFE = 0.01
WARM_UP = 0.05
LAST = 0.05
"""Shares of a run, in samples seen: the smoothing's half-life, what is left out at the start, and
what its final loss is the mean of (procedures, 6)."""

NEAR_FINAL = 1.02
HOLD = 3
"""A run has learned when its smoothed loss stays at 1.02 x the baseline's last for 3 windows of
one half-life each (procedures, 6)."""

NEVER = 1e9
"""The speed ratio of a run that did not get there: beyond every limit."""

POINTS = 201
"""Quantiles kept of the differences: a linear 95th percentile and the maximum are among them."""

LEVEL = 0.90
POWER = 0.90
"""Of the interval, which makes it two one-sided tests at 0.05, and of the wanted sensitivity."""

RISING = 0.99
BLOCKS = 50
LAST_FIFTH = 0.2
"""The slope of the last fifth is Theil-Sen's over the means of 50 blocks, which are independent
where steps may not be; it rises if the 99 % interval lies above 0."""

FEWEST = 200
"""Steps below which a run has no shape: half a percent each."""

MOST_SEEDS = 1000


class Unmeasured(Exception):
    """There is no figure, and the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """Losses of one run by samples seen; the held-out ones are None where none were taken."""

    seen: Array
    loss: Array
    held_out: float | None = None
    nonfinite: int = 0

    @property
    def last(self) -> float:
        """Mean loss of the last 5 % of the samples."""
        return float(np.mean(self.loss[self.seen > (1 - LAST) * self.seen[-1]]))


@dataclass(frozen=True, slots=True)
class Pair:
    """A distributed run and the one process that had the same seed."""

    many: Run
    one: Run


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and bounds where it is an estimate."""

    value: float
    low: float | None = None
    high: float | None = None


# --- Curves -----------------------------------------------------------------------------------


def smooth(seen: Array, loss: Array) -> Array:
    """Exponential mean whose half-life is 1 % of the run; the start is not pulled to zero."""
    decay = 0.5 ** (float(seen[-1]) / len(seen) / (HALF_LIFE * float(seen[-1])))
    weighted = signal.lfilter([1.0], [1.0, -decay], loss)
    weight = signal.lfilter([1.0], [1.0, -decay], np.ones_like(loss))
    return np.asarray(weighted / weight, dtype=np.float64)


def difference(pair: Pair) -> Array:
    """(smoothed distributed loss / smoothed baseline - 1) at the same samples seen, after 5 %."""
    _comparable(pair)
    many = smooth(pair.many.seen, pair.many.loss)
    one = np.interp(pair.many.seen, pair.one.seen, smooth(pair.one.seen, pair.one.loss))
    after = pair.many.seen > WARM_UP * pair.many.seen[-1]
    return np.asarray((many / one - 1.0)[after], dtype=np.float64)


def _comparable(pair: Pair) -> None:
    """Raises Unmeasured where the pair cannot be laid over each other."""
    for name, run in (("the distributed run", pair.many), ("the baseline", pair.one)):
        if len(run.seen) < FEWEST:
            raise Unmeasured(f"{name} has {len(run.seen)} steps, wanted at least {FEWEST}")
        if not np.isfinite(run.loss).all():
            at = run.seen[~np.isfinite(run.loss)][0]
            raise Unmeasured(f"{name} has no finite loss after {at:.0f} samples")
        if run.loss.min() <= 0.0:
            raise Unmeasured(f"{name} has a loss of {run.loss.min():g}: no ratio can be taken")
    if pair.many.seen[-1] != pair.one.seen[-1]:
        both = f"{pair.many.seen[-1]:.0f} and {pair.one.seen[-1]:.0f}"
        raise Unmeasured(f"the runs saw {both} samples, wanted the same number")


def curve_difference(pairs: Sequence[Pair]) -> list[Figure]:
    """Quantiles of the absolute difference from 0 to 1; with several seeds the median over them."""
    shares = np.linspace(0.0, 1.0, POINTS)
    quantiles = [np.quantile(np.abs(difference(pair)), shares) for pair in pairs]
    return [Figure(float(v)) for v in np.median(quantiles, axis=0)]


# --- Speed ------------------------------------------------------------------------------------


def passage(loss: Array, level: float, hold: int) -> tuple[int, bool] | None:
    """The first index from which *loss* stays at or below *level* for *hold* points.

    With False beside it if the run ended before that; None if it is above at the end.
    """
    above = np.flatnonzero(np.append(loss > level, True))
    starts = np.concatenate(([0], above[:-1] + 1))
    held = np.flatnonzero(above - starts >= hold)
    if held.size:
        return int(starts[held[0]]), True
    return (int(starts[-1]), False) if starts[-1] < len(loss) else None


def speed(pair: Pair) -> Figure:
    """Samples to learn what the baseline learned, over the baseline's own. Raises Unmeasured."""
    _comparable(pair)
    one = smooth(pair.one.seen, pair.one.loss)
    level = NEAR_FINAL * float(one[-1])
    reached = [
        passage(smoothed, level, math.ceil(HOLD * HALF_LIFE * len(smoothed)))
        for smoothed in (smooth(pair.many.seen, pair.many.loss), one)
    ]
    many, own = reached
    if own is None or not own[1]:
        raise Unmeasured("the baseline itself reached its final loss only at the end: too short")
    if many is None:
        return Figure(NEVER)
    ratio = float(pair.many.seen[many[0]] / pair.one.seen[own[0]])
    return Figure(ratio) if many[1] else Figure(ratio, ratio, NEVER)


def speed_ratio(pairs: Sequence[Pair]) -> list[Figure]:
    """The median over seeds, bounds likewise; one seed that never got there decides."""
    found = [speed(pair) for pair in pairs]
    if any(f.value == NEVER for f in found):
        return [Figure(NEVER)]
    value = float(np.median([f.value for f in found]))
    if all(f.high is None for f in found):
        return [Figure(value)]
    high = float(np.median([f.value if f.high is None else f.high for f in found]))
    return [Figure(value, value, high)]


# --- The end ----------------------------------------------------------------------------------


def final_differences(pairs: Sequence[Pair]) -> Array:
    """(mean loss of the last 5 % / the baseline's - 1) of each pair."""
    for pair in pairs:
        _comparable(pair)
    return np.array([pair.many.last / pair.one.last - 1.0 for pair in pairs])


def interval(differences: Array, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of the mean of two values or more."""
    count = len(differences)
    half = stats.t.ppf((1 + level) / 2, count - 1) * np.std(differences, ddof=1) / count**0.5
    return float(np.mean(differences) - half), float(np.mean(differences) + half)


def equivalence(differences: Array) -> Figure:
    """|mean difference|, bounded so that it lies within a margin where the 90 % interval does.

    That is TOST at 0.05 for each side. One pair has no interval: its value is descriptive.
    """
    value = abs(float(np.mean(differences)))
    if len(differences) < 2:
        return Figure(value)
    low, high = interval(differences)
    nearest = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return Figure(value, nearest, max(abs(low), abs(high)))


def power(seeds: int, deviation: float, margin: float) -> float:
    """How often *seeds* pairs show a true difference of 0 to be within *margin*.

    Integrates over the deviation that will be seen: chi-squared, in 2000 equally likely slices.
    """
    if deviation <= 0.0:
        return 1.0
    free = seeds - 1
    slices = (np.arange(2000) + 0.5) / 2000
    seen = deviation * np.sqrt(stats.chi2.ppf(slices, free) / free)
    room = margin - stats.t.ppf((1 + LEVEL) / 2, free) * seen / seeds**0.5
    inside = 2 * stats.norm.cdf(room * seeds**0.5 / deviation) - 1
    return float(np.mean(np.maximum(0.0, inside)))


def seeds_needed(deviation: float, margin: float) -> int:
    """The fewest pairs that have 90 % power; MOST_SEEDS where that is not enough either."""
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        if power(middle, deviation, margin) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def final_difference(pairs: Sequence[Pair]) -> list[Figure]:
    """The one figure of `equivalence`."""
    return [equivalence(final_differences(pairs))]


# --- Patterns ---------------------------------------------------------------------------------


def rises(run: Run) -> bool:
    """Whether the last fifth of the losses rises beyond doubt."""
    fifth = run.loss[-math.ceil(LAST_FIFTH * len(run.loss)) :]
    blocks = [float(block.mean()) for block in np.array_split(fifth, min(BLOCKS, len(fifth) // 4))]
    slope = stats.theilslopes(blocks, alpha=RISING)
    return bool(slope.low_slope > 0.0)


def diverged(pairs: Sequence[Pair]) -> list[Figure]:
    """1 if the loss of any distributed run became non-finite or rises at its end."""
    return [Figure(float(any(_diverged(pair.many) for pair in pairs)))]


def _diverged(run: Run) -> bool:
    if not np.isfinite(run.loss).all():
        return True
    if len(run.seen) < FEWEST:
        raise Unmeasured(f"the distributed run has {len(run.seen)} steps, wanted {FEWEST}")
    return rises(run)


def spikes(losses: Iterable[float]) -> list[int]:
    """Where spike events begin: the definition is derive.LossWatch's."""
    watch = LossWatch()
    return [step for step, loss in enumerate(losses) if watch.add(loss)]


def height(losses: Array, around: int) -> float:
    """The largest robust z of the losses fewer than 21 steps from step *around*."""
    steps = range(max(LOSS_POINTS, around - SPIKE_GAP + 1), min(len(losses), around + SPIKE_GAP))
    return max((_z(losses, step) for step in steps), default=0.0)


def _z(losses: Array, step: int) -> float:
    before = losses[max(0, step - LOSS_WINDOW) : step]
    middle = np.median(before)
    noise = MAD_SIGMA * np.median(np.abs(before - middle))
    excess = float(losses[step] - middle)
    return excess / float(noise) if noise > 0.0 else math.copysign(math.inf, excess)


def oscillations(pairs: Sequence[Pair]) -> list[Figure]:
    """Spike events of the distributed runs that are less than half as high in their baselines.

    Both runs read the same text: a spike that the text makes stands in both.
    """
    own = 0
    for pair in pairs:
        _comparable(pair)
        for step in spikes(pair.many.loss.tolist()):
            there = int(np.searchsorted(pair.one.seen, pair.many.seen[step]))
            own += height(pair.one.loss, there) < height(pair.many.loss, step) / 2
    return [Figure(float(own))]


def gap_excess(pairs: Sequence[Pair]) -> list[Figure]:
    """((validation - training) - the baseline's) / the baseline's validation loss, the median."""
    excess = []
    for pair in pairs:
        many, one = pair.many.held_out, pair.one.held_out
        if many is None or one is None:
            raise Unmeasured("no validation loss was taken in the last 5 % of a run")
        if not (math.isfinite(many) and math.isfinite(one) and one > 0.0):
            raise Unmeasured(f"validation losses of {many:g} and {one:g} have no ratio")
        _comparable(pair)
        excess.append(((many - pair.many.last) - (one - pair.one.last)) / one)
    return [Figure(float(np.median(excess)))]


def nonfinite(pairs: Sequence[Pair]) -> list[Figure]:
    """Losses and gradient norms of all runs that were NaN or infinite."""
    return [Figure(float(sum(run.nonfinite for p in pairs for run in (p.many, p.one))))]


# --- All of it --------------------------------------------------------------------------------

STATISTICS: dict[str, Callable[[Sequence[Pair]], list[Figure]]] = {
    "loss_curve_difference_ratio": curve_difference,
    "loss_speed_ratio": speed_ratio,
    "loss_final_difference_ratio": final_difference,
    "loss_diverged": diverged,
    "loss_oscillations": oscillations,
    "loss_gap_excess_ratio": gap_excess,
    "loss_nonfinite_values": nonfinite,
}


def analyse(pairs: Sequence[Pair], *, margin: float) -> dict[str, Any]:
    """Every figure of the pairs, why others are missing, and what to say beside them.

    *margin* is the largest difference of final losses that is none.
    """
    figures: dict[str, list[dict[str, Any]]] = {}
    troubles: dict[str, str] = {}
    for metric, statistic in STATISTICS.items():
        try:
            figures[metric] = [asdict(figure) for figure in statistic(pairs)]
        except Unmeasured as error:
            troubles[metric] = str(error)
    return {"figures": figures, "troubles": troubles, "remarks": remarks(pairs, margin, figures)}


def remarks(
    pairs: Sequence[Pair], margin: float, figures: dict[str, list[dict[str, Any]]]
) -> dict[str, str]:
    """What the figures do not say for themselves, by metric."""
    said = {}
    if "loss_final_difference_ratio" in figures:
        said["loss_final_difference_ratio"] = _enough(final_differences(pairs), margin)
    if figures.get("loss_speed_ratio", [{}])[0].get("value") == NEVER:
        said["loss_speed_ratio"] = (
            f"never reached: after all {pairs[0].many.seen[-1]:.0f} samples the distributed loss "
            f"was not within 2 % of the baseline's final loss; {NEVER:g} stands for that"
        )
    if curves := figures.get("loss_curve_difference_ratio"):
        mean = sum(f["value"] for f in curves) / len(curves)
        said["loss_curve_difference_ratio"] = f"mean difference {mean:.3%}, {_seeds(len(pairs))}"
    return said


def _enough(differences: Array, margin: float) -> str:
    count = len(differences)
    if count < 2:
        return "1 seed: descriptive; another run adds a seed, and an interval needs two"
    deviation = float(np.std(differences, ddof=1))
    needed = seeds_needed(deviation, margin)
    seen = f"{_seeds(count)}, paired deviation {deviation:.3%}"
    if needed >= MOST_SEEDS:
        return f"{seen}: 90 % power for a margin of {margin:g} wants {MOST_SEEDS} seeds or more"
    words = "enough" if needed <= count else "not enough seeds"
    return f"{seen}: {words}, 90 % power for a margin of {margin:g} wants {needed}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def run_of(found: Curve) -> Run:
    """A curve of a file as arrays."""
    loss = np.array(found.losses, dtype=np.float64)
    seen = found.batch * np.arange(1, len(loss) + 1, dtype=np.float64)
    late = [v for at, v in found.validation if at > (1 - LAST) * found.batch * len(loss)]
    return Run(seen, loss, float(np.mean(late)) if late else None, found.nonfinite)


def main() -> int:
    """Answer `{"pairs": [[distributed file, baseline file], ...], "margin": 0.01}` on stdin."""
    asked = json.load(sys.stdin)
    pairs = [Pair(*(run_of(curve.read(Path(file))) for file in files)) for files in asked["pairs"]]
    sys.stdout.write(json.dumps(analyse(pairs, margin=asked["margin"])) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

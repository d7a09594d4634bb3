"""How often the verdicts on loss curves are right: `python -m bench.convergence`.

Simulated, and shown with three real trainings: a right one, one that sums in another order, and
one that learns too fast.
Paired differences of final losses are Gaussian with the deviation named. Seeds of the chance are
fixed. A person adds pairs until the report says that they are enough, as the drill does.
"""

from __future__ import annotations

import importlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal, stats

from bench.harness import chosen, finish
from bench.record import Figure, at_most
from dvfd import analysis
from dvfd.analysis import Array, Pair, Run
from dvfd.derive import percentile

MARGIN = 0.01
DEVIATIONS = (0.002, 0.005, 0.0075, 0.01)
"""Of paired final losses over seeds; those of procedures 6, and one between."""

PAIRS = 60
"""At most in one trial: four times what the largest deviation wants."""


def main() -> None:
    """Simulate, and keep what was found."""
    options = chosen(__doc__, trials=10_000)
    trials = 500 if options.short else options.trials
    figures = [*equivalence(trials), *tests(trials), *spikes(trials), *slopes(trials)]
    figures += real(10.0 if options.short else 60.0)
    finish("convergence", options, figures, raw={"trials": trials, "found": TABLE})


TABLE: dict[str, Any] = {}
"""Everything that the figures are the worst of."""


# --- The end of the curves --------------------------------------------------------------------


@cache
def enough() -> Array:
    """The largest deviation, in margins, for which 2, 3, ... PAIRS seeds are enough."""

    def largest(seeds: int) -> float:
        low, high = 0.001, 10.0
        for _ in range(30):
            middle = (low + high) / 2
            if analysis.power(seeds, middle, 1.0) >= analysis.POWER:
                low = middle
            else:
                high = middle
        return low

    return np.array([largest(seeds) for seeds in range(2, PAIRS + 1)])


def stopped(differences: Array) -> int:
    """The number of pairs at which the report first says that they are enough."""
    count = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / count
    squares = np.cumsum(differences**2) - count * mean**2
    deviation = np.sqrt(np.maximum(0.0, squares[1:]) / (count[1:] - 1))
    said = np.flatnonzero(deviation <= enough() * MARGIN)
    return int(said[0]) + 2 if said.size else len(differences)


def passed(gap: float, deviation: float, trials: int, *, seed: int = 1) -> tuple[float, float]:
    """Share of trials in which `final` passes with as many pairs as it asked for, and how many
    these are on average."""
    chance = np.random.default_rng(seed)
    passes = pairs = 0
    for _ in range(trials):
        differences = chance.normal(gap, deviation, PAIRS)
        count = stopped(differences)
        high = analysis.equivalence(differences[:count]).high
        passes += high is not None and high < MARGIN
        pairs += count
    return passes / trials, pairs / trials


def looked(gap: float, deviation: float, trials: int, *, looks: int = 20, seed: int = 2) -> float:
    """Share in which it passes at one look or more, where a person looks after every pair."""
    chance = np.random.default_rng(seed)
    x = chance.normal(gap, deviation, (trials, looks))
    count = np.arange(2, looks + 1)
    mean = np.cumsum(x, axis=1)[:, 1:] / count
    squares = np.cumsum(x**2, axis=1)[:, 1:] - count * mean**2
    half = stats.t.ppf(0.95, count - 1) * np.sqrt(np.maximum(0, squares) / (count - 1) / count)
    return float((np.abs(mean) + half < MARGIN).any(axis=1).mean())


def equivalence(trials: int) -> list[Figure]:
    """Passes of a true gap and of none, the worst over the deviations."""
    found = {
        gap: {deviation: passed(gap, deviation, trials) for deviation in DEVIATIONS}
        for gap in (0.0, MARGIN, 2 * MARGIN)
    }
    TABLE["passed"] = {f"{g:g}": {f"{d:g}": v for d, v in row.items()} for g, row in found.items()}
    none = 100 * min(share for share, _ in found[0.0].values())
    edge, gap = (100 * max(s for s, _ in found[g].values()) for g in (MARGIN, 2 * MARGIN))
    looks = 100 * max(looked(MARGIN, deviation, trials) for deviation in DEVIATIONS)
    return [
        at_most("gap_passed", "a true gap of 2 % taken for none, with the seeds asked for", gap,
                "%", 5.0),
        at_least("none_passed", "no gap shown to be none, with the seeds asked for", none, "%",
                 80.0),
        Figure("edge_passed", "a gap of exactly the 1 % allowed that passes, with those seeds",
               edge, "%"),
        Figure("looks_passed", "the same where one looks after each of 20 seeds until it passes",
               looks, "%"),
    ]  # fmt: skip


def tests(trials: int) -> list[Figure]:
    """What `p > 0.05` says of a true gap of 2 % between 3 runs and 3 that vary by 1 %."""
    chance = np.random.default_rng(3)
    many, one = (chance.normal(level, MARGIN * level, (trials, 3)) for level in (1.02, 1.0))
    welch = stats.ttest_ind(many, one, axis=1, equal_var=False).pvalue
    ours = [analysis.equivalence(three).high for three in many / one - 1]
    tost = 100 * sum(high is not None and high < MARGIN for high in ours) / trials
    return [
        Figure("ttest_passed", "a gap of 2 % that a t-test with p > 0.05 takes for none, 3 seeds",
               100 * float((welch > 0.05).mean()), "%"),
        at_most("tost_passed", "the same runs by the interval that is judged", tost, "%", 5.0),
    ]  # fmt: skip


def at_least(name: str, text: str, value: float, unit: str, limit: float) -> Figure:
    """A figure that must not lie below *limit*."""
    return Figure(name, text, value, unit, f">= {limit:g} {unit}", value >= limit)


# --- Patterns ---------------------------------------------------------------------------------


def run_of(losses: Array) -> Run:
    """A run of one sample a step."""
    return Run(np.arange(1.0, len(losses) + 1), losses)


def clean(steps: int, chance: np.random.Generator) -> Array:
    """A loss that falls from 5 to 2 with a noise of 0.1."""
    done = np.arange(steps) / steps
    return np.asarray(2 + 3 * np.exp(-8 * done) + chance.normal(0, 0.1, steps))


def false_events(runs: int, steps: int = 100_000, *, seed: int = 4) -> float:
    """Events in a distributed run of *steps* clean steps, on average over *runs*."""
    chance = np.random.default_rng(seed)
    found = 0.0
    for _ in range(runs):
        pair = Pair(run_of(clean(steps, chance)), run_of(clean(steps, chance)))
        found += analysis.oscillations([pair])[0].value
    return found / runs


def spikes_found(trials: int, *, sigmas: float = 9.0, seed: int = 5) -> float:
    """Share of spikes of that many deviations, late in a run of 400 steps, that are an event."""
    chance = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        many, one = (2.0 + chance.normal(0, 0.1, 400) for _ in range(2))
        many[300] = 2.0 + sigmas * 0.1
        found += analysis.oscillations([Pair(run_of(many), run_of(one))])[0].value == 1.0
    return found / trials


def spikes(trials: int) -> list[Figure]:
    """The detector's two errors."""
    runs = max(2, trials // 200)
    return [
        at_most("false_events", "false spike events in 100,000 clean steps", false_events(runs),
                "events", 1.0),
        at_least("spikes_found", "spikes of 9 deviations found", 100 * spikes_found(trials), "%",
                 99.0),
    ]  # fmt: skip


def rising(trials: int, *, rise: float = 0.0, memory: float = 0.0, seed: int = 6) -> float:
    """Share of runs of 2000 steps that are said to rise, where the last fifth rises by *rise* of
    the loss and the noise (5 %) is an AR(1) with *memory*."""
    chance = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        white = chance.normal(0, 0.1 * (1 - memory**2) ** 0.5, 2200)
        noise = signal.lfilter([1.0], [1.0, -memory], white)[200:]
        slope = np.concatenate([np.zeros(1600), np.linspace(0, 2.0 * rise, 400)])
        found += analysis.rises(run_of(2.0 + noise + slope))
    return found / trials


def slopes(trials: int) -> list[Figure]:
    """False and true alarms of divergence."""
    flat = 100 * max(rising(trials), rising(trials, memory=0.5))
    rise = 100 * rising(trials, rise=0.05)
    return [
        at_most("false_rises", "flat ends said to rise, noise of AR(1) up to 0.5", flat, "%", 1.0),
        at_least("rises_found", "a rise of 5 % over the last fifth found", rise, "%", 99.0),
    ]


# --- Real training ----------------------------------------------------------------------------


def real(seconds: float) -> list[Figure]:
    """What two ranks that are right or wrong come to, in pairs of *seconds* seconds."""
    found = {kind: 100 * trained(kind, seconds) for kind in ("", "order", "rate")}
    words = "difference of the curves of 2 ranks and 1 process (p95)"
    return [
        at_most("real_right", words, found[""], "%", 1.0),
        at_most("real_order", f"{words}, sums in another order", found["order"], "%", 1.0),
        Figure("real_rate", f"{words}, four times the learning rate", found["rate"], "%", "> 1 %",
               found["rate"] > 1.0),
    ]  # fmt: skip


def trained(mistake: str, seconds: float) -> float:
    """The 95th percentile of the difference, where the distributed side makes *mistake*."""
    from dvfd.clock import SystemClock
    from dvfd.drills import tree
    from dvfd.drills.convergence import Convergence
    from dvfd.drills.curve import Configuration
    from dvfd.drills.drill import Options
    from dvfd.drills.supervise import supervise

    with tempfile.TemporaryDirectory() as place:
        task = importlib.import_module("fakes_drills").task(
            "loss_convergence",
            Path(place),
            toml="[profile]\nprocesses_per_node = 2\n",
            run=importlib.import_module("fakes_training").mistaken(mistake)
            if mistake
            else tree.run,
            clock=SystemClock(),
            options=Options(duration=seconds),
        )
        found = supervise(task, [Convergence(model=Configuration(width=64, layers=2))])
    curve = [s.value for s in found.samples if s.metric == "loss_curve_difference_ratio"]
    if not curve:
        raise RuntimeError(found.troubles[0].text)
    TABLE[f"real {mistake or 'right'}"] = {
        "configuration": found.facts[0].text,
        **{s.metric: s.value for s in found.samples if s.metric != "loss_curve_difference_ratio"},
    }
    return percentile(curve, 95.0)


if __name__ == "__main__":
    main()

"""Statistics of loss curves: each definition on curves whose answer is known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dvfd import analysis
from dvfd.analysis import NEVER, Pair, Run, Unmeasured
from dvfd.derive import percentile
from dvfd.drills import curve


def run(losses, **more) -> Run:
    values = np.asarray(losses, dtype=np.float64)
    return Run(10.0 * np.arange(1, len(values) + 1), values, **more)


def falling(steps: int = 2000, *, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    done = np.arange(steps) / steps
    return 2 + 3 * np.exp(-6 * done) + np.random.default_rng(seed).normal(0, noise, steps)


def test_smoothing_forgets_half_in_a_hundredth_of_the_run() -> None:
    step = np.where(np.arange(1000) < 500, 1.0, 0.0)

    smoothed = analysis.smooth(run(step).seen, step)

    assert smoothed[499 + 10] == pytest.approx(0.5, abs=1e-9)


def test_smoothing_starts_at_the_first_loss_and_keeps_a_constant() -> None:
    flat = np.full(500, 3.0)

    assert analysis.smooth(run(flat).seen, flat) == pytest.approx(flat)


def test_curves_are_laid_over_each_other_by_samples_and_not_by_steps() -> None:
    """The distributed run took half as many steps of twice the size."""
    whole = falling(4000)
    halved = Run(20.0 * np.arange(1, 2001), whole[1::2])

    assert np.abs(analysis.difference(Pair(halved, run(whole)))).max() < 1e-3


def test_the_warm_up_is_left_out() -> None:
    losses = falling()
    wild = losses.copy()
    wild[:5] *= 2

    assert np.abs(analysis.difference(Pair(run(wild), run(losses)))).max() < 0.03


def test_thinning_keeps_the_95th_percentile_and_the_maximum() -> None:
    pair = Pair(run(falling(noise=0.1)), run(falling(noise=0.1, seed=2)))
    whole = np.abs(analysis.difference(pair))

    kept = [f.value for f in analysis.curve_difference([pair])]

    assert len(kept) == 201
    assert percentile(kept, 95.0) == pytest.approx(np.quantile(whole, 0.95), rel=1e-12)
    assert max(kept) == whole.max()


def test_one_of_three_seeds_does_not_make_the_curve() -> None:
    """The median over seeds, as of all repeats."""
    good = Pair(run(falling()), run(falling()))
    bad = Pair(run(1.5 * falling()), run(falling()))

    assert analysis.curve_difference([good, bad, good])[190].value == 0.0
    assert analysis.curve_difference([bad, bad, good])[190].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("many", "words"),
    [
        (falling(100), "100 steps"),
        (np.where(np.arange(2000) == 7, math.nan, falling()), "no finite loss after 80 samples"),
        (falling() - 3, "no ratio"),
        (falling(1900), "19000 and 20000 samples"),
    ],
)
def test_what_cannot_be_compared_says_why(many: np.ndarray, words: str) -> None:
    with pytest.raises(Unmeasured, match=words):
        analysis.difference(Pair(run(many), run(falling())))


# --- Speed --------------------------------------------------------------------------------------


def test_a_level_is_reached_where_it_is_held() -> None:
    losses = np.array([5, 1, 5, 1, 1, 5, 1, 1, 1, 5, 1, 1], dtype=float)

    assert analysis.passage(losses, 1.0, 3) == (6, True)


def test_a_level_reached_too_late_to_be_held_is_open() -> None:
    assert analysis.passage(np.array([5.0, 5, 1, 1]), 1.0, 3) == (2, False)


def test_a_level_that_is_lost_again_was_never_reached() -> None:
    assert analysis.passage(np.array([5.0, 1, 1, 5]), 1.0, 3) is None


def test_equal_curves_have_the_same_speed() -> None:
    assert analysis.speed(Pair(run(falling()), run(falling()))).value == 1.0


def test_a_level_held_for_two_windows_of_three_is_not_reached_yet() -> None:
    losses = falling()
    early = losses.copy()
    early[1000:1030] = 0.9 * losses[-1]

    assert analysis.speed(Pair(run(early), run(losses))).value == 1.0


def test_a_run_that_never_gets_there_has_a_speed_beyond_all_limits() -> None:
    pair = Pair(run(1.1 * falling()), run(falling()))

    assert analysis.speed(pair).value == NEVER


def test_one_seed_that_never_got_there_decides() -> None:
    good, bad = (Pair(run(times * falling()), run(falling())) for times in (1.0, 1.1))

    assert analysis.speed_ratio([good, bad, good])[0].value == NEVER


def test_reached_at_the_very_end_leaves_the_speed_open() -> None:
    losses = falling()
    late = np.where(np.arange(2000) < 1930, losses + 1, losses - 0.1)

    found = analysis.speed(Pair(run(late), run(losses)))

    assert found.low is not None
    assert found.low < 2
    assert found.high == NEVER


def test_a_baseline_that_still_falls_fast_at_its_end_says_nothing() -> None:
    steep = np.linspace(50, 1, 2000)

    with pytest.raises(Unmeasured, match="too short"):
        analysis.speed(Pair(run(steep), run(steep)))


# --- The end ------------------------------------------------------------------------------------


def test_the_final_loss_is_that_of_the_last_twentieth() -> None:
    losses = np.where(np.arange(2000) < 1900, 9.0, 2.0)

    assert run(losses).last == 2.0


def test_one_pair_has_no_interval() -> None:
    found = analysis.equivalence(np.array([-0.004]))

    assert (found.value, found.low, found.high) == (0.004, None, None)


@pytest.mark.parametrize(
    ("mean", "within", "beyond"),
    [
        (0.0, True, False),
        (0.02, False, True),
        (-0.02, False, True),
        (0.0101, False, False),
        (-0.0095, False, False),
    ],
)
def test_the_bounds_are_inside_the_margin_where_two_one_sided_tests_say_so(
    mean: float, within: bool, beyond: bool
) -> None:
    differences = mean + np.array([-0.002, 0.0, 0.002, 0.001, -0.001])
    lower = stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, 0.01, alternative="less").pvalue

    found = analysis.equivalence(differences)

    assert (max(lower, upper) < 0.05) == within
    assert (found.high < 0.01) == within
    assert (found.low >= 0.01) == beyond


def test_an_interval_around_nothing_begins_at_nothing() -> None:
    assert analysis.equivalence(np.array([-0.02, 0.021, 0.0])).low == 0.0


@pytest.mark.parametrize(("deviation", "seeds"), [(0.002, 3), (0.005, 5), (0.01, 13)])
def test_the_seeds_that_90_percent_power_needs(deviation: float, seeds: int) -> None:
    assert analysis.seeds_needed(deviation, 0.01) == seeds


def test_power_is_what_simulation_finds() -> None:
    chance = np.random.default_rng(3)
    trials = chance.normal(0, 0.005, (20_000, 4))
    half = stats.t.ppf(0.95, 3) * trials.std(axis=1, ddof=1) / 2
    simulated = (np.abs(trials.mean(axis=1)) + half < 0.01).mean()

    assert analysis.power(4, 0.005, 0.01) == pytest.approx(simulated, abs=0.01)


def test_no_deviation_at_all_needs_two_seeds_and_too_much_wants_more_than_are_counted() -> None:
    assert analysis.seeds_needed(0.0, 0.01) == 2
    assert analysis.seeds_needed(1.0, 0.01) == analysis.MOST_SEEDS


# --- Patterns -----------------------------------------------------------------------------------


def test_a_loss_that_falls_to_its_end_does_not_rise_and_one_that_turns_does() -> None:
    turned = falling(noise=0.02)
    turned[1600:] += np.linspace(0, 0.5, 400)

    assert not analysis.rises(run(falling(noise=0.02)))
    assert analysis.rises(run(turned))


def test_noise_alone_does_not_rise() -> None:
    """Half of these slopes are above 0, none of them beyond doubt."""
    chance = np.random.default_rng(5)

    assert not any(analysis.rises(run(chance.normal(2, 0.1, 1000))) for _ in range(20))


def test_one_seed_that_diverged_is_a_divergence() -> None:
    good = Pair(run(falling()), run(falling()))
    nan = Pair(run(np.where(np.arange(2000) > 1500, math.inf, falling())), run(falling()))

    assert analysis.diverged([good])[0].value == 0.0
    assert analysis.diverged([good, nan])[0].value == 1.0


def spiked(size: float, *, at: int = 1000, noise: float = 0.02, seed: int = 1) -> Run:
    losses = falling(noise=noise, seed=seed)
    losses[at] += size
    return run(losses)


def test_a_spike_of_our_own_counts_and_a_shared_one_does_not() -> None:
    assert analysis.oscillations([Pair(spiked(0.5), run(falling(noise=0.02)))])[0].value == 1
    assert analysis.oscillations([Pair(spiked(0.5), spiked(0.5, seed=2))])[0].value == 0


def test_a_small_spike_of_the_baseline_does_not_hide_a_large_one() -> None:
    assert analysis.oscillations([Pair(spiked(2.0), spiked(0.3, seed=2))])[0].value == 1


def test_a_spike_of_the_baseline_alone_is_none_of_ours() -> None:
    assert analysis.oscillations([Pair(run(falling(noise=0.02)), spiked(0.5))])[0].value == 0


def test_a_spike_on_a_loss_without_noise_is_found() -> None:
    assert analysis.oscillations([Pair(spiked(0.5, noise=0.0), run(falling()))])[0].value == 1


def test_the_gap_is_held_against_the_baselines_own() -> None:
    flat = np.full(1000, 2.0)
    pair = Pair(run(flat, held_out=2.3), run(flat, held_out=2.5))

    assert analysis.gap_excess([pair])[0].value == pytest.approx(-0.2 / 2.5)


@pytest.mark.parametrize("held_out", [None, math.nan])
def test_a_validation_loss_that_is_none_has_no_gap(held_out: float | None) -> None:
    pair = Pair(run(falling(), held_out=held_out), run(falling(), held_out=2.0))

    with pytest.raises(Unmeasured, match="validation"):
        analysis.gap_excess([pair])


def test_a_validation_before_the_last_twentieth_does_not_count() -> None:
    found = curve.Curve(
        hash="x", processes=1, seed=1, batch=10, losses=(2.0,) * 1000,
        validation=((5000.0, 2.0), (9500.0, 2.0)),
    )  # fmt: skip

    assert analysis.run_of(found).held_out is None


# --- As a process -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_process_answers_in_json_with_what_it_could_not_measure(tmp_path: Path) -> None:
    losses = tuple(falling().tolist())
    for name, many in (("many", losses), ("one", losses)):
        curve.write(
            tmp_path / name,
            curve.Curve(hash="x", processes=1, seed=1, batch=10, losses=many),
        )
    files = [str(tmp_path / "many"), str(tmp_path / "one")]
    asked = json.dumps({"pairs": [files], "margin": 0.01})

    done = subprocess.run(
        [sys.executable, "-m", "dvfd.analysis"],
        input=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip

    said = json.loads(done.stdout)
    assert said["figures"]["loss_final_difference_ratio"][0]["value"] == 0.0
    assert "validation" in said["troubles"]["loss_gap_excess_ratio"]


def test_a_curve_survives_its_file(tmp_path: Path) -> None:
    before = curve.Curve(
        hash="x", processes=4, seed=2, batch=16, losses=(2.5, 1e-30), validation=((16.0, 2.0),),
        nonfinite=3, seconds=1.5,
    )  # fmt: skip

    curve.write(tmp_path / "curve", before)

    assert curve.read(tmp_path / "curve") == before


def test_a_loss_that_was_not_finite_is_still_none_in_the_file(tmp_path: Path) -> None:
    losses = (2.0, math.inf, math.nan)
    curve.write(
        tmp_path / "curve", curve.Curve(hash="x", processes=1, seed=1, batch=1, losses=losses)
    )

    assert [math.isfinite(v) for v in curve.read(tmp_path / "curve").losses] == [True, False, False]

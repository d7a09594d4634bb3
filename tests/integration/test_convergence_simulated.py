"""The verdicts on loss curves are right as often as they claim; `bench.convergence` has more."""

from __future__ import annotations

import numpy as np
import pytest

from bench import convergence
from dvfd import analysis

pytestmark = pytest.mark.slow

TRIALS = 400
"""Three standard errors are 3 % at a share of 5 %: the wanted shares are further away."""


@pytest.mark.parametrize("deviation", convergence.DEVIATIONS)
def test_a_gap_of_two_percent_is_taken_for_none_in_one_of_twenty_at_most(deviation: float) -> None:
    share, _ = convergence.passed(0.02, deviation, TRIALS)

    assert share <= 0.05


@pytest.mark.parametrize("deviation", convergence.DEVIATIONS)
def test_no_gap_is_shown_to_be_none_in_four_of_five_with_the_seeds_asked_for(
    deviation: float,
) -> None:
    share, _ = convergence.passed(0.0, deviation, TRIALS)

    assert share >= 0.80


@pytest.mark.parametrize("deviation", [0.0011, 0.004, 0.0099])
def test_the_simulation_asks_for_the_seeds_that_the_report_asks_for(deviation: float) -> None:
    asked = 2 + int(np.searchsorted(convergence.enough(), deviation / convergence.MARGIN))

    assert asked == analysis.seeds_needed(deviation, convergence.MARGIN)


def test_a_t_test_takes_the_same_gap_for_none_most_of_the_time() -> None:
    figures = {figure.name: figure.value for figure in convergence.tests(2000)}

    assert figures["ttest_passed"] > 50
    assert figures["tost_passed"] <= 5


def test_clean_training_has_at_most_one_spike_in_100000_steps() -> None:
    assert convergence.false_events(3) <= 1


def test_a_spike_of_nine_deviations_is_found_in_99_of_100() -> None:
    assert convergence.spikes_found(1000) >= 0.99


def test_a_flat_end_is_said_to_rise_in_one_of_fifty_at_most_and_a_rise_is_found() -> None:
    assert convergence.rising(TRIALS, memory=0.5) <= 0.02
    assert convergence.rising(TRIALS, rise=0.05) >= 0.97

"""Slopes of sensors: an interval that noise and rounding leave, and that holds what it promises."""

from __future__ import annotations

import math
import random

import pytest

from dvfd.drills.trend import slope

TIMES = [5.0 * i for i in range(60)]
LIMIT = 0.5 / 60


def noisy(rise, *, lasting=0.0, size=0.5, step=0.125, seed=0):
    """Five minutes of a sensor: noise whose resemblance is gone after *lasting* seconds."""
    chance = random.Random(seed)
    kept = math.exp(-5 / lasting) if lasting else 0.0
    noise, found = chance.gauss(0, size), []
    for time in TIMES:
        noise = kept * noise + math.sqrt(1 - kept**2) * chance.gauss(0, size)
        found.append(round((60 + rise * time + noise) / step) * step)
    return found


def share_held(rise, lasting):
    slopes = [
        slope(TIMES, noisy(rise, lasting=lasting, seed=seed), step=0.125) for seed in range(400)
    ]
    return sum(s.low <= rise <= s.high for s in slopes) / len(slopes)


@pytest.mark.parametrize(("lasting", "promised"), [(0, 0.96), (30, 0.89), (60, 0.85)])
@pytest.mark.parametrize("rise", [0.0, 0.01])
def test_the_interval_holds_the_truth_as_often_as_it_says(rise, lasting, promised):
    assert share_held(rise, lasting) == pytest.approx(promised, abs=0.03)


def test_a_straight_line_has_its_slope():
    found = slope(TIMES, [60 + 0.02 * t for t in TIMES], step=0.0)

    assert found.value == pytest.approx(0.02)
    assert found.high - found.low < 1e-9


def test_whole_degrees_that_never_change_may_hide_a_rise_but_not_half_a_degree_a_minute():
    found = slope(TIMES, [61.0] * 60, step=1.0)

    assert found.value == 0
    assert 0.1 / 60 < found.high < LIMIT


def test_a_package_that_still_warms_is_surely_rising():
    warming = [70 - 30 * math.exp(-(300 + t) / 240) for t in TIMES]

    assert slope(TIMES, [float(round(v)) for v in warming], step=1.0).low > LIMIT


@pytest.mark.parametrize("times", [[], [0.0] * 60, TIMES[:6] + TIMES[-6:], TIMES[:9]])
def test_too_little_gives_no_slope(times):
    assert slope(times, [60.0] * len(times), step=1.0) is None

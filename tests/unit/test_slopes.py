"""Slopes of hours that resemble each other: an interval that says how little they tell."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import signal, stats

from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample
from dvfd.reviews import trend as asking
from dvfd.reviews.slopes import MOST, Unmeasured, answer, excess, resemblance, student, trend
from dvfd.shell import Output

WEEK = 168
HOURS = np.arange(WEEK, dtype=np.float64)


def noise(memory: float, seed: int, hours: int = WEEK) -> np.ndarray:
    chance = np.random.default_rng(seed)
    white = chance.normal(0.0, 0.01 * math.sqrt(1 - memory**2), hours + 300)
    return signal.lfilter([1.0], [1.0, -memory], white)[300:]


def missed(memory: float, *, weeks: int = 150, naive: bool = False) -> float:
    """Share of steady weeks whose interval excludes that nothing changes."""
    count = 0
    for seed in range(weeks):
        values = 240.0 * (1.0 + noise(memory, seed))
        if naive:
            found = stats.theilslopes(values, HOURS)
            count += not found.low_slope <= 0.0 <= found.high_slope
        else:
            slope = trend(HOURS, values).slope
            count += not slope.low <= 0.0 <= slope.high
    return count / weeks


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_a_steady_week_is_seldom_said_to_change_however_its_hours_resemble(memory):
    """150 weeks: 5 % and two standard errors."""
    assert missed(memory) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)


def test_an_interval_that_takes_hours_for_independent_would_be_wrong_every_third_time():
    assert missed(0.8, naive=True) > 0.3


def test_a_fall_of_five_percent_is_found():
    for seed in range(20):
        values = 240.0 * (1.0 + noise(0.5, seed) - 0.05 * HOURS / WEEK)
        slope = trend(HOURS, values).slope
        assert slope.high * WEEK < -0.02


def test_hours_of_restarts_change_nothing():
    values = 240.0 * (1.0 + noise(0.8, 3))
    calm = trend(HOURS, values)
    values[[20, 70, 71, 120]] *= 0.1
    rough = trend(HOURS, values)
    assert rough.slope.value == pytest.approx(calm.slope.value, abs=3e-5)
    assert 0.5 < rough.effective / calm.effective < 2


def test_a_daily_rhythm_widens_the_interval_and_makes_no_alarm():
    values = 240.0 * (1.0 + noise(0.0, 1) + 0.03 * np.sin(2 * math.pi * HOURS / 24))
    slope = trend(HOURS, values).slope
    assert slope.low < 0.0 < slope.high


def test_hours_that_are_missing_are_no_neighbours():
    kept = np.flatnonzero(np.arange(WEEK) % 2 == 0)
    assert resemblance(HOURS[kept], noise(0.8, 2)[kept]) == MOST


def test_what_is_constant_has_a_slope_of_exactly_nothing():
    found = trend(HOURS, np.full(WEEK, 240.0))
    assert (found.slope.low, found.slope.value, found.slope.high) == (0.0, 0.0, 0.0)
    assert found.level.value == 240.0


@pytest.mark.parametrize(("hours", "level"), [(23, 240.0), (168, 0.0), (168, -1.0)])
def test_what_has_no_slope_says_why(hours, level):
    with pytest.raises(Unmeasured):
        trend(HOURS[:hours], np.full(hours, level))


@pytest.mark.parametrize("free", [3.0, 5.0, 20.0, 1000.0])
def test_the_series_for_students_t_is_good_to_four_percent(free):
    assert student(free) == pytest.approx(stats.t.ppf(0.975, free), rel=0.04)


def test_less_resemblance_never_leaves_more_excess():
    found = [excess(r) for r in np.linspace(0, MOST, 50)]
    assert found == sorted(found)
    assert found[0] == 1.0


def test_one_series_without_an_answer_spoils_no_other():
    steady = {"hours": HOURS.tolist(), "values": [240.0] * WEEK}
    first, second = answer([{"hours": [1], "values": [1.0]}, steady])
    assert "trouble" in first
    assert second["count"] == WEEK


# --- From the daemon's side ---------------------------------------------------------------------


def test_only_whole_hours_that_were_half_seen_count():
    def rolled(at, span):
        return Sample("m", 1.0, at, (), span=span)

    given = [rolled(7200, 3600), rolled(10800, 1799), rolled(14400, 1800), rolled(14460, 60),
             rolled(18000, 0)]  # fmt: skip
    assert sorted(asking.by_hour(given)) == [1, 3]


def test_the_child_answers_for_every_series():
    found = asking.ask([{h: 240.0 + h % 3 for h in range(WEEK)}, {1: 2.0}])
    assert isinstance(found[0], asking.Trend)
    assert found[0].level.value == 241.0
    assert found[1] == "1 hours, wanted at least 24"


ENDS = {"value": 0.0, "low": 0.0, "high": 0.0}
GOOD = {"slope": ENDS, "level": ENDS, "count": 24, "effective": 24.0}


@pytest.mark.parametrize(
    "said",
    ["", "7", "[]", "[{}]", "[null]", '{"a": 1}', json.dumps([GOOD, GOOD]),
     json.dumps([GOOD | {"slope": ENDS | {"low": 1.0}}]),
     json.dumps([GOOD | {"effective": "many"}]),
     json.dumps([GOOD]).replace("24.0", "NaN")],
)  # fmt: skip
def test_an_answer_that_is_none_is_no_figure(said):
    with pytest.raises(ProbeError):
        asking.ask([{1: 2.0}], run=lambda *_args, **_keys: Output(0, said, "", 0.1))


def test_a_child_that_fails_says_so():
    with pytest.raises(ToolError, match="no module"):
        asking.ask([], run=lambda *_args, **_keys: Output(1, "", "x\nno module numpy", 0.1))

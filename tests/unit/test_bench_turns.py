"""Whose turn it is in a job that is watched by turns, and what is made of the times."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from bench.overhead import figures
from bench.resample import mean_interval, median_interval, ratio_of_medians
from bench.turns import ARMS, BLOCK, Step, arm_of, call, ratio, rounds

ROUND = BLOCK * len(ARMS)


def job(costs, count=10, pace=0.1):
    """Steps of whole rounds whose calls take what *costs* says of their arm, in seconds."""
    steps, now = [], 100.0
    for number in range(count * ROUND):
        took = costs.get(arm_of(number), 0.0)
        now += pace + took
        steps.append(Step(number, now, took, took / 2))
    return steps


def test_every_round_has_each_turn_once():
    for first in range(0, 10 * ROUND, ROUND):
        seen = Counter(arm_of(first + step) for step in range(ROUND))
        assert seen == dict.fromkeys(ARMS, BLOCK)


def test_each_comes_in_each_place_of_a_round_once():
    for place in range(len(ARMS)):
        seen = [arm_of(first + place * BLOCK) for first in range(0, 4 * ROUND, ROUND)]
        assert sorted(seen) == sorted(ARMS)


def test_a_cost_that_was_put_in_is_found():
    found = rounds(job({"dvfd": 0.001, "prometheus": 0.002}), warm_up=0)
    assert ratio(found, "dvfd", "without") == pytest.approx((1.01,) * 3)
    assert ratio(found, "prometheus", "without") == pytest.approx((1.02,) * 3)
    assert ratio(found, "again", "without") == pytest.approx((1.0,) * 3)


def test_rounds_in_the_warm_up_and_broken_ones_are_left_out():
    steps = job({}, count=3)
    assert len(rounds(steps, warm_up=0)) == 3
    assert len(rounds(steps, warm_up=1)) == 2
    assert len(rounds(steps[:-1], warm_up=1)) == 1


def test_the_first_call_of_a_turn_is_left_out():
    assert len(call(job({}, count=1), "dvfd", "wall")) == BLOCK - 1


def told(costs):
    steps = job(costs)
    return {figure.name: figure for figure in figures([steps], rounds(steps, warm_up=0))}


def test_what_cannot_be_told_from_nothing_is_within():
    assert told({})["with"].reached


def test_two_per_cent_are_not_within():
    assert told({"dvfd": 0.002})["with"].reached is False


def test_half_a_per_cent_is_within_although_it_can_be_told():
    assert told({"dvfd": 0.0005})["with"].reached


def test_a_call_costs_what_an_empty_one_does_not():
    found = told({"dvfd": 0.003, "without": 0.001, "again": 0.001})
    assert found["dvfd_wall"].value == pytest.approx(2000)
    assert found["dvfd_cpu"].value == pytest.approx(1000)


# --- Drawing again -----------------------------------------------------------------------------


def test_an_interval_lies_around_its_value_and_is_the_same_each_time():
    values = [math.sin(n) + 3 for n in range(40)]
    low, high = median_interval(values)
    assert low < sorted(values)[20] < high
    assert (low, high) == median_interval(values)


def test_a_ratio_of_medians_keeps_pairs_and_classes():
    value, low, high = ratio_of_medians([[(1.0, 10.0)] * 5, [(2.0, 20.0)] * 5])
    assert (value, low, high) == (10, 10, 10)


def test_more_spread_is_a_wider_interval():
    narrow = mean_interval([1.0, 1.01, 0.99] * 5)
    wide = mean_interval([1.0, 1.5, 0.5] * 5)
    assert wide[2] - wide[1] > narrow[2] - narrow[1] > 0

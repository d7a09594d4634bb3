"""Gradient norms: a lasting change is an excursion, a single large step is training."""

from __future__ import annotations

import math
import random

from dvfd.derive import NormWatch


def excursions(factor: float, steps: int, *, noise: float = 0.2) -> int:
    """Excursions in 3000 steps of log-normal noise, of which *steps* are *factor* times as high."""
    chance, watch = random.Random(1), NormWatch()
    for step in range(3000):
        height = factor if 2000 <= step < 2000 + steps else 1.0
        watch.add(height * math.exp(chance.gauss(0, noise)))
    return watch.excursions


def test_a_norm_that_triples_for_thirty_steps_is_an_excursion() -> None:
    assert excursions(3.0, 30) == 1


def test_so_is_one_that_vanishes() -> None:
    assert excursions(0.01, 100) == 1


def test_a_single_large_step_is_none() -> None:
    assert excursions(10.0, 1) == 0


def test_a_third_of_it_for_thirty_steps_is_one_too() -> None:
    assert excursions(1 / 3, 30) == 1


def test_what_is_over_within_a_median_is_none() -> None:
    assert excursions(10.0, 5) == 0


def test_a_level_that_stays_is_one() -> None:
    assert excursions(3.0, 1000) == 1


def test_a_rare_run_of_low_norms_in_gaussian_noise_is_none() -> None:
    chance, watch = random.Random(3), NormWatch()  # a single median stands out at step 209138
    for step in range(215_000):
        height = 1 + 9 * math.exp(-step / 20000)
        watch.add(max(1e-9, height * (1 + chance.gauss(0, 0.2))))
    assert watch.excursions == 0


def test_two_medians_that_stand_out_are_an_excursion_and_one_is_none() -> None:
    found = []
    for steps in (7, 14):
        watch = NormWatch()
        found.append(sum(map(watch.add, [1.0] * 7 * 110 + [50.0] * steps + [1.0] * 70)))
    assert found == [0, 1]


def test_an_excursion_is_seen_from_the_hundred_and_second_median_on() -> None:
    watch = NormWatch()
    seen = [watch.add(norm) for norm in [1.0] * 7 * 99 + [50.0] * 100]
    assert seen.index(True) == 7 * 102 - 1


def test_noise_is_none() -> None:
    assert excursions(1.0, 0, noise=0.5) == 0


def test_zero_and_what_is_not_finite_break_nothing() -> None:
    watch = NormWatch()
    assert not any(watch.add(norm) for norm in (0.0, math.nan, math.inf) * 500)


def test_the_first_steps_are_no_course_to_leave() -> None:
    watch = NormWatch()
    assert not any(watch.add(norm) for norm in [1.0] * 300 + [50.0] * 100)

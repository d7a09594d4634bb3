"""Loss spikes: found when they are there, not found when they are not."""

from __future__ import annotations

import math
import random

import pytest

from dvfd.derive import LOSS_POINTS, LossWatch


def watched(losses):
    watch = LossWatch()
    for loss in losses:
        watch.add(loss)
    return watch


def noise(count, seed=1, level=3.0, sigma=0.1):
    chance = random.Random(seed)
    return [chance.gauss(level, sigma) for _ in range(count)]


def test_clean_noise_has_no_spikes():
    assert watched(noise(20_000)).spikes == 0


def test_a_spike_of_nine_sigma_is_found_in_99_of_100():
    watch = watched(noise(101))
    found = 0
    for seed in range(1000):
        for loss in noise(30, seed + 2):
            watch.add(loss)
        found += watch.add(3.0 + 9 * 0.1)

    assert found >= 990


def test_a_falling_loss_has_no_spikes():
    falling = [6 * math.exp(-i / 300) + 2 for i in range(3000)]
    losses = [a + b for a, b in zip(falling, noise(3000, level=0, sigma=0.02), strict=True)]

    assert watched(losses).spikes == 0


def test_a_fall_is_no_spike():
    assert watched([*noise(101), 0.1]).spikes == 0


def test_spikes_close_together_are_one_event():
    assert watched([*noise(101), 9, 9, 3, 9, 3, 3, 9]).spikes == 1


@pytest.mark.parametrize(("between", "events"), [(20, 1), (21, 2)])
def test_spikes_with_less_than_21_steps_between_them_are_one_event(between, events):
    assert watched([*noise(101), 9, *[3.0] * between, 9]).spikes == events


def test_spikes_far_apart_are_events_of_their_own():
    assert watched([*noise(101), 9, *noise(30, 2), 9]).spikes == 2


def test_a_level_that_stays_high_is_one_event():
    assert watched([*noise(101), *noise(500, 2, level=9)]).spikes == 1


def test_an_event_is_told_when_it_begins():
    watch = watched(noise(101))

    assert [watch.add(loss) for loss in (3.0, 9.0, 9.0)] == [False, True, False]


def test_too_few_points_are_not_judged():
    assert watched([*noise(LOSS_POINTS - 1), 100]).spikes == 0
    assert watched([*noise(LOSS_POINTS), 100]).spikes == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_counted_apart_and_takes_no_part(bad):
    watch = watched([*noise(60), bad, *noise(60, 2)])

    assert (watch.nonfinite, watch.spikes) == (1, 0)
    assert not watch.add(bad)
    assert watch.nonfinite == 2


def test_whether_the_newest_loss_stands_out_is_known():
    watch = LossWatch()
    assert watch.out is False

    for loss in [*noise(101), 9.0]:
        watch.add(loss)
    assert watch.out is True


def test_losses_that_are_equal_do_not_make_the_last_digit_a_spike():
    assert watched([2.5] * 101 + [2.5 + 2.5 / 256]).spikes == 0


def test_losses_that_are_equal_do_not_hide_a_jump():
    assert watched([2.5] * 101 + [5.0]).spikes == 1


def test_losses_rounded_coarsely_have_no_spikes():
    losses = [round(loss, 3) for loss in noise(5000, level=2, sigma=0.0004)]

    assert watched(losses).spikes == 0


def test_a_watch_remembers_no_more_than_its_window():
    watch = watched(noise(1000))

    assert (len(watch._recent), len(watch._ordered)) == (101, 101)
    assert sorted(watch._recent) == watch._ordered

"""Where a job's time went by the series of the store: all of it, once, and what it cannot know."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fakes_spent import AT, LOOK, Shelf
from hypothesis import given
from hypothesis import strategies as st

from dvfd.errors import DvfdError
from dvfd.runs.goodput import Goodput, Part
from dvfd.spent import of_job


def spent(found: Goodput) -> dict[Part, float]:
    assert math.isclose(math.fsum(found.parts.values()), found.whole, abs_tol=1e-6)
    assert all(seconds >= 0 for seconds in found.parts.values())
    return {part: round(seconds, 3) for part, seconds in found.parts.items() if seconds > 5e-4}


def test_steps_all_the_time_are_productive():
    found = Shelf().account()
    assert spent(found) == {Part.PRODUCTIVE: 100}
    assert (found.steps, found.since, found.until) == (200, AT, AT + 100)


def test_the_rank_that_did_least_counts():
    shelf = Shelf()
    shelf.put("rank_step_seconds", [0.25] * 21, rank=1)  # as many steps in half the time
    assert spent(shelf.account())[Part.PRODUCTIVE] == 50


def test_a_step_that_is_longer_than_the_time_between_looks_is_wholly_productive():
    shelf = Shelf()
    for rank in (0, 1):
        shelf.steps(rank, [float(n // 4) for n in range(21)])
        shelf.put("rank_step_seconds", [20.0] * 21, rank=rank)
    assert spent(shelf.account()) == {Part.PRODUCTIVE: 100}


def test_time_before_the_first_step_is_initialisation():
    shelf = Shelf()
    for rank in (0, 1):
        shelf.steps(rank, [max(0.0, 10.0 * (n - 4)) for n in range(21)])
    assert spent(shelf.account()) == {Part.INITIALISATION: 20, Part.PRODUCTIVE: 80}


def test_a_rank_that_is_first_heard_later_has_the_steps_since_then():
    shelf = Shelf()
    for rank in (0, 1):
        shelf.steps(rank, [None, None, *(10.0 * n for n in range(1, 20))])
    found = shelf.account()
    assert spent(found) == {Part.INITIALISATION: 10, Part.PRODUCTIVE: 90}
    assert found.steps == 180


def test_time_in_which_nobody_looked_is_unobserved():
    shelf = Shelf()
    shelf.put("job_observed_seconds_total", [min(50, LOOK * n) for n in range(21)])
    for rank in (0, 1):
        shelf.steps(rank, [min(100.0, 10.0 * n) for n in range(21)])
    found = shelf.account()
    assert spent(found) == {Part.PRODUCTIVE: 50, Part.UNOBSERVED: 50}
    assert found.ratio == (0.5, 1.0)


def test_a_restart_costs_recovery_until_steps_come_again():
    shelf = Shelf()
    done = [10.0 * n for n in range(9)] + [80.0] * 4 + [80.0 + 10 * n for n in range(1, 9)]
    for rank in (0, 1):
        shelf.steps(rank, done)
    up = [LOOK * n for n in range(9)] + [40.0] * 2 + [40.0 + LOOK * n for n in range(1, 11)]
    shelf.put("job_up_seconds_total", up)
    shelf.put("rank_restarts_total", [0.0] * 11 + [2.0] * 10)

    found = shelf.account()
    assert spent(found) == {Part.PRODUCTIVE: 80, Part.RECOVERY: 20}
    assert any("2 ranks came back as new processes" in note for note in found.notes)


def test_a_pause_between_steps_is_other_and_says_what_may_be_in_it():
    shelf = Shelf()
    for rank in (0, 1):
        shelf.steps(rank, [10.0 * min(n, 10) + 10.0 * max(0, n - 14) for n in range(21)])
    found = shelf.account()
    assert spent(found)[Part.OTHER] == 20
    assert any("saving and loading checkpoints" in note for note in found.notes)


def test_waiting_for_data_is_what_the_sections_leave():
    shelf = Shelf()
    shelf.put("job_communication_ratio", [0.2] * 21)
    for rank in (0, 1):
        shelf.put("rank_compute_seconds", [0.3] * 21, rank=rank)
    found = shelf.account()
    assert spent(found) == {Part.PRODUCTIVE: 80, Part.DATA: 20}
    assert not any("waiting for data" in note for note in found.notes)


def test_without_sections_it_says_that_waiting_for_data_cannot_be_told():
    assert any("waiting for data" in note for note in Shelf().account().notes)


def test_a_counter_that_begins_again_is_no_negative_time():
    shelf = Shelf()
    for rank in (0, 1):
        shelf.steps(rank, [10.0 * n for n in range(10)] + [10.0 * n for n in range(11)])
    assert spent(shelf.account())[Part.PRODUCTIVE] <= 100


def test_time_that_came_twice_by_a_clock_that_was_set_back_is_productive_once():
    shelf = Shelf(looks=41)
    for rank in (0, 1):
        shelf.put("rank_step_seconds", [0.25] * 41, rank=rank)  # half of the time
    for key, course in shelf.series_.items():
        back = [s if n < 21 else replace(s, at=s.at - 52.5) for n, s in enumerate(course)]
        shelf.series_[key] = sorted(back, key=lambda s: s.at)
    assert round(spent(shelf.account())[Part.PRODUCTIVE], 3) == 100


def test_what_two_counters_differ_by_in_their_last_digit_is_no_recovery():
    shelf = Shelf()
    shelf.put("job_up_seconds_total", [LOOK * n * (1 - 1e-12) for n in range(21)])
    for rank in (0, 1):
        shelf.steps(rank, [9.0 * n for n in range(21)])
    assert Part.RECOVERY not in spent(shelf.account())


def test_ranks_of_other_nodes_are_told_of():
    shelf = Shelf()
    shelf.put("job_processes", [8.0] * 21)
    assert any("2 of 8" in note for note in shelf.account().notes)


def test_a_job_that_is_not_there_is_refused_with_the_one_that_was_meant():
    with pytest.raises(DvfdError, match="did you mean 'gpt'"):
        of_job(Shelf(), "gtp", since=AT, until=AT + 100)  # type: ignore[arg-type]


NUMBERS = st.lists(st.none() | st.floats(0, 1e4), min_size=21, max_size=21)


@given(NUMBERS, NUMBERS, NUMBERS, st.lists(st.floats(0, 100), min_size=21, max_size=21))
def test_for_any_course_the_parts_add_up_and_none_is_negative(steps, up, observed, step):
    shelf = Shelf()
    shelf.steps(0, steps)
    shelf.put("job_up_seconds_total", up)
    shelf.put("rank_step_seconds", step, rank=0)
    shelf.put("rank_compute_seconds", step, rank=0)
    shelf.put("job_communication_ratio", [0.5] * 21)
    shelf.put("job_observed_seconds_total", [0.0, *(o or 0.0 for o in observed[1:])])
    spent(shelf.account())

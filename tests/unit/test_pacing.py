"""How often collectives are timed where there is little time: the comparison stays fair."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.drills.workers.pacing import FEWEST, TURNS, WARM, Cost, pace, turn


def costs(*seconds: float, group: str = "bucket") -> list[Cost]:
    """The first is needed."""
    return [
        Cost(seconds=each, wanted=20, warm_up=19, group=group, needed=not i)
        for i, each in enumerate(seconds)
    ]


def test_what_fits_is_timed_as_often_as_was_asked() -> None:
    assert pace(costs(0.1, 0.2), room=60, longest=7.5) == [20, 20]


def test_where_time_is_short_all_are_timed_equally_often() -> None:
    assert pace(costs(2.0, 2.0, 1.6), room=60, longest=7.5) == [9, 9, 9]


def test_what_there_is_no_time_for_is_left_out_the_slowest_first() -> None:
    # A bucket over 200 Mbit/s among 16 ranks: builtin, ring, hierarchical, tree, across.
    assert pace(costs(2.0, 2.0, 1.6, 4.2, 8.2), room=60, longest=15) == [5, 5, 5, 5, 0]


def test_what_is_needed_is_timed_even_where_it_is_the_slowest() -> None:
    assert pace(costs(7.0, 2.0, 2.0), room=10, longest=7.5) == [FEWEST, 0, 0]


def test_what_would_be_given_up_as_hanging_is_not_tried() -> None:
    assert pace(costs(1.0, 8.0), room=1000, longest=7.5) == [20, 0]
    assert pace(costs(8.0), room=1000, longest=7.5) == [0]


def test_a_small_message_is_timed_in_full_beside_a_large_one_that_is_not() -> None:
    small = [Cost(seconds=0.001, wanted=100, warm_up=19, group="64KiB", needed=True)]
    assert pace([*costs(2.0, 2.0), *small], room=60, longest=7.5) == [13, 13, 100]


@given(
    st.lists(st.floats(1e-4, 20.0), min_size=1, max_size=8),
    st.floats(10.0, 1000.0),
)
def test_the_room_is_kept_but_for_the_fewest_of_what_is_needed(
    seconds: Sequence[float], room: float
) -> None:
    rows = costs(*seconds)
    found = pace(rows, room, longest=7.5)
    spent = sum((n + WARM) * c.seconds for n, c in zip(found, rows, strict=True) if n)
    least = (FEWEST + WARM) * rows[0].seconds if found[0] else 0.0
    assert spent <= max(room, least) + 1e-6
    assert len({n for n in found if n}) <= 1
    assert all(n == 0 or n >= FEWEST for n in found)


@pytest.mark.parametrize("iterations", [5, 9, 10, 20, 100])
def test_turns_hold_all_iterations(iterations: int) -> None:
    assert sum(turn(iterations, n) for n in range(TURNS)) == iterations


def test_few_iterations_have_a_turn_each() -> None:
    assert {turn(7, n) for n in range(TURNS)} == {0, 1}

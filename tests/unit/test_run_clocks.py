"""How two clocks lie to each other, from what one is asked and when it answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.runs.clocks import DRIFT, measured

OUR = st.floats(0, 1e6)
WAY = st.floats(0, 5)


@given(OUR, st.floats(-1e6, 1e6), WAY, WAY)
def test_the_truth_lies_within_the_error(now: float, ahead: float, there: float, back: float):
    found = measured(None, asked=now, came=now + there + back, theirs=now + there + ahead)
    assert abs(found.seconds - ahead) <= found.error + 1e-6


def test_a_surer_answer_takes_the_place_of_one_that_took_longer():
    slow = measured(None, asked=0.0, came=2.0, theirs=101.9)
    assert measured(slow, asked=10.0, came=10.01, theirs=110.005).seconds == pytest.approx(100.0)


def test_a_slow_answer_moves_no_row():
    sure = measured(None, asked=0.0, came=0.01, theirs=100.005)
    assert measured(sure, asked=10.0, came=13.0, theirs=112.9) is sure


def test_what_is_old_gives_way_though_it_was_surer():
    sure = measured(None, asked=0.0, came=0.01, theirs=100.005)
    later = 0.1 / DRIFT
    assert measured(sure, asked=later, came=later + 0.02, theirs=later + 100.05) is not sure


def test_a_clock_that_was_set_is_believed_at_once():
    sure = measured(None, asked=0.0, came=0.01, theirs=100.005)
    assert measured(sure, asked=2.0, came=3.0, theirs=3702.5).seconds == pytest.approx(3700.0)

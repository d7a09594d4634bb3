"""Checkpoints that a run owes: counted whatever a rank says of its steps."""

from dvfd.runs.owed import owed
from dvfd.runs.rows import Event, What


def begun(*steps):
    return {What.BEGUN: [Event(node="n", t=1.0, at=1.0, what=What.BEGUN, step=s) for s in steps]}


def expected(events, *, every=10, first=1, reached):
    return owed(events, every=every, first=first, reached=reached, until=1e6).expected


def test_every_multiple_that_was_passed_is_owed_once():
    assert expected({}, reached=100) == 9  # the tenth has only just come due
    assert expected({}, reached=105) == 10
    assert expected(begun(10, 20, 100), reached=100) == 10


def test_one_that_was_begun_elsewhere_is_owed_besides():
    assert expected(begun(10, 55, 990), reached=105) == 12


def test_steps_that_no_job_makes_cost_neither_time_nor_memory():
    assert expected({}, every=1, reached=2**61) == 2**61 - 1

"""A stability run's report: what its own file tells besides, of every node that is in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from fakes_output import valid
from fakes_report import FakeRows
from fakes_reporting import PRICE
from fakes_runs import ARMED_AT, BEGAN, LENGTH, RATE, Story, healthy

from dvfd.errors import DvfdError
from dvfd.reporting.document import document
from dvfd.reporting.from_run import story
from dvfd.reporting.render import html
from dvfd.runs.rows import What

BACK = 3600.0
"""Seconds of the run after which it was killed."""


def told(of: Story):
    return story(of.run(), FakeRows(list(of.windows), list(of.minutes), list(of.events)))


def report(of: Story):
    found = document(told(of), PRICE, made_at=ARMED_AT)
    valid(found, "job_report")
    return found


def killed(lost: float = 120.0, again: int = 150) -> Story:
    """All ranks were killed after an hour, step again *lost* seconds later, *again* steps back."""
    of = healthy()

    def after(window) -> bool:
        return window.began - BEGAN >= BACK

    of.change(
        after,
        session=lambda w: w.session + "b",
        began=lambda w: w.began + lost - 1 / RATE, ended=lambda w: w.ended + lost - 1 / RATE,
        first_step=lambda w: w.first_step - again, last_step=lambda w: w.last_step - again,
    )  # fmt: skip
    of.windows = [w for w in of.windows if w.ended <= BEGAN + LENGTH]
    of.happens(What.RESTART, BACK + 20.0, rank=0)
    return of


def test_a_healthy_run_is_told_with_the_numbers_of_its_steps():
    found = report(healthy())
    assert (found["run"]["id"], found["period"]["seconds"]) == ("r", LENGTH)
    assert (found["work"]["steps"], found["work"]["steps_again"]) == (LENGTH * RATE, 0)
    assert found["by_step"]["numbered"] is True
    assert (
        found["by_step"]["loss"][0][0] == 2 * healthy().check.every
    )  # when the first began, nobody knows
    assert found["coverage"]["source"] == "run file"


def test_its_checkpoints_are_all_known():
    of = healthy()
    steps = range(of.check.checkpoint_every, int(LENGTH * RATE) + 1, of.check.checkpoint_every)
    found = report(of)
    assert found["checkpoints"]["seen"] == len(steps)
    assert found["checkpoints"]["all"] is True
    assert found["checkpoints"]["seconds"] is None  # none of these told how long it took
    assert any("time of checkpoints" in line for line in found["unknown"])


def test_the_time_of_checkpoints_is_what_their_saves_took():
    of = healthy()
    of.events = [replace(e, value=2.0) if e.what is What.SAVED else e for e in of.events]
    found = report(of)["checkpoints"]
    assert found["seconds"] == pytest.approx(2.0 * found["seen"])
    assert found["longest"] == 2.0


def test_a_restart_is_told_from_the_last_step_to_the_next_with_the_steps_done_again():
    (restart,) = report(killed())["restarts"]["listed"]
    assert (restart["ranks"], restart["seconds"]) == (4, pytest.approx(120.0))
    assert (restart["steps_again"], restart["at_most"]) == (150, False)
    assert restart["t"] == pytest.approx(BACK)


def test_ranks_that_are_not_back_yet_are_a_restart_without_a_length():
    of = healthy()
    of.happens(What.RESTART, LENGTH - 1.0, rank=0)
    of.happens(What.RESTART, LENGTH - 1.0, rank=1)
    (restart,) = report(of)["restarts"]["listed"]
    assert (restart["ranks"], restart["seconds"], restart["steps_again"]) == (2, None, None)


def test_two_failures_apart_are_two_restarts():
    of = killed(lost=60.0)
    of.change(
        lambda w: w.began - BEGAN >= 5400.0,
        session=lambda w: w.session + "c", began=lambda w: w.began + 30.0,
        ended=lambda w: w.ended + 30.0,
    )  # fmt: skip
    found = report(of)["restarts"]
    assert (found["count"], found["ranks"]) == (2, 8)


def test_every_second_and_cent_of_a_run_that_was_killed_is_in_one_part():
    found = report(killed())
    parts = found["time"]["parts"]
    assert math.isclose(sum(p["seconds"] for p in parts), LENGTH)
    assert math.isclose(sum(p["money"] for p in parts), found["cost"]["total"])
    assert next(p["seconds"] for p in parts if p["part"] == "again") > 0


def test_a_rank_that_computes_longer_is_named():
    of = healthy()
    of.change(lambda w: w.rank == 2, compute=lambda w: 0.44 * w.steps)
    found = report(of)["stragglers"]
    assert found["ranks"][0]["rank"] == 2
    assert found["seconds"] == pytest.approx(LENGTH * RATE * 0.04)


def test_several_nodes_are_paid_for_and_their_energy_is_added_up():
    found = report(healthy("stability_phase2a"))
    assert found["work"]["nodes"] == 2
    assert found["cost"]["node_hours"] == pytest.approx(2 * LENGTH / 3600)
    assert [m["node"] for m in found["energy"]["meters"]] == ["n0", "n1"]
    assert found["energy"]["joules"] == pytest.approx(2 * 200 * LENGTH, rel=0.02)
    assert any("all 2 nodes are taken to cost" in note for note in found["time"]["notes"])


def test_a_file_with_one_node_of_two_says_so():
    of = healthy("stability_phase2a")
    of.windows = [w for w in of.windows if w.node == "n1"]
    assert any("holds 1 of 2 nodes" in note for note in report(of)["time"]["notes"])


def test_a_run_without_power_meters_has_no_energy():
    of = healthy()
    of.without("cpu_package_energy_joules_total")
    assert report(of)["energy"]["kwh"] is None


def test_time_that_nobody_saw_is_shaded():
    of = healthy()
    of.happens(What.UNSEEN, 600.0, text="no daemon")
    of.happens(What.UP, 900.0)
    found = report(of)
    assert found["marks"]["gaps"] == [[600.0, 900.0]]
    assert found["coverage"]["observed"] == pytest.approx(1 - 300 / LENGTH)


def test_a_run_that_made_no_step_has_nothing_to_tell():
    of = healthy()
    with pytest.raises(DvfdError, match="made no step with all its ranks"):
        story(replace(of.run(), began_t=None), FakeRows())


def test_the_page_of_a_run_is_of_its_document_alone():
    found = report(killed())
    assert html(found, "5ea1" * 16) == html(json.loads(json.dumps(found)), "5ea1" * 16)
    assert "run r" in html(found, "5ea1" * 16)

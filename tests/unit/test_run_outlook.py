"""A run that is on: nothing has passed yet, what is lost has failed, and what is left is told."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fakes_runs import ARMED_AT, BEGAN, LENGTH, Story, healthy

from dvfd.model import Verdict
from dvfd.runs.rows import What
from dvfd.runs.run import Stage
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def halfway(check_id: str = "stability_phase1") -> Story:
    """An hour of two."""
    story = healthy(check_id, length=LENGTH / 2)
    story.stage = Stage.RUNNING
    return story


def test_a_run_that_is_on_has_passed_nothing() -> None:
    found = halfway().judged()
    assert {j.result.verdict for j in found.values()} == {UNKNOWN, Verdict.NOT_APPLICABLE}
    assert found["throughput"].so_far is PASS
    assert found["throughput"].result.reason.startswith("passes so far, after 60 min of 120 min; ")


def test_what_may_still_be_met_has_not_failed() -> None:
    story = halfway()
    story.change(lambda w: True, samples=lambda w: w.samples * 0.8)
    found = story.judged()["throughput"]
    assert (found.result.verdict, found.so_far) == (UNKNOWN, FAIL)
    assert "fails so far, and may still be met" in found.result.reason
    assert found.outlook.words == "the rest must average at least 276"


@pytest.mark.parametrize(
    ("metric", "criterion"),
    [("job_nonfinite_total", "loss_finite"), ("job_loss_spikes_total", "loss_spikes")],
)
def test_an_event_that_must_not_be_fails_at_once(metric: str, criterion: str) -> None:
    story = halfway()
    story.set(metric, 30, grown=1.0)
    found = story.judged()[criterion]
    assert (found.result.verdict, found.outlook.lost) == (FAIL, True)


def test_a_peak_that_was_too_high_fails_at_once() -> None:
    story = halfway()
    story.set("node_memory_used_ratio", 30, high=0.9)
    assert story.judged()["memory"].outlook.lost


def test_a_checkpoint_that_was_missed_is_never_made_up() -> None:
    story = halfway()
    story.events = [e for e in story.events if e.step != 1000]
    found = story.judged()["checkpoints_attempted"]
    assert (found.result.verdict, found.outlook.lost) == (FAIL, True)


def test_downtime_is_a_budget() -> None:
    story = halfway("stability_phase2a")
    story.happens(What.DOWN, 1000.0, text="rank 1 is gone")
    story.happens(What.UP, 1003.0)
    found = story.judged()["uptime"]
    assert found.outlook.budget == pytest.approx(0.0005 * LENGTH)
    assert found.outlook.used == pytest.approx(3.0)
    assert found.outlook.burn_rate == pytest.approx(3.0 / 3.6 / 0.5)
    assert (found.outlook.lost, found.result.verdict) == (False, UNKNOWN)
    assert found.outlook.words == "0.6 of 3.6 s left"


def test_downtime_beyond_the_budget_fails_at_once() -> None:
    story = halfway("stability_phase2a")
    story.happens(What.DOWN, 1000.0, text="rank 1 is gone")
    story.happens(What.UP, 1004.0)
    found = story.judged()["uptime"]
    assert (found.outlook.lost, found.result.verdict) == (True, FAIL)


def test_time_that_nobody_saw_leaves_uptime_between_two_bounds() -> None:
    story = healthy("stability_phase2a")
    story.happens(What.UNSEEN, 1000.0, text="no daemon looked")
    story.happens(What.UP, 1030.0)
    found = story.judged()["uptime"].result
    assert found.verdict is UNKNOWN
    assert found.observed == 1.0
    assert "straddles" in found.reason


def test_unseen_time_that_could_not_matter_does_not() -> None:
    story = healthy("stability_phase2a")
    story.happens(What.UNSEEN, 1000.0, text="no daemon looked")
    story.happens(What.UP, 1002.0)
    assert story.judged()["uptime"].result.verdict is PASS


def test_a_run_that_does_not_count_passes_nothing_and_can_fail() -> None:
    story = healthy(discounts=("ranks 0-3 may all run on the cores 0-1",))
    story.set("job_nonfinite_total", 30, grown=1.0)
    found = story.judged()
    assert found["throughput"].result.verdict is UNKNOWN
    assert "does not count (ranks 0-3 may all" in found["throughput"].result.reason
    assert found["loss_finite"].result.verdict is FAIL


def test_a_run_that_ended_early_has_passed_nothing() -> None:
    story = halfway()
    story.stage, story.reason = Stage.ABORTED, "stopped by root"
    found = story.judged()
    assert UNKNOWN is found["throughput"].result.verdict
    assert "the run ended after 60 min of 120 min: stopped by root" in (
        found["throughput"].result.reason
    )


def test_what_failed_before_a_run_ended_early_stays_failed() -> None:
    story = halfway()
    story.stage, story.reason = Stage.ABORTED, "rank 1 died"
    story.happens(What.FAILURE, 1000.0, text="rank 1: process 7 is gone")
    assert story.judged()["unplanned_failures"].result.verdict is FAIL


def test_a_run_that_never_began_says_so_everywhere() -> None:
    story = halfway()
    run = replace(story.run(), stage=Stage.ARMED, began_t=None, warm_t=None)
    found = judged(story.check, run, Tally(run.plan), t=30.0, at=ARMED_AT + 30.0)
    words = {j.result.reason for j in found if j.result.verdict is UNKNOWN}
    assert all("job gpt has not made its first step" in each for each in words)
    assert PASS not in {j.result.verdict for j in found}


def test_a_node_of_which_nothing_came_lets_nothing_pass() -> None:
    story = healthy("stability_phase2a")
    for name in ("windows", "minutes", "events"):
        setattr(story, name, [r for r in getattr(story, name) if r.node == "n0"])
    found = story.judged()
    assert PASS not in {j.result.verdict for j in found.values()}
    assert "nothing came from 1 of 2 nodes" in found["loss_finite"].result.reason


def test_the_order_of_rows_changes_nothing() -> None:
    story = healthy("stability_phase2c")
    rows = [*story.minutes, *story.events]
    random.Random(1).shuffle(rows)
    tally = Tally(story.run().plan, story.context)
    for row in (*rows, *story.windows):
        tally.add(row)
    t = BEGAN + LENGTH
    shuffled = judged(story.check, story.run(), tally, t=t, at=ARMED_AT + t)
    assert shuffled == tuple(story.judged().values())


def test_figures_taken_while_it_ran_are_those_taken_from_the_whole() -> None:
    """Windows grow while they are open, and are judged again and again."""
    story = healthy()
    tally = Tally(story.run().plan, story.context)
    run = replace(story.run(), stage=Stage.RUNNING, ended_t=None, ended_at=None)
    for window in story.windows:
        half = window._replace(last_step=window.last_step - 50, steps=50)
        tally.add(half)
        tally.add(window)
        if window.rank == 0 and window.window % 20 == 0:
            judged(story.check, run, tally, t=window.ended, at=ARMED_AT)
    for row in (*story.minutes, *story.events):
        tally.add(row)
    t = BEGAN + LENGTH
    live = judged(story.check, story.run(), tally, t=t, at=ARMED_AT + t)
    assert live == tuple(story.judged().values())


def test_ranks_that_came_back_begin_a_new_life() -> None:
    story = healthy()
    half = [w for w in story.windows if w.window < 70]
    again = [w._replace(session=f"{w.session}-again", began=w.began + 9, ended=w.ended + 9)
             for w in story.windows if w.window >= 65]  # fmt: skip
    story.windows = [*half, *again]
    found = story.judged()["throughput"].result
    assert found.samples == (70 - 12) + (
        143 - 66
    )  # not the first of a life, nor what ended too late


def test_the_minute_that_is_open_is_no_gap_while_a_run_is_on() -> None:
    story = healthy(length=600.0 - 30.0)
    story.stage = Stage.RUNNING
    story.minutes = [m for m in story.minutes if m.minute < 10]
    assert story.judged()["memory"].so_far is PASS


def test_two_minutes_that_did_not_come_are_one() -> None:
    story = healthy(length=600.0 - 30.0)
    story.stage = Stage.RUNNING
    story.minutes = [m for m in story.minutes if m.minute < 8]
    assert story.judged()["memory"].so_far is UNKNOWN

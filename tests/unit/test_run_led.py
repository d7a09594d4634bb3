"""A run that another node leads: it takes up the leader's and follows its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_peers import PHASE2A, Node, Wire, member

from dvfd.model import Verdict
from dvfd.runs.advance import ARMING, LEFT_ALONE, PATIENCE, Led, Seen, advance
from dvfd.runs.led import Leader
from dvfd.runs.run import Run, Stage
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged

FIT = Seen(t=30.0, ranks=4, expected=4, world_size=8, checkpoint_every=250, steps=1)


def led(**more: Any) -> Led:
    return Led(node="n1", **{"stage": Stage.RUNNING, **more})


class Pair:
    def __init__(self, directory: Path) -> None:
        self.lead = Node(directory, "n1", boot=5000.0)
        self.own = Node(directory, "n2", boot=1000.0, leader="n1")
        self.wire = Wire(self.own, self.lead)
        self.leader = self.take_up()

    def take_up(self) -> Leader:
        return Leader(
            self.own.run, member(self.lead), clock=self.own.clock, connect=self.wire.connect
        )

    def look(self) -> Any:
        self.wire.pass_time(2.0)
        self.leader.poll()
        return self.leader.look(self.own.run, t=self.own.t(), at=0.0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def follower(pair: Pair) -> Run:
    """Its run, begun."""
    run = advance(pair.own.run, replace(FIT, led=led()), at=0.0)
    assert run.stage is Stage.WARM_UP
    return run


def test_the_leaders_run_that_is_on_is_taken_up(pair: Pair) -> None:
    found = pair.look()
    assert (found.of, found.waits, found.led.stage) == ("run-of-n1", "", Stage.ARMED)


def test_a_run_that_is_over_is_not_taken_up(pair: Pair) -> None:
    pair.lead.run = replace(pair.lead.run, stage=Stage.COMPLETE, ended_t=1.0)
    found = pair.look()
    assert found.of == ""
    assert "n1, which leads, has no run for this one: no run of stability_phase2a" in found.waits


def test_a_run_that_was_ordered_otherwise_is_not_taken_up(pair: Pair) -> None:
    pair.lead.run = replace(pair.lead.run, plan=replace(pair.lead.run.plan, duration=1200.0))
    assert "its run is of job gpt for 20 min, this one of job gpt for 48 h" in pair.look().waits


def test_once_taken_up_it_is_that_run_and_no_other(pair: Pair) -> None:
    pair.look()
    pair.lead.known = []
    assert pair.look().of == "run-of-n1"
    assert "no longer knows run run-of-n1" in pair.leader.documents()["led_by"]["trouble"]


def test_the_leaders_end_is_one_of_this_nodes_seconds(pair: Pair) -> None:
    pair.look()
    ended = pair.lead.t()
    here = pair.own.t()
    pair.lead.run = replace(pair.lead.run, stage=Stage.COMPLETE, ended_t=ended)
    assert pair.look().led.ended_t == pytest.approx(here)


def test_a_leader_that_does_not_answer_is_silent(pair: Pair) -> None:
    pair.look()
    pair.wire.cut.add("n1")
    pair.wire.pass_time(40.0)
    assert pair.look().led.silent == pytest.approx(42.0)
    assert "n1, which leads, is silent for 42 s" in pair.leader.trouble


# --- Its stages -----------------------------------------------------------------------------------


def test_it_begins_once_the_leaders_run_is_known(pair: Pair) -> None:
    waits = replace(FIT, led=led(stage=None), waits="n1, which leads, has no run for this one: x")
    assert advance(pair.own.run, waits, at=0.0).stage is Stage.ARMED
    late = advance(pair.own.run, replace(waits, t=ARMING), at=0.0)
    assert late.stage is Stage.ABORTED
    assert late.reason == "n1, which leads, has no run for this one: x, within 10 min"


def test_it_does_not_end_by_its_own_clock(pair: Pair) -> None:
    run = follower(pair)
    late = replace(FIT, t=run.plan.duration + 60.0, led=led())
    assert advance(run, late, at=0.0).stage is not Stage.COMPLETE


def test_it_is_complete_when_the_leader_is(pair: Pair) -> None:
    done = led(stage=Stage.COMPLETE, ended_t=99.0)
    after = advance(follower(pair), replace(FIT, t=100.0, led=done), at=1e9)
    assert (after.stage, after.ended_t, after.ended_at) == (Stage.COMPLETE, 99.0, 1e9 - 1.0)


def test_it_is_aborted_when_the_leader_is_and_its_training_ends_likewise(pair: Pair) -> None:
    gone = led(stage=Stage.ABORTED, reason="stopped by root", stopped_by="root")
    after = advance(follower(pair), replace(FIT, t=100.0, led=gone), at=0.0)
    assert (after.stage, after.reason) == (
        Stage.ABORTED, "at n1, which leads: stopped by root",
    )  # fmt: skip
    assert after.stopped_by == "root at n1"


def test_a_job_that_ends_with_the_leaders_run_is_no_abort(pair: Pair) -> None:
    run = follower(pair)
    ended = replace(FIT, t=100.0, ended=True, led=led())
    assert advance(run, ended, at=0.0) is run
    done = replace(ended, led=led(stage=Stage.COMPLETE, ended_t=98.0))
    assert advance(run, done, at=0.0).stage is Stage.COMPLETE


def test_a_job_that_ended_by_itself_is_one_when_the_leader_goes_on(pair: Pair) -> None:
    ended = replace(FIT, t=100.0, ended=True, led=led(), broken=PATIENCE)
    after = advance(follower(pair), ended, at=0.0)
    assert "job gpt ended by itself" in after.reason


def test_without_a_word_it_goes_on_to_its_own_end_and_ten_minutes_more(pair: Pair) -> None:
    run = follower(pair)
    end = 30.0 + run.plan.duration
    silent = replace(FIT, t=end + LEFT_ALONE - 1, led=led(silent=900.0))
    assert not advance(run, silent, at=0.0).stage.over
    after = advance(run, replace(silent, t=end + LEFT_ALONE), at=0.0)
    assert after.stage is Stage.ABORTED
    assert "n1, which leads, did not say that the run is over" in after.reason


def test_a_criterion_that_is_lost_here_is_not_its_to_stop_for(pair: Pair) -> None:
    run = follower(pair)
    run = replace(run, plan=replace(run.plan, on_failure="stop"))
    assert not advance(run, replace(FIT, t=60.0, lost="x", led=led()), at=0.0).stage.over


def test_the_leader_waits_for_who_has_not_come(pair: Pair) -> None:
    waits = replace(FIT, waits="0 of 1 other nodes came: n2 (not asked yet)")
    assert advance(pair.lead.run, waits, at=0.0).stage is Stage.ARMED
    late = advance(pair.lead.run, replace(waits, t=ARMING), at=0.0)
    assert late.reason == "0 of 1 other nodes came: n2 (not asked yet), within 10 min"


def test_the_leaders_run_ends_with_one_that_was_broken_off(pair: Pair) -> None:
    begun = advance(pair.lead.run, FIT, at=0.0)
    after = advance(begun, replace(FIT, t=50.0, fallen="n2: stopped by root"), at=0.0)
    assert (after.stage, after.reason) == (Stage.ABORTED, "on n2: stopped by root")


def test_nothing_is_judged_at_a_node_that_is_led(pair: Pair) -> None:
    done = led(stage=Stage.COMPLETE, ended_t=99.0)
    run = advance(replace(follower(pair), of="r"), replace(FIT, t=100.0, led=done), at=1e9)
    found = judged(PHASE2A, run, Tally(run.plan), t=99.0, at=1e9)
    assert {j.result.verdict for j in found} == {j.so_far for j in found} == {Verdict.UNKNOWN}
    assert {j.result.reason for j in found} == {"judged at n1, which leads, as run r"}

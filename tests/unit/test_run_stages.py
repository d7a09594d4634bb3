"""A run's stages: when it begins, what ends it before its time, and that it never goes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import DvfdError
from dvfd.runs.advance import ARMING, GONE, Seen, advance
from dvfd.runs.run import Axis, Launched, Plan, Run, Stage, name, reanchored

PHASE1 = load(Config()).checks["stability_phase1"]
FIT = Seen(t=30.0, ranks=4, expected=4, world_size=4, checkpoint_every=500, steps=1)


def run(**changes: object) -> Run:
    plan = Plan.of(PHASE1, job="gpt", **changes)
    axis = Axis(boot_id="this boot", offset=-1000.0)
    return Run(id="r", plan=plan, node="n", armed_at=1e9, axis=axis)


def settled(before: Run, seen: Seen) -> Run:
    after = advance(before, seen, at=1e9 + seen.t)
    return after if after is before else settled(after, seen)


def begun(**changes: object) -> Run:
    return settled(run(**changes), FIT)


def running(**changes: object) -> Run:
    return settled(begun(**changes), replace(FIT, t=700.0, steps=400))


def test_it_waits_for_every_rank() -> None:
    assert settled(run(), replace(FIT, ranks=3)).stage is Stage.ARMED


def test_it_begins_with_the_step_of_the_last_rank() -> None:
    assert (begun().stage, begun().began_t) == (Stage.WARM_UP, 30.0)


def test_the_warm_up_ends_after_ten_minutes() -> None:
    assert settled(begun(), replace(FIT, t=629.0)).stage is Stage.WARM_UP
    assert settled(begun(), replace(FIT, t=630.0)).warm_t == 630.0


def test_the_warm_up_ends_after_a_thousand_batches() -> None:
    assert settled(begun(), replace(FIT, t=60.0, steps=1000)).stage is Stage.RUNNING


def test_the_warm_up_of_a_short_run_is_a_tenth_of_it() -> None:
    assert settled(begun(duration=100.0), replace(FIT, t=40.0)).stage is Stage.RUNNING


def test_it_is_complete_at_its_very_end_however_late_that_is_seen() -> None:
    done = settled(running(), replace(FIT, t=90000.0))
    assert (done.stage, done.ended_t) == (Stage.COMPLETE, 30.0 + 86400.0)


def test_an_end_by_the_command_after_the_planned_time_is_a_completion() -> None:
    late = replace(FIT, t=90000.0, exited="ended with exit code 0", ended=True)
    assert settled(running(), late).stage is Stage.COMPLETE


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Seen(t=ARMING), "did not report within 10 min"),
        (replace(FIT, t=ARMING, ranks=3), "3 of 4 ranks here made a step"),
        (replace(FIT, world_size=2), "a world of 2 processes, wanted 4"),
        (replace(FIT, checkpoint_every=100), "every 100 batches for its checkpoints, wanted 500"),
        (replace(FIT, checkpoint_every=0), "tells no interval"),
        (replace(FIT, stride=200), "each 200 batches, wanted at least each 100"),
        (replace(FIT, wrong=("ranks 0 and 1 share processor 0",)), "share processor 0"),
        (Seen(t=5.0, exited="ended with exit code 1"), "exit code 1 before its ranks made"),
    ],
)
def test_it_is_aborted_before_it_begins(seen: Seen, words: str) -> None:
    over = settled(run(), seen)
    assert over.stage is Stage.ABORTED
    assert words in over.reason


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(FIT, world_size=8), "a world of 8 processes now, wanted 4"),
        (
            replace(FIT, exited="was killed by SIGKILL"),
            "was killed by SIGKILL in its warm-up after",
        ),
        (replace(FIT, ended=True), "ended by itself in its warm-up"),
        (replace(FIT, living=False, gone=GONE), "no rank of job gpt has lived for 10 min"),
    ],
)
def test_it_is_aborted_once_it_has_begun(seen: Seen, words: str) -> None:
    over = settled(begun(), replace(seen, t=60.0))
    assert over.stage is Stage.ABORTED
    assert words in over.reason
    assert over.ended_t == 60.0


def test_ranks_that_are_gone_for_a_while_may_come_back() -> None:
    away = replace(FIT, t=60.0, living=False, gone=GONE - 1)
    assert settled(begun(), away).stage is Stage.WARM_UP


def test_what_cannot_be_met_ends_only_a_run_that_was_ordered_to_stop() -> None:
    lost = replace(FIT, t=800.0, lost="stability_phase1.restarts")
    assert settled(running(), lost).stage is Stage.RUNNING
    over = settled(running(on_failure="stop"), lost)
    assert (over.stage, "restarts can no longer be met" in over.reason) == (Stage.ABORTED, True)


def test_misplaced_ranks_that_were_accepted_begin_and_never_count() -> None:
    wrong = ("ranks 0 and 1 share processor 0",)
    accepted = settled(run(discounts=wrong), replace(FIT, wrong=wrong))
    assert accepted.stage is Stage.WARM_UP
    assert accepted.plan.uncounted == wrong


def test_a_run_that_is_over_stays_over() -> None:
    over = settled(begun(), replace(FIT, t=60.0, ended=True))
    assert settled(over, replace(FIT, t=99999.0)) is over
    with pytest.raises(DvfdError, match="is aborted: it cannot become running"):
        over.moved(Stage.RUNNING)


def test_a_shortened_run_says_how_much_it_was() -> None:
    assert run(duration=1200.0).plan.uncounted == ("shortened: 20 min of 24 h",)
    assert run().plan.uncounted == ()


def test_a_run_is_the_same_after_it_was_written_down() -> None:
    launched = replace(running(discounts=("why",)), launched=Launched(pid=7, start=9, mark="m"))
    assert Run.from_document(launched.to_document()) == launched


@pytest.mark.parametrize("broken", [{}, {"plan": {}}, {"plan": None}])
def test_a_document_that_is_no_run_is_refused(broken: dict) -> None:
    with pytest.raises(DvfdError, match="no run of ours"):
        Run.from_document(broken)


def test_a_reboot_goes_on_after_the_gap_that_the_wall_clock_tells() -> None:
    seen = replace(running(), seen_t=5000.0, seen_at=1e9)
    after = reanchored(seen, boot_id="the next", boot=40.0, now=1e9 + 300)
    assert after.axis.t(40.0) == 5300.0


def test_a_clock_set_back_over_a_reboot_makes_no_time_go_backwards() -> None:
    seen = replace(running(), seen_t=5000.0, seen_at=1e9)
    after = reanchored(seen, boot_id="the next", boot=40.0, now=1e9 - 3600)
    assert after.axis.t(40.0) == 5000.0


def test_names_of_runs_sort_by_time_and_fit_a_unit() -> None:
    names = [name("stability_phase1", 1.8e9 + each) for each in range(3)]
    assert names == sorted(names)
    assert names[0].startswith("phase1_20270115T080000Z_")

"""Nothing of a run is green while blind: what only part of the run shows is not known of it all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes_runs import ARMED_AT, BEGAN, LENGTH, Story, healthy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvfd.model import Verdict
from dvfd.runs.intervals import Grid, stood
from dvfd.runs.rows import Event, What, Window
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
HALF = BEGAN + LENGTH / 2


def first_half(story: Story, **blank: object) -> None:
    """Fields of windows as they are where a job stopped telling them after half of the run."""
    story.change(
        lambda w: w.began > HALF, **{name: (lambda w, v=v: v) for name, v in blank.items()}
    )


@pytest.mark.parametrize(
    ("check_id", "name", "blank"),
    [
        ("stability_phase1", "loss_convergent", {"loss": 0.0, "losses": 0}),
        ("stability_phase2a", "communication", {"stepping": 0.0, "communication": 0.0}),
        ("stability_phase2a", "allreduce", {"allreduce": 0.0, "allreduces": 0}),
        ("stability_phase2a", "saturation", {"allreduce": 0.0, "allreduces": 0}),
        ("stability_phase2a", "balance", {"compute": 0.0, "computes": 0}),
        ("stability_phase2b", "balance", {"compute": 0.0, "computes": 0}),
        ("stability_phase2c", "loss_baseline", {"loss": 0.0, "losses": 0}),
    ],
)
def test_what_ranks_told_for_half_of_a_run_is_not_known_of_it(
    check_id: str, name: str, blank: dict[str, object]
) -> None:
    story = healthy(check_id)
    first_half(story, **blank)
    found = story.judged()[name].result
    assert (found.verdict, found.coverage) == (UNKNOWN, pytest.approx(0.5, abs=0.03))


@pytest.mark.parametrize("name", ["throughput", "efficiency"])
@pytest.mark.parametrize("early", [True, False])
def test_throughput_of_a_part_of_a_run_is_not_that_of_the_run(name: str, *, early: bool) -> None:
    story = healthy("stability_phase2a")
    story.windows = [w for w in story.windows if (w.ended < HALF) is early]
    assert story.judged()[name].result.verdict is UNKNOWN


def test_probes_of_the_first_half_are_not_known_of_the_second() -> None:
    story = healthy("stability_phase2b")
    story.events = [e for e in story.events if e.what is not What.PROBED or e.t < HALF]
    assert story.judged()["allreduce"].result.verdict is UNKNOWN


def test_hashes_that_were_compared_for_half_of_a_run_prove_nothing_of_the_rest() -> None:
    story = healthy("stability_phase2a")
    story.minutes = [
        m._replace(grown=0.0)
        if m.metric == "job_hash_comparisons_total" and m.minute * 60 > HALF
        else m
        for m in story.minutes
    ]
    found = story.judged()
    assert {found["agreement"].result.verdict, found["corruption"].result.verdict} == {UNKNOWN}


@pytest.mark.parametrize(
    ("name", "metric", "lacking"),
    [
        ("cpu", "rank_cpu_ratio", "rank=3"),
        ("loss_finite", "job_nonfinite_total", "node=n1"),
        ("corruption", "job_hash_mismatches_total", "n1"),
    ],
)
def test_who_lacks_a_series_that_others_have_is_named(name: str, metric: str, lacking: str) -> None:
    story = healthy("stability_phase2a")
    story.minutes = [
        m
        for m in story.minutes
        if m.metric != metric
        or (dict(m.labels)["rank"] != "3" if "rank" in dict(m.labels) else m.node != "n1")
    ]
    found = story.judged()[name].result
    assert found.verdict is UNKNOWN
    assert lacking in found.reason


def test_a_rank_that_nothing_came_of_at_all_is_named() -> None:
    story = healthy()
    story.windows = [w for w in story.windows if w.rank != 3]
    story.minutes = [m for m in story.minutes if dict(m.labels).get("rank") != "3"]
    found = story.judged()["cpu"].result
    assert found.verdict is UNKNOWN
    assert "rank=3" in found.reason


def test_a_node_that_falls_silent_is_unseen_from_then_on() -> None:
    story = healthy("stability_phase2a")
    story.windows = [w for w in story.windows if w.node == "n0" or w.ended < HALF]
    story.minutes = [m for m in story.minutes if m.node == "n0" or m.minute * 60 < HALF]
    story.events = [e for e in story.events if e.node == "n0" or e.t < HALF]
    found = story.judged()
    assert found["uptime"].result.verdict is UNKNOWN
    assert found["unplanned_failures"].result.verdict is UNKNOWN


def test_windows_that_lost_a_step_leave_their_time_unseen() -> None:
    story = healthy()
    story.change(lambda w: w.began > HALF, steps=lambda w: w.steps - 1)
    assert story.judged()["throughput"].result.verdict is UNKNOWN


def test_a_job_that_reports_every_tenth_step_has_whole_windows() -> None:
    story = healthy()
    story.change(
        lambda w: True, first_step=lambda w: w.first_step + 9, steps=lambda w: w.steps // 10,
        computes=lambda w: w.computes // 10,
    )  # fmt: skip
    assert story.judged()["throughput"].result.verdict is PASS


@pytest.mark.parametrize("name", ["expected", "attempted", "saved", "verified"])
def test_checkpoints_of_the_steps_that_were_told_are_not_all_that_were_due(name: str) -> None:
    story = healthy()
    story.windows = [w for w in story.windows if w.ended < HALF]
    story.events = [e for e in story.events if e.t < HALF]
    found = story.judged()[f"checkpoints_{name}"].result
    assert found.verdict is UNKNOWN
    assert "no step was told in the last 60.8 min of 120 min" in found.reason


def test_saves_say_how_far_the_steps_are_where_nothing_else_does() -> None:
    story = healthy()
    story.windows = [w for w in story.windows if w.ended < HALF]
    assert story.judged()["checkpoints_saved"].result.verdict is PASS


def test_a_save_that_fell_due_in_the_silence_is_not_taken_for_none() -> None:
    story = healthy()
    story.windows = [w for w in story.windows if w.ended < HALF]
    story.events = [e for e in story.events if e.t < BEGAN + LENGTH - 400]
    assert story.judged()["checkpoints_saved"].result.verdict is UNKNOWN


def test_what_falls_due_in_the_silence_is_told_by_the_shortest_time_between_saves() -> None:
    story = healthy()
    story.windows = [w for w in story.windows if w.ended < HALF]
    begun = [e for e in story.events if e.what is What.BEGUN]
    usual = begun[-1].t - begun[-2].t
    seen = BEGAN + LENGTH - begun[-1].t
    assert seen < usual, "by the usual time nothing fell due since the last save"
    story.events = [
        replace(e, t=e.t + usual - 0.9 * seen) if e.step == begun[0].step else e
        for e in story.events
    ]
    assert story.judged()["checkpoints_saved"].result.verdict is UNKNOWN


# --- What no kill of a daemon hides -----------------------------------------------------------


def came_back(story: Story, at: float) -> None:
    """Every rank is a new process from run second *at* on; no daemon saw it."""
    name: Callable[[Window], str] = lambda w: f"0-{200 + w.rank}-9-ff"  # noqa: E731
    story.change(lambda w: w.began <= at, session=lambda w: f"0-{100 + w.rank}-5-aa")
    story.change(lambda w: w.began > at, session=name)


def test_processes_that_were_replaced_unseen_are_restarts_and_failures() -> None:
    story = healthy()
    came_back(story, HALF)
    found = story.judged()
    assert found["restarts"].result.verdict is FAIL
    assert found["unplanned_failures"].result.verdict is FAIL


def test_processes_that_were_replaced_after_an_injected_fault_are_no_failures() -> None:
    story = healthy()
    came_back(story, HALF)
    story.happens(What.INJECTED, LENGTH / 2, text="kill")
    assert story.judged()["unplanned_failures"].result.verdict is PASS


@pytest.mark.parametrize(
    ("node", "after", "verdict"),
    [("n1", 1012.0, PASS), ("n1", 1030.0, FAIL), ("n1", 990.0, FAIL), ("n0", 1012.0, FAIL)],
    ids=["meanwhile", "once it trained again", "before", "on the node that knew of it"],
)
def test_what_other_nodes_lose_by_an_injected_fault_was_planned(
    node: str, after: float, verdict: Verdict
) -> None:
    story = healthy("stability_phase2a")
    story.happens(What.INJECTED, 1000.0, text="partition", value=14.0)
    story.happens(What.HEALED, 1014.0)
    story.happens(What.RECOVERED, 1020.0, value=6.0)
    story.happens(What.FAILURE, after, text="rank 5 died")
    story.events[-1] = replace(story.events[-1], node=node)
    assert story.judged()["unplanned_failures"].result.verdict is verdict


def test_a_fault_is_not_to_blame_for_ever() -> None:
    story = healthy("stability_phase2a")
    story.happens(What.INJECTED, 1000.0, text="partition", value=14.0)
    for after in (1100.0, 1200.0):
        story.happens(What.FAILURE, after, text="rank 5 died")
        story.events[-1] = replace(story.events[-1], node="n1")
    assert story.judged()["unplanned_failures"].result.observed == 1


def test_a_second_reporter_in_the_same_process_is_no_restart() -> None:
    story = healthy()
    story.change(lambda w: w.began <= HALF, session=lambda w: f"0-{w.rank}-5-aa")
    story.change(lambda w: w.began > HALF, session=lambda w: f"0-{w.rank}-5-bb")
    assert story.judged()["restarts"].result.verdict is PASS


def test_a_loss_that_was_no_number_fails_though_no_counter_saw_it() -> None:
    story = healthy()
    story.change(lambda w: w.rank == 1 and w.window == 40, nonfinite=lambda w: 1)
    assert story.judged()["loss_finite"].result.verdict is FAIL


def test_what_happens_after_the_end_is_not_of_the_run() -> None:
    story = healthy()
    story.happens(What.FAILURE, LENGTH + 5.0, text="rank 1 is gone")
    story.happens(What.RESTART, LENGTH + 5.0)
    assert PASS is story.judged()["unplanned_failures"].result.verdict
    assert PASS is story.judged()["restarts"].result.verdict


# --- Checkpoints ------------------------------------------------------------------------------


def checkpoint(story: Story, after: float, step: int, *whats: What) -> None:
    for what in whats:
        story.happens(what, after, rank=0, step=step, text="/c")


@pytest.mark.slow
def test_a_checkpoint_besides_those_that_are_owed_is_no_failure() -> None:
    story = healthy()
    checkpoint(story, 3000.0, 777, What.BEGUN, What.SAVED, What.VERIFIED)
    found = story.judged()
    assert {v.result.verdict for n, v in found.items() if n.startswith("checkpoints")} == {PASS}


def test_a_save_that_failed_fails_though_the_next_try_made_up_for_it() -> None:
    story = healthy()
    checkpoint(story, 500.0, 1000, What.FAILED)
    assert story.judged()["checkpoints_saved"].result.verdict is FAIL


def test_a_save_that_failed_in_the_last_minutes_is_not_under_way() -> None:
    story = healthy()
    last = max(e.step for e in story.events if e.what is What.BEGUN and e.step)
    story.events = [e for e in story.events if e.step != last or e.what is What.BEGUN]
    checkpoint(story, LENGTH - 50.0, last, What.FAILED)
    assert story.judged()["checkpoints_saved"].result.verdict is FAIL


def test_one_damaged_part_damages_a_checkpoint() -> None:
    story = healthy()
    story.happens(What.DAMAGED, 900.0, step=1000, text="/checkpoints/1000: a bit flipped")
    assert story.judged()["checkpoints_verified"].result.verdict is FAIL


# --- Order ------------------------------------------------------------------------------------


def spoilt() -> Story:
    """A run with a restart that did steps again, a lost window, a hole, and failures."""
    story = healthy()
    again = [
        w._replace(session=f"{w.session}-b", began=w.began + 90, ended=w.ended + 90)
        for w in story.windows
        if w.window >= 65
    ]
    story.windows = [w for w in story.windows if w.window < 70 - w.rank % 2] + again
    del story.windows[100]
    story.happens(What.RESTART, 3500.0)
    story.happens(What.UNSEEN, 3500.0)
    story.happens(What.UP, 3590.0)
    return story


STORY = spoilt()
WANTED = tuple(STORY.judged().values())


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_any_order_of_rows_and_judging_in_between_give_the_same(
    chance: random.Random, looks: int
) -> None:
    rows = list(STORY.rows())
    chance.shuffle(rows)
    tally = Tally(STORY.run().plan, STORY.context)
    t = BEGAN + LENGTH
    for n, row in enumerate(rows):
        tally.add(row)
        if n % (len(rows) // looks) == 0 and looks < 4:
            judged(STORY.check, STORY.run(), tally, t=t, at=ARMED_AT + t)
    assert judged(STORY.check, STORY.run(), tally, t=t, at=ARMED_AT + t) == WANTED


def test_a_rank_that_died_twice_leaves_the_others_where_they_are() -> None:
    grid = Grid(every=50, ranks=2)
    for life, (first, ranks) in enumerate([(0, (0, 1)), (100, (0,)), (200, (0, 1))]):
        for number in range(1 if len(ranks) == 1 else 3):
            for rank in ranks:
                ended = first + 25.0 * (number + 1)
                grid.add(
                    Window(
                        node="n", rank=rank, window=number, session=f"{life}",
                        first_step=50 * number + 1, last_step=50 * number + 50, steps=50,
                        began=ended - 24.5, ended=ended, samples=50.0,
                    )
                )  # fmt: skip
    assert [(i.key, i.began) for i in grid.intervals] == [
        (1, 25.0), (2, 50.0), (1, 225.0), (2, 250.0),
    ]  # fmt: skip


def test_moments_stand_for_no_more_than_three_mean_gaps() -> None:
    assert stood(range(10, 100, 10), 0.0, 100.0) == 100.0
    assert stood(range(1, 10), 0.0, 100.0) == pytest.approx(9.0 + 30.0)
    assert stood([], 0.0, 100.0) == 0.0


def test_a_moment_that_every_rank_tells_is_one() -> None:
    told = [at + 0.01 * rank for at in range(10, 100, 10) for rank in range(12)]
    assert stood(told, 0.0, 100.0) == 100.0


def test_an_event_of_a_result_is_dated_by_the_calendar() -> None:
    found = healthy().judged()["cpu"].result
    assert found.sampled_at == ARMED_AT + BEGAN + LENGTH


def test_rows_of_one_event_each_are_taken() -> None:
    story = healthy()
    story.events = [Event(node="n0", t=BEGAN, at=ARMED_AT, what=What.UP)]
    assert story.judged()["checkpoints_attempted"].result.verdict is FAIL

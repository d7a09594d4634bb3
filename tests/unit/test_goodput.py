"""Where a run's time went: every second once, by hand and for any timeline."""

from __future__ import annotations

import math

import pytest
from fakes_runs import BEGAN, LENGTH, healthy
from hypothesis import given, settings
from hypothesis import strategies as st

from dvfd.runs.goodput import Goodput, Part, account
from dvfd.runs.rows import Event, What, Window
from dvfd.runs.run import Plan

PLAN = Plan(
    check="c", planned=100.0, duration=100.0, nodes=1, processes=2, every=10,
    checkpoint_every=50, job="gpt",
)  # fmt: skip


def window(rank: int, number: int, began: float, ended: float, **more: object) -> Window:
    """Ten steps of a rank."""
    first = number * 10 + 1
    return Window(
        **{  # type: ignore[arg-type]
            "node": "n0", "rank": rank, "window": number, "session": f"s{rank}",
            "first_step": first, "last_step": first + 9, "steps": 10,
            "began": began, "ended": ended, **more,
        }
    )  # fmt: skip


def chain(rank: int, since: float, until: float, **more: object) -> list[Window]:
    """Windows of ten seconds, one after the other, a step a second."""
    found, number, at = [], int(more.pop("number", 0)), since  # type: ignore[call-overload]
    while at < until:
        found.append(window(rank, number, at + (1 if found else 0), at + 10, **more))
        number, at = number + 1, at + 10
    return found


def event(what: What, t: float, **more: object) -> Event:
    return Event(node="n0", t=t, at=1.8e9 + t, what=what, **more)  # type: ignore[arg-type]


UP = event(What.UP, 0.0)


def of(*rows: Window | Event, since: float = 0.0, until: float = 100.0) -> Goodput:
    return account(rows, since=since, until=until, plan=PLAN, run="r")


def spent(found: Goodput) -> dict[Part, float]:
    """The parts that are not empty, to the millisecond."""
    assert math.isclose(math.fsum(found.parts.values()), found.whole, abs_tol=1e-9)
    return {part: round(seconds, 3) for part, seconds in found.parts.items() if seconds > 5e-4}


def both(since: float, until: float, **more: object) -> list[Window]:
    return [w for rank in (0, 1) for w in chain(rank, since, until, **more)]


def test_a_run_that_only_makes_steps_is_all_productive():
    assert spent(of(UP, *both(0, 100))) == {Part.PRODUCTIVE: 100}


def test_time_before_the_first_step_of_all_ranks_is_initialisation():
    rows = [*chain(0, 10, 100), *chain(1, 30, 100)]
    assert spent(of(UP, *rows)) == {Part.INITIALISATION: 30, Part.PRODUCTIVE: 70}


def test_nothing_at_all_is_unobserved_and_no_goodput():
    found = of()
    assert spent(found) == {Part.UNOBSERVED: 100}
    assert found.ratio == (0.0, 1.0)
    assert "0 of 2 ranks told steps" in found.notes[0]


def test_an_empty_span_has_no_ratio():
    assert of(until=0.0).ratio is None


def test_a_checkpoint_that_one_rank_writes_takes_the_time_of_all():
    saves = [event(What.SAVED, 40, value=5.0), event(What.SAVED, 41, rank=1, value=5.0)]
    assert spent(of(UP, *both(0, 100), *saves)) == {Part.PRODUCTIVE: 94, Part.SAVE: 6}


def test_a_checkpoint_that_failed_took_its_time_too():
    failed = [
        event(What.BEGUN, 20, rank=0, step=20),
        event(What.FAILED, 28, rank=0, step=20),
    ]
    assert spent(of(UP, *both(0, 100), *failed))[Part.SAVE] == 8


def test_a_checkpoint_without_a_length_takes_no_time():
    assert Part.SAVE not in spent(of(UP, *both(0, 100), event(What.SAVED, 40)))


def restarted(**more: object) -> list[Window | Event]:
    """Killed at 50 s after step 50; back at 70 s with step 31."""
    again = [
        w
        for rank in (0, 1)
        for w in chain(rank, 70, 100, number=3, session=f"t{rank}", **more)
    ]  # fmt: skip
    return [UP, *both(0, 50), event(What.FAILURE, 51.0, rank=1), *again]


def test_a_restart_costs_recovery_and_the_steps_that_are_done_again():
    found = of(*restarted())

    # Steps 31 to 50 again from 70 to 90 s, then 51 to 60.
    assert spent(found) == {Part.PRODUCTIVE: 60, Part.RECOVERY: 20, Part.AGAIN: 20}
    assert (found.steps, found.again) == (60, 20)


def test_a_process_that_was_replaced_unseen_costs_recovery_too():
    rows = [row for row in restarted() if not isinstance(row, Event)]
    assert spent(of(UP, *rows))[Part.RECOVERY] == 20


def test_loading_a_checkpoint_is_told_apart_from_the_recovery():
    found = of(*restarted(), event(What.RESTORED, 65, value=4.0))
    assert spent(found)[Part.RESTORE] == 4
    assert spent(found)[Part.RECOVERY] == 16


def test_a_rank_that_is_back_alone_does_not_end_the_recovery():
    rows = [UP, *both(0, 50), event(What.FAILURE, 51.0)]
    rows += chain(0, 70, 100, number=5, session="t0")
    rows += chain(1, 80, 100, number=5, session="t1")
    assert spent(of(*rows)) == {Part.PRODUCTIVE: 70, Part.RECOVERY: 30}


def test_a_failure_that_nothing_follows_is_a_recovery_that_goes_on():
    assert spent(of(UP, *both(0, 50), event(What.FAILURE, 51.0)))[Part.RECOVERY] == 50


def test_an_end_without_a_failure_is_other():
    assert spent(of(UP, *both(0, 50)))[Part.OTHER] == 50


def test_time_in_which_nobody_looked_and_no_step_came_is_unobserved():
    away = [event(What.UNSEEN, 50, text="no daemon looked"), event(What.UP, 80)]
    later = [w for r in (0, 1) for w in chain(r, 80, 100, number=5, session=f"t{r}")]
    assert spent(of(UP, *both(0, 50), *away, *later))[Part.UNOBSERVED] == 30


def test_steps_that_ranks_told_later_count_although_nobody_looked():
    away = [event(What.UNSEEN, 50), event(What.UP, 80)]
    assert spent(of(UP, *both(0, 100), *away)) == {Part.PRODUCTIVE: 100}


def test_rows_that_are_missing_from_the_midst_of_a_process_are_unobserved():
    rows = [w for w in both(0, 100) if w.window != 4]
    # The step before window 5 has an end that nobody told.
    assert spent(of(UP, *rows)) == {Part.PRODUCTIVE: 89, Part.UNOBSERVED: 11}


def test_a_hang_in_the_midst_of_steps_is_other():
    long = [window(r, 0, 1, 90) for r in (0, 1)]
    hung = [event(What.DOWN, 30, text="no progress"), event(What.UP, 60)]
    assert spent(of(UP, *long, *hung, since=1, until=90)) == {
        Part.PRODUCTIVE: 59,
        Part.OTHER: 30,
    }


def told(compute: float, exchange: float) -> dict[str, object]:
    """What ten steps of ten seconds tell."""
    return {
        "compute": compute, "computes": 10, "communication": exchange, "stepping": 10.0,
    }  # fmt: skip


def test_waiting_for_data_is_that_of_the_rank_which_the_others_wait_for():
    slow = chain(0, 0, 100, **told(compute=6.0, exchange=1.0))  # waits 3 of 10 s for data
    fast = chain(1, 0, 100, **told(compute=6.0, exchange=4.0))  # waits for rank 0
    assert spent(of(UP, *slow, *fast)) == {Part.PRODUCTIVE: 70, Part.DATA: 30}


def test_what_tells_no_sections_keeps_its_data_waiting_in_the_steps_and_says_so():
    silent = of(UP, *both(0, 100))
    assert any("waiting for data is part of the steps" in note for note in silent.notes)

    loud = of(UP, *both(0, 100, **told(6.0, 1.0)))
    assert not any("waiting for data" in note for note in loud.notes)


def test_steps_that_one_rank_does_again_are_lost_to_all():
    """Rank 1 went back by ten steps, rank 0 did not."""
    rows = [UP, *both(0, 50), event(What.FAILURE, 50.5)]
    rows += chain(0, 60, 100, number=5, session="t0")
    rows += chain(1, 60, 100, number=4, session="t1")
    assert spent(of(*rows))[Part.AGAIN] == 10


def test_a_whole_healthy_run_is_productive():
    story = healthy()
    found = account(story.rows(), since=BEGAN, until=BEGAN + LENGTH, plan=story.run().plan)

    assert found.parts[Part.PRODUCTIVE] + found.parts[Part.DATA] > 0.99 * LENGTH
    assert math.isclose(math.fsum(found.parts.values()), LENGTH, abs_tol=1e-6)


def test_it_is_json_with_the_losses_worst_first():
    document = of(*restarted()).to_document()

    assert [p["part"] for p in document["parts"][:3]] == ["productive", "again", "recovery"]
    assert (document["run"], document["job"], document["goodput"]) == ("r", "gpt", 0.6)


# --- For any timeline ---------------------------------------------------------------------------

TIMES = st.floats(-20, 120, allow_nan=False)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    began = draw(TIMES)
    steps = draw(st.integers(1, 10))
    computes = draw(st.sampled_from([0, steps]))
    amounts = st.floats(0, 50, allow_nan=False)
    return window(draw(st.integers(0, 2)), draw(st.integers(0, 9)), began, began)._replace(
        ended=began + draw(st.floats(0, 30)),
        steps=steps,
        session=draw(st.sampled_from("ab")),
        computes=computes,
        compute=draw(amounts),
        communication=draw(amounts),
        stepping=draw(amounts),
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    return event(
        draw(st.sampled_from(list(What))),
        draw(TIMES),
        rank=draw(st.integers(0, 2)),
        step=draw(st.integers(0, 3)),
        value=draw(st.none() | st.floats(-5, 50)),
    )


ROWS = st.lists(windows() | events(), max_size=25)


@pytest.mark.slow
@given(ROWS, TIMES, st.floats(0, 140))
@settings(max_examples=300)
def test_the_parts_add_up_to_the_whole_and_none_is_negative(rows, since, length):
    found = of(*rows, since=since, until=since + length)

    assert all(seconds >= 0 for seconds in found.parts.values())
    assert math.isclose(math.fsum(found.parts.values()), found.whole, rel_tol=1e-12, abs_tol=1e-9)


@pytest.mark.slow
@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_order_of_the_rows_makes_no_difference(rows, random):
    once = of(*rows)
    random.shuffle(rows)
    assert of(*rows).to_document() == once.to_document()


@pytest.mark.parametrize("part", Part)
def test_every_part_has_a_name_for_people(part):
    assert part.value.islower()

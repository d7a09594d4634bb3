"""How long nobody watched a phase's run: told of the newest, and never closed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task
from fakes_report import BEGAN, CATALOGUE, FakeRows, event, plan, rows, run, write

from dvfd.drills.supervise import supervise
from dvfd.drills.unobserved import Unobserved, unseen
from dvfd.model import Result
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Run, Stage

HOUR = 3600.0
LATER = 1e6


def gap(at: float, length: float) -> tuple[Event, ...]:
    """A daemon that was away for *length* seconds until run second *at*, and what ranks told."""
    since = at - length
    return (
        event(since, What.UNSEEN, "no daemon looked"),
        event(since, What.UP, "told afterwards: the ranks made progress while no daemon looked"),
        event(at, What.DAEMON, "looks again", value=length),
    )


def whole(*more: Event, **keys: Any) -> tuple[Run, FakeRows]:
    """A run that counts, by its length on paper, and was recorded for an hour."""
    return run(lasted=HOUR, **keys), rows(HOUR, *more)


Look = Callable[..., Result]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The result of the drill on these runs."""

    def found(*runs: tuple[Run, FakeRows], toml: str = "") -> Result:
        directory = tmp_path / "state" / "runs"
        directory.mkdir(parents=True, exist_ok=True)
        for of, given in runs:
            write(directory / f"{of.id}.db", of, given).close()
        of_store = {"store": {"path": str(tmp_path / "state" / "dvfd.db")}}
        drill = task("monitoring", tmp_path, toml=toml)
        part = Unobserved(ask=lambda op: of_store)
        return judged(drill, supervise(drill, [part]))["unobserved"]

    return found


def test_a_run_that_was_watched_throughout_passes(look: Look) -> None:
    result = look(whole())
    assert (result.verdict, result.observed) == ("PASS", 0.0)


def test_without_a_run_it_is_unknown(look: Look) -> None:
    assert look().verdict == "UNKNOWN"
    assert "no run of any phase has ended" in look().reason


def test_what_ranks_told_afterwards_closes_no_gap(look: Look) -> None:
    result = look(whole(*gap(1000.0, 65.0)))
    assert (result.verdict, result.observed) == ("FAIL", 60.0)  # 65 s, and a sampling interval of 5


def test_one_sampling_interval_is_no_stretch(look: Look) -> None:
    assert look(whole(*gap(1000.0, 5.0))).verdict == "PASS"


@pytest.mark.slow
def test_a_state_that_nobody_could_tell_counts(look: Look) -> None:
    blind = (event(500.0, What.UNSEEN, "it cannot be said"), event(520.0, What.UP))
    assert look(whole(*blind)).observed == 15.0


def test_gaps_that_follow_each_other_are_one() -> None:
    of, given = whole(*gap(1000.0, 20.0), event(1000.0, What.UNSEEN), event(1030.0, What.UP))
    assert unseen(of, given) == 50.0


def test_gaps_apart_are_not_added() -> None:
    of, given = whole(*gap(1000.0, 20.0), *gap(1100.0, 30.0))
    assert unseen(of, given) == 30.0


def test_before_the_first_step_of_all_nobody_need_watch() -> None:
    of, given = whole(*gap(BEGAN + 1, 25.0))
    assert unseen(of, given) == 1.0


def test_the_newest_run_that_counts_is_told(look: Look) -> None:
    old = whole(*gap(1000.0, 65.0))
    new = whole(id="phase1_new", armed_at=old[0].armed_at + LATER)
    rehearsal = whole(
        id="phase1_rehearsal", armed_at=old[0].armed_at + 2 * LATER,
        plan=plan(duration=HOUR),
    )  # fmt: skip
    assert look(old, new, rehearsal).verdict == "PASS"


def test_a_run_that_was_aborted_does_not_take_the_place_of_a_whole_one(look: Look) -> None:
    whole_one = whole(*gap(1000.0, 65.0))
    aborted = whole(
        id="phase1_aborted", armed_at=whole_one[0].armed_at + LATER, stage=Stage.ABORTED,
        reason="ended by ann",
    )  # fmt: skip
    assert look(whole_one, aborted).verdict == "FAIL"


def test_a_run_that_was_aborted_passes_nothing(look: Look) -> None:
    result = look(whole(stage=Stage.ABORTED, reason="ended by ann"))
    assert result.verdict == "UNKNOWN"
    assert "does not count: aborted: ended by ann" in result.reason


def test_it_says_which_run_it_speaks_of(tmp_path: Path) -> None:
    of, given = whole()
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs" / f"{of.id}.db", of, given).close()
    drill = task("monitoring", tmp_path)
    part = Unobserved(ask=lambda op: {"store": {"path": str(tmp_path / "dvfd.db")}})
    assert supervise(drill, [part]).of == {"phase1": of.id}


def test_a_run_that_does_not_count_passes_nothing_and_may_fail(look: Look) -> None:
    short = whole(plan=plan(duration=HOUR))
    result = look(short)
    assert result.verdict == "UNKNOWN"
    assert "does not count: shortened" in result.reason


def test_a_gap_of_a_run_that_does_not_count_fails(look: Look) -> None:
    assert look(whole(*gap(1000.0, 65.0), plan=plan(duration=HOUR))).verdict == "FAIL"


def test_a_run_that_is_on_says_nothing_yet(look: Look) -> None:
    on = whole(stage=Stage.RUNNING, ended_t=None, ended_at=None)
    assert look(on).verdict == "UNKNOWN"


def test_a_run_that_another_node_led_is_asked_there(look: Look) -> None:
    result = look(whole(leader="node1"))
    assert result.verdict == "UNKNOWN"
    assert "led by node1" in result.reason


def test_each_phase_has_its_own_and_the_worst_decides(look: Look) -> None:
    second = replace(plan(CATALOGUE.checks["stability_phase2b"]), nodes=1)
    other = whole(id="phase2b_x", plan=second)
    bad = (other[0], FakeRows([], other[1].of_minutes, [*other[1].of_events, *gap(1000.0, 20.0)]))
    result = look(whole(), bad)
    assert (result.verdict, dict(result.labels)) == ("FAIL", {"phase": "phase2b"})


def test_the_phase_that_the_node_is_in_needs_a_run_of_its_own(look: Look) -> None:
    result = look(whole(), toml='[node]\nphase = "phase2a"\n')
    assert result.verdict == "UNKNOWN"
    assert "no run of phase2a has ended" in result.reason


def test_a_file_that_cannot_be_read_is_unknown(look: Look, tmp_path: Path) -> None:
    assert look(whole()).verdict == "PASS"
    [file] = (tmp_path / "state" / "runs").glob("*.db")
    file.write_bytes(b"no file of a run")
    assert look().verdict == "UNKNOWN"


def test_a_node_that_was_silent_to_the_end_was_not_watched_since_its_last_row() -> None:
    of = run(lasted=HOUR, plan=replace(plan(), nodes=2))
    given = rows(HOUR, event(BEGAN, What.UP, node="node5"),
                 event(3000.0, What.SILENT, node="node5"))  # fmt: skip
    last = given.of_minutes[0]._replace(node="node5", minute=40)
    given.of_minutes.append(last)
    assert unseen(of, given) == BEGAN + HOUR - 2400.0


def test_a_node_that_was_heard_again_lost_nothing() -> None:
    of = run(lasted=HOUR, plan=replace(plan(), nodes=2))
    given = rows(
        HOUR, event(BEGAN, What.UP, node="node5"), event(3000.0, What.SILENT, node="node5"),
        event(3100.0, What.HEARD, node="node5"),
    )  # fmt: skip
    assert unseen(of, given) == 0.0

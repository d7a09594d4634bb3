"""What a real Accelerate loop's tracker reports, row by row and event by event, in the installed
release and in one of 2024.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes_frameworks import YEARS, Process, Training, environment, trained

pytest.importorskip("torch")
pytest.importorskip("accelerate")

pytestmark = [pytest.mark.slow, pytest.mark.torch]

SCRIPT = Path(__file__).resolve().parents[1] / "accelerate_trainings.py"
TRAININGS = ("alone", "logged", "many", "more", "foreign", "left", "copied", "evaluated", "given",
             "unknown", "saved", "forked", "crashed")  # fmt: skip
"""In this order: the last ends the process."""


@pytest.fixture(scope="module", params=YEARS)
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Process:
    directory = tmp_path_factory.mktemp(f"accelerate-{request.param}")
    around = environment(request.param, DVFD_JOB="crashed")
    found = trained(SCRIPT, directory, TRAININGS, around)
    assert set(found.trainings) == {*TRAININGS, "next"} - {"alone"}, found.err[-3000:]
    return found


@pytest.fixture
def said(process: Process) -> dict[str, Training]:
    return process.trainings


def test_each_optimizer_step_is_told_once_whatever_is_accumulated(
    said: dict[str, Training],
) -> None:
    assert said["logged"].course == ["1", "2", "3", "4", "pause", "5", "6", "end"]


def test_what_is_logged_goes_with_the_step_before_it(said: dict[str, Training]) -> None:
    rows = said["logged"].rows
    assert [row.step for row in rows if row.loss is not None] == [2, 4, 6]
    assert [row.step for row in rows if row.lr == 1e-2] == [2, 4, 6]
    assert [row.step for row in rows if row.val_loss == 0.5] == [5]


def test_samples_are_read_off_the_loader_that_was_prepared(said: dict[str, Training]) -> None:
    assert {row.samples for row in said["logged"].rows} == {8.0}
    assert {row.samples for row in said["many"].rows} == {4.0}


def test_samples_are_what_was_given_or_unknown_for_a_loader_that_was_not(
    said: dict[str, Training],
) -> None:
    assert {row.samples for row in said["given"].rows} == {32.0}
    assert {row.samples for row in said["unknown"].rows} == {None}


def test_a_step_is_a_round_of_the_optimizers_that_were_prepared(said: dict[str, Training]) -> None:
    assert said["many"].course == ["1", "2", "3", "end"]
    assert said["more"].course == ["1", "2", "3", "4", "5", "6", "end"]


def test_an_optimizer_that_was_not_prepared_hides_neither_a_step_nor_a_nan(
    said: dict[str, Training],
) -> None:
    rows = said["foreign"].rows
    assert [row.step for row in rows] == [1, 2, 3, 4]
    assert [math.isfinite(row.loss) for row in rows] == [True, True, False, False]


def test_a_training_that_was_left_takes_no_step_of_the_next(said: dict[str, Training]) -> None:
    assert [row.step for row in said["left"].rows] == [1, 2]
    assert [row.step for row in said["next"].rows] == [1, 2, 3]


def test_an_accelerator_is_copied_with_its_tracker_and_the_copy_tells_nothing(
    said: dict[str, Training],
) -> None:
    assert said["copied"].course == ["1", "2", "3", "end"]


def test_a_nan_of_a_last_evaluation_is_told_with_the_last_step_again(
    said: dict[str, Training],
) -> None:
    first, second, again = said["evaluated"].rows
    assert [first.step, second.step, again.step] == [1, 2, 2]
    assert (first.val_loss, second.val_loss, again.loss) == (None, 0.5, None)
    assert math.isnan(again.val_loss or 0.0)


def test_a_checkpoint_is_told_when_it_begins_and_whether_it_was_written(
    said: dict[str, Training],
) -> None:
    assert said["saved"].course == [
        "101", "checkpoint_begin", "checkpoint_saved", "102", "checkpoint_begin",
        "checkpoint_failed", "end",
    ]  # fmt: skip
    assert Path(said["saved"].event("checkpoint_saved").path).is_absolute()
    assert "No space left" in said["saved"].event("checkpoint_failed").error


def test_an_end_is_told_once_and_the_process_goes_on(said: dict[str, Training]) -> None:
    assert said["logged"].event("end").reason == "finished"
    assert said["logged"].hello.checkpoint_every == 2


def test_a_forked_child_that_ends_beside_it_tells_nothing(said: dict[str, Training]) -> None:
    assert said["forked"].course == ["1", "2", "3", "end"]  # the child's line would be the last


def test_a_crash_is_a_failed_end_with_the_exception(said: dict[str, Training]) -> None:
    assert said["crashed"].course == ["1", "2", "3", "exception", "end"]
    assert said["crashed"].event("exception").type == "RuntimeError"
    assert said["crashed"].event("end").failed


def test_training_goes_on_where_nobody_listens_and_nothing_is_printed(process: Process) -> None:
    assert process.code == 1
    assert process.err.splitlines()[-1] == "RuntimeError: a sample that cannot be read"
    assert "dvfd" not in process.out

"""What a real Hugging Face Trainer's callback reports, row by row and event by event, in the
installed release and in one of 2024.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes_frameworks import OLD, YEARS, Process, Training, environment, trained

from dvfd.telemetry import wire

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.torch]

SCRIPT = Path(__file__).resolve().parents[1] / "hf_trainings.py"
TRAININGS = ("alone", "steps", "resumed", "epochs", "nan", "filtered", "stopped", "broken",
             "caught", "forked", "unsaved")  # fmt: skip
"""In this order: the last ends the process."""


@pytest.fixture(scope="module", params=YEARS)
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Process:
    directory = tmp_path_factory.mktemp(f"huggingface-{request.param}")
    more = {"DVFD_JOB": "resumed"}
    if request.param == OLD:  # torch 2.6 refuses the random states that 4.46 had saved
        more["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    found = trained(SCRIPT, directory, TRAININGS, environment(request.param, **more))
    assert set(found.trainings) == {*TRAININGS} - {"alone"}, found.err[-3000:]
    return found


@pytest.fixture
def said(process: Process) -> dict[str, Training]:
    return process.trainings


def test_each_step_is_told_once_with_what_is_written_and_read_between(
    said: dict[str, Training],
) -> None:
    assert said["steps"].course == [
        "1", "2", "3", "pause", "checkpoint_begin", "checkpoint_saved", "4", "5",
        "pause", "checkpoint_begin", "checkpoint_saved", "6", "end",
    ]  # fmt: skip


def test_samples_are_those_of_all_micro_batches_of_the_step(said: dict[str, Training]) -> None:
    assert [row.samples for row in said["steps"].rows] == [8.0] * 6
    odd = [row.samples for row in said["epochs"].rows]
    assert odd in ([8.0, 8.0, 4.0] * 2, [8.0] * 4)  # as 4.46 has it, see the training


def test_a_value_goes_with_the_step_that_it_was_logged_of(said: dict[str, Training]) -> None:
    rows = said["steps"].rows
    for field_of in ("loss", "grad_norm", "lr"):
        given = [getattr(row, field_of) is not None for row in rows]
        assert given == [False, True, False, True, False, True]
    assert rows[1].loss == pytest.approx(math.log(16), rel=0.3)


def test_an_evaluations_loss_goes_with_the_next_step_and_the_last_ones_with_the_last(
    said: dict[str, Training],
) -> None:
    [fourth, sixth] = [row for row in said["steps"].rows if row.val_loss is not None]
    assert (fourth.step, sixth.step) == (4, 6)
    assert fourth.val_loss != sixth.val_loss
    assert said["epochs"].rows[-1].val_loss is not None


def test_what_is_logged_once_an_epoch_goes_with_its_last_step(said: dict[str, Training]) -> None:
    told = said["epochs"].told
    saved = {t.step for t in told if isinstance(t, wire.Event) and t.event == "checkpoint_saved"}
    assert {row.step for row in said["epochs"].rows if row.loss is not None} == saved
    assert len(saved) == 2


def test_a_checkpoint_is_told_by_its_path_which_is_there(
    said: dict[str, Training], process: Process
) -> None:
    saved = said["steps"].event("checkpoint_saved")
    assert saved.step == 3
    assert Path(saved.path).name == "checkpoint-3"
    assert Path(saved.path).is_absolute()
    assert (Path(saved.path) / "trainer_state.json").exists()


def test_the_interval_of_checkpoints_follows_from_the_trainers_settings(
    said: dict[str, Training],
) -> None:
    every = {name: training.hello.checkpoint_every for name, training in said.items()}
    assert (every["steps"], every["epochs"], every["nan"]) == (3, 3, 0)


def test_a_training_that_resumes_counts_on(said: dict[str, Training]) -> None:
    assert [row.step for row in said["resumed"].rows] == [4, 5, 6]


def test_a_job_without_a_name_takes_that_of_the_environment(said: dict[str, Training]) -> None:
    assert said["resumed"].hello.job == "resumed"


def test_a_loss_that_the_trainer_filters_is_betrayed_by_the_gradient(
    said: dict[str, Training],
) -> None:
    rows = said["nan"].rows
    assert all(math.isfinite(row.loss or 0.0) for row in rows)
    assert any(math.isnan(row.grad_norm or 0.0) for row in rows)


def test_a_loss_that_could_not_be_other_than_finite_is_not_told(
    said: dict[str, Training],
) -> None:
    assert [row.loss for row in said["filtered"].rows] == [None, None]
    assert "logging_nan_inf_filter" in said["filtered"].event("note").error


def test_an_end_says_whether_all_steps_were_made(said: dict[str, Training]) -> None:
    assert said["steps"].event("end").reason == "finished"
    assert said["stopped"].event("end").reason == "stopped early, at step 3 of 6"
    assert not said["stopped"].event("end").failed


def test_a_forked_child_that_ends_beside_it_tells_nothing(said: dict[str, Training]) -> None:
    assert said["forked"].course == ["1", "2", "3", "end"]  # the child's line would be the last


def test_a_crash_is_a_failed_end_with_the_exception(said: dict[str, Training]) -> None:
    assert said["unsaved"].course == [
        "1", "2", "checkpoint_begin", "checkpoint_failed", "exception", "end",
    ]  # fmt: skip
    assert said["unsaved"].event("exception").type == "OSError"
    assert "No space left" in said["unsaved"].event("checkpoint_failed").error
    assert said["unsaved"].event("end").failed
    assert said["unsaved"].event("end").reason == "left at step 2 of 6"


def test_an_exception_that_the_script_catches_is_told_by_the_reporter_around_it(
    said: dict[str, Training],
) -> None:
    assert said["caught"].course[-2:] == ["exception", "end"]
    assert said["caught"].event("exception").type == "RuntimeError"
    assert said["caught"].event("end").failed


def test_an_integration_that_breaks_harms_no_training_and_says_so(
    said: dict[str, Training],
) -> None:
    assert [row.step for row in said["broken"].rows] == [1, 2]
    assert said["broken"].event("note").error.startswith("DvfdCallback: TypeError")


def test_training_goes_on_where_nobody_listens_and_nothing_is_printed(process: Process) -> None:
    assert process.code == 1
    assert process.err.splitlines()[-1] == "OSError: [Errno 28] No space left on device"
    assert "dvfd" not in process.out

"""The Lightning callback in real fits: both names of the package, and releases two years apart."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes_frameworks import INSTALLED, OLD, environment

pytestmark = [pytest.mark.slow, pytest.mark.torch]

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
SCRIPT = Path(__file__).resolve().parents[1] / "lightning_fits.py"

Calls = list[list[Any]]


@functools.cache
def fits(year: str, package: str, directory: str) -> dict[str, Any]:
    argv = [sys.executable, str(SCRIPT), package, directory]
    done = subprocess.run(
        argv, env=environment(year), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


PAIRS = [(year, package) for year in (INSTALLED, OLD) for package in PACKAGES]


@pytest.fixture(
    scope="module",
    params=[PAIRS[0], *(pytest.param(pair, marks=pytest.mark.long) for pair in PAIRS[1:])],
    ids="-".join,
)
def told(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the callback told of each fit."""
    return fits(*request.param, str(tmp_path_factory.mktemp("fits")))


def only(calls: Calls, *names: str) -> Calls:
    return [call for call in calls if call[0] in names]


def rows(calls: Calls) -> list[tuple[int, dict[str, Any]]]:
    """Each row: its step, and what else was given."""
    found = []
    for call in only(calls, "step"):
        given = dict(call[-1])
        found.append((int(given.pop("step", call[1])), given))
    return found


def names(calls: Calls) -> list[str]:
    return [call[0] for call in calls]


def test_the_release_is_the_one_that_is_meant(told: dict[str, Any], request: Any) -> None:
    year, _ = request.node.callspec.params["told"]
    assert told["version"].startswith("2.4.") == (year == OLD)


def test_a_step_is_the_optimizer_s_with_the_samples_of_all_its_batches(told: Any) -> None:
    found = rows(told["plain"])
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {given["samples"] for _, given in found} == {8.0}  # two batches of four


def test_a_value_is_told_at_the_steps_that_lightning_logs(told: Any) -> None:
    logged = {step for step, given in rows(told["plain"]) if "loss" in given}
    assert logged == {2, 4, 6, 8}
    assert all(given["grad_norm"] > 0 for step, given in rows(told["plain"]) if step in logged)


def test_the_learning_rate_is_the_one_that_the_step_was_made_with(told: Any) -> None:
    rates = {step: given["lr"] for step, given in rows(told["plain"]) if "lr" in given}
    assert rates == {2: 0.1, 4: 0.05, 6: 0.025, 8: 0.0125}  # halved after each two


def test_what_the_job_itself_put_around_its_saves_stays_there(told: Any) -> None:
    assert told["patched"] == [True, True, True]


def test_a_validation_s_loss_comes_with_the_next_step_or_the_last(told: Any) -> None:
    assert [step for step, given in rows(told["plain"]) if "val_loss" in given] == [5, 8]


def test_a_validation_is_a_pause_and_a_sanity_check_is_none(told: Any) -> None:
    calls = told["plain"]
    assert [call[1:] for call in only(calls, "pause")] == [
        ["3600", "validation"],
        ["60", "validation"],
    ]
    assert names(calls).index("pause") > names(calls).index("step")


def test_a_checkpoint_is_told_from_its_begin_with_a_path_that_is_there(told: Any) -> None:
    saves = only(told["plain"], "checkpoint_begin", "checkpoint_saved")
    assert names(saves) == ["checkpoint_begin", "checkpoint_saved"] * 2
    assert [call[2] for call in saves] == ["4", "4", "8", "8"]
    assert Path(saves[1][1]).is_absolute()


def test_a_fit_that_did_all_its_steps_is_finished(told: Any) -> None:
    assert told["plain"][-1] == ["end", "finished", {"failed": False}]


def test_a_resumed_fit_goes_on_from_its_checkpoint(told: Any) -> None:
    (loaded,) = only(told["resumed"], "checkpoint_loaded")
    assert loaded[2] == "4"
    assert 0 < float(loaded[3]) < 60
    steps = [step for step, _ in rows(told["resumed"])]
    assert steps == list(range(5, 5 + len(steps)))  # 2.4 makes the batch of the save twice


def test_an_exception_is_told_and_the_end_is_a_failure(told: Any) -> None:
    assert told["crashed"][-2:] == [
        ["exception", "out of luck"],
        ["end", "left at step 5 of 8", {"failed": True}],
    ]


def test_a_fit_that_is_stopped_early_keeps_its_last_validation(told: Any) -> None:
    assert rows(told["stopped"])[-1][1]["val_loss"] > 0
    assert told["stopped"][-1] == ["end", "stopped early, at step 8 of 24", {"failed": False}]


def test_a_checkpoint_that_cannot_be_written_is_a_failed_one(told: Any) -> None:
    (failed,) = only(told["full"], "checkpoint_failed")
    assert failed[2:] == ["4", "no space left on device"]
    assert not only(told["full"], "checkpoint_saved")
    assert told["full"][-1][-1] == {"failed": True}


def test_a_checkpoint_written_in_the_background_is_saved_when_it_is_written(told: Any) -> None:
    saves = only(told["background"], "checkpoint_begin", "checkpoint_saved")
    assert names(saves) == ["checkpoint_begin", "checkpoint_saved"] * 2
    assert not only(told["lost"], "checkpoint_saved")
    assert only(told["lost"], "checkpoint_failed")[0][2:] == ["4", "no space left on device"]


def test_without_a_logger_steps_are_told_and_no_values_are_made(told: Any) -> None:
    found = rows(told["silent"])
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not any("loss" in given for _, given in found)


def test_a_module_that_optimizes_by_hand_is_told_of_all_the_same(told: Any) -> None:
    found = rows(told["manual"])
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "loss" in found[1][1]


def test_a_loss_of_another_name_is_found_by_it(told: Any) -> None:
    values = [given for _, given in rows(told["renamed"]) if "loss" in given]
    assert values
    assert all(given["loss"] == 2 * given["grad_norm"] for given in values)  # as they are logged


def test_no_value_is_taken_out_of_a_tensor_that_lightning_leaves_in_it(told: Any) -> None:
    with_it, without = told["conversions"]
    assert with_it == without > 0


def test_what_breaks_in_the_callback_breaks_no_fit(told: Any) -> None:
    steps, calls = told["broken"]
    assert steps == 8
    assert "ZeroDivisionError" in only(calls, "note")[0][1]


def test_it_is_a_callback_of_whichever_package_and_survives_a_spawn(told: Any) -> None:
    of_the_job_s, of_both, copied = told["kinds"]
    assert (of_the_job_s, of_both, copied) == (True, True, True)

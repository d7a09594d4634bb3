"""torchtitan's real trainer on the processor, and what is told of it: two of its releases."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes_torchtitan import NEW, VERSIONS, titan

pytestmark = [pytest.mark.slow, pytest.mark.torch]

SCRIPT = Path(__file__).resolve().parents[1] / "torchtitan_runs.py"

Calls = list[list[Any]]


class Run(NamedTuple):
    code: int
    calls: Calls
    output: str


def run(version: str, place: Path, *arguments: str) -> Run:
    """Train, saving each third step and validating then and at the first."""
    validation = "validator" if version == NEW else "validation"
    often = ("--checkpoint.interval=3", f"--{validation}.freq=3")
    done = titan(version, place, *often, *arguments, script=SCRIPT)
    lines = [line for line in done.stdout.splitlines() if line.startswith('[["new"')]
    assert lines, done.stderr[-3000:]
    return Run(done.returncode, json.loads(lines[-1]), done.stdout + done.stderr)


@pytest.fixture(scope="module", params=[NEW, pytest.param(VERSIONS[1], marks=pytest.mark.long)])
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A training of this release by name: the whole one, one that goes on, one that breaks."""
    place = tmp_path_factory.mktemp("titan")
    (place / "file").touch()

    @functools.cache
    def of(name: str) -> Run:
        if name == "whole":
            return run(request.param, place / "out", "--training.steps=6")
        if name == "resumed":
            of("whole")
            return run(request.param, place / "out", "--training.steps=8", *LAST[request.param])
        folder = f"--checkpoint.folder={place / 'file' / 'below'}"
        return run(request.param, place / "out", "--training.steps=6", folder)

    return of


LAST = {NEW: (), VERSIONS[1]: ("--checkpoint.load_step=3",)}
"""Before 0.3 the last checkpoint is of the model alone, unless it is asked for otherwise."""


def only(calls: Calls, *names: str) -> Calls:
    return [call for call in calls if call[0] in names]


def rows(run: Run) -> list[tuple[int, dict[str, Any]]]:
    """Each row: its step, and what else was given."""
    found = []
    for call in only(run.calls, "step"):
        given = dict(call[-1])
        found.append((int(given.pop("step", call[1])), given))
    return found


Trained = Callable[[str], Run]


def test_each_step_is_told_with_this_rank_s_sequences(trained: Trained) -> None:
    found = rows(trained("whole"))
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert {given["samples"] for _, given in found} == {2.0}


def test_what_torchtitan_logs_of_a_step_comes_with_it(trained: Trained) -> None:
    whole = trained("whole")
    first, last = rows(whole)[0][1], rows(whole)[-1][1]
    assert first["loss"] > last["loss"] > 0
    assert f"loss: {first['loss']:8.5f}" in whole.output.replace("\x1b[32m", "")
    assert first["grad_norm"] > 0
    assert first["lr"] > 0


def test_a_validation_is_a_pause_and_its_loss_comes_with_the_next_row(trained: Trained) -> None:
    whole = trained("whole")
    assert [call[1] for call in only(whole.calls, "pause")] == ["3600", "60", "60"]
    assert [step for step, given in rows(whole) if "val_loss" in given] == [2, 4, 6]


def test_a_checkpoint_is_told_from_its_begin_with_its_directory(trained: Trained) -> None:
    saves = only(trained("whole").calls, "checkpoint_begin", "checkpoint_saved")
    assert [call[0] for call in saves] == ["checkpoint_begin", "checkpoint_saved"] * 2
    assert [call[2] for call in saves] == ["3", "3", "6", "6"]
    assert (Path(saves[-1][1]) / ".metadata").exists()
    assert trained("whole").calls[0][-1] == {"checkpoint_every": 3}


def test_a_training_that_did_all_its_steps_is_finished(trained: Trained) -> None:
    whole = trained("whole")
    assert whole.code == 0
    assert whole.calls[-1] == ["end", "finished", {"failed": False}]


@pytest.mark.long
def test_a_resumed_training_goes_on_from_its_checkpoint(trained: Trained) -> None:
    resumed = trained("resumed")
    (loaded,) = only(resumed.calls, "checkpoint_loaded")
    step = int(loaded[2])
    assert step in {3, 6}
    assert loaded[1].endswith(f"checkpoint/step-{step}")
    assert [number for number, _ in rows(resumed)] == list(range(step + 1, 9))


@pytest.mark.long
def test_a_checkpoint_that_breaks_training_is_a_failed_one_and_a_failed_end(
    trained: Trained,
) -> None:
    broken = trained("broken")
    assert broken.code != 0
    (failed,) = only(broken.calls, "checkpoint_failed")
    assert failed[2] == "3"
    assert not only(broken.calls, "checkpoint_saved")
    assert [call[0] for call in broken.calls[-2:]] == ["exception", "end"]
    assert broken.calls[-1][-1] == {"failed": True}

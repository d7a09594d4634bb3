"""A checkpoint is restored to the end, by a process that takes nothing for granted."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes_checkpoints import FakeVerifier, Records, archive, flip

from dvfd import checkpoint_load, manifest, shell
from dvfd.config import Checkpoints
from dvfd.reviews.restore import MANIFESTS, TRIES, Restorer, last_seen
from dvfd.shell import Output
from dvfd.telemetry.checkpoint_state import CheckpointState


def state(path: Path | str, saved_at: float = 1.0) -> CheckpointState:
    return CheckpointState(job="gpt", path=str(path), saved_at=saved_at)


def restorer(*states: CheckpointState, run=None) -> Restorer:
    return Restorer(
        lambda: states, settings=Checkpoints(), records=Records(), run=run or FakeVerifier()
    )


def test_all_of_the_state_is_asked_for_at_idle_priority_and_without_pickles(tmp_path):
    verifier = FakeVerifier()
    assert restorer(state(archive(tmp_path / "c.pt")), run=verifier).restored("gpt")[0] is True
    asked = verifier.calls[-1]
    assert "--restore" in asked
    assert "--trust-pickles" not in asked


@pytest.mark.parametrize(
    ("intact", "loadable", "equal"),
    [(True, True, True), (False, True, False), (True, False, False), (None, True, None),
     (True, None, None)],
)  # fmt: skip
def test_it_came_out_equal_only_if_both_halves_were_shown(tmp_path, intact, loadable, equal):
    verifier = FakeVerifier(intact, loadable)
    assert restorer(state(archive(tmp_path / "c.pt")), run=verifier).restored("gpt")[0] is equal


def test_a_checkpoint_that_is_gone_is_a_failure(tmp_path):
    assert restorer(state(tmp_path / "c.pt")).restored("gpt") == (
        False,
        f"{tmp_path}/c.pt: not there",
    )


def test_no_checkpoint_reported_is_unknown():
    assert restorer(CheckpointState(job="gpt")).restored("gpt")[0] is None
    assert restorer().restored("gpt")[0] is None


class Moving:
    """A job that takes its checkpoint away and saves a new one, so many times."""

    def __init__(self, directory: Path, times: int) -> None:
        self.directory, self.left, self.looks = directory, times, 0

    def __call__(self) -> list[CheckpointState]:
        self.looks += 1
        number = min((self.looks) // 2, self.left)
        path = self.directory / f"{number}.pt"
        if number == self.left:
            archive(path)
        return [state(path, float(number))]


def test_one_that_the_job_took_away_meanwhile_is_no_failure(tmp_path):
    made = Restorer(
        Moving(tmp_path, 1), settings=Checkpoints(), records=Records(), run=FakeVerifier()
    )
    assert made.restored("gpt")[0] is True


def test_after_some_tries_a_checkpoint_that_never_stays_is_a_failure(tmp_path):
    made = Restorer(
        Moving(tmp_path, 9 * TRIES), settings=Checkpoints(), records=Records(), run=FakeVerifier()
    )
    assert made.restored("gpt")[0] is False


def test_without_a_daemon_the_newest_is_the_one_that_the_store_has_a_manifest_of(tmp_path):
    records = Records()
    verifier = FakeVerifier()
    Restorer(
        lambda: [state(archive(tmp_path / "c.pt"))],
        settings=Checkpoints(), records=records, run=verifier,
    ).restored("gpt")  # fmt: skip
    kept = {key: document for (kind, key), document in records.kept.items() if kind == MANIFESTS}
    assert last_seen(kept) == [state(tmp_path / "c.pt")]


def test_a_verifier_that_is_killed_says_nothing(tmp_path):
    def killed(argv, *, timeout, stdin=b""):
        return Output(-signal.SIGKILL, "", "", 0.1)

    assert restorer(state(archive(tmp_path / "c.pt")), run=killed).restored("gpt")[0] is None


# --- With torch ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of the reference job: a state and its manifest with hashes of the tensors."""
    torch = pytest.importorskip("torch")
    from dvfd.drills.checkpoint import save

    weights = {"model": {"w": torch.arange(4096.0)}, "optimizer": {"step": 7}, "step": 7}
    return save(tmp_path_factory.mktemp("checkpoints"), 7, weights, keep=2)


def really(path: Path) -> tuple[bool | None, str]:
    return restorer(state(path), run=shell.run).restored("gpt")


@pytest.mark.slow
@pytest.mark.torch
def test_a_whole_state_is_restored_and_each_tensor_compared(saved):
    equal, why = really(saved)
    assert equal is True
    assert "restored 1 tensors of 16384 bytes, each equal to the one that was saved" in why


@pytest.mark.slow
@pytest.mark.torch
def test_a_state_that_is_not_the_one_that_was_saved_is_found(saved, tmp_path):
    """Files that agree with their manifest, whose tensors do not: somebody made both anew."""
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    document = json.loads((copy / manifest.NAME).read_text())
    document["tensors"]["model.w"] = "0" * 64
    (copy / manifest.NAME).write_text(json.dumps(manifest.seal(document)))
    equal, why = really(copy)
    assert equal is False
    assert "tensor model.w is not the one that was saved" in why


class SmallMemory:
    """torch where a state has no room in memory as a whole."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def load(self, path: str, *, mmap: bool, **more: Any) -> Any:
        if not mmap:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory: you tried")
        return self._torch.load(path, mmap=mmap, **more)


@pytest.mark.torch
def test_a_state_that_is_larger_than_the_memory_is_read_one_tensor_after_the_other(saved):
    torch = pytest.importorskip("torch")
    [file] = [str(path) for path in saved.iterdir() if path.suffix != ".json"]
    document = json.loads((saved / manifest.NAME).read_text())
    asked = {"tensors": document["tensors"], "weights_only": True, "whole": True}
    equal, why = checkpoint_load._load(SmallMemory(torch), file, asked)
    assert equal is True
    assert "each equal to the one that was saved, one after the other" in why
    asked["tensors"] |= {"model.w": "0" * 64}
    assert checkpoint_load._load(SmallMemory(torch), file, asked)[0] is False


@pytest.mark.torch
def test_a_flipped_bit_is_not_restored(saved, tmp_path):
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    flip(next(path for path in copy.iterdir() if path.suffix != ".json"))
    assert really(copy)[0] is False

"""The probe with a real verifier beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakes_checkpoints import Records, flip, sealed

from dvfd.config import Checkpoints as Settings
from dvfd.probes.checkpoints import Checkpoints
from dvfd.telemetry.checkpoint_state import CheckpointState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def at_once(work: Callable[[], None]) -> None:
    work()


def probe(path: Path, **settings: object) -> Checkpoints:
    state = CheckpointState(job="gpt", path=str(path), saved_at=90.0)
    return Checkpoints(
        lambda: [state],
        settings=Settings(**settings),  # type: ignore[arg-type]
        records=Records(),
        start=at_once,
    )


def intact(found: Checkpoints, at: float) -> float | None:
    values = {sample.metric: sample.value for sample in found.sample(at)}
    return values.get("checkpoint_intact")


def test_a_flipped_bit_shows_at_the_next_pass(tmp_path: Path) -> None:
    found = probe(sealed(tmp_path / "ck"))
    assert intact(found, 100) == 1.0
    flip(tmp_path / "ck/shard.distcp")
    assert intact(found, 102) == 0.0


def test_a_bit_that_flips_in_somebody_elses_checkpoint_shows_too(tmp_path: Path) -> None:
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck/0.distcp").write_bytes(bytes(4096))
    found = probe(tmp_path / "ck")
    assert intact(found, 100) == 1.0
    flip(tmp_path / "ck/0.distcp")
    assert intact(found, 102) == 0.0


def test_a_verifier_out_of_time_leaves_it_unknown(tmp_path: Path) -> None:
    found = probe(sealed(tmp_path / "ck"), timeout=0.001)
    assert intact(found, 100) is None
    assert "still running" in found.gaps["checkpoint_intact"]


def test_too_little_memory_leaves_loading_unknown_not_failed(tmp_path: Path) -> None:
    found = probe(sealed(tmp_path / "ck"), memory_bytes=2**26)
    metrics = {sample.metric for sample in found.sample(100)}
    assert "checkpoint_loadable" not in metrics

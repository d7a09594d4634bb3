"""When a supervisor ends its training, and that its log has an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvfd.runs.hold import bound, to_end


@pytest.mark.parametrize("stage", ["armed", "warm-up", "running", None])
def test_a_run_that_is_on_keeps_its_training(stage: str | None) -> None:
    assert not to_end({"stage": stage, "plan": {"on_failure": "stop"}}, only=True)


def test_what_a_newer_daemon_says_besides_is_no_matter() -> None:
    assert to_end({"stage": "complete", "colour": "blue"}, only=False) == "the run is complete"


def test_an_answer_that_says_nothing_ends_nothing() -> None:
    assert not to_end({}, only=True)


def test_a_long_log_begins_anew_and_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "r.log"
    with log.open("ab", buffering=0) as training:
        training.write(b"a" * 100)
        bound(log, 99)
        training.write(b"b")
    assert log.read_bytes() == b"b"
    assert (tmp_path / "r.log.1").read_bytes() == b"a" * 100


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "r.log"
    log.write_text("short")
    bound(log, 99)
    assert [path.name for path in tmp_path.iterdir()] == ["r.log"]

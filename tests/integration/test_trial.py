"""A job is run for a bounded time, heard, and ended: what it reports is what is measured."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from fakes_drills import task

from dvfd.clock import SystemClock
from dvfd.drills import trial as trials
from dvfd.drills.trial import Throughput, trial
from dvfd.errors import ProbeError, ToolError

JOB = Path(__file__).parents[1] / "reporting_job.py"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "WINDOW", 0.4)
    monkeypatch.setattr(trials, "WARM_UP", 0.3)
    monkeypatch.setattr(trials, "START", 20.0)


def run(directory: Path, *words: str, processes: int = 2, seconds: float = 4.0) -> Throughput:
    command = [sys.executable, str(JOB), *words]
    chosen = task("openmpi_gloo", directory, clock=SystemClock())
    return trial(chosen, command, seconds=seconds, processes=processes, here=processes)


def left() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(JOB).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_throughput_is_that_of_all_ranks_together(tmp_path: Path) -> None:
    found = run(tmp_path, "2", "8", "0.05")
    assert 100 < found.median < 320  # 2 x 8 / 0.05 = 320, less what sleeping costs
    assert found.low <= found.median <= found.high
    assert (found.job, found.processes) == ("gpt", 2)
    assert found.windows >= 6
    assert found.steps * 8 * 2 / found.seconds == pytest.approx(found.median, rel=0.2)
    assert not left()


def test_a_job_that_does_not_want_to_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "GRACE", 0.5)
    began = time.monotonic()
    run(tmp_path, "2", "8", "0.05", "deaf", seconds=3.0)
    assert time.monotonic() - began < 20
    assert not left()


def test_a_job_is_asked_to_end_before_it_is_made_to(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    run(tmp_path, "2", "8", "0.05", f"polite={asked}", seconds=3.0)
    assert asked.exists()


def test_a_job_that_ends_by_itself_is_measured_until_then(tmp_path: Path) -> None:
    found = run(tmp_path, "2", "8", "0.05", "steps=90", seconds=60.0)
    assert found.seconds < 20
    assert found.low > 50


def test_the_daemons_socket_hears_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVFD_SOCKET", str(tmp_path / "daemon.sock"))
    monkeypatch.setenv("RANK", "3")
    assert run(tmp_path, "2", "8", "0.05", seconds=3.0).processes == 2
    assert os.environ["DVFD_SOCKET"] == str(tmp_path / "daemon.sock")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("2", "8", "0.05", "steps=30"), ProbeError, "windows of 0.4 s, wanted 6"),
        (("2", "8", "0.05", "steps=0"), ProbeError, "ended too soon: job gpt reported"),
        (("1", "8", "0.05", "world=2", "steps=3"), ProbeError, "wanted 2 ranks on this node"),
        (("2", "8", "0.05", "mute"), ProbeError, "Reporter.step(samples=...)"),
        (("2", "8", "0.01", "nan"), ProbeError, "the job is not well"),
        (("2", "8", "0.05", "world=4"), ProbeError, "has 4 processes, wanted 2"),
        (("2", "8", "0.05", "steps=20", "exit=3"), ToolError, "RuntimeError: out of luck"),
    ],
)
def test_what_is_no_such_training_gives_no_throughput(
    tmp_path: Path, words: tuple[str, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match="(?s).*" + said.replace("(", r"\(").replace(")", r"\)")):
        run(tmp_path, *words)
    assert not left()


def test_a_job_that_reports_nothing_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "START", 2.0)
    chosen = task("openmpi_gloo", tmp_path, clock=SystemClock())
    with pytest.raises(ProbeError, match="nothing reported"):
        trial(chosen, ["sleep", "60"], seconds=3.0, processes=2, here=2)


def test_a_command_that_is_not_there_says_so(tmp_path: Path) -> None:
    chosen = task("openmpi_gloo", tmp_path, clock=SystemClock())
    with pytest.raises(ToolError, match="no-such-launcher: no such file"):
        trial(chosen, ["no-such-launcher", "train.py"], seconds=3.0, processes=2, here=2)

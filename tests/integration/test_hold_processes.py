"""The supervisor of a run's training, as a process: nothing of the training outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes_conductor import ID, FakeRuns
from testbed import eventually

from dvfd.runs import ending

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
time.sleep(300)
"""
"""Ignores SIGTERM, and has a child in a session of its own that does so, too."""

OBEDIENT = """
import signal, sys, time
def leave(*_):
    open(sys.argv[1], "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(300)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeRuns]:
    """A daemon with a run that is armed."""
    fake = FakeRuns(tmp_path / "control.sock")
    fake.arm()
    yield fake.start()
    fake.stop()


class Held:
    """A supervisor with its training."""

    def __init__(self, directory: Path, *command: str, options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        argv = [
            sys.executable, "-m", "dvfd.runs.hold", ID, f"--control={directory / 'control.sock'}",
            f"--log={directory / 'log'}", "--every=0.1", "--grace=1", *options, "--", *command,
        ]  # fmt: skip
        self.process = subprocess.Popen(argv)

    def said(self) -> str:
        log = self.directory / "log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[object]:
    """Start a supervisor; whatever is left of it goes with the test."""
    held: list[Held] = []

    def start(*command: str, options: tuple[str, ...] = ()) -> Held:
        held.append(Held(tmp_path, *command, options=options))
        return held[-1]

    yield start
    for each in held:
        each.process.kill()
        each.process.wait()
    ending.end(ID, grace=0)


def python(code: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *words)


def running(count: int) -> set[int]:
    """The processes of the training, once there are *count*."""
    return set(eventually(lambda: len(left := ending.living(ID)) == count and left, 60))


def test_the_daemon_is_told_what_holds_the_training(daemon: FakeRuns, hold) -> None:
    held = hold("sleep", "300")
    [told] = eventually(lambda: daemon.told("launched"), 60)
    start = ending.started(held.process.pid)
    mark = ending.mark(ID)
    assert told["launched"] == {"unit": "", "pid": held.process.pid, "start": start, "mark": mark}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_end_it_takes_all_of_the_training_with_it(
    number: signal.Signals, daemon: FakeRuns, hold
) -> None:
    held = hold(*python(STUBBORN))
    running(2)
    held.process.send_signal(number)
    assert held.process.wait(30) == 0
    assert not ending.living(ID)
    assert "gone: 2 processes" in held.said()
    assert [told["code"] for told in daemon.told("exited")] == [-9]


def test_a_run_that_is_complete_ends_its_training_in_order(
    daemon: FakeRuns, hold, tmp_path: Path
) -> None:
    held = hold(*python(OBEDIENT, str(tmp_path / "checkpoint")), options=("--grace=30",))
    eventually((tmp_path / "checkpoint.ready").exists, 60)
    assert daemon.run
    daemon.run["stage"] = "complete"
    assert held.process.wait(30) == 0
    assert (tmp_path / "checkpoint").read_text() == "saved"
    assert daemon.told("exited")[0]["code"] == 0


def test_a_run_that_was_broken_off_leaves_a_training_alone_that_serves_more_than_it(
    daemon: FakeRuns, hold
) -> None:
    held = hold("sleep", "300")
    running(1)
    assert daemon.run
    daemon.run.update(stage="aborted", reason="a world of 2 processes")
    seen = len(daemon.told("status"))
    eventually(lambda: len(daemon.told("status")) > seen + 2, 60)
    assert held.process.poll() is None
    assert len(ending.living(ID)) == 1


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"stopped_by": "root"}, ()),
        ({"on_failure": "stop"}, ()),
        ({}, ("--only",)),
    ],
)
def test_a_run_that_was_broken_off_ends_its_training_if_that_is_meant(
    change: dict[str, str], options: tuple[str, ...], daemon: FakeRuns, hold
) -> None:
    held = hold("sleep", "300", options=options)
    running(1)
    assert daemon.run
    daemon.run["plan"]["on_failure"] = change.get("on_failure", "continue")
    daemon.run.update(stage="aborted", reason="it was", stopped_by=change.get("stopped_by", ""))
    assert held.process.wait(30) == 0
    assert "the run ended: it was" in held.said()


def test_a_training_that_ends_by_itself_is_told_with_its_code(daemon: FakeRuns, hold) -> None:
    held = hold("sh", "-c", "exit 7")
    assert held.process.wait(30) == 7
    assert daemon.told("exited")[0]["code"] == 7


def test_what_a_training_leaves_that_ended_by_itself_is_ended(daemon: FakeRuns, hold) -> None:
    held = hold("sh", "-c", "setsid sleep 300 & exit 0")
    assert held.process.wait(30) == 0
    assert not ending.living(ID)


def test_a_command_that_is_not_there_is_told_as_a_shell_would(daemon: FakeRuns, hold) -> None:
    held = hold("/nowhere/torchrun")
    assert held.process.wait(30) == 127
    assert "/nowhere/torchrun: cannot be started" in held.said()
    assert daemon.told("exited")[0]["code"] == 127


def test_the_training_goes_on_while_the_daemon_is_away(daemon: FakeRuns, hold) -> None:
    held = hold("sleep", "300")
    eventually(lambda: daemon.told("launched"), 60)
    daemon.stop()
    eventually(lambda: "no daemon answers; the training goes on" in held.said(), 60)
    training = running(1)
    daemon.start()
    eventually(lambda: "the daemon answers again" in held.said(), 60)
    assert ending.living(ID) == training
    assert daemon.run
    daemon.run["stage"] = "complete"
    assert held.process.wait(30) == 0


def test_a_daemon_that_comes_later_is_told_all_the_same(tmp_path: Path, hold) -> None:
    hold("sleep", "300")
    running(1)
    late = FakeRuns(tmp_path / "control.sock")
    late.arm()
    late.start()
    try:
        eventually(lambda: late.told("launched"), 60)
    finally:
        late.stop()


def test_the_end_is_told_to_a_daemon_that_was_away_when_it_came(daemon: FakeRuns, hold) -> None:
    held = hold("sleep", "300")
    [training] = running(1)
    daemon.stop()
    os.kill(training, signal.SIGKILL)
    eventually(lambda: "told how the training ended" in held.said(), 60)
    daemon.start()
    assert held.process.wait(30) == 128 + 9
    assert daemon.told("exited")[0]["code"] == -9


def test_without_its_supervisor_a_training_is_found_by_its_mark(daemon: FakeRuns, hold) -> None:
    held = hold(*python(STUBBORN))
    running(2)
    eventually(lambda: daemon.told("launched"), 60)
    held.process.kill()
    held.process.wait()
    assert len(ending.living(ID)) == 2
    launched = daemon.told("launched")[0]["launched"]
    assert ending.end(ID, grace=0.5) == 2
    assert ending.stop(ID, launched) == 0


def test_stopping_waits_for_the_supervisor_and_counts_what_there_was(
    daemon: FakeRuns, hold
) -> None:
    held = hold(*python(STUBBORN))
    running(2)
    eventually(lambda: daemon.told("launched"), 60)
    assert ending.stop(ID, daemon.told("launched")[0]["launched"]) == 2
    assert held.process.wait(5) == 0


def test_another_process_with_the_same_number_is_left_alone() -> None:
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        start = ending.started(bystander.pid)
        assert not ending.end_holder(bystander.pid, start + 1, patience=5)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.skipif(
    "coverage" in sys.modules, reason="what counts the lines that run takes memory as well"
)
def test_it_stays_small_beside_the_job(daemon: FakeRuns, hold) -> None:
    held = hold("sleep", "300")
    eventually(lambda: len(daemon.told("status")) > 3, 60)
    lines = Path(f"/proc/{held.process.pid}/status").read_text().splitlines()
    [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    assert kilobytes < 25 * 1024


def test_what_lost_its_parent_before_is_asked_to_end_as_well(
    daemon: FakeRuns, hold, tmp_path: Path
) -> None:
    place = str(tmp_path / "checkpoint")
    leaves = f"import os\nif os.fork():\n    os._exit(0)\nos.setsid(){OBEDIENT}"
    begins = f"subprocess.run([sys.executable, '-c', {leaves!r}, {place!r}])"
    both = f"import subprocess, sys, time; {begins}; time.sleep(300)"
    held = hold(*python(both), options=("--grace=30",))
    eventually(Path(f"{place}.ready").exists, 60)
    held.process.terminate()
    assert held.process.wait(30) == 0
    assert Path(place).read_text() == "saved"


def test_only_those_are_asked_that_none_of_the_others_started(monkeypatch) -> None:
    parents = {10: 1, 11: 10, 12: 11, 20: 1}  # a launcher with ranks, and what lost its parent
    monkeypatch.setattr(ending, "parent", parents.get)
    assert ending.topmost(parents.keys()) == {10, 20}

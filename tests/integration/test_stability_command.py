"""`dvfd stability start` with a supervisor and a training that are real."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes_conductor import ID, FakeRuns, criterion
from fakes_output import valid
from node import Node, running
from testbed import eventually

from dvfd.runs import ending

DVFD = [sys.executable, "-m", "dvfd", "stability"]
SLEEPS = ("--no-follow", "--", "sleep", "300")

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "DVFD_STATE_DIR": str(tmp_path / "state"),
        "TERM": "xterm", "COLUMNS": "200",
    }  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[FakeRuns]:
    """A daemon of which no training is left when the test is over."""
    fake = FakeRuns(tmp_path / "control.sock").start()
    yield fake
    if fake.run:
        ending.stop(ID, fake.run["launched"] or {})
    fake.stop()


@pytest.fixture
def dvfd(environment: dict[str, str], tmp_path: Path) -> Callable[..., Done]:
    def call(*words: str) -> Done:
        return subprocess.run(
            [*DVFD, *words], env=environment, cwd=tmp_path, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    return call


def test_a_training_is_started_told_of_and_outlives_the_command(runs, dvfd, tmp_path) -> None:
    done = dvfd("start", "phase1", "--duration", "60", *SLEEPS)
    assert (done.returncode, done.stderr) == (0, "")
    [armed] = runs.told("arm")
    assert (armed["check"], armed["job"], armed["duration"]) == ("stability_phase1", "phase1", 60)
    assert (armed["argv"], armed["directory"]) == (["sleep", "300"], str(tmp_path))
    [pid] = ending.living(ID)
    holder = runs.run["launched"]["pid"]
    assert os.getsid(holder) == holder != os.getsid(0)
    assert b"DVFD_JOB=phase1" in Path(f"/proc/{pid}/environ").read_bytes()


def test_stop_ends_it_and_says_how_many_there_were(runs, dvfd) -> None:
    dvfd("start", "phase1", *SLEEPS)
    done = dvfd("stop", "--reason", "enough")
    assert done.returncode == 0
    assert "its training is gone: 1 process\n" in done.stdout
    assert not ending.living(ID)


def test_stop_ends_a_training_whose_supervisor_was_killed(runs, dvfd) -> None:
    dvfd("start", "phase1", *SLEEPS)
    os.kill(runs.run["launched"]["pid"], signal.SIGKILL)
    assert len(ending.living(ID)) == 1
    assert "gone: 1 process\n" in dvfd("stop").stdout
    assert not ending.living(ID)


def test_a_program_that_is_not_there_arms_no_run(runs, dvfd) -> None:
    done = dvfd("start", "phase1", "--no-follow", "--", "/nowhere/torchrun")
    assert done.returncode == 3
    assert "/nowhere/torchrun: no such program here" in done.stderr
    assert not runs.told("arm")


def test_a_command_that_cannot_be_started_is_told_at_once_and_the_run_is_over(
    runs, dvfd, tmp_path
) -> None:
    script = tmp_path / "torchrun"
    script.write_text("#!/nowhere/python\n")
    script.chmod(0o755)
    done = dvfd("start", "phase1", "--no-follow", "--", str(script))
    assert done.returncode == 3
    assert "ended with exit code 127" in done.stderr
    assert runs.run["stage"] == "aborted"
    [log] = [word for word in done.stderr.split() if word.endswith(".log")]
    assert f"{script}: cannot be started" in Path(log).read_text()


def test_a_supervisor_that_cannot_be_started_takes_the_run_back(
    runs, environment, dvfd, tmp_path
) -> None:
    (tmp_path / "state").write_text("no directory")
    done = dvfd("start", "phase1", *SLEEPS)
    assert done.returncode == 3
    assert runs.told("stop")
    assert runs.run["stage"] == "aborted"


def test_ctrl_c_while_it_starts_takes_run_and_training_back(
    runs, environment, tmp_path: Path
) -> None:
    runs.deaf = True  # nobody hears of the supervisor: the command waits
    began = subprocess.Popen(
        [*DVFD, "start", "phase1", *SLEEPS], env=environment, stdout=subprocess.DEVNULL
    )
    eventually(lambda: ending.living(ID), 60)
    began.send_signal(signal.SIGINT)
    assert began.wait(30) == 130
    assert runs.run["stage"] == "aborted"
    eventually(lambda: not ending.living(ID), 60)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*DVFD, *words], env=environment, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        os.set_blocking(self._end, False)
        self.shown = ""

    def shows(self, words: str) -> bool:
        """Whether *words* have been shown by now."""
        with contextlib.suppress(OSError):  # nothing new, or the other side is closed
            self.shown += os.read(self._end, 65536).decode(errors="replace")
        return words in self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def call(*words: str) -> Terminal:
        opened.append(Terminal(environment, *words))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


def test_on_a_terminal_it_follows_to_the_end_and_exits_by_the_verdict(runs, terminal) -> None:
    shown = terminal("start", "phase1", "--", "sleep", "300")
    eventually(lambda: shown.shows("armed, waits for the first step"), 60)
    runs.judged = [criterion("loss_spikes", "FAIL", margin=-1.0)]
    runs.elapsed, runs.ends_at = 3600.0, time.time() + 1000
    runs.run.update(stage="running", began_t=60.0)
    eventually(lambda: shown.shows("running, 1 h of 24 h, ends"), 60)
    eventually(lambda: shown.shows("worst: loss_spikes FAIL"), 60)
    runs.judged = [criterion("loss_spikes", "FAIL", verdict="FAIL")]
    runs.run.update(stage="complete", frozen="x")
    assert shown.process.wait(30) == 2


def test_a_daemon_that_goes_away_is_waited_for(runs, terminal) -> None:
    shown = terminal("start", "phase1", "--", "sleep", "300")
    eventually(lambda: shown.shows("armed, waits"), 60)
    runs.stop()
    eventually(lambda: shown.shows("no daemon answers: the training goes on"), 60)
    runs.start()
    runs.run.update(stage="aborted", frozen="x", reason="it had to")
    eventually(lambda: shown.shows("aborted, 0 s of 24 h: it had to"), 60)
    assert shown.process.wait(30) == 3


def test_ctrl_c_ends_the_following_and_not_the_run(runs, terminal) -> None:
    shown = terminal("start", "phase1", "--", "sleep", "300")
    eventually(lambda: shown.shows("armed, waits"), 60)
    shown.process.send_signal(signal.SIGINT)
    eventually(lambda: shown.shows(f"the run goes on: dvfd stability status {ID}"), 60)
    assert shown.process.wait(30) == 130
    assert len(ending.living(ID)) == 1
    assert not runs.told("stop")


def test_of_two_that_start_at_the_same_moment_one_wins_and_the_other_names_it(
    tmp_path: Path,
) -> None:
    with running(Node(tmp_path / "n", [])) as node:
        both = [
            subprocess.Popen(
                [*DVFD, "start", "phase1", *SLEEPS], env=node.environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]  # fmt: skip
        said = [each.communicate(timeout=60) for each in both]
        run = node.ask("stability_status", id="")["run"]
        try:
            assert sorted(each.returncode for each in both) == [0, 3]
            [refusal] = [err for _, err in said if err]
            assert f"run {run['id']} is armed on this node: one at a time" in refusal
            assert len(ending.living(run["id"])) == 1
            status = subprocess.run(
                [*DVFD, "status", "-o", "json"], env=node.environment, capture_output=True,
                check=False,
            )  # fmt: skip
            valid(json.loads(status.stdout), "run_status")
        finally:
            ending.stop(run["id"], run["launched"] or {})

"""TAB in a real, interactive bash: commands, options and the names that a real daemon knows."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from node import Node, running
from testbed import eventually

from dvfd.telemetry.reporter import Reporter


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running(Node(tmp_path_factory.mktemp("completion"), [])) as node:
        path = node.environment["DVFD_SOCKET"]
        with Reporter(job="gpt-small", rank=0, world_size=1, socket=path, batch=1) as reporter:
            reporter.step(1, samples=8, loss=2.0)
            eventually(lambda: node.ask("names")["jobs"], 60)
            yield node


class Bash:
    """An interactive bash on a terminal of its own, in which `dvfd` is this checkout's."""

    def __init__(self, directory, environment):
        program = directory / "dvfd"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dvfd "$@"\n')
        program.chmod(0o755)
        self._end, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={
                **environment, "PATH": f"{directory}:{os.environ['PATH']}", "PS1": "> ",
                "TERM": "dumb", "HISTFILE": "", "INPUTRC": "/dev/null",
            },
        )  # fmt: skip
        os.close(theirs)
        self.type("bind 'set bell-style none'; eval \"$(dvfd completion bash)\"; echo re''ady\n")
        self.until("ready")

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def until(self, wanted: str, seconds: float = 20) -> str:
        """What the terminal showed until *wanted* appeared."""
        shown, end = "", time.monotonic() + seconds
        while not re.search(wanted, shown):
            assert time.monotonic() < end, f"wanted {wanted!r}, the terminal shows {shown!r}"
            if select.select([self._end], [], [], 0.1)[0]:
                shown += os.read(self._end, 4096).decode(errors="replace")
        return shown

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._end)


@pytest.fixture
def bash(node, tmp_path):
    bash = Bash(tmp_path, node.environment)
    yield bash
    bash.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dvfd statu", r"dvfd status "),
        ("dvfd status --outp", r"--output "),
        ("dvfd check hardw", r"dvfd check hardware "),
        ("dvfd checklist mon", r"dvfd checklist monthly "),
        ("dvfd history cpu_temp", r"cpu_temperature_celsius "),
        ("dvfd job forget gp", r"gpt-small "),
        ("dvfd status -o nag", r"nagios "),
    ],
)
def test_tab_completes(typed, completed, bash):
    bash.type(f"{typed}\t")

    bash.until(completed)


def test_tab_lists_what_is_left_to_choose(bash):
    bash.type("dvfd checklist \t\t")

    assert "monthly" in bash.until("weekly")


def test_without_a_daemon_tab_offers_nothing_and_says_nothing(tmp_path):
    bash = Bash(tmp_path, {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)})
    try:
        bash.type("dvfd check hardw\t-x\n")
        shown = bash.until("no such check")
    finally:
        bash.close()

    assert "hardw-x" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_code_that_asks_dvfd(shell):
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "completion", shell],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert f"_DVFD_COMPLETE={shell}_complete" in done.stdout

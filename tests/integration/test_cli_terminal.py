"""Commands on terminals and pipes as they are: interrupted, closed, colourless, without UTF-8."""

import os
import pty
import signal
import socket
import subprocess
import sys

import pytest
from fakes_sinks import NOW, criterion, result, sources, state
from fakes_sinks import check as a_check
from node import Node, running

from dvfd.control import ControlServer, Operation
from dvfd.model import Report
from dvfd.status import document

DVFD = [sys.executable, "-m", "dvfd"]
STRANGE = "naïve – café … 🎉 \udc80"  # noqa: RUF001  # an en dash is meant


@pytest.fixture
def environment(tmp_path):
    """Of a node on which something answers like a daemon, with a strange line in a job's log."""
    line = {
        "log": "train", "at": NOW, "severity": "critical", "pattern": "cuda", "line": STRANGE,
        "note": "",
    }  # fmt: skip
    live = a_check("live", criterion(), watch=True)
    made = state(live, of=sources(log_lines=lambda: [line]))
    made.tell(Report(live, (result(),), NOW))
    told = document(made.snapshot(), running=True)
    server = ControlServer(
        tmp_path / "control.sock", {"status": Operation(lambda request, peer: told)}
    )
    server.start()
    yield {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "TERM": "xterm"}
    server.stop()


def on_a_terminal(command: str, environment: dict[str, str]) -> str:
    """What a command shows on a terminal of its own."""
    end, theirs = pty.openpty()
    asked = subprocess.Popen(
        [*DVFD, *command.split()], env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(end, 65536):
            shown += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(end)
    asked.wait(20)
    return shown.decode(errors="replace")


def test_ctrl_c_is_130_and_no_traceback(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        asked = subprocess.Popen(
            [*DVFD, "status"], env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        held, _ = silent.accept()  # from here on it waits for an answer
        asked.send_signal(signal.SIGINT)
        out, err = asked.communicate(timeout=20)
        held.close()

    assert (asked.returncode, out, err.strip()) == (130, "", "")


def test_ctrl_c_ends_the_daemon_in_order(tmp_path):
    with running(Node(tmp_path, [])) as node:
        node.daemon.send_signal(signal.SIGINT)

        assert node.daemon.wait(20) == 0
        assert "stopped" in node.said()
        assert "Traceback" not in node.said()


@pytest.mark.parametrize(
    "command", ["--help", "version", "status", "status -o json", "status -o junit"]
)
def test_a_reader_that_went_away_is_141_and_never_a_verdict(command, environment):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*DVFD, *command.split()],
        env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write)

    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_gets_colours(environment):
    environment.pop("NO_COLOR", None)

    assert "\x1b[32m" in on_a_terminal("status", environment)


@pytest.mark.parametrize("unwanted", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_comes_where_none_is_wanted(unwanted, environment):
    shown = on_a_terminal("status", {**environment, **unwanted})

    assert "node4: PASS" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "junit", "nagios"])
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
    ids=["C", "C without help", "latin-1", "ascii", "utf-8"],
)
def test_no_character_crashes_in_any_encoding(form, locale, environment):
    done = subprocess.run(
        [*DVFD, "status", "-o", form], env={**environment, **locale},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert form in ("junit", "nagios") or b"caf" in done.stdout


def test_what_latin_1_lacks_is_put_plainly(environment):
    done = subprocess.run(
        [*DVFD, "status"], env={**environment, "PYTHONIOENCODING": "latin-1"},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert "naïve - café ... \\U0001f389 \\udc80" in done.stdout.decode("latin-1")


@pytest.mark.parametrize("words", [["status"], ["status", "-o", "json"], ["doctor"]])
@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_stream_that_is_closed_changes_no_exit_code(environment, words, closed):
    command = [*DVFD, *words]
    told = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)
    argv = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command]
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=30, check=False)

    assert done.returncode == told.returncode
    assert b"Traceback" not in done.stderr


def test_what_nobody_expected_is_no_breached_warning(environment):
    broken = "import dvfd.cli as c; c.dvfd.main = lambda **_: 1 / 0; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", broken],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 3
    assert b"ZeroDivisionError" in done.stderr


LOADING = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from dvfd.__main__ import main
main()
"""


def test_an_interruption_while_it_still_loads_says_nothing(environment):
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")

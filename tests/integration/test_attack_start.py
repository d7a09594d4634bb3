"""Starting and ending under attack: signals at any moment, doors that are taken, no daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually


def spawn(node: Node) -> subprocess.Popen[bytes]:
    with (node.directory / "daemon.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dvfd", "run"], env=node.environment, stdout=log, stderr=log
        )


def ask_shell(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "dvfd", *words]
    return subprocess.run(
        argv, env=node.environment, capture_output=True, text=True, timeout=60, check=False
    )


def catches(daemon: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether it has come so far that it does something on that signal."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.6])
def test_a_signal_while_it_starts_ends_it_in_order(tmp_path: Path, delay: float) -> None:
    node = Node(tmp_path, [])
    daemon = spawn(node)
    eventually(lambda: catches(daemon, signal.SIGTERM), 60)  # before that there is nothing to end
    time.sleep(delay)  # what is attacked here is the moment itself
    daemon.send_signal(signal.SIGTERM)
    daemon.send_signal(signal.SIGINT)

    assert daemon.wait(60) == 0, node.said()
    assert "Traceback" not in node.said()
    assert not (tmp_path / "control.sock").exists()


def test_signals_by_the_dozen_end_it_once(tmp_path: Path) -> None:
    node = Node(tmp_path, [])
    node.start()
    assert node.daemon
    for _ in range(50):
        node.daemon.send_signal(signal.SIGTERM)
        time.sleep(0.001)

    assert node.daemon.wait(60) == 0
    assert node.said().count('"stopped"') == 1


def test_a_port_that_is_taken_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = Node(tmp_path, [])
        port = taken.getsockname()[1]
        config = tmp_path / "dvfd.toml"
        config.write_text(config.read_text().replace("port = 0", f"port = {port}"))
        daemon = spawn(node)
        assert daemon.wait(60) == 78

    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in node.said()
    assert not list(tmp_path.glob("*.sock"))


def test_a_second_daemon_on_one_runtime_directory_leaves_the_first_alone(tmp_path: Path) -> None:
    with running(Node(tmp_path, [])) as node:
        second = spawn(node)
        assert second.wait(60) == 78
        assert "another dvfd listens" in node.said()
        assert node.ask("ping") == "pong"


BAD_STORES = {
    "garbage": lambda state: (state.mkdir(), (state / "dvfd.db").write_bytes(b"nonsense" * 999)),
    "empty": lambda state: (state.mkdir(), (state / "dvfd.db").touch()),
    "directory": lambda state: (state / "dvfd.db").mkdir(parents=True),
    "file": lambda state: state.touch(),
}


@pytest.mark.parametrize("kind", BAD_STORES)
def test_commands_without_daemon_say_what_is_wrong_with_the_store(
    tmp_path: Path, kind: str
) -> None:
    node = Node(tmp_path, [])
    BAD_STORES[kind](tmp_path / "state")
    for words in (("status",), ("history", "job_loss")):
        done = ask_shell(node, *words)
        assert done.returncode == 3
        assert "dvfd.db" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_stranger_who_may_not_read_the_store_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    script = (
        "import os, sys; from dvfd import cli; import dvfd.alone, dvfd.cli.status\n"
        "os.environ.pop('DVFD_CONFIG'); os.setgid(65534); os.setuid(65534)\n"
        "sys.argv = ['dvfd', 'status']; cli.main()\n"
    )
    node = Node(tmp_path, [])
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script], env=node.environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "Permission denied" in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize("hours", ["nan", "inf", "1e308"])
def test_hours_that_are_none_are_refused(tmp_path: Path, hours: str) -> None:
    node = Node(tmp_path, [])
    ask_shell(node, "check", "daily")  # leaves a store
    done = ask_shell(node, "history", "daily", "--hours", hours)
    assert done.returncode == 3
    assert "wanted a number above 0" in done.stderr

"""SIGHUP: a good configuration is in force in the same process, a broken one changes nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually, fetch

from dvfd.telemetry.reporter import Reporter

pytestmark = pytest.mark.slow

EXPECTED = '[jobs]\nexpected = ["gone"]\n'


@pytest.fixture
def node(tmp_path: Path):
    with running(Node(tmp_path, [], extra=EXPECTED)) as up:
        yield up


def configure(node: Node, old: str, new: str) -> None:
    path = node.directory / "dvfd.toml"
    path.write_text(path.read_text().replace(old, new))


def reload(node: Node) -> None:
    assert node.daemon
    node.daemon.send_signal(signal.SIGHUP)


def status(node: Node):
    return node.ask("status") or {"node": "", "notices": [], "alerts": [], "started_at": 0}


def metric(node: Node, name: str) -> str:
    lines = fetch(f"http://{node.address}/metrics").decode().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))


def test_a_good_configuration_is_in_force_in_the_same_process(node: Node):
    assert node.daemon
    configure(node, "node-under-test", "renamed")

    reload(node)

    eventually(lambda: status(node)["node"] == "renamed", 60)
    assert node.daemon.poll() is None
    assert metric(node, "dvfd_config_last_reload_successful") == "1.0"


def test_an_alert_that_fires_fires_on(node: Node):
    def fired():
        return {a["key"]: a["since"] for a in status(node)["alerts"]}

    before = eventually(fired, 60)
    configure(node, "node-under-test", "renamed")

    reload(node)

    eventually(lambda: status(node)["node"] == "renamed", 60)
    assert fired() == before


def test_no_step_is_lost_on_the_way(node: Node):
    sent = 0
    reporter = Reporter(
        job="through", rank=0, world_size=1, socket=str(node.directory / "ingest.sock")
    )

    def step() -> None:
        nonlocal sent
        reporter.step(sent, samples=1, loss=1.0)
        sent += 1

    def taken() -> bool:
        step()
        return bool(status(node)["node"] == "renamed")

    for _ in range(100):
        step()
    configure(node, "node-under-test", "renamed")
    reload(node)
    eventually(taken, 20, every=0.05)
    before = sent

    def counted() -> bool:
        step()
        rows = (node.ask("history", name="rank_steps_total") or {"rows": []})["rows"]
        return bool(rows) and before <= rows[-1]["value"] <= sent

    eventually(counted, 30, every=0.5)
    reporter.end()


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("[node", "not TOML"),
        ("[node]\nnmae = 'x'\n", "did you mean 'name'"),
        ("[override.'live.nothing']\nlimit = 1\nreason = 'x'\n", "live.nothing"),
    ],
)
def test_a_broken_configuration_changes_nothing_and_is_said(node: Node, broken: str, named: str):
    path = node.directory / "dvfd.toml"
    good, started = path.read_text(), status(node)["started_at"]
    path.write_text(broken)

    reload(node)
    notices = eventually(lambda: status(node)["notices"], 60)
    metrics = metric(node, "dvfd_config_last_reload_successful")

    assert "the old one stays" in notices[0]
    assert named in notices[0]
    assert (status(node)["node"], status(node)["started_at"]) == ("node-under-test", started)
    assert metrics == "0.0"
    assert "configuration refused" in node.said()
    path.write_text(good)
    reload(node)
    eventually(lambda: status(node)["started_at"] > started and not status(node)["notices"], 60)


def test_a_port_that_is_taken_is_refused(node: Node):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        configure(node, "port = 0", f"port = {taken.getsockname()[1]}")

        reload(node)

        assert "cannot listen" in eventually(lambda: status(node)["notices"], 60)[0]
    assert fetch(f"http://{node.address}/healthz")


KEEPER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen(8)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "dvfd", "run"])
"""
"""Passes a socket as systemd does."""


def test_the_socket_that_systemd_passed_is_kept(tmp_path: Path):
    node = Node(tmp_path, [])
    path = str(tmp_path / "ingest.sock")
    with (tmp_path / "daemon.log").open("ab") as log:
        argv = [sys.executable, "-c", KEEPER, path]
        node.daemon = subprocess.Popen(argv, env=node.environment, stdout=log, stderr=log)
    try:
        eventually(lambda: node.ask("ping"), 60)
        inode = Path(path).stat().st_ino
        configure(node, "node-under-test", "renamed")

        reload(node)

        eventually(lambda: status(node)["node"] == "renamed", 60)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rank:
            rank.connect(path)
        assert Path(path).stat().st_ino == inode
    finally:
        assert node.stop() == 0

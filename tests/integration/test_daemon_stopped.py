"""A daemon that was stopped, or starved, hears late: its own silence is no hang of the ranks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually

from bench.simulated import simulated

STOPPED = 16.0
"""Seconds: longer than the shortest silence that is a hang, which is 10."""


def progress(node: Node) -> str:
    return node.verdict("live.progress")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_daemon_that_goes_on_calls_no_rank_hung_that_reported_meanwhile(tmp_path: Path) -> None:
    with running(Node(tmp_path, [])) as node, simulated(node, "steady"):
        eventually(lambda: progress(node) == "PASS", 60, every=0.5)
        stop_for(node, STOPPED)
        eventually(lambda: progress(node) == "PASS", 60, every=0.5)
    assert "live.progress" not in node.said()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rank_that_hung_while_the_daemon_was_stopped_is_told(tmp_path: Path) -> None:
    with running(Node(tmp_path, [])) as node, simulated(node, "steady") as ranks:
        eventually(lambda: progress(node) == "PASS", 60, every=0.5)
        assert node.daemon
        node.daemon.send_signal(signal.SIGSTOP)
        os.kill(ranks[1].pid, signal.SIGSTOP)
        time.sleep(STOPPED)  # the silence itself is what is tried
        node.daemon.send_signal(signal.SIGCONT)
        eventually(lambda: "live.progress" in node.said(), 60, every=0.5)


def stop_for(node: Node, seconds: float) -> None:
    assert node.daemon
    node.daemon.send_signal(signal.SIGSTOP)
    time.sleep(seconds)  # the silence itself is what is tried
    node.daemon.send_signal(signal.SIGCONT)

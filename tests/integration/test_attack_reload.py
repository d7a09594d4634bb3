"""An end that is asked for while the configuration is being taken anew must not be forgotten."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_an_end_that_comes_with_a_reload_ends_the_daemon(tmp_path: Path, after: float):
    with running(Node(tmp_path, [])) as node:
        assert node.daemon
        node.daemon.send_signal(signal.SIGHUP)
        time.sleep(after)

        assert node.stop() == 0


LATE = """
import signal
from dvfd import config
from dvfd.daemon import Daemon

class AskedLate(Daemon):
    def stop(self):
        self._on_signal(signal.SIGTERM, None)
        super().stop()

AskedLate(config.load()).run()
"""
"""A daemon that is told to end in the midst of stopping to start anew."""


def test_an_end_that_comes_in_the_midst_of_the_stop_ends_the_daemon(tmp_path: Path):
    node = Node(tmp_path, [])
    with (tmp_path / "daemon.log").open("ab") as log:
        argv = [sys.executable, "-c", LATE]
        daemon = subprocess.Popen(argv, env=node.environment, stdout=log, stderr=log)
    try:
        eventually(lambda: "watching" in node.said(), 60)
        daemon.send_signal(signal.SIGHUP)

        assert daemon.wait(20) == 0
        assert node.said().count("stopped") == 1
    finally:
        daemon.kill()
        daemon.wait()

"""Alerts under attack: receivers that are down, slow or broken, and a daemon that is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, fetch, free_port

ABSENT = "\n[jobs]\nexpected = ['never']\n"
"""A breach from the first pass on: a job that is expected and does not come."""

KEY = "live.job_present"


class Desk:
    """A stand-in for Alertmanager that takes alerts, or does as it is told."""

    def __init__(self, port: int, *, status: int = 200, hang: float = 0.0) -> None:
        self.alerts: list[dict[str, Any]] = []
        taken, released = self.alerts, threading.Event()
        self._released = released

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                released.wait(hang)
                if status == 200:
                    taken.extend(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def firing(self, criterion: str) -> list[dict[str, Any]]:
        """What came of *criterion*, ended or not: an alert that fires ends in the future."""
        return [a for a in self.alerts if a["labels"].get("criterion") == criterion]

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def raised(directory: Path, *ports: int) -> Iterator[Node]:
    """A node in breach of KEY that is to tell so at *ports*."""
    node = Node(directory, [url(port) for port in ports], ABSENT)
    config = directory / "dvfd.toml"
    config.write_text(config.read_text().replace("[alerting]", "[alerting]\ntimeout = 2"))
    with running(node):
        eventually(lambda: KEY in [a["key"] for a in node.ask("status")["alerts"]], 60)
        yield node


def written(node: Node) -> None:
    """Wait until the disk has what the daemon knows now: a commit that began after this moment.

    What waits is committed after half a second; an answer to a post takes milliseconds to be noted.
    """
    known = time.time() + 1
    eventually(lambda: (node.ask("status")["store"]["last_commit"] or 0) > known, 60)


def test_an_expected_job_that_never_comes_is_a_failure_from_the_first_pass(tmp_path: Path) -> None:
    with raised(tmp_path, free_port()) as node:
        assert node.verdict(KEY) == "FAIL"
        assert node.ask("status")["verdict"] == "FAIL"


def test_what_a_killed_daemon_could_not_tell_is_told_by_the_next_one(tmp_path: Path) -> None:
    port = free_port()
    with raised(tmp_path, port) as node:
        assert node.ask("status")["delivery"]["waiting"] == 1
        written(node)  # what nobody is told waits for the disk
        node.kill()
        with Desk(port) as desk:
            node.start()
            [alert] = eventually(lambda: desk.firing(KEY), 60)
            assert alert["startsAt"] < alert["endsAt"]
            eventually(lambda: node.ask("status")["delivery"]["waiting"] == 0, 5)


def test_one_receiver_that_is_dead_and_one_that_fails_do_not_keep_the_third_waiting(
    tmp_path: Path,
) -> None:
    broken, good = free_port(), free_port()
    with Desk(broken, status=500), Desk(good) as desk, raised(tmp_path, 1, broken, good) as node:
        eventually(lambda: desk.firing(KEY), 3)
        delivery = node.ask("status")["delivery"]
        assert delivery["waiting"] == 0
        assert [bool(peer["error"]) for peer in delivery["peers"]] == [True, True, False]


@pytest.mark.slow
def test_a_receiver_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    slow = free_port()
    with Desk(slow, hang=30), raised(tmp_path, slow) as node:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            asked = time.monotonic()
            fetch(f"http://{node.address}/metrics")
            loops = node.ask("status")["loops"]
            assert time.monotonic() - asked < 4  # who waits for the receiver takes longer
            assert loops["watch"]["age"] < 10
            time.sleep(0.2)
        eventually(lambda: node.ask("status")["delivery"]["peers"][0]["error"], 5)


@pytest.mark.slow
def test_an_alert_that_ended_while_the_daemon_was_down_is_taken_back(tmp_path: Path) -> None:
    port = free_port()
    with Desk(port) as desk, raised(tmp_path, port) as node:
        eventually(lambda: desk.firing(KEY), 5)
        written(node)  # that it was told waits for the disk
        node.kill()
        config = tmp_path / "dvfd.toml"
        config.write_text(config.read_text().replace(ABSENT, ""))
        desk.alerts.clear()
        node.start()

        def resolved() -> bool:
            now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
            return any(a["endsAt"] < now for a in desk.firing(KEY))

        eventually(resolved, 60)

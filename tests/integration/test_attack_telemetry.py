"""Telemetry under attack, seen at the whole daemon: hostile names and packets, no room, no loss."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, fetch, promtool

NAMES = [
    "a\nb", 'x"y\\z', "\x1b[31mred\x07", "../../etc/passwd", "\u202etxt", "", " ", "\x00",
    "job=x,rank=1", '"}\n# HELP evil', "a" * 1_000_000, "\ud800",
]  # fmt: skip

REPORT = """
import json, os, sys, time
from dvfd.telemetry.reporter import Reporter
for name in json.load(sys.stdin):
    one = dict(rank=0, world_size=1, local_rank=0, local_world_size=1)
    reporter = Reporter(job=name, run=name, **one)
    for step in range(20):
        reporter.step(step, samples=1, loss=float("{loss}"))
    time.sleep({wait})
    {end}
"""


DIE = "os.kill(os.getpid(), 9)"


def report(node: Node, names: list[str], **words: Any) -> None:
    """A process that is one rank of each job in turn."""
    code = REPORT
    for key, value in {"loss": 1.0, "wait": 0, "end": "reporter.end()"}.items():
        code = code.replace("{" + key + "}", str(words.get(key, value)))
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(names).encode(), env=node.environment,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {0, -9}, done.stderr.decode()


def metrics_are_sound(node: Node) -> bool:
    text = fetch(f"http://{node.address}/metrics")
    return promtool("check", "metrics", text=text).returncode == 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(Node(tmp_path, [])) as started:
        yield started


def test_hostile_names_break_neither_metrics_nor_terminal(node: Node) -> None:
    report(node, NAMES)
    assert metrics_are_sound(node)
    status = [sys.executable, "-m", "dvfd", "status"]
    text = subprocess.run(
        status, env=node.environment, capture_output=True, text=True, timeout=20, check=False
    ).stdout
    assert not {c for c in text if not c.isprintable() and c != "\n"}
    assert "Traceback" not in node.said()


def test_random_packets_from_many_lines_are_counted_and_survived(node: Node) -> None:
    dice = random.Random(7)
    for _ in range(200):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.connect(str(node.directory / "ingest.sock"))
            with suppress(OSError):
                for _ in range(5):
                    line.send(b"DVFD"[: dice.randrange(5)] + dice.randbytes(dice.randrange(1, 900)))
    eventually(lambda: node.ask("status")["ingest"]["malformed"] > 100, 60)
    assert node.daemon
    assert node.daemon.poll() is None
    assert metrics_are_sound(node)


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_runs(node: Node) -> None:
    assert node.daemon
    status = Path(f"/proc/{node.daemon.pid}/status")

    def kib() -> int:
        return next(int(s.split()[1]) for s in status.read_text().splitlines() if "VmRSS" in s)

    report(node, [f"run-{number}" for number in range(100)], wait=0.002)
    before = kib()
    report(node, [f"run-{number}" for number in range(100, 1100)], wait=0.002)
    time.sleep(1)
    assert len(node.ask("status")["jobs"]) <= 16
    assert kib() - before < 8 * 1024


def test_jobs_that_found_no_room_are_told(tmp_path: Path) -> None:
    with running(Node(tmp_path, [], "\n[jobs]\nlimit = 1\n")) as node:
        report(node, ["first"], wait=0.5, end=DIE)
        report(node, ["second"])
        notices = eventually(lambda: node.ask("status")["notices"], 5)
        assert "not watched" in notices[0]


def test_a_first_loss_that_is_nan_fails_at_once(node: Node) -> None:
    report(node, ["bad"], loss="nan", wait=1.5, end=DIE)
    assert node.verdict("live.loss_finite") == "FAIL"

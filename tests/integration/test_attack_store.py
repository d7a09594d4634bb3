"""A running daemon whose store fails: it says so everywhere, watches on, and recovers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, fetch

RANK = """
import time
from dvfd.telemetry.reporter import Reporter
reporter = Reporter(job="sim", run="1", rank=0, world_size=1, local_rank=0, local_world_size=1)
for step in range(2000):
    reporter.step(step, samples=4, loss=1.0, grad_norm=1.0, compute=0.01)
    time.sleep(0.02)
"""


@contextmanager
def rank(node: Node) -> Iterator[subprocess.Popen[bytes]]:
    """A rank that reports for 40 s at most."""
    process = subprocess.Popen([sys.executable, "-c", RANK], env=node.environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def healthz(node: Node) -> tuple[int, dict[str, Any]]:
    try:
        return 200, json.loads(fetch(f"http://{node.address}/healthz"))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def metric(node: Node, name: str) -> float:
    for line in fetch(f"http://{node.address}/metrics").decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"{name} is not exported")


def passing(node: Node, *names: str) -> bool:
    results = node.results()
    return all(results[f"live.{name}"]["verdict"] == "PASS" for name in names)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A state directory of 2 MiB."""
    place = tmp_path / "state"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_everywhere_and_watching_goes_on(small: Path, tmp_path: Path) -> None:
    with running(Node(tmp_path, [])) as node, rank(node):
        eventually(lambda: passing(node, "responding", "progress"), 60)
        with suppress(OSError), (small / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        code, said = eventually(lambda: (h := healthz(node))[0] == 503 and h, 60)

        assert said["reasons"] == ["store: database or disk is full"]
        assert [healthz(node)[0] for _ in range(200)] == [503] * 200
        assert metric(node, "dvfd_store_ok") == 0
        assert node.ask("status")["troubles"] == said["reasons"]
        assert passing(node, "responding", "progress")
        (small / "ballast").unlink()
        eventually(lambda: healthz(node)[0] == 200, 60)
        assert code == 503
    assert node.said().count("store failing") == 1


@pytest.mark.parametrize("broken", ["uncreatable", "locked"])
def test_a_store_that_cannot_be_opened_is_no_reason_not_to_watch(
    tmp_path: Path, broken: str
) -> None:
    first = Node(tmp_path / "first", [])
    node = Node(tmp_path / "second", [])
    node.environment["DVFD_STATE_DIR"] = {
        "uncreatable": "/proc/nowhere/dvfd",
        "locked": first.environment["DVFD_STATE_DIR"],
    }[broken]
    with running(first), running(node), rank(node):
        eventually(lambda: passing(node, "responding"), 60)
        code, said = healthz(node)
        assert code == 503
        wanted = {"uncreatable": "cannot be opened", "locked": "locked by another dvfd, pid"}
        assert wanted[broken] in said["reasons"][0]
        assert metric(node, "dvfd_store_ok") == 0
        assert "store failing" in node.said()


def test_a_corrupt_file_is_told_until_a_person_has_read_of_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "dvfd.db").write_bytes(os.urandom(50_000))
    with running(Node(tmp_path, [])) as node:
        eventually(lambda: healthz(node)[0] == 200, 5)
        assert "was corrupt" in node.ask("status")["notices"][0]
        assert b"was corrupt" in fetch(f"http://{node.address}/")
        assert "the store must be looked at" in node.said()
        argv = [sys.executable, "-m", "dvfd", "store", "acknowledge"]
        subprocess.run(argv, env=node.environment, check=True, timeout=20, capture_output=True)
        assert node.ask("status")["notices"] == []

"""`dvfd stability accept` as a person types it, with a daemon and without."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_report import plan, rows, run, write
from node import Node, running

from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.runs.conductor import KIND
from dvfd.store import Store
from dvfd.store.run_reading import digest

HOUR = 3600.0
ORDERED = replace(plan(), planned=HOUR, duration=HOUR)


def dvfd(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "stability", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def finished(node: Node, name: str, verdict: str = "PASS") -> None:
    """A run that is over, as a daemon leaves it: its record, its file, its report."""
    runs = node.directory / "state" / "runs"
    made = run(lasted=HOUR, id=name, plan=ORDERED)
    file = write(runs / f"{name}.db", made, rows(HOUR))
    report = runs / f"{name}.json"
    report.write_text(json.dumps({"verdict": verdict, "hashes": {"evidence": file.freeze()}}))
    metrics = load(Config()).metrics
    store = Store(node.directory / "state" / "dvfd.db", metrics=metrics, clock=SystemClock())
    store.start()
    store.put(KIND, name, replace(made, frozen=digest(report)).to_document())
    store.stop()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path, [])
    finished(node, "good")
    finished(node, "bad", "FAIL")
    return node


def accepted(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dvfd(node, "accepted", "-o", "json").stdout)[
        "accepted"
    ]
    return found


def test_without_a_daemon_a_good_run_is_accepted_and_kept_in_the_store(node: Node) -> None:
    done = dvfd(node, "accept", "good", "--by", "Ann Lee", "--note", "quiet night")
    assert done.returncode == 0, done.stderr
    assert "stability_phase1, 4 processes: good" in done.stdout

    (found,) = accepted(node)
    assert (found["run"], found["by"], found["note"]) == ("good", "Ann Lee", "quiet night")


def test_a_bad_run_needs_a_reason_and_says_so_wherever_it_is_shown(node: Node) -> None:
    refused = dvfd(node, "accept", "bad", "--by", "Ann Lee")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "its verdict is FAIL; --override --reason" in refused.stderr

    dvfd(node, "accept", "bad", "--by", "Ann Lee", "--override", "--reason", "moved racks")
    assert "IN SPITE OF: its verdict is FAIL; reason given: moved racks" in (
        dvfd(node, "accepted").stdout
    )


def test_a_run_that_nobody_knows_is_refused_with_the_one_that_was_meant(node: Node) -> None:
    assert "did you mean 'good'" in dvfd(node, "accept", "goood", "--by", "A").stderr


def test_an_override_without_a_reason_is_wrong_usage(node: Node) -> None:
    assert dvfd(node, "accept", "bad", "--by", "A", "--override").returncode == 3
    assert dvfd(node, "accept", "bad", "--by", "A", "--reason", "x").returncode == 3


def test_a_daemon_accepts_it_as_well(node: Node) -> None:
    with running(node):
        assert dvfd(node, "accept", "good", "--by", "Ann Lee").returncode == 0
        assert [found["run"] for found in accepted(node)] == ["good"]
    assert [found["run"] for found in accepted(node)] == ["good"]

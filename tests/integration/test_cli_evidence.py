"""`dvfd evidence` and `dvfd waive` as a person types them, with a daemon and without."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_output import valid
from fakes_report import report as report_of
from fakes_report import run as run_of
from node import Node, running
from testbed import eventually

from dvfd.clock import SystemClock
from dvfd.evidence.ledger import Evidence
from dvfd.runs.report import as_text
from dvfd.store import Store

pytestmark = pytest.mark.slow

WHO = ("--name", "Ann Lee", "--role", "cto")
WAIVE = ("waive", "monthly.team_feedback", *WHO, "--reason", "asked on Monday")


def dvfd(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def told(node: Node, *arguments: str) -> Any:
    return json.loads(dvfd(node, *arguments, "-o", "json").stdout)


def ledger(node: Node) -> Path:
    return Path(node.environment["DVFD_STATE_DIR"]) / "evidence" / "ledger.jsonl"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(tmp_path_factory.mktemp("node"), [])) as up:
        yield up


@pytest.fixture
def alone(tmp_path: Path) -> Node:
    return Node(tmp_path, [])


def test_without_a_daemon_the_ledger_is_written_read_verified_and_exported(alone: Node) -> None:
    assert dvfd(alone, "evidence", "verify").returncode == 3
    assert dvfd(alone, "attest", "team_feedback", "--yes", *WHO).returncode == 0
    assert dvfd(alone, *WAIVE, "--days", "3").returncode == 0

    listed = dvfd(alone, "evidence", "list").stdout
    assert "attestation  team_feedback: yes, Ann Lee (CTO)" in listed
    assert "waiver       monthly.team_feedback: Ann Lee (CTO)" in listed
    file = str(alone.directory / "all.tar")
    made = told(alone, "evidence", "export", file)
    valid(made, "evidence")
    assert dvfd(alone, "evidence", "verify").returncode == 0
    kept = ("--cluster", made["cluster"], "--head", made["sha256"])
    assert dvfd(alone, "evidence", "verify", file, *kept).returncode == 0
    other = dvfd(alone, "evidence", "verify", file, "--cluster", "0" * 32)
    assert (other.returncode, f"of cluster {made['cluster']}" in other.stdout) == (2, True)


def test_without_a_daemon_a_hand_that_edits_or_cuts_is_named(alone: Node) -> None:
    for days in ("1", "2"):
        dvfd(alone, *WAIVE, "--days", days)
    whole = ledger(alone).read_bytes()

    ledger(alone).write_bytes(whole.replace(b"Monday", b"Sunday", 1))
    done = dvfd(alone, "evidence", "verify")
    assert (done.returncode, "line 2: edited" in done.stdout) == (2, True)
    assert "NONE OF THEM COUNTS" in dvfd(alone, "waivers").stdout

    ledger(alone).write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    done = dvfd(alone, "evidence", "verify")
    assert (done.returncode, "the store knows of 3" in done.stdout) == (2, True)


def test_a_ledger_that_cannot_be_written_says_what_to_do(alone: Node) -> None:
    dvfd(alone, *WAIVE, "--days", "1")
    ledger(alone).unlink()
    ledger(alone).mkdir()

    done = dvfd(alone, *WAIVE, "--days", "1")

    assert done.returncode == 3
    assert "nothing was recorded: Is a directory: make room or give" in done.stderr


def test_a_waived_breach_is_told_in_report_status_and_page_until_it_ends(node: Node) -> None:
    def row() -> dict[str, Any]:
        rows = [r for c in told(node, "status")["checks"] for r in c["results"]]
        return next(r for r in rows if r["criterion"] == "monthly.team_feedback")

    node.ask("check", check="monthly")
    assert row()["verdict"] == "UNKNOWN"

    assert dvfd(node, *WAIVE, "--days", "3").returncode == 0
    assert row()["verdict"] == "WAIVED"  # nobody had to judge it again
    assert "waived: monthly.team_feedback: waived by Ann Lee (CTO)" in dvfd(node, "status").stdout
    assert "asked on Monday" in dvfd(node, "checklist", "monthly").stdout
    assert "Ann Lee (CTO), until" in dvfd(node, "waivers").stdout

    assert dvfd(node, *WAIVE, "--end").returncode == 0
    assert row()["verdict"] == "UNKNOWN"

    assert node.stop() == 0
    assert dvfd(node, *WAIVE, "--days", "3").returncode == 0  # while no daemon lives
    node.start()
    eventually(lambda: row().get("waived"), 60)
    assert node.stop() == 0
    node.start()
    assert row()["waived"]["by"] == "Ann Lee"
    assert dvfd(node, *WAIVE, "--end").returncode == 0


def test_a_waiver_that_ends_by_itself_has_the_check_judged_anew(node: Node) -> None:
    node.ask("check", check="monthly")
    assert dvfd(node, *WAIVE, "--days", "0.0001").returncode == 0  # 8.6 s

    def verdicts() -> list[str]:
        rows = node.ask("history", name="monthly", hours=1.0)["rows"]
        return [row["verdict"] for row in rows]

    before = len(verdicts())
    eventually(lambda: len(verdicts()) > before, 60)
    assert "nothing is waived" in dvfd(node, "waivers").stdout


def test_beside_a_daemon_the_ledger_is_listed_shown_verified_and_exported(node: Node) -> None:
    dvfd(node, *WAIVE, "--days", "3")
    number = told(node, "evidence", "list", "--kind", "waiver")["records"][-1]["number"]

    verified = told(node, "evidence", "verify")
    valid(verified, "evidence")
    assert verified["problems"] == []
    shown = json.loads(dvfd(node, "evidence", "show", str(number)).stdout)
    assert shown["body"]["reason"] == "asked on Monday"
    file = node.directory / "beside.tar"
    assert dvfd(node, "evidence", "export", str(file)).returncode == 0
    assert dvfd(node, "evidence", "verify", str(file)).returncode == 0
    assert dvfd(node, "evidence", "show", "999").returncode == 3


def test_a_ledger_edited_under_a_running_daemon_is_told_of(node: Node) -> None:
    dvfd(node, *WAIVE, "--days", "3")
    whole = ledger(node).read_bytes()
    descriptor = os.open(ledger(node), os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"X", whole.rindex(b"Monday"))
        done = dvfd(node, "evidence", "list")
        assert "PROBLEM: line" in done.stdout
        assert dvfd(node, "evidence", "verify").returncode == 2
        os.pwrite(descriptor, whole, 0)
    finally:
        os.close(descriptor)
    assert dvfd(node, "evidence", "verify").returncode == 0


def test_a_run_frozen_by_a_daemon_that_was_killed_is_written_down_by_the_next(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, [])
    state = Path(node.environment["DVFD_STATE_DIR"])
    (state / "runs").mkdir(parents=True)
    run = run_of(lasted=3600.0)
    text = as_text(report_of(run)).encode()
    (state / "runs" / f"{run.id}.json").write_bytes(text)
    store = Store(state / "dvfd.db", metrics={}, clock=SystemClock())
    store.start()
    frozen = replace(run, frozen=hashlib.sha256(text).hexdigest())
    store.put("run", run.id, frozen.to_document())
    assert store.flush()
    store.stop()

    with running(node):
        ledger = Evidence(state / "evidence", SystemClock())
        found = eventually(lambda: ledger.records("run"), 60)  # it answers before it has looked
        assert node.stop() == 0
        node.start()
        node.ask("status")
        assert node.stop() == 0

    assert ledger.records("run") == found
    assert [record.body["run"] for record in found] == [run.id]

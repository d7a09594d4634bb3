"""A run fails under a real daemon: its job is stopped, the evidence sealed, people are told."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually

from dvfd.incidents.preserve import problems

RANKS = 4

LENGTH = 12
"""Seconds of the run."""

RANK = """
import signal, sys, time
from pathlib import Path
from dvfd.telemetry.reporter import Reporter
rank = int(sys.argv[1])
def save(*_):
    Path(sys.argv[2], f"saved-{rank}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
with Reporter(job="gpt", run="r", rank=rank, world_size=4, local_rank=rank,
              local_world_size=4, checkpoint_every=500) as reporter:
    began, step = time.monotonic(), 0
    while time.monotonic() - began < 300:
        step += 1
        time.sleep(max(0.0, began + step / 10 - time.monotonic()))
        reporter.step(step, samples=1.0, loss=2 + 1 / step, grad_norm=1.0, compute=0.05)
"""

EXTRA = """
[incidents]
action = "stop"
grace = 30
free_bytes = 0
"""


def dvfd(node: Node, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def incident(node: Node) -> dict[str, Any]:
    """The only one, once what is done at once is done."""
    found = (node.ask("incidents") or {"incidents": []})["incidents"]
    return found[0] if found and found[0]["bundle"] is not None else {}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, list[int], int]]:
    """A node whose run failed, the exit codes of its ranks, and of a process beside them."""
    directory = tmp_path_factory.mktemp("node")
    node = Node(directory, [], EXTRA)
    with running(node):
        (directory / "job.log").write_text("step 1\nWANDB_API_KEY=geheim-key\n")
        asked = {"check": "stability_phase1", "job": "gpt", "duration": LENGTH, "force": True}
        assert node.ask("stability_arm", **asked)
        environment = {**node.environment, "HF_TOKEN": "geheim-token"}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), str(directory)],
                env=environment,
                start_new_session=True,
            )
            for rank in range(RANKS)
        ]
        beside = subprocess.Popen(["sleep", "300"], env=environment)
        try:
            eventually(lambda: incident(node), 120, every=0.5)
            codes = [rank.wait(30) for rank in ranks]
            yield node, codes, beside.poll() or 0
        finally:
            for process in (*ranks, beside):
                process.kill()
                process.wait()


Failed = tuple[Node, list[int], int]


def test_its_ranks_save_and_end_and_nobody_else_does(failed: Failed) -> None:
    node, codes, beside = failed

    assert codes == [0] * RANKS
    assert all((node.directory / f"saved-{rank}").exists() for rank in range(RANKS))
    assert beside == 0
    assert "4 processes of job gpt were asked to end" in incident(node)["action"]["words"]


def test_the_evidence_is_sealed_whole_and_without_secrets(failed: Failed) -> None:
    bundle = incident(failed[0])["bundle"]
    path = Path(bundle["path"])

    assert problems(path, bundle["sha256"]) == []
    with tarfile.open(path) as tar:
        files = {m.name.partition("/")[2]: tar.extractfile(m) for m in tar.getmembers()}
        found = {name: file.read() for name, file in files.items() if file}
    assert {"report.json", "record.json", "configuration.json", "status.json", "metrics.jsonl",
            "logs/training.log", "environment/node.json"} <= set(found)  # fmt: skip
    assert sum(name.startswith("environment/pid-") for name in found) == RANKS
    assert b"geheim" not in b"".join(found.values())
    assert b"step 1" in found["logs/training.log"]
    rows = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    assert any(row["metric"] == "rank_responding" for row in rows)
    report = json.loads(found["report.json"])
    assert report["verdict"] == "FAIL"


def test_it_calls_the_team_lead_and_nobody_else(failed: Failed) -> None:
    alerts = failed[0].ask("status")["alerts"]
    ours = [a for a in alerts if a["escalation"]]

    assert {a["escalation"] for a in ours} == {"team_lead"}
    assert "DvfdPhaseTestFailed" in {a["name"] for a in ours}
    assert not [a for a in alerts if a["key"].startswith("stability_") and not a["escalation"]]


def test_the_commands_tell_it_with_a_daemon_and_without(failed: Failed) -> None:
    node = failed[0]
    id_ = incident(node)["id"]
    told = dvfd(node, "incident", "update", id_, "--by", "Ann Lee", "--finding", "a fan")
    assert "Ann Lee (as " in told
    assert f"INCIDENT {id_} is open" in subprocess.run(
        [sys.executable, "-m", "dvfd", "status"], env=node.environment, text=True,
        capture_output=True, timeout=60, check=False,
    ).stdout  # fmt: skip

    node.kill()
    assert f"OPEN           {id_}" in dvfd(node, "incident", "list")
    words = ("--by", "Ann Lee", "--cause", "fixed", "--finding", "a fan was exchanged")
    after = json.loads(dvfd(node, "incident", "update", id_, *words, "-o", "json"))
    assert after["state"] == "decision"
    assert {need["check"] for need in after["needs"]} >= {"hardware", "stability_phase1"}
    assert "missing  hardware: not run since the fix" in dvfd(node, "incident", "show", id_)

    node.start()
    assert incident(node)["state"] == "decision"
    assert {a["escalation"] for a in node.ask("status")["alerts"] if a["escalation"]} >= {"team"}

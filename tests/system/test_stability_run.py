"""A stability run of a real job under a real daemon that is killed in the middle of it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from node import Node, running
from testbed import eventually

from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.evidence.ledger import Evidence
from dvfd.model import Verdict
from dvfd.runs.availability import stretches
from dvfd.runs.freezing import judged_again
from dvfd.runs.rows import What
from dvfd.runs.run import Run, Stage
from dvfd.store.run_reading import Reading

pytestmark = pytest.mark.slow

RANKS = 4
DURATION = 30.0

RANK = """
import sys, time
from dvfd.telemetry.reporter import Reporter
rank, world, until = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with Reporter(job="gpt", run="r", rank=rank, world_size=world, local_rank=rank,
              local_world_size=world, checkpoint_every=500) as reporter:
    began, step = time.monotonic(), 0
    while time.monotonic() - began < until:
        step += 1
        time.sleep(max(0.0, began + step / 10 - time.monotonic()))
        reporter.step(step, samples=32.5, loss=2 + 1 / step, grad_norm=1.0, compute=0.05)
    reporter.end("done")
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Run, float]]:
    """A run whose daemon was killed with SIGKILL, and the seconds until it was back."""
    node = Node(tmp_path_factory.mktemp("node"), [])
    with running(node):
        asked = {"check": "stability_phase1", "job": "gpt", "duration": DURATION, "force": True}
        assert node.ask("stability_arm", **asked)
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), str(RANKS), "300"], env=node.environment
            )
            for rank in range(RANKS)
        ]
        try:
            eventually(lambda: elapsed(node) > 8, 60, every=0.2)
            node.kill()
            away = time.monotonic()
            node.start()
            away = time.monotonic() - away
            eventually(lambda: status(node)["run"]["frozen"], 150, every=0.5)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        yield node, Run.from_document(status(node)["run"]), away


def status(node: Node) -> dict:
    return node.ask("stability_status") or {"run": {"frozen": ""}, "elapsed": 0.0}


def elapsed(node: Node) -> float:
    return float(status(node)["elapsed"])


def file(node: Node, run: Run) -> Reading:
    return Reading(node.directory / "state" / "runs" / f"{run.id}.db")


def test_it_is_complete_all_the_same(killed: tuple[Node, Run, float]) -> None:
    _, run, _ = killed
    assert (run.stage, run.reason) == (Stage.COMPLETE, "")


def test_every_step_of_every_rank_is_in_its_file_once(killed: tuple[Node, Run, float]) -> None:
    node, run, _ = killed
    windows = list(file(node, run).windows())
    for rank in range(RANKS):
        own = [w for w in windows if w.rank == rank]
        first, last = min(w.first_step for w in own), max(w.last_step for w in own)
        assert sum(w.steps for w in own) == last - first + 1
        assert last - first > 10 * DURATION * 0.9


def test_the_ranks_own_records_close_the_gap(killed: tuple[Node, Run, float]) -> None:
    node, run, _ = killed
    events = list(file(node, run).events())
    assert [e.text for e in events if e.what is What.UNSEEN][:1] == ["no daemon looked"]
    found = stretches(events, nodes=1, since=run.began_t or 0.0, until=run.ended_t or 0.0)
    assert {each.what for each in found} == {What.UP}


def test_what_no_rank_could_tell_is_missing_for_no_longer_than_the_daemon_was_away(
    killed: tuple[Node, Run, float],
) -> None:
    node, run, away = killed
    covered = sum(
        m.covered for m in file(node, run).minutes() if m.metric == "node_memory_used_ratio"
    )
    assert DURATION - covered <= away + 10.0  # and up to one interval of the probe at either end


def test_it_stands_in_the_ledger_once_with_the_report_that_it_was_frozen_with(
    killed: tuple[Node, Run, float],
) -> None:
    node, run, _ = killed
    ledger = Evidence(node.directory / "state" / "evidence", SystemClock())
    eventually(lambda: ledger.records("run"), 30, every=0.2)  # written down after it was frozen

    (record,) = ledger.records("run", "stability_phase1")
    assert ledger.verify() == []
    assert record.body["run"] == run.id
    assert record.body["report"] == {"where": f"runs/{run.id}.json", "sha256": run.frozen}
    assert record.body["shortened"] == "30 s of 24 h"
    assert record.body["fingerprint"]["kernel"] == platform.release()


def test_what_it_saw_is_all_that_it_may_say(killed: tuple[Node, Run, float]) -> None:
    node, _, _ = killed
    verdicts = {row["verdict"] for row in status(node)["judged"]}
    assert "PASS" not in verdicts  # shortened, and ranks that nobody bound


def test_judged_again_it_is_the_same(killed: tuple[Node, Run, float]) -> None:
    node, run, _ = killed
    report = json.loads((node.directory / "state" / "runs" / f"{run.id}.json").read_text())
    check = load(Config()).checks["stability_phase1"]
    again = judged_again(file(node, run).path, run, check)
    assert {r["criterion"]: r["verdict"] for r in report["results"]} == {
        j.result.criterion.id: j.result.verdict for j in again
    }
    assert Verdict.FAIL not in {j.so_far for j in again if j.result.criterion.metric == "rank"}

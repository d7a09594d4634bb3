"""Gradients, loss and tests of each node over two real hosts: one world, judged once, by name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Ended, Lan, hosts, together

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch]

TESTS = Path(__file__).parents[1]
PATH = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
SHORT = ["--force", "-o", "json", "--duration"]
BOTH = ["n1", "n2"]


@pytest.fixture(scope="module")
def two() -> Iterator[Lan]:
    """n2 leads, though torchrun gives rank 0 to n1, whose address is the lower one."""
    with hosts(2, "[profile]\nprocesses_per_node = 2\n") as lan:
        for host in lan:
            settings = host.config.read_text().replace("lead = 'n1'", "lead = 'n2'")
            host.config.write_text(settings)
        yield lan


def on_both(two: Lan, *argv: object) -> dict[str, Ended]:
    """What the same command left on both."""
    return together({host.name: host.popen(argv, env=PATH) for host in two}, 150)


@pytest.fixture(scope="module")
def gradients(two: Lan) -> dict[str, Ended]:
    """By the framework's own line, the rendezvous from the configuration."""
    line = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=2"]
    script = [TESTS / "gradient_sync_validation.py", *SHORT, "8"]
    return on_both(two, sys.executable, "-m", "dvfd", "cluster", "env", *line, *script)


@pytest.fixture(scope="module")
def trained(two: Lan) -> dict[str, Ended]:
    """By `dvfd check`; pytorch goes before, so that one command meets twice."""
    checks = ["check", "pytorch", "loss_convergence", "--nodes", "2", *SHORT, "15"]
    return on_both(two, sys.executable, TESTS / "between_training.py", *checks)


def runs(two: Lan, check: str) -> dict[str, list[dict[str, Any]]]:
    """The records of *check* in the ledger of each node."""
    found = {}
    for host in two:
        lines = (host.directory / "state/evidence/ledger.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found[host.name] = [r["body"] for r in records if r["subject"] == check]
    return found


def assert_of_both(body: dict[str, Any]) -> None:
    assert (body["processes"], body["nodes"], body["members"]) == (4, 2, BOTH)


def test_torchrun_on_both_nodes_is_one_world_whose_gradients_agree(
    two: Lan, gradients: dict[str, Ended]
) -> None:
    [said] = [ended.out for ended in gradients.values() if ended.out]  # rank 0's alone
    report = json.loads(said)
    assert all("passes so far" in row["reason"] for row in report["results"]), report["results"]
    facts = [fact["text"] for fact in report["drill"]["facts"]]
    assert any("hashed in each of 4 ranks" in text for text in facts)
    assert sum(text.startswith(("n1: 13", "n2: 13")) for text in facts) == 2  # known answers


def test_both_nodes_keep_a_record_of_the_gradients_with_both_names(
    two: Lan, gradients: dict[str, Ended]
) -> None:
    for (body,) in runs(two, "gradient_sync").values():
        assert_of_both(body)
        assert body["shortened"].endswith("of 4 h")


def test_the_lead_trains_the_one_process_and_judges_the_loss(
    two: Lan, trained: dict[str, Ended]
) -> None:
    kept = runs(two, "loss_convergence")
    (body,) = kept["n2"]
    assert_of_both(body)
    reasons = {row["criterion"]: row["reason"] for row in body["results"]}
    assert "passes so far" in reasons["loss_convergence.curve"], trained["n2"].err
    assert not kept["n1"]
    assert "loss_convergence: took part; n2 judges it" in trained["n1"].err


def test_curves_and_checkpoints_lie_at_the_lead_alone(two: Lan, trained: dict[str, Ended]) -> None:
    other, lead = (host.directory / "state/drills/loss_convergence" for host in two)
    curves = sorted(path.name for path in lead.glob("nodes-*/*/seed-1-*.json"))
    assert curves == ["seed-1-processes-1.json", "seed-1-processes-4.json"], trained["n2"].err
    assert not list(other.iterdir())


def test_a_test_of_each_node_is_recorded_of_both(two: Lan, trained: dict[str, Ended]) -> None:
    for (body,) in runs(two, "pytorch").values():
        assert_of_both(body)

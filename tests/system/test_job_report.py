"""A real job's report: one launch that loses a rank, a second one, and both held together."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from fakes_output import valid
from node import Node, running, training
from testbed import eventually

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(900)]

SMALL = ("--job=gpt", "--width=64", "--layers=1", "--checkpoint-every=40", "--print-every=0")
EXTRA = '[sampling]\ninterval = 1\n[cost]\nper_hour = 36.0\ncurrency = "EUR"\n'


@dataclass
class Told:
    """What `dvfd report` said of the two, beside the daemon and after it."""

    first: dict[str, Any]
    second: dict[str, Any]
    both: dict[str, Any]
    page: str
    after: dict[str, Any]


def asked(node: Node, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "report", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def stepped(node: Node, least: int) -> bool:
    """Whether every rank is at a step of at least that number, all of them alive."""
    jobs = [job for job in node.ask("status")["jobs"] if job["job"] == "gpt"]
    ranks = jobs[0]["ranks"] if jobs else []
    at = [r["step"] or 0 for r in ranks if r["state"] == "responding"]
    return len(at) == 2 and min(at) >= least


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Rank 1 is killed after a checkpoint and comes back; then a run of its own that is well."""
    node = Node(tmp_path_factory.mktemp("node"), [], extra=EXTRA)
    with running(node):
        node.environment["DVFD_RUN"] = "one"
        with training(node, *SMALL, "--step-time=0.05", ranks=2):
            eventually(lambda: stepped(node, 50), 200)
            victim = node.pids("gpt")[1]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: node.pids("gpt").get(1) != victim and stepped(node, 90), 200)
        shutil.rmtree(node.directory / "checkpoints")
        node.environment["DVFD_RUN"] = "two"
        with training(node, *SMALL, "--step-time=0.1", ranks=2):
            eventually(lambda: stepped(node, 50), 200)
        first, second = (
            json.loads(asked(node, "job", "gpt", "--run", n, "-o", "json")) for n in "12"
        )
        page = asked(node, "job", "gpt", "--run", "1", "-o", "html")
        both = json.loads(asked(node, "compare", "gpt:1", "gpt:2", "-o", "json"))
    after = json.loads(asked(node, "job", "gpt", "--run", "1", "-o", "json"))
    return Told(first, second, both, page, after)


def seconds(report: dict[str, Any], name: str) -> float:
    return next(float(p["seconds"]) for p in report["time"]["parts"] if p["part"] == name)


def test_every_second_and_cent_of_a_real_job_is_in_one_part(told: Told) -> None:
    for report in (told.first, told.second):
        valid(report, "job_report")
        parts = report["time"]["parts"]
        assert math.isclose(sum(p["seconds"] for p in parts), report["period"]["seconds"])
        assert math.isclose(sum(p["money"] for p in parts), report["cost"]["total"])
        assert seconds(report, "productive") > 0


def test_the_killed_rank_is_a_restart_with_a_price_and_the_second_run_has_none(told: Told) -> None:
    found = told.first["restarts"]
    assert (found["count"], told.second["restarts"]["count"]) == (1, 0)
    assert found["seconds"] > 0
    assert seconds(told.first, "recovery") > 0
    assert len(told.first["run"]["runs"]) == 2


def test_checkpoints_losses_and_compute_sections_of_a_real_job_are_seen(told: Told) -> None:
    assert told.first["checkpoints"]["seen"] >= 1
    assert told.first["work"]["loss"] > 0
    assert [line["id"] for line in told.first["series"] if line["lines"]] == ["throughput", "loss"]
    assert {rank["rank"] for rank in told.first["stragglers"]["ranks"]} == {0, 1}


def test_the_page_of_a_real_job_tells_its_headline(told: Told) -> None:
    assert told.page.startswith("<!doctype html>")
    assert "of it productive" in told.page


def test_two_real_runs_are_held_together_and_called_too_short(told: Told) -> None:
    valid(told.both, "job_comparison")
    rows = {row["id"]: row for row in told.both["rows"]}
    assert rows["restarts"]["difference"] == -1
    assert rows["throughput"]["difference"] is not None
    assert rows["loss"]["a"] is not None
    assert any("A is too short" in line for line in told.both["against"])
    assert any("B is too short" in line for line in told.both["against"])


def test_after_the_daemon_the_store_tells_the_same(told: Told) -> None:
    for part in told.first["time"]["parts"]:
        assert seconds(told.after, part["part"]) == pytest.approx(part["seconds"], abs=0.5)
    assert told.after["restarts"] == told.first["restarts"]

"""A daemon's weekly list asks the Prometheus that scrapes it, says so, and is blind without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testbed
from node import Node, running
from testbed import eventually

pytestmark = pytest.mark.slow

TARGET = "node-under-test:9109"
"""As Prometheus calls it: by the name of the node."""

JOB = Path(__file__).parents[1] / "reporting_job.py"


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, testbed.Server]]:
    directory = tmp_path_factory.mktemp("scraped")
    targets = directory / "targets.json"
    scrape = {"file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
    with testbed.prometheus(directory, "127.0.0.1:1", scrape=scrape) as server:
        node = Node(directory / "node", [], f'[history]\nurl = "{server.url}"\n')
        argv = [sys.executable, str(JOB), "2", "10", "0.05", "name=gpt"]
        with running(node):
            found = {"targets": [node.address], "labels": {"instance": TARGET}}
            targets.write_text(json.dumps([found]))
            job = subprocess.Popen(argv, env=node.environment, start_new_session=True)
            try:
                wanted = 'dvfd_job_observed_seconds_total{training_job="gpt"} > 5'
                eventually(lambda: testbed.query(server, wanted), 120)
                yield node, server
            finally:
                os.killpg(job.pid, signal.SIGKILL)  # its ranks are forks of it
                job.wait()


def dvfd(node: Node, *arguments: str) -> Any:
    argv = [sys.executable, "-m", "dvfd", *arguments, "-o", "json"]
    done = subprocess.run(argv, env=node.environment, capture_output=True, timeout=120, check=False)
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout)


def weekly(node: Node) -> tuple[dict[str, Any], dict[str, str]]:
    found = dvfd(node, "checklist", "weekly")
    results = {r["criterion"]: r for r in found["results"]}
    return results, {fact["name"]: fact["text"] for fact in found["drill"]["facts"]}


def test_the_list_is_of_the_engine_and_no_seconds_make_a_week(
    scraped: tuple[Node, testbed.Server],
) -> None:
    node, server = scraped
    results, facts = weekly(node)
    assert facts["source of 7d"].startswith(f"the engine at {server.url}, ")
    assert "newest sample" in facts["source of 7d"]
    uptime = results["weekly.uptime"]
    assert uptime["verdict"] == "UNKNOWN"
    assert "up for" in uptime["note"]
    assert "gpt" in uptime["note"]


def test_the_doctor_knows_the_engine_and_how_far_back_it_reaches(
    scraped: tuple[Node, testbed.Server],
) -> None:
    node, server = scraped
    looked = {
        f["subject"]: f for f in dvfd(node, "doctor")["findings"] if f["section"] == "history"
    }
    assert looked["engine"]["mark"] == "ok"
    assert looked["engine"]["text"].startswith(f"{server.url} answers, and knows {TARGET}")
    assert looked["reach"]["mark"] == "improve"


def test_history_of_the_engine_is_what_the_store_has(
    scraped: tuple[Node, testbed.Server],
) -> None:
    node, _ = scraped
    name = "job_observed_seconds_total"
    theirs, ours = dvfd(node, "history", name, "--engine"), dvfd(node, "history", name)
    assert theirs["rows"][-1]["labels"] == ours["rows"][-1]["labels"] == {"job": "gpt"}
    apart = ours["rows"][-1]["at"] - theirs["rows"][-1]["at"]
    counted = ours["rows"][-1]["value"] - theirs["rows"][-1]["value"]
    assert abs(counted - apart) <= 15.0  # a look of the daemon's, and what passed in between


def test_without_the_engine_the_list_says_why_it_is_blind(
    scraped: tuple[Node, testbed.Server],
) -> None:
    node, server = scraped
    server.stop()
    results, facts = weekly(node)
    assert facts["source of 7d"].startswith("none: http://127.0.0.1:")
    assert results["weekly.uptime"]["verdict"] == "UNKNOWN"
    assert "Connection refused" in results["weekly.uptime"]["reason"]

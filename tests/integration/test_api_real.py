"""The interface of a real daemon: as described, and the same as what the command line tells."""

import json
import subprocess
import sys

import pytest
from node import Node, running
from testbed import eventually, fetch

RANK = """
import time
from dvfd.telemetry.reporter import Reporter
reporter = Reporter(job="gpt", run="one", rank=0, world_size=1)
for step in range(1, 10_000):
    reporter.step(step, samples=8, loss=2.5)
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A daemon with one rank that reports."""
    with running(Node(tmp_path_factory.mktemp("node"), [])) as built:
        rank = subprocess.Popen([sys.executable, "-c", RANK], env=built.environment)
        try:
            yield built
        finally:
            rank.terminate()
            rank.wait(10)


def whole(node, path):
    return json.loads(fetch(f"http://{node.address}/api/v1{path}"))


def data(node, path):
    return whole(node, path)["data"]


def history(node, metric):
    """What is remembered of *metric* once there is something."""
    return eventually(lambda: data(node, f"/history?metric={metric}")["rows"], 20, every=0.2)


def test_every_answer_has_the_shape_that_the_daemon_itself_describes(node):
    jsonschema = pytest.importorskip("jsonschema")
    eventually(lambda: data(node, "/jobs"), 20, every=0.2)
    described = whole(node, "/openapi.json")["paths"]
    asked = {"/api/v1/history": "?metric=job_loss"}

    for path, methods in described.items():
        if "{run}" in path:
            continue  # none is on here
        content = methods["get"]["responses"]["200"]["content"]["application/json"]
        target = path.removeprefix("/api/v1").replace("{check}", "live") + asked.get(path, "")
        jsonschema.validate(whole(node, target), content["schema"])


def test_a_rank_that_reports_is_there_with_its_steps(node):
    def step():
        [job] = data(node, "/jobs") or [{"ranks": []}]
        return [rank["step"] for rank in job["ranks"] if rank["step"]]

    [first] = eventually(step, 20, every=0.2)
    assert eventually(lambda: step() > [first], 10, every=0.2)


def test_history_is_what_the_command_line_tells(node):
    history(node, "job_loss")
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "history", "job_loss", "-o", "json"],
        env=node.environment, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    told = {row["at"]: row["value"] for row in json.loads(done.stdout)["rows"]}
    asked = {row["at"]: row["value"] for row in history(node, "job_loss")}

    assert told
    assert told.items() <= asked.items()
    assert set(told.values()) == {2.5}


def test_labels_pick_what_one_rank_measured(node):
    history(node, "rank_responding")
    mine = data(node, "/history?metric=rank_responding&label.rank=0&label.job=gpt")["rows"]

    assert mine
    assert not data(node, "/history?metric=rank_responding&label.rank=1")["rows"]


def test_reports_of_a_check_are_those_that_were_kept(node):
    def kept():
        return data(node, "/checks/live/reports?limit=1")["reports"]

    [report] = eventually(kept, 20, every=0.2)
    assert report["report"]["verdict"] == report["verdict"]
    assert report["report"]["node"] == "node-under-test"


def test_the_node_and_the_interface_agree_on_the_verdict(node):
    assert data(node, "/status")["verdict"] == node.ask("status")["verdict"]

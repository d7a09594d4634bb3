"""Stability runs over several real daemons on loopback: one judgement at the leader, whatever dies.

Two clusters at once. Of two nodes the leader's daemon is killed with SIGKILL and comes back; of
three nodes one is killed for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, free_port

from dvfd.runs.crossed import Crossed
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Run
from dvfd.store.run_file import Reading

pytestmark = pytest.mark.slow

EACH = 4
DURATION = 30.0

RANKS = """
import os, sys, time
from dvfd.telemetry.reporter import Reporter
first, world = int(sys.argv[1]), int(sys.argv[2])
for local in range(1, 4):
    if not os.fork():
        break
else:
    local = 0
with Reporter(job="gpt", run="r", rank=first + local, world_size=world, local_rank=local,
              local_world_size=4, checkpoint_every=250) as reporter:
    began, step = time.monotonic(), 0
    while time.monotonic() - began < 240:
        step += 1
        time.sleep(max(0.0, began + step / 10 - time.monotonic()))
        told = {"grad_hash": step} if step % 10 == 0 else {}
        reporter.step(step, samples=14.0, loss=2 + 1 / step, grad_norm=1.0, compute=0.05, **told)
"""


@dataclass
class Several:
    """The nodes of one cluster, the leader first, each with its own daemon and ranks."""

    nodes: dict[str, Node]
    check: str
    duration: float

    @property
    def lead(self) -> Node:
        return self.nodes["n1"]

    def arm(self) -> None:
        for node in self.nodes.values():
            asked = {"check": self.check, "job": "gpt", "duration": self.duration, "force": True}
            assert node.ask("stability_arm", **asked), node.said()

    def train(self) -> list[subprocess.Popen[bytes]]:
        world = EACH * len(self.nodes)
        return [
            subprocess.Popen(
                [sys.executable, "-c", RANKS, str(number * EACH), str(world)],
                env=node.environment, start_new_session=True,
            )
            for number, node in enumerate(self.nodes.values())
        ]  # fmt: skip

    def run(self, name: str) -> Run:
        return Run.from_document(status(self.nodes[name])["run"])

    def file(self, name: str) -> Reading:
        return Reading(self.nodes[name].directory / "state" / "runs" / f"{self.run(name).id}.db")

    def report(self, name: str) -> dict[str, Any]:
        return json.loads(self.file(name).path.with_suffix(".json").read_text())


def status(node: Node) -> dict[str, Any]:
    return node.ask("stability_status") or {"run": {"frozen": "", "stage": ""}, "elapsed": 0.0}


def cluster(directory: Path, count: int, check: str, duration: float) -> Several:
    ports = {f"n{n + 1}": free_port() for n in range(count)}
    extra = f'[profile]\nnodes = {count}\n[cluster]\nlead = "n1"\n' + "".join(
        f'[[cluster.nodes]]\nname = "{name}"\naddress = "127.0.0.{number + 1}"\n'
        f'url = "http://127.0.0.1:{port}"\n'
        for number, (name, port) in enumerate(ports.items())
    )
    nodes = {n: Node(directory / n, [], extra, name=n, port=p) for n, p in ports.items()}
    return Several(nodes, check, duration)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Several, Several]]:
    """Both, once every run that can be judged is."""
    two = cluster(tmp_path_factory.mktemp("two"), 2, "stability_phase2a", DURATION)
    three = cluster(tmp_path_factory.mktemp("three"), 3, "stability_phase2b", 15.0)
    ranks: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        for node in (*two.nodes.values(), *three.nodes.values()):
            stack.enter_context(running(node))
        try:
            for several in (two, three):
                several.arm()
                ranks += several.train()
            eventually(lambda: elapsed(two) > 8, 90, every=0.2)
            two.lead.kill()
            eventually(lambda: elapsed(three) > 4, 90, every=0.2)
            three.nodes["n3"].kill()
            two.lead.start()
            judged = [*two.nodes.values(), three.nodes["n1"], three.nodes["n2"]]
            for node in judged:
                eventually(lambda n=node: status(n)["run"]["frozen"], 240, every=0.5)
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.pid, signal.SIGKILL)
                rank.wait()
        yield two, three


def elapsed(several: Several) -> float:
    return float(status(several.lead)["elapsed"])


# --- Two nodes, and a leader that was killed ------------------------------------------------------


def test_both_nodes_have_the_same_run_and_one_end(clusters: tuple[Several, Several]) -> None:
    two, _ = clusters
    lead, other = two.run("n1"), two.run("n2")
    assert (lead.stage, other.stage) == ("complete", "complete"), (lead.reason, other.reason)
    assert (other.leader, other.of) == ("n1", lead.id)
    assert dict(lead.peers) == {"n2": other.id}
    assert abs((lead.ended_at or 0) - (other.ended_at or 0)) < 0.5


def test_no_window_of_the_other_node_is_lost_or_comes_twice(
    clusters: tuple[Several, Several],
) -> None:
    two, _ = clusters
    there = {(w.rank, w.window, w.session): w for w in two.file("n2").windows()}
    here = {(w.rank, w.window, w.session): w for w in two.file("n1").windows() if w.rank >= EACH}
    assert here.keys() == there.keys()
    assert {w.node for w in here.values()} == {"n2"}
    assert [here[k].steps for k in here] == [there[k].steps for k in here]
    assert max(w.last_step for w in here.values()) > 8 * DURATION


def test_no_event_or_minute_of_it_is_lost_or_comes_twice(
    clusters: tuple[Several, Several],
) -> None:
    two, _ = clusters
    hearing = {What.SILENT, What.HEARD}

    def told(events: Iterator[Event]) -> list[tuple[str, str]]:
        return sorted((e.what, e.text) for e in events if e.node == "n2" and e.what not in hearing)

    assert told(two.file("n1").events()) == told(two.file("n2").events())
    there = [(m.metric, m.count, m.sum) for m in two.file("n2").minutes()]
    here = [(m.metric, m.count, m.sum) for m in two.file("n1").minutes() if m.node == "n2"]
    assert sorted(here) == sorted(there)


def test_the_leader_judges_all_ranks_and_both_nodes(clusters: tuple[Several, Several]) -> None:
    two, _ = clusters
    report = two.report("n1")
    throughput = next(r for r in report["results"] if r["criterion"].endswith(".throughput"))
    assert throughput["observed"] == pytest.approx(14.0 * 10 * 2 * EACH, rel=0.1)
    balance = next(r for r in report["results"] if r["criterion"].endswith(".balance"))
    assert balance["so_far"] == "PASS", balance["reason"]
    assert {event["node"] for event in report["events"]} == {"n1", "n2"}


def test_hashes_of_both_nodes_are_compared(clusters: tuple[Several, Several]) -> None:
    two, _ = clusters
    crossed = Crossed(2)
    for event in two.file("n1").events():
        if event.what is What.HASHED:
            crossed.add(event)
    compared, differed = crossed.count(0.0, 1e9)
    assert compared >= 0.8 * DURATION
    assert differed == 0


def test_the_other_node_judges_nothing_by_itself(clusters: tuple[Several, Several]) -> None:
    two, _ = clusters
    report = two.report("n2")
    assert {row["verdict"] for row in report["results"]} == {"UNKNOWN"}
    assert all("judged at n1, which leads" in row["reason"] for row in report["results"])


# --- Three nodes, and one that was killed for good ------------------------------------------------


def test_the_run_is_over_without_the_node_that_is_gone(clusters: tuple[Several, Several]) -> None:
    _, three = clusters
    assert (three.run("n1").stage, three.run("n2").stage) == ("complete", "complete")
    assert set(three.run("n1").peers) == {"n2", "n3"}


def test_nothing_is_known_without_it_and_it_is_named(clusters: tuple[Several, Several]) -> None:
    _, three = clusters
    rows = [r for r in three.report("n1")["results"] if r["so_far"] != "NOT_APPLICABLE"]
    assert {row["so_far"] for row in rows} <= {"UNKNOWN", "FAIL"}
    unknown = [row for row in rows if row["so_far"] == "UNKNOWN"]
    assert unknown
    assert all("n3 " in row["reason"] for row in unknown), [row["reason"] for row in unknown]


def test_the_report_says_when_it_fell_silent(clusters: tuple[Several, Several]) -> None:
    _, three = clusters
    silent = [e for e in three.report("n1")["events"] if e["what"] == What.SILENT]
    assert [event["node"] for event in silent] == ["n3"]
    assert "n3 has been silent for" in silent[0]["text"]

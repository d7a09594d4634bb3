"""Stability runs over several real daemons on loopback: one judgement at the leader, whatever dies.

Three clusters at once. Of two nodes the leader's daemon is killed with SIGKILL and comes back; of
three nodes one is killed for good; between two more the cable is pulled for half a minute.
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
from hosts import Lan, hosts, settings
from node import Node, running
from testbed import eventually, free_port

from dvfd.runs.crossed import Crossed
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Run
from dvfd.store.run_reading import Reading

pytestmark = [pytest.mark.long, pytest.mark.slow]

EACH = 4
DURATION = 30.0
LONG = 75.0
"""Seconds of a run in which a node is not heard for 30."""

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


Clusters = tuple[Several, Several, Several | None]


def status(node: Node) -> dict[str, Any]:
    nothing = {"run": {"frozen": "", "stage": ""}, "elapsed": 0.0, "trouble": ""}
    return node.ask("stability_status") or nothing


def cluster(directory: Path, count: int, check: str, duration: float) -> Several:
    ports = {f"n{n + 1}": free_port() for n in range(count)}
    extra = f'[profile]\nnodes = {count}\n[cluster]\nlead = "n1"\n' + "".join(
        f'[[cluster.nodes]]\nname = "{name}"\naddress = "127.0.0.{number + 1}"\n'
        f'url = "http://127.0.0.1:{port}"\n'
        for number, (name, port) in enumerate(ports.items())
    )
    nodes = {n: Node(directory / n, [], extra, name=n, port=p) for n, p in ports.items()}
    return Several(nodes, check, duration)


def housed(directory: Path, lan: Lan) -> Several:
    """Two nodes on hosts of their own, with a cable that can be pulled."""
    extra = settings(lan, lan.hosts[0]).partition("\n")[2] + "[profile]\nnodes = 2\n"
    nodes = {
        host.name: Node(
            directory / host.name, [], extra, name=host.name, port=9109, host=host.address,
            within=("ip", "netns", "exec", host.namespace),
        )
        for host in lan
    }  # fmt: skip
    return Several(nodes, "stability_phase2a", LONG)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan | None]:
    """Two hosts; none where there can be none, which skips what needs them."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(hosts(2))
        except pytest.skip.Exception:
            yield None


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory, lan: Lan | None) -> Iterator[Clusters]:
    """All of them, once every run that can be judged is."""
    two = cluster(tmp_path_factory.mktemp("two"), 2, "stability_phase2a", DURATION)
    three = cluster(tmp_path_factory.mktemp("three"), 3, "stability_phase2b", 15.0)
    parted = housed(tmp_path_factory.mktemp("parted"), lan) if lan else None
    every = [two, three, *([parted] if parted else [])]
    ranks: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        for node in [node for several in every for node in several.nodes.values()]:
            stack.enter_context(running(node))
        try:
            for several in every:
                several.arm()
                ranks += several.train()
            eventually(lambda: elapsed(two) > 8, 90, every=0.2)
            two.lead.kill()
            eventually(lambda: elapsed(three) > 4, 90, every=0.2)
            three.nodes["n3"].kill()
            two.lead.start()
            judged = [*two.nodes.values(), three.nodes["n1"], three.nodes["n2"]]
            if lan and parted:
                lan.cut(lan.hosts[1])
                eventually(lambda: What.SILENT in told(parted), 90, every=0.5)
                lan.mend(lan.hosts[1])
                judged += parted.nodes.values()
            for node in judged:
                eventually(lambda n=node: status(n)["run"]["frozen"], 240, every=0.5)
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.pid, signal.SIGKILL)
                rank.wait()
        yield two, three, parted


def told(several: Several) -> list[What]:
    """What the leader's file tells so far."""
    return [event.what for event in several.file("n1").events()]


def elapsed(several: Several) -> float:
    return float(status(several.lead)["elapsed"])


# --- Two nodes, and a leader that was killed ------------------------------------------------------


def test_both_nodes_have_the_same_run_and_one_end(clusters: Clusters) -> None:
    two, *_ = clusters
    lead, other = two.run("n1"), two.run("n2")
    assert (lead.stage, other.stage) == ("complete", "complete"), (lead.reason, other.reason)
    assert (other.leader, other.of) == ("n1", lead.id)
    assert dict(lead.peers) == {"n2": other.id}
    assert abs((lead.ended_at or 0) - (other.ended_at or 0)) < 0.5


def test_no_window_of_the_other_node_is_lost_or_comes_twice(
    clusters: Clusters,
) -> None:
    two, *_ = clusters
    there = {(w.rank, w.window, w.session): w for w in two.file("n2").windows()}
    here = {(w.rank, w.window, w.session): w for w in two.file("n1").windows() if w.rank >= EACH}
    assert here.keys() == there.keys()
    assert {w.node for w in here.values()} == {"n2"}
    assert [here[k].steps for k in here] == [there[k].steps for k in here]
    assert max(w.last_step for w in here.values()) > 8 * DURATION


def test_no_event_or_minute_of_it_is_lost_or_comes_twice(
    clusters: Clusters,
) -> None:
    two, *_ = clusters
    hearing = {What.SILENT, What.HEARD}

    def said(events: Iterator[Event]) -> list[tuple[str, str]]:
        return sorted((e.what, e.text) for e in events if e.node == "n2" and e.what not in hearing)

    assert said(two.file("n1").events()) == said(two.file("n2").events())
    there = [(m.metric, m.count, m.sum) for m in two.file("n2").minutes()]
    here = [(m.metric, m.count, m.sum) for m in two.file("n1").minutes() if m.node == "n2"]
    assert sorted(here) == sorted(there)


def test_the_leader_judges_all_ranks_and_both_nodes(clusters: Clusters) -> None:
    two, *_ = clusters
    report = two.report("n1")
    throughput = next(r for r in report["results"] if r["criterion"].endswith(".throughput"))
    assert throughput["observed"] == pytest.approx(14.0 * 10 * 2 * EACH, rel=0.1)
    balance = next(r for r in report["results"] if r["criterion"].endswith(".balance"))
    assert balance["so_far"] == "PASS", balance["reason"]
    assert {event["node"] for event in report["events"]} == {"n1", "n2"}


def test_hashes_of_both_nodes_are_compared(clusters: Clusters) -> None:
    two, *_ = clusters
    crossed = Crossed(2)
    for event in two.file("n1").events():
        if event.what is What.HASHED:
            crossed.add(event)
    compared, differed = crossed.count(0.0, 1e9)
    assert compared >= 0.8 * DURATION
    assert differed == 0


def test_the_other_node_judges_nothing_by_itself(clusters: Clusters) -> None:
    two, *_ = clusters
    report = two.report("n2")
    assert {row["verdict"] for row in report["results"]} == {"UNKNOWN"}
    assert all("judged at n1, which leads" in row["reason"] for row in report["results"])


# --- Three nodes, and one that was killed for good ------------------------------------------------


def test_the_run_is_over_without_the_node_that_is_gone(clusters: Clusters) -> None:
    _, three, _ = clusters
    assert (three.run("n1").stage, three.run("n2").stage) == ("complete", "complete")
    assert set(three.run("n1").peers) == {"n2", "n3"}


def test_nothing_is_known_without_it_and_it_is_named(clusters: Clusters) -> None:
    _, three, _ = clusters
    rows = [r for r in three.report("n1")["results"] if r["so_far"] != "NOT_APPLICABLE"]
    assert {row["so_far"] for row in rows} <= {"UNKNOWN", "FAIL"}
    unknown = [row for row in rows if row["so_far"] == "UNKNOWN"]
    assert unknown
    assert all("n3 " in row["reason"] for row in unknown), [row["reason"] for row in unknown]


def test_the_report_says_when_it_fell_silent(clusters: Clusters) -> None:
    _, three, _ = clusters
    silent = [e for e in three.report("n1")["events"] if e["what"] == What.SILENT]
    assert [event["node"] for event in silent] == ["n3"]
    assert "n3 has been silent for" in silent[0]["text"]


# --- Two hosts, and a cable that was pulled -------------------------------------------------------


@pytest.fixture
def parted(clusters: Clusters) -> Several:
    found = clusters[2]
    if found is None:
        pytest.skip("network namespaces need root, ip, tc and nft")
    return found


def test_what_was_recorded_while_the_cable_was_out_is_not_lost(parted: Several) -> None:
    there = {(w.rank, w.window, w.steps) for w in parted.file("n2").windows()}
    here = {(w.rank, w.window, w.steps) for w in parted.file("n1").windows() if w.rank >= EACH}
    assert here == there
    assert max(w.last_step for w in parted.file("n1").windows()) > 9 * LONG


def test_a_cable_that_was_out_is_no_gap_once_its_rows_came(parted: Several) -> None:
    report = parted.report("n1")
    heard = [e["what"] for e in report["events"] if e["what"] in {What.SILENT, What.HEARD}]
    assert heard == [What.SILENT, What.HEARD]
    assert report["observed"]["unseen"] == 0
    assert parted.run("n1").stage == parted.run("n2").stage == "complete"
    band = next(r for r in report["results"] if r["criterion"].endswith(".balance"))
    assert band["so_far"] == "PASS", band["reason"]

"""`dvfd fleet` over real daemons, asked themselves and by a real Prometheus; one of them dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes_output import valid
from node import Node, running
from testbed import eventually, prometheus, query

pytestmark = pytest.mark.slow

RANK = """
import sys, time
from dvfd.telemetry.reporter import Reporter
reporter = Reporter(job="gpt", run="one", rank=int(sys.argv[1]), world_size=2)
for step in range(1, 10_000):
    reporter.step(step, samples=8, loss=2.5, compute=float(sys.argv[2]))
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[list[Node]]:
    """Two daemons, each with one rank of a job; the second computes longer."""
    place = tmp_path_factory.mktemp("fleet")
    made = [Node(place / name, []) for name in ("n1", "n2")]
    with running(made[0]), running(made[1]):
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(i), seconds], env=node.environment
            )
            for i, (node, seconds) in enumerate(zip(made, ("0.02", "0.03"), strict=True))
        ]  # fmt: skip
        try:
            yield made
        finally:
            for rank in ranks:
                rank.terminate()
                rank.wait(10)


def configured(place: Path, nodes: list[Node], server: str = "") -> Path:
    """The configuration of somebody who is neither, and looks at both and at one more."""
    addresses = {"n1": nodes[0].address, "n2": nodes[1].address, "n3": "127.0.0.1:9"}
    text = 'node.name = "desk"\n[cluster]\nlead = "n1"\n'
    for number, (name, address) in enumerate(addresses.items()):
        text += f'[[cluster.nodes]]\nname = "{name}"\naddress = "127.0.1.{number}"\n'
        text += f'url = "http://{address}"\n'
    text += f'[history]\nurl = "{server}"\n' if server else ""
    (place / "fleet.toml").write_text(text)
    return place / "fleet.toml"


def fleet(config: Path, *arguments: str) -> tuple[int, dict]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "fleet", *arguments, "-o", "json"],
        env={**os.environ, "DVFD_CONFIG": str(config)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def balance(found: dict) -> dict | None:
    rows = [r for r in found["balance"] if r["metric"] == "dvfd_rank_compute_seconds"]
    return rows[0] if rows and len(rows[0]["nodes"]) == 2 else None


def test_the_nodes_themselves_tell_their_verdicts_and_a_missing_one_is_unknown(nodes, tmp_path):
    config = configured(tmp_path, nodes)
    even = eventually(lambda: balance(fleet(config)[1]), 30, every=0.5)
    code, found = fleet(config)
    valid(found, "fleet")

    assert {n["node"]: n["seen"] for n in found["nodes"]} == {"n1": True, "n2": True, "n3": False}
    assert "Connection refused" in found["nodes"][2]["reason"]
    assert found["verdict"] in {"UNKNOWN", "FAIL"}
    assert code == (2 if found["verdict"] == "FAIL" else 3)
    assert even["spread"] == pytest.approx(0.2, abs=0.02)  # 20 and 30 ms: 5 from their mean of 25
    assert even["missing"] == ["n3"]
    live = next(c for c in found["checks"] if c["check"] == "live")
    own = {
        name: node.ask("status")["verdict"] for name, node in zip(("n1", "n2"), nodes, strict=True)
    }
    assert {name: live["nodes"][name] for name in own} == own


def test_prometheus_tells_the_same_and_a_node_that_dies_is_missing(nodes, tmp_path):
    both = {"static_configs": [{"targets": [node.address for node in nodes]}]}
    with prometheus(tmp_path, nodes[0].address, scrape=both) as server:
        eventually(lambda: len(query(server, 'up{job="dvfd"} == 1')) == 2, 60)
        _, direct = fleet(configured(tmp_path, nodes))
        config = configured(tmp_path, nodes, server.url)
        _, found = fleet(config)
        nodes[1].kill()
        gone = eventually(lambda: lost(fleet(config)[1], "n2"), 30, every=0.5)

    assert {n["node"]: n["seen"] for n in found["nodes"]} == {"n1": True, "n2": True, "n3": False}
    assert "no target of the engine is its own" in found["nodes"][2]["reason"]
    assert [c["check"] for c in found["checks"]] == [c["check"] for c in direct["checks"]]
    assert "the engine gets no answer" in gone["reason"]
    assert gone["verdict"] == "UNKNOWN"


def lost(found: dict, name: str) -> dict | None:
    return next((n for n in found["nodes"] if n["node"] == name and not n["seen"]), None)

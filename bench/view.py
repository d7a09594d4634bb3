"""How long `dvfd fleet` takes over many nodes: from their own /metrics, and from one Prometheus.

The nodes are those of `bench.fleet`, played by one process of this machine: time that real nodes
would spend for themselves. What is asked, parsed and judged is what the command does.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engine import prometheus
from bench.fleet import playing
from bench.harness import chosen, finish, status, testbed
from bench.player import Condition, Node, fleet
from bench.record import Figure, exactly
from dvfd.catalogue import load
from dvfd.config import Cluster, Config, History, Member
from dvfd.fleet import Seen, document, mixed
from dvfd.history.engine import Engine
from dvfd.sighted import by_engine
from dvfd.sighting import by_nodes

UNSEEN = frozenset({Condition.SILENT, Condition.STALE})
"""Conditions of which nothing may be believed: no answer, and an answer that is an hour old."""

KIB = 1024  # of a MiB


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, nodes=1000, ill=3)
    if options.short:
        options.nodes, options.ill = 50, 1
    nodes = fleet(options.nodes, options.ill)
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), nodes, options.ill)
    finish("view", options, figures(found), found)


def measure(place: Path, nodes: Sequence[Node], ill: int) -> dict[str, Any]:
    """Both ways over *nodes*."""
    targets = place / "targets.json"
    with playing(targets, len(nodes), ill, 900):
        [address] = json.loads(targets.read_text())[0]["targets"]
        asked = [
            Member(name=node.name, address=node.name, url=f"http://{address}/{node.name}")
            for node in nodes
        ]
        scraped = [Member(name=node.name, address=node.name) for node in nodes]
        direct = timed(nodes, lambda: by_nodes(asked))
        with prometheus(place, targets, interval=15, rules=[]) as server:
            up = len(nodes) - sum(node.condition is Condition.SILENT for node in nodes)
            testbed.eventually(lambda: len(server.query('up{job="dvfd"} == 1')) == up, 120, every=1)
            checks = [c.id for c in load(Config()).checks.values() if mixed(c)]
            through = timed(nodes, lambda: by_one(server.url, scraped, checks))
    return {"nodes": len(nodes), "direct": direct, "through": through,
            "peak_mib": status(os.getpid(), "VmHWM") / KIB}  # fmt: skip


def by_one(url: str, scraped: Sequence[Member], checks: Sequence[str]) -> list[Seen]:
    """All of them as the engine at *url* has them."""
    cluster = Cluster(lead=scraped[0].name, nodes=tuple(scraped))
    config = Config(history=History(url=url), cluster=cluster)
    return by_engine(Engine(config.engine), config, checks, at=time.time())


def timed(nodes: Sequence[Node], look: Callable[[], list[Seen]]) -> dict[str, Any]:
    """What one look takes, and whether it was deceived by anybody."""
    began = time.monotonic()
    seen = look()
    catalogue = replace(load(Config()), hash=seen[0].catalogue)  # that of the recording
    document(seen, catalogue, ["live"], lead=nodes[0].name, at=time.time(), source="")
    seconds = time.monotonic() - began
    wanted = {node.name for node in nodes if node.condition in UNSEEN}
    unseen = {each.node for each in seen if each.why}
    return {
        "seconds": seconds,
        "believed": len(wanted - unseen),
        "overlooked": len(unseen - wanted),
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The numbers of the document."""
    direct, through = found["direct"], found["through"]
    lost = math.fsum(each[key] for each in (direct, through) for key in ("believed", "overlooked"))
    return [
        Figure("nodes", "dvfd fleet: nodes looked at", found["nodes"], "nodes"),
        Figure("direct", "All of them, asked themselves", direct["seconds"], "s"),
        Figure("through", "All of them, from one Prometheus", through["seconds"], "s"),
        Figure("peak", "Resident memory of the looking process, peak", found["peak_mib"], "MiB"),
        exactly("deceived", "dvfd fleet: nodes wrongly believed, or wrongly not", lost, "nodes", 0),
    ]


if __name__ == "__main__":
    main()

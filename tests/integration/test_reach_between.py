"""Three hosts of which one link loses what goes one way: real ranks, real packets, nft between."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts import Ended, hosts, together

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
ALONE = """
from dvfd import cli, drills
drills.PARTS = {"network": ("dvfd.drills.reach:Connected",)}
cli.main()
"""
"""`dvfd`, with no flows of an hour beside the calls."""

NODE = [sys.executable, "-c", ALONE, "check", "network", "--nodes", "3", "--force", "-o", "json"]


@pytest.fixture(scope="module")
def reports() -> Iterator[Mapping[str, Ended]]:
    """Of all nodes, of one test, with what n2 sends to n3 lost."""
    with hosts(3) as lan:
        _, two, three = lan
        lan.silence(two, three)
        path = str(ROOT)
        commands = {h.name: h.popen(NODE, env={"PYTHONPATH": path}) for h in lan}
        yield together(commands, 200)


def connected(ended: Ended) -> dict[str, Any]:
    assert ended.out, ended.err
    rows = json.loads(ended.out)["results"]
    return next(row for row in rows if row["criterion"] == "network.connected")


def test_a_link_that_works_one_way_fails_two_pairs_of_six(reports: Mapping[str, Ended]) -> None:
    found = connected(reports["n1"])
    assert found["verdict"] == "FAIL", found
    assert found["observed"] == pytest.approx(4 / 6)


def test_the_report_names_the_pair_and_the_direction_that_is_lost(
    reports: Mapping[str, Ended],
) -> None:
    note = connected(reports["n1"])["note"]
    assert "n2 -> n3: 10.77.0.3 is silent" in note
    assert "n3 -> n2: 10.77.0.2 is silent" in note
    assert "what n2 sends does not reach n3, what n3 sends reaches n2" in note
    assert "n1 ->" not in note


def test_all_nodes_judge_the_same_calls(reports: Mapping[str, Ended]) -> None:
    seen = {
        json.dumps([connected(e)[k] for k in ("verdict", "observed")]) for e in reports.values()
    }
    assert len(seen) == 1


def test_a_node_is_called_on_the_first_and_the_last_port_of_the_range(
    reports: Mapping[str, Ended],
) -> None:
    told = {f["name"]: f["text"] for f in json.loads(reports["n2"].out)["drill"]["facts"]}
    assert told["n1 was called at"].startswith("10.77.0.1: 29600, ")
    assert "29799" in told["n1 was called at"]

"""Whether the monitoring sees every node: who is not seen is unknown, who may be blind fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task
from fakes_gates import book
from fakes_reviews import CATALOGUE

from dvfd.config import parse
from dvfd.drills.all_nodes import leads, lists, look, well
from dvfd.drills.drill import Task
from dvfd.drills.monitoring import WORKING, Scrape, found
from dvfd.drills.supervise import supervise
from dvfd.errors import DvfdError
from dvfd.fleet import Seen
from dvfd.gates.decision import Kind, Outcome
from dvfd.model import Verdict

PASS, FAIL = Verdict.PASS, Verdict.FAIL
TOML = """
node.name = "n1"
[cluster]
lead = "n1"
nodes = [{name = "n1", address = "10.0.0.1"}, {name = "n2", address = "10.0.0.2"}]
"""
HASH = CATALOGUE.hash[:12]


def seen(name: str, **more: Any) -> Seen:
    checks = dict.fromkeys(CATALOGUE.checks, PASS)
    return Seen(node=name, **{"age": 3.0, "catalogue": HASH, "checks": checks, **more})


@dataclass(frozen=True, slots=True)
class Told:
    """What the part says of the nodes; nothing else of the monitoring is there."""

    value: float | None
    facts: dict[str, str]
    words: str
    verdict: Verdict


def nowhere(*_: Any, **__: Any) -> Any:
    raise DvfdError("Connection refused")


@pytest.fixture
def nodes(tmp_path: Path) -> Callable[..., Told]:
    def scrape(*found: Seen) -> Told:
        of = task("monitoring", tmp_path, toml=TOML)
        part = Scrape(ask=lambda _op: None, get=nowhere, look=lambda *_: list(found))
        findings = supervise(of, [part])
        values = {dict(s.labels)["what"]: s.value for s in findings.samples}
        words = [each.text for each in (*findings.remarks, *findings.troubles)]
        facts = {fact.name: fact.text for fact in findings.facts}
        verdict = judged(of, findings)["scrape"].verdict
        return Told(values.get("nodes"), facts, "; ".join(words), verdict)

    return scrape


def test_nodes_that_are_all_seen_and_well_are_a_yes(nodes):
    told = nodes(seen("n1"), seen("n2"))

    assert told.value == 1.0
    assert told.facts["daily of all nodes"] == "PASS 2"


def test_a_node_that_is_not_seen_leaves_no_figure_and_its_name(nodes):
    told = nodes(seen("n1"), seen("n2", why="no target is its own", troubles=("long ago",)))

    assert told.value is None
    assert "1 of 2 nodes are seen now, wanted all; n2: no target is its own" in told.words
    assert told.facts["daily of all nodes"] == "UNKNOWN n2; PASS 1"


def test_a_node_of_another_catalogue_leaves_no_figure(nodes):
    told = nodes(seen("n1"), seen("n2", catalogue="0" * 12))

    assert told.value is None
    assert "judged by the catalogue 000000000000" in told.words


def test_a_node_that_may_be_blind_is_a_no(nodes):
    told = nodes(seen("n1"), seen("n2", troubles=("its store keeps nothing",)))

    assert (told.value, told.verdict) == (0.0, FAIL)
    assert "n2: its store keeps nothing" in told.words


def test_a_list_that_fails_on_a_node_is_told_by_name():
    failing = seen("n2", checks={**seen("n2").checks, "weekly": FAIL})
    facts = {f.name: f.text for f in lists([seen("n1"), failing], CATALOGUE, "n1")}

    assert facts["weekly of all nodes"] == "FAIL n2; PASS 1"


@pytest.mark.parametrize(
    ("name", "alone", "wanted"), [("n1", False, True), ("n2", False, False), ("n1", True, False)]
)
def test_the_lead_of_several_alone_answers_for_others(name, alone, wanted):
    text = TOML.replace('node.name = "n1"', f'node.name = "{name}"')
    other = ', {name = "n2", address = "10.0.0.2"}'

    assert leads(parse(text.replace(other, "") if alone else text)) is wanted


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1"])
def test_nobody_is_seen_where_neither_engine_nor_nodes_answer(url):
    config = parse(TOML + (f'[history]\nurl = "{url}"\n' if url else ""))
    found = look(config, CATALOGUE, 1_800_000_000.0)

    assert [node.node for node in found] == ["n1", "n2"]
    assert all(node.why for node in found)
    assert all(("the engine: " in node.why) == bool(url) for node in found)


# --- At the gate ----------------------------------------------------------------------------------


class NodesAlone:
    """The part of the monitoring that is about the nodes."""

    name = "nodes"
    metrics = (WORKING,)

    def __init__(self, *nodes: Seen) -> None:
        self._nodes = nodes

    def run(self, of: Task) -> Iterator[Any]:
        yield from found(of, "scrape", "nodes", lambda: [well(self._nodes, CATALOGUE.hash)])


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (seen("n2"), Outcome.GO),
        (seen("n2", why="the engine: answers with a part only"), Outcome.HOLD),
        (seen("n2", why="last seen 500 s ago, wanted at most 180"), Outcome.HOLD),
        (seen("n2", catalogue="0" * 12), Outcome.HOLD),
    ],
)
def test_a_gate_is_held_by_a_node_that_is_not_known_and_names_it(second, outcome, tmp_path):
    of = task("monitoring", tmp_path, toml=TOML)
    result = judged(of, supervise(of, [NodesAlone(seen("n1"), second)]))["scrape"]
    made = book("phase1")
    told = {"verdict": str(result.verdict), "reason": result.reason}
    made.observe("monitoring.scrape", result.observed, **told)
    decision = made.decide()

    assert decision.outcome is outcome
    [line] = [each for each in decision.lines if (each.kind, each.id) == (Kind.GO, "monitoring")]
    assert ("n2: " in line.reason) == (outcome is Outcome.HOLD)

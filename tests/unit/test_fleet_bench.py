"""How the fleet's measurement judges alerts, and how it reads dashboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.illness import compare
from bench.panels import fill, queries
from bench.player import Condition, fleet

NODES = fleet(50, 1)
WANTED = {
    condition: frozenset({f"Dvfd{condition.value.title()}"})
    for condition in Condition
    if condition is not Condition.WELL
}


def alert(name: str, instance: str, state: str = "firing") -> dict[str, str]:
    return {"alertname": name, "instance": instance, "alertstate": state}


def named(condition: Condition) -> str:
    return next(node.instance for node in NODES if node.condition is condition)


ALL = [alert(f"Dvfd{c.value.title()}", named(c)) for c in WANTED]


def judged(now: list[dict[str, str]], waits: dict[str, float] | None = None):
    return compare(NODES, now, now, waits or {}, seconds=600.0, expected=WANTED)


def test_when_every_ill_node_has_its_alert_there_is_nothing_to_say() -> None:
    found = judged(ALL)
    assert (found.unnoticed, found.slandered, found.misnamed) == ({}, {}, {})
    assert (found.well, found.ill) == (45, 5)


def test_an_ill_node_without_its_alert_is_named() -> None:
    assert judged(ALL[1:]).unnoticed == {ALL[0]["instance"]: [ALL[0]["alertname"]]}


def test_a_healthy_node_with_an_alert_is_named() -> None:
    found = judged([*ALL, alert("DvfdStale", NODES[0].instance)])
    assert found.slandered == {NODES[0].instance: ["DvfdStale"]}


def test_an_alert_that_is_anothers_is_named() -> None:
    found = judged([*ALL, alert("DvfdSilent", named(Condition.STALE))])
    assert found.misnamed == {named(Condition.STALE): ["DvfdSilent"]}


def test_pending_counts_only_where_the_run_was_too_short_to_fire() -> None:
    pending = [alert(a["alertname"], a["instance"], "pending") for a in ALL]
    assert len(judged(pending).unnoticed) == 5
    assert judged(pending, dict.fromkeys((a["alertname"] for a in ALL), 900.0)).unnoticed == {}


def test_a_condition_that_nobody_expects_an_alert_of_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        compare(NODES, [], [], {}, seconds=600.0, expected={})


def test_an_alert_of_the_fleet_names_no_node() -> None:
    assert judged([*ALL, alert("DvfdFleet", "")]).fleet == ("DvfdFleet",)


def dashboard(path: Path, *expressions: str, **variable: Any) -> list[str]:
    targets = [{"expr": expression} for expression in expressions]
    row = {"title": "row", "panels": [{"title": "inside", "targets": targets}]}
    document = {"panels": [row], "templating": {"list": [variable] if variable else []}}
    (path / "d.json").write_text(json.dumps(document))
    return [
        query.expression for query in queries(path / "d.json", one_node, interval=15, seconds=600)
    ]


def one_node(expression: str) -> list[dict[str, Any]]:
    assert expression == 'count by (instance) (up{job="dvfd"})'
    return [{"metric": {"instance": "b:1"}}, {"metric": {"instance": "a:1"}}]


def test_a_rate_looks_at_four_scrapes_as_in_grafana(tmp_path: Path) -> None:
    assert dashboard(tmp_path, "rate(x[$__rate_interval])") == ["rate(x[60s])"]


def test_a_variable_that_may_be_everything_is(tmp_path: Path) -> None:
    asked = {"name": "instance", "type": "query", "query": "label_values(up, instance)"}
    expression = 'up{instance=~"${instance:regex}"}'
    assert dashboard(tmp_path, expression, includeAll=True, **asked) == ['up{instance=~".*"}']


def test_a_variable_of_which_one_is_chosen_is_the_first(tmp_path: Path) -> None:
    asked = {"type": "query", "query": {"query": 'label_values(up{job="dvfd"}, instance)'}}
    assert dashboard(tmp_path, 'up{instance="$i"}', name="i", **asked) == ['up{instance="a:1"}']


def test_a_variable_that_nobody_declares_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        fill("up{instance=~'$nobody'}", {})

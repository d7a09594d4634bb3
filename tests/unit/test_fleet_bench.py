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


def named(condition: Condition) -> str:
    return next(node.instance for node in NODES if node.condition is condition)


def alert(name: str, instance: str, state: str = "firing") -> dict[str, str]:
    return {"alertname": name, "instance": instance, "alertstate": state}


SILENT = alert("DvfdSilent", named(Condition.SILENT))
STALE = alert("DvfdStale", named(Condition.STALE))


def judged(now: list[dict[str, str]], waits: dict[str, float] | None = None):
    return compare(NODES, now, now, waits or {}, seconds=600.0)


def test_when_silent_and_stale_nodes_are_named_there_is_nothing_to_say() -> None:
    found = judged([SILENT, STALE])
    assert (found.unnoticed, found.slandered) == ((), {})
    assert (found.well, found.demanded) == (45, 2)
    assert found.ill["stale"] == {named(Condition.STALE): ["DvfdStale"]}


def test_a_silent_node_without_an_alert_is_named() -> None:
    assert judged([STALE]).unnoticed == (named(Condition.SILENT),)


def test_a_healthy_node_with_an_alert_is_named() -> None:
    found = judged([SILENT, STALE, alert("DvfdStale", NODES[0].instance)])
    assert found.slandered == {NODES[0].instance: ["DvfdStale"]}


def test_a_healthy_node_that_had_an_alert_once_is_named_too() -> None:
    once = [alert("DvfdSilent", NODES[0].instance)]
    assert NODES[0].instance in compare(NODES, [], once, {}, seconds=600.0).slandered


def test_pending_counts_only_where_the_run_was_too_short_to_fire() -> None:
    pending = [{**one, "alertstate": "pending"} for one in (SILENT, STALE)]
    assert len(judged(pending).unnoticed) == 2
    assert judged(pending, {"DvfdSilent": 900.0, "DvfdStale": 900.0}).unnoticed == ()


def test_an_alert_of_the_fleet_names_no_node() -> None:
    assert judged([SILENT, STALE, alert("DvfdFleet", "")]).fleet == ("DvfdFleet",)


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

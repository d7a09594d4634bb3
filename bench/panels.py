"""The queries of dashboards/*.json, with their variables filled in as Grafana would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parents[1] / "dashboards"

VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]")

LABEL_VALUES = re.compile(r"label_values\((?:(?P<selector>.+),\s*)?(?P<label>\w+)\)\s*$", re.DOTALL)

ALL = ".*"
"""A variable that may be everything is: the most expensive way to look at a dashboard."""

Values = Callable[[str], list[dict[str, Any]]]
"""Asks PromQL; the series found."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel, ready to be asked: for now if *instant*, else as a graph."""

    dashboard: str
    panel: str
    expression: str
    instant: bool


def queries(path: Path, ask: Values, *, interval: float, seconds: float) -> Iterator[Query]:
    """Every query of a dashboard that looks at the last *seconds* at steps of *interval*."""
    document = json.loads(path.read_text(encoding="utf-8"))
    # As Grafana's Prometheus data source has it: $__rate_interval is at least four scrapes.
    filled = {
        "__interval": f"{interval:g}s",
        "__rate_interval": f"{4 * interval:g}s",
        "__range": f"{seconds:g}s",
        "__range_s": f"{seconds:g}",
        "__interval_ms": f"{1000 * interval:g}",
    }
    for variable in document.get("templating", {}).get("list", []):
        filled[variable["name"]] = _value(variable, filled, ask)
    for panel in _panels(document.get("panels", [])):
        for target in panel.get("targets", []):
            if expression := target.get("expr"):
                instant = bool(target.get("instant")) and not target.get("range")
                title = panel.get("title", "")
                yield Query(path.stem, title, fill(expression, filled), instant)


def fill(expression: str, values: Mapping[str, str]) -> str:
    """*expression* with its variables; raises KeyError for one that nobody declares."""
    return VARIABLE.sub(lambda found: values[found[1] or found[2] or found[3]], expression)


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def _value(variable: Mapping[str, Any], filled: Mapping[str, str], ask: Values) -> str:
    """What Grafana puts in at first: everything if that is offered, else the first choice."""
    if variable.get("includeAll"):
        return str(variable.get("allValue") or ALL)
    if variable["type"] == "query":
        return _first(_text(variable["query"]), filled, ask)
    current = variable.get("current", {}).get("value", "")
    if isinstance(current, list):
        current = current[0] if current else ""
    return str(current or str(variable.get("query", "")).partition(",")[0])


def _text(query: Any) -> str:
    return str(query.get("query", "")) if isinstance(query, dict) else str(query)


def _first(query: str, filled: Mapping[str, str], ask: Values) -> str:
    found = LABEL_VALUES.match(query)
    if found is None:
        return ALL
    label = found["label"]
    selector = fill(found["selector"] or f'{{{label}!=""}}', filled)
    values = sorted({series["metric"][label] for series in ask(f"count by ({label}) ({selector})")})
    return values[0] if values else ""

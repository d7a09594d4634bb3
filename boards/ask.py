"""Panels' queries asked as Grafana asks them: variables filled in, series named by legends."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Labels = Mapping[str, str]

VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
"""What Grafana rounds a step up to."""

POINTS = 500
"""Steps of a chart, about one a pixel."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at: the *seconds* until *end*, and the values of variables; all if unsaid."""

    end: float
    seconds: float
    scrape: float = 15.0  # the data source's scrape interval: $__rate_interval is made of it
    chosen: Labels = field(default_factory=dict)

    def step(self, least: str = "") -> float:
        """Between two points of a chart whose own least step is *least*, as in "1d"."""
        wanted = max(duration(least) if least else 0.0, self.scrape, self.seconds / POINTS)
        return next((float(step) for step in STEPS if step >= wanted), wanted)


@dataclass(frozen=True, slots=True)
class Series:
    """One answer: how it is called, and its values; an instant one has a single one."""

    name: str
    labels: Labels
    points: tuple[tuple[float, float], ...]
    target: int
    """The number of the panel's query."""

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


def duration(text: str) -> float:
    """Seconds of "15s", "1d" and the like."""
    return float(text[:-1]) * SECONDS[text[-1]]


def filled(expr: str, board: Mapping[str, Any], look: Look, step: float) -> str:
    """*expr* as it is sent; raises KeyError for a variable that nobody declares."""
    values = {v["name"]: _first(v) for v in board["templating"]["list"] if v["type"] == "query"}
    values |= look.chosen
    values |= {
        "__interval": f"{step:g}s",
        "__interval_ms": f"{1000 * step:.0f}",
        "__rate_interval": f"{max(step + look.scrape, 4 * look.scrape):g}s",
        "__range": f"{look.seconds:.0f}s",
    }
    return VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def _first(variable: Mapping[str, Any]) -> str:
    """What a variable opens with: what it is set to, else everything."""
    return "|".join(variable.get("current", {}).get("value", [])) or ".+"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus at *url*."""

    url: str

    def panel(self, panel: Mapping[str, Any], board: Mapping[str, Any], look: Look) -> list[Series]:
        """What all queries of a panel find, in their order."""
        step = look.step(panel.get("interval") or "")
        return [
            series
            for number, target in enumerate(panel.get("targets", []))
            for series in self._target(target, number, filled(target["expr"], board, look, step),
                                       look, step)
        ]  # fmt: skip

    def instant(self, expr: str, at: float) -> list[dict[str, Any]]:
        """The vector that *expr* is at a time."""
        return self._ask("query", {"query": expr, "time": at})

    def course(self, expr: str, look: Look, step: float) -> list[dict[str, Any]]:
        """*expr* at whole multiples of *step*."""
        start = (look.end - look.seconds) // step * step
        fields = {"query": expr, "start": start, "end": look.end // step * step, "step": step}
        return self._ask("query_range", fields)

    def _target(
        self, target: Mapping[str, Any], number: int, expr: str, look: Look, step: float
    ) -> Iterator[Series]:
        now = bool(target.get("instant")) and not target.get("range")
        for found in self.instant(expr, look.end) if now else self.course(expr, look, step):
            points = [found["value"]] if now else found["values"]
            yield Series(
                _named(target.get("legendFormat", ""), found["metric"]),
                found["metric"],
                tuple((float(at), float(value)) for at, value in points),
                number,
            )

    def _ask(self, what: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(  # noqa: S310  # the caller's own Prometheus
            f"{self.url}/api/v1/{what}", data, timeout=60
        ) as answer:
            return list(json.load(answer)["data"]["result"])


def _named(legend: str, labels: Labels) -> str:
    if legend and legend != "__auto":
        return LEGEND.sub(lambda found: labels.get(found[1], ""), legend)
    return ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "__name__") or "value"

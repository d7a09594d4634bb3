"""The trends over three months: a real Prometheus whose past promtool wrote, raw and recorded.

Made up are the samples of the raw metrics (bench/months.py counts what it puts in). The recorded
series come from the rules as delivered, at their own interval of an hour.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testbed

from bench.months import COST, DAY, KEEP, RANKS, SINGLE, Months, Put, backfill, last_hour

pytest.importorskip("grafana_foundation_sdk")
from boards.ask import Look, Prometheus, Series

ROOT = Path(__file__).resolve().parents[2]
BOARD = json.loads((ROOT / "dashboards" / "dvfd-trends.json").read_text("utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
RULES = ROOT / "alert_rules" / "dvfd-recording-dashboards.rules.yml"
DAYS = 92
NEAR = 0.01
"""A share: increase() extrapolates at the edges of blind hours."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Past:
    """What was put in, by job, and where it can be asked for."""

    put: dict[str, Put]
    server: Prometheus
    look: Look

    def total(self, count: str) -> float:
        return float(sum(getattr(put, count) for put in self.put.values()))

    def panel(self, title: str, kind: str, look: Look | None = None) -> list[Series]:
        (panel,) = (p for p in PANELS if (p["title"], p["type"]) == (title, kind))
        return self.server.panel(panel, BOARD, look or self.look)

    def figure(self, title: str) -> float:
        (series,) = self.panel(title, "stat")
        return series.last


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    directory = tmp_path_factory.mktemp("months")
    months = Months(last_hour(time.time()), DAYS)
    put = backfill(directory, months, RULES)
    with testbed.prometheus(directory, "127.0.0.1:9", interval="1h", options=KEEP) as server:
        # Recorded samples lie anywhere in their hour, as Prometheus spreads groups: the last one
        # is between the last whole hour and the next.
        yield Past(put, Prometheus(server.url), Look(months.end + 1200, DAYS * DAY + 1200))


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: f"{p['title']}, {p['type']}")
def test_no_panel_is_empty(past: Past, panel: dict[str, Any]) -> None:
    found = past.server.panel(panel, BOARD, past.look)
    assert {series.target for series in found} == set(range(len(panel["targets"])))


def test_uptime_is_what_was_up_of_what_was_observed(past: Past) -> None:
    assert past.total("up") < past.total("observed")
    wanted = past.total("up") / past.total("observed")
    assert past.figure("Up of observed") == pytest.approx(wanted, rel=0.001)


def test_samples_restarts_and_energy_are_what_was_put_in(past: Past) -> None:
    assert past.figure("Samples trained") == pytest.approx(past.total("samples"), rel=NEAR)
    assert past.figure("Restarts of ranks") == pytest.approx(past.total("restarts"), rel=0.15)
    assert past.figure("Energy") == pytest.approx(past.total("joules") / 3.6e6, rel=NEAR)


def test_efficiency_is_throughput_over_that_of_single_processes(past: Past) -> None:
    look = Look(past.look.end, past.look.seconds, chosen={"training_job": "vision"})
    (series,) = past.panel("Efficiency", "stat", look)
    paces = past.put["vision"].paces
    assert series.last == pytest.approx(sum(paces) / len(paces) / (RANKS * SINGLE), rel=NEAR)


def test_a_million_samples_cost_what_was_paid_for_them(past: Past) -> None:
    hours = past.total("observed") / 3600
    wanted = 1e6 * hours * COST / past.total("samples")
    assert past.figure("Cost of 1 M samples") == pytest.approx(wanted, rel=0.02)


def test_a_slow_drift_can_be_seen(past: Past) -> None:
    found = past.panel("Throughput", "timeseries")
    (language,) = (series for series in found if series.name == "language")
    first, last = (sum(v for _, v in part) / 7 for part in (language.points[1:8],
                                                            language.points[-7:]))  # fmt: skip
    assert last / first == pytest.approx(1 - 0.0008 * (DAYS - 7), abs=0.01)


def test_blind_time_is_missing_from_observed_and_not_from_up(past: Past) -> None:
    observed = {s.name: s for s in past.panel("Observed, of the day", "timeseries")}
    assert min(v for _, v in observed["language"].points[1:]) < 0.7
    full = sorted(v for _, v in observed["language"].points)[len(observed["language"].points) // 2]
    assert full == pytest.approx(1.0, abs=NEAR)


def test_shares_of_verdicts_are_one_together(past: Past) -> None:
    totals: dict[float, float] = {}
    for series in past.panel("Nodes' verdicts", "timeseries"):
        for at, value in series.points:
            totals[at] = totals.get(at, 0.0) + value
    assert list(totals.values()) == pytest.approx([1.0] * len(totals))

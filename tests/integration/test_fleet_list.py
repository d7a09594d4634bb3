"""The monthly list over a hall of nodes, by two real engines: it says what became of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import prometheus_of, victoria_of
from fakes_output import valid
from fakes_reviews import CATALOGUE, in_here

from bench.hall import HOUR, Hall
from dvfd.config import Config, parse
from dvfd.history.engine import Engine
from dvfd.reviews.gather import gathered
from dvfd.reviews.nodes import Judging
from dvfd.reviews.period import Period
from dvfd.sighted import by_engine

pytestmark = pytest.mark.slow

END = 1_780_000_000 // HOUR * HOUR + 1500
SCRAPE = 60.0
HALL = Hall(END, days=30, count=8)
AT = float(END - 5)
TOLERANCE = 3 * SCRAPE
"""Seconds of a period: a scrape at both of its ends, and one where a counter began again."""

UPTIME = ["PASS", "PASS", "UNKNOWN", "FAIL", "PASS", "PASS", "PASS", "PASS"]
"""Of 1296 s that a month allows the third was unseen for 5 h and the fourth down for 40 min."""


def toml(url: str) -> str:
    text = f'node.name = "elsewhere"\n[history]\nurl = "{url}"\n[cluster]\nlead = "node-01"\n'
    for number, node in enumerate(HALL.nodes, 1):
        text += f'[[cluster.nodes]]\nname = "{node.name}"\naddress = "10.0.0.{number}"\n'
        text += f'url = "http://{node.instance}"\n'
    return text


def write(out: Any, milliseconds: bool) -> object:
    return HALL.write(out, SCRAPE, milliseconds=milliseconds, catalogue=CATALOGUE)


@pytest.fixture(scope="module", params=[prometheus_of, victoria_of], ids=["prometheus", "victoria"])
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Config]:
    with request.param(tmp_path_factory.mktemp("engine"), write) as server:
        yield parse(toml(server.url))


@pytest.fixture(scope="module")
def monthly(config: Config) -> dict[str, Any]:
    engine, check = Engine(config.engine), CATALOGUE.checks["monthly"]
    seen = by_engine(engine, config, ["monthly"], at=AT)
    nodes = gathered(engine, config, CATALOGUE, check, seen, at=AT)
    judging = Judging(check, CATALOGUE, lead="node-01", at=AT, run=in_here)
    return judging.document(nodes, source=engine.words)


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    [result] = [r for r in found["results"] if r["criterion"] == f"monthly.{name}"]
    return dict(result)


def test_each_node_gets_what_became_of_it(monthly: dict[str, Any]) -> None:
    valid(monthly, "fleet_list")
    uptime, trend = row(monthly, "uptime"), row(monthly, "trend_floor")

    assert [uptime["nodes"][node.name]["verdict"] for node in HALL.nodes] == UPTIME
    assert (monthly["verdict"], uptime["worst"]) == ("FAIL", "node-04")
    failing = [name for name, cell in trend["nodes"].items() if cell["verdict"] == "FAIL"]
    assert failing == ["node-06"]
    assert trend["nodes"]["node-06"]["observed"] == pytest.approx(-0.062, abs=0.003)
    assert all(each["seen"] for each in monthly["nodes"])
    assert row(monthly, "team_feedback")["nodes"].keys() == {"node-01"}


def test_the_seconds_are_those_of_the_truth_within_the_stated_tolerance(
    monthly: dict[str, Any],
) -> None:
    period = Period.ending("30d", AT)
    whole = period.until - period.since
    for node in HALL.nodes:
        lost = {"dead": node.dead, "down": node.down}
        inside = {name: within(stretches, period) for name, stretches in lost.items()}
        least = row(monthly, "uptime")["nodes"][node.name]["observed"]
        [told] = [each for each in monthly["nodes"] if each["node"] == node.name]
        print(node.name, (1 - least) * whole - sum(inside.values()))
        assert (1 - least) * whole == pytest.approx(sum(inside.values()), abs=TOLERANCE)
        unseen = (1 - told["coverage"]["30d"]) * whole
        assert unseen == pytest.approx(inside["dead"], abs=TOLERANCE)


def within(stretches: Any, period: Period) -> float:
    since, until = period.since - HALL.begin, period.until - HALL.begin
    return sum(max(0.0, min(b, until) - max(a, since)) for a, b in stretches)


def test_what_ended_long_ago_is_seen_of_nobody(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "dvfd.toml"
    file.write_text(toml(config.engine.url))
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "fleet", "--list", "monthly", "-o", "json"],
        env={**os.environ, "DVFD_CONFIG": str(file)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    found = json.loads(done.stdout)
    valid(found, "fleet_list")
    assert (done.returncode, found["verdict"]) == (3, "UNKNOWN")
    assert not any(each["seen"] for each in found["nodes"])

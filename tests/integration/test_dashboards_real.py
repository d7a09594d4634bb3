"""Every query of every dashboard finds something in a real Prometheus.

Real: Prometheus, its scrapes, the listener, the exposition and the catalogue. Built by the test:
the snapshot that the exposition reads, with a value for every metric there is, so that GPUs and
meters which this machine lacks are there too. The hourly rules are evaluated each second.
"""

from __future__ import annotations

import itertools
import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import testbed
from fakes_sinks import result, whole

from dvfd.clock import SystemClock
from dvfd.config import Config, Http
from dvfd.model import ProbeHealth, Verdict
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.state import Snapshot, State

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dashboards").glob("*.json"))
CONFIG = Config(
    profile={"expected_throughput": 270, "single_process_throughput": 62.5},
    cost={"per_hour": 12.5, "currency": "EUR"},
)
VERDICTS = (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE)
RULES = ("dvfd-recording.rules.yml", "dvfd-recording-dashboards.rules.yml")
VALUES = {
    "${datasource}": "", "$__rate_interval": "30s", "$__interval_ms": "30000",
    "$__interval": "30s", "$__range": "1h",
}  # fmt: skip


def snapshot(held: State) -> Snapshot:
    """As told, but for the profile, a probe that is down and a store that is not well."""
    taken = held.snapshot()
    down = {"power": ProbeHealth("power", up=False, last_success=time.time())}
    return replace(taken, config=CONFIG, probes={**taken.probes, **down})


def quick(name: str, directory: Path) -> Path:
    """The rules of that name, worked out every second."""
    text = (ROOT / "alert_rules" / name).read_text("utf-8")
    path = directory / name
    path.write_text(re.sub(r"interval: \d+[smh]", "interval: 1s", text), "utf-8")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testbed.Server]:
    held = whole(SystemClock())
    criteria = held.snapshot().catalogue.criteria.values()
    verdicts = itertools.cycle(VERDICTS)
    held.judged([result(next(verdicts), of=c, at=time.time()) for c in criteria])
    listener = HttpServer(Site(lambda: snapshot(held)), Http(port=0), clock=SystemClock())
    listener.start()
    directory = tmp_path_factory.mktemp("prometheus")
    rules = tuple(quick(name, directory) for name in RULES)
    # One listener by two names: a job on two nodes.
    targets = [f"{name}:{listener.port}" for name in ("127.0.0.1", "localhost")]
    scrape = {"static_configs": [{"targets": targets}]}
    with testbed.prometheus(directory, "", rules=rules, scrape=scrape) as found:
        recorded = "count(instance_training_job:dvfd_job_samples:increase1h)"
        testbed.eventually(lambda: testbed.query(found, recorded), 30, every=0.5)
        time.sleep(3)  # two samples of what was recorded
        yield found
    listener.stop()


def asked(board: dict[str, Any], expr: str) -> str:
    """*expr* as Grafana sends it with everything chosen."""
    chosen = {f"${v['name']}": ".+" for v in board["templating"]["list"] if v["type"] == "query"}
    for name, value in sorted((VALUES | chosen).items(), key=lambda item: -len(item[0])):
        expr = expr.replace(name, value)
    return expr


def answers(server: testbed.Server, target: dict[str, Any], expr: str) -> list[Any]:
    if target.get("instant"):
        return testbed.query(server, expr)
    now = time.time()
    fields = {"query": expr, "start": now - 5, "end": now, "step": 1}
    url = f"{server.url}/api/v1/query_range?{urllib.parse.urlencode(fields)}"
    return list(json.loads(testbed.fetch(url))["data"]["result"])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_query_of_a_dashboard_is_empty(server: testbed.Server, path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    empty = []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            expr = asked(board, target["expr"])
            assert "$" not in expr
            if not answers(server, target, expr):
                empty.append((panel["title"], expr))
    assert not empty


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_variable_has_values(server: testbed.Server, path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        inside = asked(board, variable["query"]["query"]).removeprefix("label_values(")
        selector, _, label = inside.removesuffix(")").rpartition(", ")
        assert [s for s in testbed.query(server, selector) if label in s["metric"]], selector


@pytest.mark.slow
def test_every_annotation_is_understood_and_those_of_what_is_there_find_it(
    server: testbed.Server,
) -> None:
    found = {}
    for board in (json.loads(path.read_text("utf-8")) for path in FILES):
        for annotation in board["annotations"]["list"]:
            expr = asked(board, annotation["expr"])
            assert "$" not in expr
            found[annotation["name"]] = testbed.query(server, expr)  # raises if not understood
            if not expr.startswith("ALERTS"):  # which are there only with alerting rules
                calm = expr.removesuffix(" > 0")
                assert testbed.query(server, calm), calm
    assert len(found) == 5
    assert found["dvfd raised an alert"]
    assert not found["dvfd restarted"]


QUERIES = {
    p["title"]: asked(board, p["targets"][0]["expr"])
    for board in (json.loads(path.read_text("utf-8")) for path in FILES)
    for p in board["panels"]
    if p["type"] != "row"
    and p["title"] in {"Verdict", "PASS", "UNKNOWN", "Continuous watch, every criterion"}
}


def values(server: testbed.Server, title: str) -> set[str]:
    return {found["value"][1] for found in testbed.query(server, QUERIES[title])}


def read_at(held: State, age: float) -> Snapshot:
    """As told, by readings of this age."""
    ranks = ProbeHealth("ranks", up=True, last_success=time.time() - age)
    return replace(held.snapshot(), probes={"ranks": ranks})


@pytest.mark.slow
def test_a_node_that_falls_silent_is_unknown_on_every_board(tmp_path: Path) -> None:
    held = whole(SystemClock())
    listener = HttpServer(Site(lambda: read_at(held, 1)), Http(port=0), clock=SystemClock())
    listener.start()
    with testbed.prometheus(tmp_path, f"127.0.0.1:{listener.port}") as server:
        testbed.eventually(lambda: values(server, "Verdict") == {"1"}, 60)
        assert (values(server, "PASS"), values(server, "UNKNOWN")) == ({"1"}, {"0"})
        listener.stop()
        testbed.eventually(lambda: values(server, "Verdict") == {"3"}, 60)
        assert (values(server, "PASS"), values(server, "UNKNOWN")) == ({"0"}, {"1"})
        assert values(server, "Continuous watch, every criterion") == {"3"}


@pytest.mark.slow
def test_a_node_whose_readings_stand_still_is_unknown_though_it_says_pass(tmp_path: Path) -> None:
    held = whole(SystemClock())
    listener = HttpServer(Site(lambda: read_at(held, 3600)), Http(port=0), clock=SystemClock())
    listener.start()
    with testbed.prometheus(tmp_path, f"127.0.0.1:{listener.port}") as server:
        said = 'dvfd_check_verdict{check="live", verdict="PASS"}'
        testbed.eventually(lambda: testbed.query(server, said), 60)
        assert values(server, "Verdict") == {"3"}
        assert (values(server, "PASS"), values(server, "UNKNOWN")) == ({"0"}, {"1"})
    listener.stop()

"""The lists over all nodes while the engine is slow, away, cut off, or tells of something else.

A week of three nodes that are well passes. Whatever stands between takes that PASS away, by name
where it is one node's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from between_engine import Between, Rows, between
from engines import prometheus_of
from fakes_reviews import CATALOGUE, in_here

from bench.hall import HOUR, Hall, Node
from dvfd.config import Config, parse
from dvfd.history.engine import Engine
from dvfd.reviews.gather import gathered
from dvfd.reviews.nodes import Judging
from dvfd.sighted import by_engine

pytestmark = pytest.mark.slow

END = 1_780_000_000 // HOUR * HOUR + 1500
AT = float(END - 5)
HALL = Hall(END, days=7, count=3)
NODES = [Node("node-01"), Node("node-02"), Node("node-03")]
SECOND = NODES[1].instance


def toml(url: str, more: str = "") -> str:
    text = f'[history]\nurl = "{url}"\ntimeout = 2\n{more}\n[cluster]\nlead = "node-01"\n'
    for number, node in enumerate(NODES, 1):
        text += f'[[cluster.nodes]]\nname = "{node.name}"\naddress = "10.0.0.{number}"\n'
        text += f'url = "http://{node.instance}"\n'
    return text


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    def write(out: Any, milliseconds: bool) -> object:
        return HALL.write(out, 60.0, nodes=NODES, milliseconds=milliseconds, catalogue=CATALOGUE)

    with prometheus_of(tmp_path_factory.mktemp("engine"), write) as server:
        yield server.url


@pytest.fixture
def harm(engine: str) -> Iterator[tuple[Config, Between]]:
    with between(engine) as (url, does):
        yield parse(toml(url)), does


def weekly(config: Config) -> dict[str, Any]:
    asking = Engine(config.engine, end=time.monotonic() + 30)
    check = CATALOGUE.checks["weekly"]
    seen = by_engine(asking, config, ["weekly"], at=AT)
    nodes = gathered(asking, config, CATALOGUE, check, seen, at=AT)
    return Judging(check, CATALOGUE, lead="node-01", at=AT, run=in_here).document(
        nodes, source=asking.words
    )


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {node["node"]: node["verdict"] for node in found["nodes"]}


def reasons(found: dict[str, Any], name: str) -> str:
    return "; ".join(
        row["nodes"][name]["reason"] for row in found["results"] if name in row["nodes"]
    )


def second(rows: Rows) -> Rows:
    return [row for row in rows if row["metric"].get("instance") == SECOND]


def test_without_harm_all_of_it_passes(harm: tuple[Config, Between]) -> None:
    found = weekly(harm[0])

    assert found["verdict"] == "PASS", [r for r in found["results"] if r["verdict"] != "PASS"]


def test_one_that_is_slower_than_its_timeout_is_unknown_in_bounded_time(
    harm: tuple[Config, Between],
) -> None:
    config, does = harm
    does.wait = 5.0
    began = time.monotonic()
    found = weekly(config)

    assert set(verdicts(found).values()) == {"UNKNOWN"}
    assert re.search("no whole answer within 2 s|timed out", reasons(found, "node-01"))
    assert time.monotonic() - began < 120  # 30 s in all, one answer more, and a busy machine


@pytest.mark.parametrize("answers", [0, 3, 6, 9, 14])
def test_one_that_goes_away_in_the_middle_passes_nothing(
    answers: int, harm: tuple[Config, Between]
) -> None:
    config, does = harm
    does.left = answers
    found = weekly(config)

    assert found["verdict"] == "UNKNOWN"
    assert set(verdicts(found).values()) == {"UNKNOWN"}


def test_one_that_was_away_and_is_back_is_believed_again(harm: tuple[Config, Between]) -> None:
    config, does = harm
    does.left = 6
    before = weekly(config)
    does.left = 1000

    assert (before["verdict"], weekly(config)["verdict"]) == ("UNKNOWN", "PASS")


@pytest.mark.parametrize("cut", [0, 1, 60, 900])
def test_an_answer_that_breaks_off_passes_nothing(cut: int, harm: tuple[Config, Between]) -> None:
    config, does = harm
    does.cut = cut

    assert weekly(config)["verdict"] == "UNKNOWN"


@pytest.mark.parametrize("extra", [{"warnings": ["a store is away"]}, {"isPartial": True}])
def test_an_answer_in_part_passes_nothing(
    extra: dict[str, Any], harm: tuple[Config, Between]
) -> None:
    config, does = harm
    does.extra = extra
    found = weekly(config)

    assert set(verdicts(found).values()) == {"UNKNOWN"}
    assert "part" in reasons(found, "node-03")


def test_an_engine_of_another_cluster_knows_none_of_the_nodes(engine: str) -> None:
    found = weekly(parse(toml(engine, 'matchers = {cluster = "another"}')))

    assert found["verdict"] == "UNKNOWN"
    assert "no target of the engine is its own" in reasons(found, "node-02")


def test_a_node_of_another_cluster_under_the_same_name_is_not_taken_for_ours(
    harm: tuple[Config, Between],
) -> None:
    config, does = harm

    def both(_question: str, rows: Rows) -> Rows:
        theirs = [{**row, "metric": {**row["metric"], "cluster": "b"}} for row in second(rows)]
        return rows + theirs

    does.rows = both
    found = weekly(config)

    assert verdicts(found) == {"node-01": "PASS", "node-02": "UNKNOWN", "node-03": "PASS"}
    assert "cluster=" in reasons(found, "node-02")


def test_a_node_that_got_another_name_begins_without_a_past(harm: tuple[Config, Between]) -> None:
    config, does = harm

    def renamed(question: str, rows: Rows) -> Rows:
        if "[1h]" not in question or "values" not in (second(rows) or [{}])[0]:
            return rows
        return [
            {**row, "values": row["values"][-24:]} if row in second(rows) else row for row in rows
        ]

    does.rows = renamed
    found = weekly(config)

    assert verdicts(found)["node-02"] == "UNKNOWN"
    assert verdicts(found)["node-01"] == "PASS"
    [node] = [each for each in found["nodes"] if each["node"] == "node-02"]
    assert node["coverage"]["7d"] == pytest.approx(1 / 7, abs=0.02)


def test_a_node_whose_clock_is_an_hour_off_is_unknown(harm: tuple[Config, Between]) -> None:
    config, does = harm

    def off(_question: str, rows: Rows) -> Rows:
        for row in second(rows):
            if row["metric"].get("__name__") == "dvfd_probe_last_success_timestamp_seconds":
                at, value = row["value"]
                row["value"] = [at, str(float(value) - 3600)]
        return rows

    does.rows = off
    found = weekly(config)

    assert verdicts(found) == {"node-01": "PASS", "node-02": "UNKNOWN", "node-03": "PASS"}
    assert "old by our clock" in reasons(found, "node-02")


def test_an_engine_whose_clock_is_an_hour_off_is_not_believed(
    harm: tuple[Config, Between], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = harm
    monkeypatch.setattr("dvfd.remote.time.time", lambda: time.monotonic() + 1_000_000.0)
    found = weekly(config)

    assert set(verdicts(found).values()) == {"UNKNOWN"}
    assert "its clock is" in reasons(found, "node-01")


def test_points_of_other_times_are_refused(harm: tuple[Config, Between]) -> None:
    config, does = harm

    def late(_question: str, rows: Rows) -> Rows:
        for row in rows:
            if "values" in row:
                row["values"] = [[at - 7 * 86400, value] for at, value in row["values"]]
        return rows

    does.rows = late
    found = weekly(config)

    assert found["verdict"] == "UNKNOWN"
    assert "times cannot be believed" in reasons(found, "node-01")

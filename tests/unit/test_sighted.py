"""Every node is seen as one engine has scraped it; who is not seen says why."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fakes import FakeClock
from fakes_sinks import whole

from dvfd.config import Config
from dvfd.errors import HistoryError
from dvfd.history.answer import Line
from dvfd.model import Verdict
from dvfd.scraped import exposed
from dvfd.sighted import TOGETHER, by_engine
from dvfd.sinks.prometheus import Exposition

EXPOSITION = Exposition(whole(FakeClock()).snapshot).text()
NOW = FakeClock().now()
N1 = {"name": "n1", "address": "10.0.0.1", "url": "http://10.0.0.1:9109"}
N2 = {"name": "n2", "address": "10.0.0.2", "url": "http://user:secret@n2.example:9109"}


def cluster(*nodes: dict[str, str], **history: Any) -> Config:
    told = {"url": "http://p:9090", **history}
    own = {"lead": nodes[0]["name"], "nodes": nodes}
    return Config.model_validate({"cluster": own, "history": told})


class FakeEngine:
    """Has scraped n1 three seconds ago; a test says otherwise."""

    def __init__(self) -> None:
        self.up = {"10.0.0.1:9109": 1.0}
        self.ages = {"10.0.0.1:9109": 3.0}
        self.also: dict[str, str] = {}
        self.label = "instance"
        self.wrong = ""
        self.asked: list[str] = []

    def in_time(self) -> float:
        if self.wrong:
            raise HistoryError(self.wrong)
        return 0.0

    def instant(self, question: str, *, at: float) -> list[Line]:
        assert at == NOW
        self.asked.append(question)
        if question.startswith("up"):
            return [self.line(i, value) for i, value in self.up.items()]
        if question.startswith("timestamp"):
            return [self.line(i, NOW - age) for i, age in self.ages.items()]
        if not question.startswith("{"):
            return []
        found = exposed(EXPOSITION)
        return [self.line(i, s.value, __name__=s.name, **s.labels) for i in self.up for s in found]

    def line(self, instance: str, value: float, **labels: str) -> Line:
        own = {self.label: instance, "job": "dvfd", **self.also, **labels}
        return Line(own, ((NOW, value),))


def look(engine: FakeEngine, config: Config | None = None, checks: tuple[str, ...] = ()) -> Any:
    return by_engine(engine, config or cluster(N1), checks, at=NOW)  # type: ignore[arg-type]


def test_a_node_is_seen_as_the_engine_scraped_it():
    [found] = look(FakeEngine())

    assert (found.why, found.age) == ("", 3.0)
    assert found.checks["live"] is Verdict.PASS


@pytest.mark.parametrize(
    ("up", "ages", "why"),
    [
        ({}, {}, "no target of the engine is its own"),
        ({"10.0.0.1:9109": 0.0}, {"10.0.0.1:9109": 3.0}, "gets no answer of 10.0.0.1:9109"),
        ({"10.0.0.1:9109": 1.0}, {"10.0.0.1:9109": 500.0}, "last seen 500 s ago"),
        ({"10.0.0.1:9109": 1.0}, {"10.0.0.1:9109": -500.0}, "last seen -500 s ago"),
        ({"10.0.0.1:9109": 1.0}, {}, "does not say when"),
        ({"n1:1": 1.0, "n1:2": 1.0}, {}, "2 targets are its own"),
    ],
)
def test_whom_the_engine_does_not_see_is_not_seen(up, ages, why):
    engine = FakeEngine()
    engine.up, engine.ages = up, ages
    [found] = look(engine)

    assert why in found.why


def test_an_engine_that_cannot_be_believed_blinds_all_and_says_why():
    engine = FakeEngine()
    engine.wrong = "http://p:9090: its clock is 3600 s ahead of this node's"
    found = look(engine, cluster(N1, N2))

    assert [seen.node for seen in found] == ["n1", "n2"]
    assert all("3600 s ahead" in seen.why for seen in found)


def test_only_the_clusters_own_targets_of_dvfd_are_asked_for():
    engine = FakeEngine()
    look(engine, cluster(N1, N2, matchers={"cluster": "a"}), ("weekly", "monthly"))

    assert all('job="dvfd"' in each and 'cluster="a"' in each for each in engine.asked)
    assert all("10\\\\.0\\\\.0\\\\.1" in each for each in engine.asked)
    assert 'check=~"monthly|weekly"' in engine.asked[-1]
    assert not any("secret" in each for each in engine.asked)


def test_a_scrape_job_of_another_name_is_asked_for_by_it():
    engine = FakeEngine()
    look(engine, cluster(N1, matchers={"job": "nodes"}))

    assert all('job="nodes"' in each and 'job="dvfd"' not in each for each in engine.asked)


def test_nodes_may_be_told_apart_by_another_label():
    engine = FakeEngine()
    engine.label, engine.up, engine.ages = "host", {"n1": 1.0}, {"n1": 3.0}
    [found] = look(engine, cluster(N1, node_label="host"))

    assert found.why == ""
    assert all(re.search(r"host=~", each) for each in engine.asked)


def test_many_nodes_are_asked_for_in_groups():
    nodes = [{"name": f"m{i}", "address": f"10.1.0.{i}"} for i in range(TOGETHER + 1)]
    engine = FakeEngine()

    assert len(look(engine, cluster(*nodes))) == TOGETHER + 1
    assert len(engine.asked) == 2 * 4


def test_the_older_key_names_the_same_engine_and_says_that_it_is_old():
    config = Config.model_validate({"cluster": {"prometheus": "http://old:9090"}})

    assert config.engine.url == "http://old:9090"
    assert "older name" in config.outdated[0]
    assert cluster(N1).outdated == ()
    both = config.model_copy(update={"history": cluster(N1).history})
    assert both.engine.url == "http://p:9090"
    assert "not read" in both.outdated[0]

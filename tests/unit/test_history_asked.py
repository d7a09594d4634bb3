"""What an engine has of one metric is asked for in bounded time, and nothing is told with why."""

from __future__ import annotations

import math
import re

import pytest

from dvfd.config import Config
from dvfd.errors import ConfigError, HistoryError
from dvfd.history.answer import Line
from dvfd.history.asked import asked
from tests.fakes_history import FakeEngine

NOW = 1_800_000_000.0
LOSS = "job_loss"


def configured(**history):
    return Config.model_validate({"node": {"name": "n1"}, "history": history})


class Scraping(FakeEngine):
    """An engine that scrapes some nodes, and has no more of them than that."""

    def __init__(self, *targets):
        super().__init__()
        self.targets = targets

    def instant(self, question, *, at):
        if not question.startswith("count by (instance)"):
            return super().instant(question, at=at)
        self.asked += 1
        own = re.search(r'instance=~"([^"]*)"', question)
        there = [t for t in self.targets if not own or re.fullmatch(own[1], t)]
        return [Line({"instance": target}, ((at, 1.0),)) for target in there]


def nothing(*targets, hours=2.0, **history):
    engine = Scraping(*targets)
    with pytest.raises(HistoryError) as caught:
        asked(LOSS, hours, configured(url="http://engine", **history), engine=engine, now=NOW)
    return str(caught.value)


@pytest.mark.parametrize("hours", [math.nan, math.inf, -1.0, 0.0, 1e8])
def test_hours_without_an_end_are_refused_before_anybody_is_asked(hours):
    engine = FakeEngine()
    with pytest.raises(HistoryError, match=r"hours .*: wanted above 0 and at most 87840"):
        asked(LOSS, hours, configured(url="http://engine"), engine=engine, now=NOW)
    assert not engine.asked


def test_all_questions_together_have_a_time(monkeypatch):
    monkeypatch.setattr("dvfd.history.asked.PATIENCE", 0.0)
    with pytest.raises(HistoryError, match="0 questions took all the time"):
        asked(LOSS, 24.0, configured(url="http://127.0.0.1:1"))


def test_without_an_engine_it_is_the_configuration_that_is_wrong():
    with pytest.raises(ConfigError, match=r"\[history\] url is not given"):
        asked(LOSS, 1.0, configured())


def test_a_node_that_the_engine_does_not_know_is_told_with_those_that_it_knows():
    said = nothing("n2:9109", "n3:9109")
    assert 'nothing of {instance=~"n1(:[0-9]+)?"} in the last 2 h' in said
    assert "it has: instance is n2:9109, n3:9109" in said
    assert "[history] node, node_label, matchers" in said


def test_an_engine_without_any_dvfd_is_told_as_that():
    assert "of dvfd it has: none at all" in nothing()


def test_a_metric_that_is_not_there_is_told_beside_a_node_that_is():
    said = nothing("n1:9109", "n2:9109")
    assert "no sample of it in the last 2 h, and others of n1:9109" in said

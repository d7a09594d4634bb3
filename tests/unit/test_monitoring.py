"""Whether the monitoring works: what Prometheus says is taken for no more than it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fakes import FakeClock
from fakes_drills import judged, task

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drills.monitoring import TAKEN, Rules, Scrape, longest, shipped
from dvfd.drills.prometheus import duration
from dvfd.drills.supervise import supervise
from dvfd.errors import DvfdError
from dvfd.model import Result
from dvfd.remote import Answer

NOW = FakeClock().now()
TARGET = "http://node4:9109/metrics"
WHERE = {"job": "dvfd", "instance": "node4:9109"}
TOML = '[history]\nurl = "http://prometheus:9090"\n'


def stamp(age: float) -> str:
    """A time *age* seconds ago as Go writes it, to the nanosecond."""
    exact = datetime.fromtimestamp(NOW - age, UTC).isoformat(timespec="microseconds")
    return exact.replace("+00:00", "000Z")


class FakePrometheus:
    """A Prometheus that is well and scrapes a daemon which took its configuration at `taken`."""

    def __init__(self) -> None:
        self.taken = NOW - 3600.0
        self.retention = "35d"
        self.down = False
        self.active: list[dict[str, Any]] = [{"url": "http://alertmanager:9093"}]
        self.targets = [
            {
                "labels": WHERE, "scrapeUrl": TARGET, "health": "up", "lastError": "",
                "scrapeInterval": "15s", "lastScrape": stamp(5),
            }
        ]  # fmt: skip
        self.rules = [
            {"name": name, "health": "ok", "lastEvaluation": stamp(5)} for name in shipped()
        ]
        self.series = [{"metric": {"__name__": TAKEN, **WHERE}, "value": [NOW, str(self.taken)]}]

    def get(self, url: str, access: object) -> Answer:
        if self.down:
            raise DvfdError(f"{url}: Connection refused")
        path = unquote(url.partition("/api/v1/")[2])
        now = [{"metric": {}, "value": [NOW, str(NOW)]}]
        answers: dict[str, Any] = {
            "query?query=vector(time())": {"resultType": "vector", "result": now},
            f"query?query={TAKEN}": {"resultType": "vector", "result": self.series},
            "targets?state=active": {"activeTargets": self.targets},
            "status/runtimeinfo": {"storageRetention": self.retention},
            "rules": {"groups": [{"interval": 15, "rules": self.rules}]},
            "alertmanagers": {"activeAlertmanagers": self.active},
        }
        if path not in answers:
            return Answer(404, b"404 page not found", NOW, NOW)
        body = json.dumps({"status": "success", "data": answers[path]}).encode()
        return Answer(200, body, NOW, NOW)

    def ask(self, op: str) -> Any:
        return {"status": {"loops": {"watch": {"late": False}}}, "taken_at": self.taken}[op]


@pytest.fixture
def server() -> FakePrometheus:
    return FakePrometheus()


@pytest.fixture
def scrape(server: FakePrometheus, tmp_path: Path) -> Any:
    def look(ask: Any = server.ask, toml: str = TOML) -> Result:
        of = task("monitoring", tmp_path, toml=toml)
        return judged(of, supervise(of, [Scrape(ask=ask, get=server.get)]))["scrape"]

    return look


@pytest.fixture
def rules(server: FakePrometheus, tmp_path: Path) -> Any:
    def look() -> Result:
        of = task("monitoring", tmp_path, toml=TOML)
        return judged(of, supervise(of, [Rules(get=server.get)]))["rules"]

    return look


# --- Scrape -------------------------------------------------------------------------------------


def test_a_daemon_that_is_scraped_and_kept_passes(scrape: Any) -> None:
    assert (scrape().verdict, scrape().note) == ("PASS", "")


def test_without_a_daemon_it_fails(scrape: Any) -> None:
    result = scrape(lambda op: None)
    assert result.verdict == "FAIL"
    assert "no daemon answers here, wanted one" in result.note


def test_a_daemon_with_a_late_loop_fails(server: FakePrometheus, scrape: Any) -> None:
    def ask(op: str) -> Any:
        late = {"loops": {"watch": {"late": True}, "http": {"late": False}}}
        return late if op == "status" else server.ask(op)

    assert scrape(ask).verdict == "FAIL"
    assert "the daemon's watch shows no progress" in scrape(ask).note


def test_a_prometheus_that_nobody_named_is_unknown(scrape: Any) -> None:
    result = scrape(toml="[node]\nname = 'node4'\n")
    assert result.verdict == "UNKNOWN"
    assert "[history] url =" in result.reason


def test_a_prometheus_that_does_not_answer_is_unknown(server: FakePrometheus, scrape: Any) -> None:
    server.down = True
    assert scrape().verdict == "UNKNOWN"
    assert "does not answer: Connection refused" in scrape().reason


def test_another_daemons_series_are_not_this_ones(server: FakePrometheus, scrape: Any) -> None:
    server.series[0]["value"] = [NOW, str(server.taken + 0.001)]
    assert scrape().verdict == "FAIL"
    assert "of no daemon that is this one" in scrape().note


def test_a_daemon_that_began_just_now_is_unknown(server: FakePrometheus, scrape: Any) -> None:
    server.taken = NOW - 44
    assert scrape().verdict == "UNKNOWN"
    assert "did not come by since" in scrape().reason


@pytest.mark.parametrize(("age", "verdict"), [(45, "PASS"), (46, "FAIL")])
def test_three_intervals_without_a_scrape_are_too_many(
    server: FakePrometheus, scrape: Any, age: float, verdict: str
) -> None:
    server.targets[0]["lastScrape"] = stamp(age)
    assert scrape().verdict == verdict


def test_a_target_that_is_down_fails_with_the_reason(server: FakePrometheus, scrape: Any) -> None:
    server.targets[0] |= {"health": "down", "lastError": "server returned HTTP status 401"}
    assert scrape().verdict == "FAIL"
    assert "HTTP status 401" in scrape().note


def test_one_of_two_jobs_that_scrape_it_is_enough(server: FakePrometheus, scrape: Any) -> None:
    again = {"job": "again", "instance": "node4:9109"}
    server.series.append({"metric": {"__name__": TAKEN, **again}, "value": [NOW, str(NOW - 3600)]})
    server.targets.insert(0, server.targets[0] | {"labels": again, "health": "down"})
    assert scrape().verdict == "PASS"


@pytest.mark.parametrize(
    ("retention", "verdict"),
    [
        ("30d", "PASS"),
        ("29d", "FAIL"),
        ("1y or 5GiB", "UNKNOWN"),
        ("35d or 1MiB", "UNKNOWN"),
        ("29d or 5GiB", "FAIL"),
        ("5GiB", "UNKNOWN"),
    ],
)
def test_what_is_kept_reaches_as_far_back_as_the_lists(
    server: FakePrometheus, scrape: Any, retention: str, verdict: str
) -> None:
    server.retention = retention
    assert scrape().verdict == verdict


@pytest.mark.parametrize("odd", [{"scrapeInterval": None}, {"lastScrape": "yesterday"}])
def test_an_answer_that_is_not_understood_is_unknown(
    server: FakePrometheus, scrape: Any, odd: dict[str, Any]
) -> None:
    server.targets[0] |= odd
    assert scrape().verdict == "UNKNOWN"


def test_the_longest_look_back_is_the_catalogues_own() -> None:
    assert longest(Config()) == (30 * 86_400.0, "monthly")
    assert load(Config()).checks["monthly"].schedule


# --- Rules --------------------------------------------------------------------------------------


def test_rules_that_are_loaded_and_evaluated_pass(rules: Any) -> None:
    assert (rules().verdict, rules().note) == ("PASS", "")


def test_every_rule_file_counts() -> None:
    assert {"DvfdNodeSilent", "DvfdEnergyRising", "fleet:dvfd_nodes:count"} <= shipped()
    assert len(shipped()) > 80


def test_a_rule_that_is_missing_fails_and_is_named(server: FakePrometheus, rules: Any) -> None:
    gone = server.rules.pop()
    assert rules().verdict == "FAIL"
    assert f"not {gone['name']}" in rules().note


def test_without_any_rule_it_fails(server: FakePrometheus, rules: Any) -> None:
    server.rules.clear()
    assert rules().verdict == "FAIL"


def test_a_rule_that_cannot_be_evaluated_fails(server: FakePrometheus, rules: Any) -> None:
    server.rules[0] |= {"health": "err", "lastError": "many-to-many matching not allowed"}
    assert rules().verdict == "FAIL"
    assert "many-to-many matching not allowed" in rules().note


def test_a_rule_that_was_not_evaluated_yet_is_unknown(server: FakePrometheus, rules: Any) -> None:
    server.rules[0] |= {"health": "unknown", "lastEvaluation": "0001-01-01T00:00:00Z"}
    assert rules().verdict == "UNKNOWN"
    assert "were not evaluated yet" in rules().reason


def test_an_evaluation_that_stood_still_fails(server: FakePrometheus, rules: Any) -> None:
    server.rules[0]["lastEvaluation"] = stamp(46)
    assert rules().verdict == "FAIL"
    assert "last evaluated 46 s ago" in rules().note


def test_a_prometheus_that_tells_nobody_fails(server: FakePrometheus, rules: Any) -> None:
    server.active = []
    assert rules().verdict == "FAIL"
    assert "sends alerts to nobody" in rules().note


def test_what_speaks_no_rules_api_is_unknown(server: FakePrometheus, tmp_path: Path) -> None:
    def get(url: str, access: object) -> Answer:
        return Answer(404, b"", NOW, NOW) if url.endswith("rules") else server.get(url, access)

    of = task("monitoring", tmp_path, toml=TOML)
    result = judged(of, supervise(of, [Rules(get=get)]))["rules"]

    assert result.verdict == "UNKNOWN"
    assert "rules answers 404, wanted 200" in result.reason


# --- Durations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1h30m", 5400), ("1y2w", 32_745_600), ("500ms", 0.5), ("0s", 0),
     ("5GiB", None), ("", None), ("5MB", None), ("1.5h", None)],
)  # fmt: skip
def test_durations_are_read_as_prometheus_writes_them(text: str, seconds: float | None) -> None:
    assert duration(text) == seconds

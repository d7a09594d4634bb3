"""Guards of alert_rules/: every alert is tested, explained and made of series that dvfd exports."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeClock
from fakes_sinks import whole
from prometheus_client.parser import text_string_to_metric_families

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.sinks import alert
from dvfd.sinks.prometheus import Exposition

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "alert_rules"
BOOKS = ROOT / "docs" / "runbooks"
FILES = sorted(PLACE.glob("*.rules.yml"))
PUSHED = (
    alert.FAILED,
    alert.BLIND,
    alert.STORM,
    alert.TEST,
    alert.DUE,
    alert.PHASE_TEST,
    alert.DELAYED,
)


def rules(key: str) -> dict[str, dict[str, Any]]:
    """Every rule that has *key*, by its name."""
    groups = [g for path in FILES for g in yaml.safe_load(path.read_text())["groups"]]
    return {rule[key]: rule for group in groups for rule in group["rules"] if key in rule}


ALERTS, RECORDED = rules("alert"), rules("record")
TESTS = [t for p in PLACE.glob("tests/*.test.yml") for t in yaml.safe_load(p.read_text())["tests"]]


def cases(name: str) -> dict[str, list[bool]]:
    """By story: at each moment in order, whether *name* is expected to fire."""
    return {
        test["name"].partition(": ")[2]: [
            bool(c["exp_alerts"]) for c in test.get("alert_rule_test", ())
        ]
        for test in TESTS
        if test["name"].startswith(f"{name}: ")
    }


def test_there_are_rules_and_they_were_read():
    assert len(ALERTS) >= 40
    assert len(FILES) >= 5


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_to_wait_fire_recover_and_stay_quiet_just_below(name):
    told = cases(name)
    waits = told["waits, fires and recovers"]

    assert not waits[0], "no moment before it fires: is `for` respected?"
    assert any(waits)
    assert not waits[-1], "no moment after it fired: does it recover?"
    assert told["stays quiet just below"]
    assert not any(told["stays quiet just below"])


@pytest.mark.parametrize("name", ALERTS)
def test_a_test_of_an_alert_renders_all_that_a_person_reads(name):
    wanted = [
        expected
        for test in TESTS
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == name
        for expected in case["exp_alerts"]
    ]

    assert wanted
    for expected in wanted:
        assert set(expected["exp_annotations"]) == {"summary", "description", "runbook_url"}
        assert "{{" not in str(expected)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_severity_both_sides_and_where_its_runbook_is(name):
    rule = ALERTS[name]
    notes = rule["annotations"]

    assert re.fullmatch(r"Dvfd[A-Z][A-Za-z]+", name)
    always = {"DvfdWatchdog": "none"}.get(name)
    assert rule["labels"]["severity"] in ({always} if always else {"critical", "warning", "info"})
    assert rule["labels"]["source"] == "rules"
    assert re.search(r"\bwanted\b", notes["description"])
    assert "$value" in notes["description"] or "absent" in rule["expr"] or "unless" in rule["expr"]
    assert notes["runbook_url"] == f"{Config().alerting.runbooks}/{name}.md"


@pytest.mark.parametrize("name", [*PUSHED, *ALERTS])
def test_an_alert_has_a_runbook_of_four_parts_that_the_index_names(name):
    text = (BOOKS / f"{name}.md").read_text(encoding="utf-8")

    assert text.startswith(f"# {name}\n")
    assert all(f"**{part}.**" in text for part in ("Meaning", "Impact", "Diagnosis", "Mitigation"))
    assert f"({name}.md)" in (BOOKS / "README.md").read_text(encoding="utf-8")


def test_a_runbook_has_an_alert():
    assert {path.stem for path in BOOKS.glob("Dvfd*.md")} == {*PUSHED, *ALERTS}


def test_the_runbook_of_breaches_has_a_first_look_at_every_live_criterion():
    book = (BOOKS / "DvfdCriterionFailed.md").read_text()
    rows = re.findall(r"^\| (`live.*?) \|", book, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(.*?)`", row)]
    live = load(Config()).checks["live"].criteria

    assert [c.id for c in live if not any(fnmatch(c.id, name) for name in named)] == []


def test_the_index_of_runbooks_says_the_severity_of_the_rule():
    index = (BOOKS / "README.md").read_text(encoding="utf-8")
    for name, rule in ALERTS.items():
        assert f"| [{name}]({name}.md) | {rule['labels']['severity']} |" in index


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_rule_is_named_level_metric_operations(name):
    level, metric, operations = name.split(":")

    assert re.fullmatch(r"(fleet|instance|training_job)(_training_job|_[a-z]+)?", level)
    assert metric.startswith("dvfd_")
    assert operations


def test_what_is_recorded_of_the_nodes_as_one_is_asked_for_by_a_test():
    asked = str([test.get("promql_expr_test") for test in TESTS])

    for name in ("fleet_check:dvfd_check_verdict:worst", "fleet:dvfd_nodes_missing:count",
                 "training_job:dvfd_rank_compute_seconds:spread",
                 "training_job:dvfd_job_throughput_samples_per_second:spread"):  # fmt: skip
        assert name in RECORDED
        assert name in asked


# --- Series -----------------------------------------------------------------------------------

WORD = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?")
TARGET = {"instance", "job"}
LEVELS = {"source", "currency", "verdict", "training_job"}
"""Labels of recorded series, by their level."""


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every series on /metrics with four ranks and everything measured, and its labels."""
    config = Config(
        node={"name": "node4"},
        profile={"expected_throughput": 270, "single_process_throughput": 70},
        cost={"per_hour": 12.5, "currency": "EUR"},
    )
    taken = replace(whole(FakeClock()).snapshot(), config=config)
    text = Exposition(lambda: taken).text().decode()
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Each series that *expression* reads, with the labels it selects by."""
    quiet = re.sub(r'"[^"]*"', '""', expression)
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", braces or "")))
        for name, braces in WORD.findall(quiet)
        if name.startswith("dvfd_") or ":" in name or name == "up"
    ]


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_a_rule_reads_only_series_and_labels_that_exist(name, exported):
    expression = str((ALERTS | RECORDED)[name]["expr"])
    found = selectors(expression)

    assert found, "reads nothing of dvfd"
    for series, by in found:
        known = exported.get(series, LEVELS if series in RECORDED else None)
        assert known is not None, f"{series} is neither exported nor recorded"
        assert by <= known | TARGET, f"{series} has no label {by - known - TARGET}"
        assert series != "up" or 'up{job="dvfd"}' in expression


def test_a_rule_groups_only_by_labels_that_exist(exported):
    known = TARGET | LEVELS | set().union(*exported.values())
    for name, rule in (ALERTS | RECORDED).items():
        lists = re.findall(r"\b(?:by|on|group_left|ignoring)\s*\(([^)]*)\)", str(rule["expr"]))
        used = {label.strip() for text in lists for label in text.split(",") if label.strip()}
        assert used <= known, name


# --- Numbers ----------------------------------------------------------------------------------


def test_objectives_of_uptime_are_those_of_the_catalogue():
    criteria = load(Config()).criteria
    weekly, monthly = (
        {c.limit.value for c in criteria.values() if c.id.startswith(f"{p}.uptime")}
        for p in ("weekly", "monthly")
    )

    (low,) = re.findall(r"< (0\.\d+)", ALERTS["DvfdUptimeLow"]["expr"])
    burns = [ALERTS[f"DvfdUptimeBurning{speed}"]["expr"] for speed in ("Fast", "Slowly")]
    objectives = {n for burn in burns for n in re.findall(r"1 - (0\.\d+)", burn)}

    assert {float(low)} == weekly
    assert {float(n) for n in objectives} == monthly


def test_alerts_on_a_nodes_own_series_outlast_its_death_until_it_is_called_silent():
    """A crash takes the series along: nobody may be told "resolved" by it."""
    silent = seconds(ALERTS["DvfdNodeSilent"]["for"])
    for name in ("DvfdLoopLate", "DvfdStoreBroken", "DvfdRaisedCritical", "DvfdRaisedBlind"):
        assert seconds(ALERTS[name]["keep_firing_for"]) > silent


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]

"""The lists over all nodes: the worst decides, and who is not known passes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from fakes_output import valid
from fakes_reviews import CATALOGUE, NOW, FakePast, in_here

from dvfd.cli import fleet_list
from dvfd.config import Config
from dvfd.errors import ConfigError
from dvfd.fleet import Seen
from dvfd.model import Verdict
from dvfd.reviews.gather import Node
from dvfd.reviews.nodes import Judging
from dvfd.reviews.period import Period
from dvfd.reviews.review import OBSERVED, job_of

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def seen(name: str, **more: Any) -> Seen:
    """A node that is well and has passed everything itself."""
    words = {
        c.id: PASS for check in ("weekly", "monthly") for c in CATALOGUE.checks[check].criteria
    }
    told = {"age": 5.0, "catalogue": CATALOGUE.hash[:12], "criteria": words, **more}
    return Seen(node=name, **told)


def node(name: str, past: FakePast | None = None, **more: Any) -> Node:
    past = past or FakePast()
    jobs = {
        name: [job_of(past, newest, Period.ending(name, NOW)) for newest in past.latest(OBSERVED)]
        for name in ("7d", "30d")
    }
    return Node(seen(name, **more), jobs, past)


def judged(*nodes: Node, check: str = "monthly") -> dict[str, Any]:
    judging = Judging(CATALOGUE.checks[check], CATALOGUE, lead="n1", at=NOW, run=in_here)
    found = judging.document(nodes, source="an engine")
    valid(found, "fleet_list")
    return found


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    [result] = [r for r in found["results"] if r["criterion"].partition(".")[2] == name]
    return dict(result)


@pytest.mark.parametrize("check", ["weekly", "monthly"])
def test_nodes_that_are_all_well_pass(check):
    found = judged(node("n1"), node("n2"), check=check)

    assert found["verdict"] == PASS, [r for r in found["results"] if r["verdict"] != PASS]
    assert fleet_list.exit_code(found) == 0


def test_one_node_that_was_down_fails_all_and_is_named():
    found = judged(node("n1"), node("n2", FakePast(down=[50])), node("n3", FakePast(down=[50, 51])))

    uptime = row(found, "uptime")
    assert (found["verdict"], uptime["verdict"], uptime["worst"]) == (FAIL, FAIL, "n3")
    assert uptime["nodes"]["n1"]["verdict"] == PASS
    assert uptime["nodes"]["n3"]["observed"] == pytest.approx(1 - 2 / 720, abs=1e-5)
    assert fleet_list.exit_code(found) == 2


def test_a_node_that_is_not_seen_passes_nothing_and_so_do_all():
    found = judged(node("n1"), node("n2", why="no target of the engine is its own"))

    assert found["verdict"] == UNKNOWN
    assert {r["nodes"]["n2"]["verdict"] for r in found["results"] if "n2" in r["nodes"]} == {
        UNKNOWN
    }
    assert "no target" in row(found, "uptime")["reason"]
    assert fleet_list.exit_code(found) == 3


def test_days_that_failed_fail_whether_or_not_the_node_is_seen_now():
    found = judged(node("n1"), node("n2", FakePast(down=[50]), why="last seen 500 s ago"))

    assert row(found, "uptime")["nodes"]["n2"]["verdict"] == FAIL


def test_the_pass_of_a_node_of_another_catalogue_does_not_count():
    found = judged(node("n1"), node("n2", catalogue="0" * 12))

    assert (found["verdict"], row(found, "uptime")["worst"]) == (UNKNOWN, "n2")
    assert "catalogue 000000000000" in row(found, "uptime")["reason"]


def test_what_an_engine_cannot_be_believed_of_is_unknown_with_its_words():
    found = judged(
        node("n1"), Node(seen("n2"), why="job_up_seconds_total is there 2 times at once")
    )

    assert row(found, "uptime")["nodes"]["n2"]["verdict"] == UNKNOWN
    assert "2 times at once" in row(found, "uptime")["reason"]


def test_a_node_without_a_job_is_unknown():
    nothing = FakePast()
    nothing.courses.clear()

    assert row(judged(node("n1"), node("n2", nothing)), "uptime")["worst"] == "n2"
    assert judged(node("n1"), node("n2", nothing))["verdict"] == UNKNOWN


def test_what_people_say_is_the_leads_word_alone():
    said = {c.id: UNKNOWN for c in CATALOGUE.checks["monthly"].criteria}
    others, leads = (
        judged(node("n1"), node("n2", criteria=said)),
        judged(node("n1", criteria=said), node("n2")),
    )

    assert others["verdict"] == PASS
    assert set(row(others, "team_feedback")["nodes"]) == {"n1"}
    assert (leads["verdict"], row(leads, "team_feedback")["worst"]) == (UNKNOWN, "n1")


def test_too_little_of_the_days_is_unknown_and_the_share_is_told():
    found = judged(node("n1"), node("n2", FakePast(hours=48)))

    assert row(found, "uptime")["nodes"]["n2"]["verdict"] == UNKNOWN
    shares = {each["node"]: each["coverage"]["30d"] for each in found["nodes"]}
    assert shares == {"n1": pytest.approx(1.0), "n2": pytest.approx(48 / 720, abs=1e-3)}


def test_a_breached_warning_decides_nothing_but_the_exit_code():
    rising = FakePast(pace=lambda hour: 240.0 + hour * 0.02)
    found = judged(node("n1"), node("n2", rising))

    assert row(found, "trend_ceiling")["verdict"] == FAIL
    assert (found["verdict"], fleet_list.exit_code(found)) == (PASS, 1)


def test_an_hour_of_gradients_that_differ_fails_the_week_of_that_node():
    found = judged(node("n1"), node("n2", FakePast(differed=300.0)), check="weekly")

    assert row(found, "gradient_sync")["nodes"]["n2"]["verdict"] == FAIL


def test_the_words_name_who_is_worst_and_have_a_line_for_each_node(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = fleet_list.text(judged(node("n1"), node("n2", FakePast(down=[50])), node("n3")))

    assert text.startswith("monthly list of 3 nodes: FAIL   (30d until 2027-01-15")
    assert "monthly.uptime: FAIL n2; PASS 2" in text
    assert [line.split()[:3] for line in text.splitlines() if "100.00%" in line] == [
        ["PASS", "n1", "100.00%"], ["FAIL", "n2", "100.00%"], ["PASS", "n3", "100.00%"]
    ]  # fmt: skip
    assert max(map(len, text.splitlines())) <= 100


def test_why_a_node_is_not_seen_is_said_once(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = fleet_list.text(judged(node("n1"), node("n2", why="no target of the engine is its own")))

    assert text.count("no target of the engine is its own") == 1
    assert "n2: no target of the engine is its own" in text
    assert "monthly.uptime: UNKNOWN n2; PASS 1: see below" in text


def test_declared_maintenance_excuses_all_nodes():
    down = node("n1", FakePast(down=[50]))
    window = NOW - 50 * 3600.0, NOW - 49 * 3600.0
    judging = Judging(
        CATALOGUE.checks["monthly"], CATALOGUE, lead="n1", at=NOW, run=in_here,
        excused=[(window[0] - 3600.0, window[1])],
    )  # fmt: skip

    assert row(judging.document([down], source=""), "uptime")["verdict"] == PASS
    assert row(judged(down), "uptime")["verdict"] == FAIL


def test_a_list_of_all_nodes_needs_an_engine_and_says_how_to_name_one():
    with pytest.raises(ConfigError, match=r"no engine is named.*\[history\] url ="):
        fleet_list.listed(Config(), CATALOGUE, "monthly")

"""The page of the gates: what a director signs on, and nothing that is not so."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fakes import FakeClock
from fakes_gates import told
from fakes_sinks import whole

from dvfd.sinks.gates_page import render, response
from dvfd.sinks.http import Request
from dvfd.sinks.site import Site
from dvfd.status import document

SIGNED = told(signed=True)


def shown(gates=SIGNED, chosen="", **keys):
    return render(replace(whole(FakeClock()).snapshot(), gates=gates), chosen, **keys)


def words(html):
    body = html.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&gt;", ">").strip()


def changed(**keys):
    """The first gate, changed."""
    first, *rest = SIGNED["gates"]
    return SIGNED | {"gates": [first | keys, *rest]}


def test_it_opens_on_the_first_gate_that_is_not_signed():
    assert "<h1>GO</h1>" in shown(told())
    assert "<h1>HOLD</h1>" in shown()
    assert "HOLD · phase2a" in shown()


def test_every_line_stands_there_with_its_record_and_its_report():
    html = shown(chosen="phase1")
    for line in SIGNED["gates"][0]["lines"]:
        assert line["text"] in html
    assert "record 4, 24 h old" in html
    assert f'title="{"a" * 64}"' in html


def test_what_keeps_it_shut_comes_before_the_table_with_what_to_type():
    top = words(shown()).partition("The framework's table")[0]
    assert "of 4 processes, this phase is of 8" in top
    assert "dvfd check network --nodes 2" in top


def test_the_whole_table_is_there():
    html = shown()
    assert all(row["title"] in html for row in SIGNED["table"])
    assert html.count('<span class="none">') == 14


def test_what_was_signed_stands_beside_what_would_be_said_today():
    html = words(shown(changed(outcome="HOLD"), "phase1"))
    assert "What was signed stands. Today dvfd would say HOLD" in html
    assert "signed by Ann Lee (VP Engineering)" in html


def test_an_override_is_never_green_and_says_who_and_why():
    spite = {**SIGNED["gates"][0]["signatures"][0], "outcome": "NO_GO", "override": "at once"}
    html = shown(changed(signatures=[spite]), "phase1")
    assert '<section class="hero UNKNOWN">' in html
    assert "IN SPITE OF NO_GO: at once" in words(html)
    assert "Signed in spite of NO_GO by Ann Lee" in words(html)


def test_a_ledger_that_does_not_verify_is_said():
    text = words(shown(SIGNED | {"problems": ["line 7: edited"]}))
    assert "not as it was written: line 7: edited" in text
    assert "Who has signed cannot be known" in text


def test_a_figure_that_somebody_waives_has_the_reason_beside_it():
    first = SIGNED["gates"][0]
    line = next(each for each in first["lines"] if each["id"] == "stability")
    waived = [{**each, "verdict": "WAIVED", "reason": "a dip"} for each in line["evidence"]]
    lines = [{**each, "evidence": waived} if each is line else each for each in first["lines"]]
    assert "<p>a dip</p>" in shown(changed(lines=lines), "phase1")


@pytest.mark.parametrize(
    ("gates", "said"),
    [({}, "No gate is known"), ({**SIGNED, "gates": [], "elsewhere": "n1"}, "n1")],
)
def test_where_nothing_is_decided_it_says_so_and_is_not_green(gates, said):
    html = shown(gates)
    assert said in words(html)
    assert '<section class="hero UNKNOWN">' in html


def test_what_people_wrote_cannot_run():
    evil = {**SIGNED["gates"][0]["signatures"][0], "note": "<script>x</script>"}
    assert "<script" not in shown(changed(signatures=[evil]), "phase1")


def test_it_asks_again_for_the_same_gate_unless_it_is_held():
    snapshot = replace(whole(FakeClock()).snapshot(), gates=SIGNED)
    assert response(snapshot, "gate=phase1").headers["Refresh"] == "30; url=/gates?gate=phase1"
    assert "Refresh" not in response(snapshot, "gate=phase1&hold=1").headers


def test_an_override_is_a_notice_wherever_the_node_is_told_of():
    spite = {**SIGNED["gates"][0]["signatures"][0], "outcome": "HOLD", "override": "at once"}
    snapshot = replace(whole(FakeClock()).snapshot(), gates=changed(signatures=[spite]))
    said = "phase1 was signed in spite of HOLD by Ann Lee: at once"
    assert said in snapshot.notices
    assert said in document(snapshot, running=True)["notices"]


def test_the_node_s_page_leads_to_it():
    site = Site(lambda: replace(whole(FakeClock()).snapshot(), gates=SIGNED))
    home = site(Request("GET", "/", "", {})).body.decode()
    assert 'href="/gates?gate=phase2a"' in home
    assert site(Request("GET", "/gates", "", {})).body.decode().startswith("<!doctype html>")

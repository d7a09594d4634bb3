"""A gate in words: what a person reads before signing says what is so, and no more."""

from __future__ import annotations

import pytest
from fakes_gates import AT

from dvfd.gates import words
from dvfd.gates.decision import Kind


def evidence(**changes):
    """What a line stands on."""
    return {
        "what": "network.speed", "verdict": "FAIL", "reason": "too slow", "todo": "dvfd check x",
        "record": 12, "age": 3 * 86_400.0, "criterion": "network.speed", "observed": 4e10,
        "comparison": ">=", "limit": 4.5e10, "unit": "bytes/second",
    } | changes  # fmt: skip


def line(id_="network", kind="go", **changes):
    found = evidence(**changes)
    return {"kind": kind, "id": id_, "verdict": found["verdict"], "evidence": [found]}


PASSED = line(verdict="PASS")
UNKNOWN = line("team", verdict="UNKNOWN")


def gate(**changes):
    return {
        "gate": "phase2a", "outcome": "HOLD", "authorised": False, "signatures": [],
        "authority": ["CTO", "VP"], "missing": ["CTO", "VP"], "due": None,
        "due_words": "Friday, week 4", "lines": [PASSED],
    } | changes  # fmt: skip


def test_a_line_is_called_by_its_kind():
    found = [words.name(line("no_go_network", kind)) for kind in Kind]
    assert found == ["No-Go network", "network", "test network", "network"]


def test_what_does_not_stand_is_listed_with_vetoes_first():
    veto, failed = line("no_go_network", "veto"), line()
    waived = line("waived", verdict="WAIVED")
    assert words.lacking([PASSED, UNKNOWN, failed, waived, veto]) == [veto, failed, UNKNOWN]


def test_a_cause_is_told_once_with_every_line_that_it_holds_back():
    lines = [line(), line("network", "test"), line("no_go_network", "veto"), UNKNOWN, PASSED]
    found = words.causes(lines)
    assert [each.lines for each in found] == [
        ("No-Go network", "network", "test network"), ("team",)
    ]  # fmt: skip
    assert (found[0].verdict, found[0].reason, found[0].todo) == (
        "FAIL", "too slow (record 12, 3 d old)", "dvfd check x"
    )  # fmt: skip


def test_of_a_line_only_what_does_not_stand_is_a_cause():
    mixed = line() | {
        "evidence": [evidence(verdict="PASS"), evidence(), evidence(verdict="WAIVED")]
    }
    assert [each.verdict for each in words.causes([mixed])] == ["FAIL"]


@pytest.mark.parametrize(
    ("lines", "alone"),
    [
        ([line()], True),
        ([line(), line("network", "test")], True),
        ([line("network", "test")], True),
        ([line(), line("collectives")], False),
        ([line(what="network")], True),
        ([line("no_go_network", "veto")], False),
    ],
)
def test_a_cause_that_holds_back_its_own_test_alone_is_told_so(lines, alone):
    assert [each.alone for each in words.causes(lines)] == [alone]


def test_a_reason_comes_with_its_record_and_its_age_where_there_is_one():
    assert words.told(evidence()) == "too slow (record 12, 3 d old)"
    assert words.told(evidence(record=None)) == "too slow"
    assert words.source(evidence(age=None)) == "record 12"
    assert words.source(evidence(record=None)) == ""


def test_a_figure_stands_beside_what_is_wanted_or_closes_a_gate():
    fast = evidence(observed=4e10)
    assert words.figure(line(), fast) == f"network.speed {words.observed(fast)}, wanted >= " + (
        words.digits(4.5e10, "bytes/second")
    )
    assert "closes at >= " in words.figure(line(kind="veto"), fast)
    assert words.figure(line(), evidence(observed=None)) == ""
    assert words.wanted(line(), evidence(limit=None)) == "wanted >= " + words.NONE


def test_a_figure_has_its_unit_once():
    assert words.observed(evidence(observed=252.5, unit="samples/second")) == (
        f"{words.digits(252.5, 'samples/second')} samples/second"
    )
    ratio = words.observed(evidence(observed=0.98, unit="ratio"))
    assert ratio == words.digits(0.98, "ratio")
    size = words.observed(evidence(observed=5e9, unit="bytes"))
    assert size == words.digits(5e9, "bytes")
    assert size.endswith("B")


@pytest.mark.parametrize(
    ("lines", "told_"),
    [
        ([PASSED], "All 1 lines stand."),
        ([PASSED, PASSED], "All 2 lines stand."),
        ([PASSED, line()], "Of 2 lines, 1 stands, 1 does not."),
        ([line(), line()], "Of 2 lines, 0 stand, 2 do not."),
        ([PASSED, UNKNOWN], "Of 2 lines, 1 stands, 1 cannot be known."),
        ([PASSED, PASSED, UNKNOWN, UNKNOWN, line()],
         "Of 5 lines, 2 stand, 1 does not, 2 cannot be known."),
    ],
)  # fmt: skip
def test_lines_are_counted_by_what_became_of_them(lines, told_):
    assert words.counted(lines) == told_


@pytest.mark.parametrize(
    ("slipped", "late"),
    [(0, ""), (1, ", 1 week later than planned"), (2, ", 2 weeks later than planned")],
)
def test_a_gate_says_its_day_and_how_late_it_is(slipped, late):
    due = {"planned": "2027-01-15", "day": "2027-01-22", "slipped": slipped}
    assert words.due(gate(due=due)) == f"due 2027-01-22{late}"
    assert words.due(gate()) == "due Friday, week 4 ([programme] start is not set)"


def test_who_decides_is_said_and_who_has_not_signed_yet():
    assert words.authority(gate()) == "decided by CTO and VP"
    assert words.authority(gate(missing=["VP"])) == "decided by CTO and VP, VP has not signed"
    signed = gate(missing=[], authorised=True)
    assert words.authority(signed) == "authorised by CTO and VP"


def test_a_signature_says_who_when_and_in_spite_of_what():
    each = {"by": "Bo", "role": "CTO", "at": AT, "record": 9, "outcome": "HOLD", "override": "",
            "note": ""}  # fmt: skip
    bare = f"signed by Bo (CTO) on {words.minute(AT)}, record 9"
    assert words.signature(each) == bare
    assert words.signature(each | {"note": "as agreed"}) == f"{bare}: as agreed"
    forced = words.signature(each | {"override": "the board", "note": "n"})
    assert forced == f"{bare} IN SPITE OF HOLD: the board: n"


FORCED = {"override": "the board wants it"}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, ("HOLD", "UNKNOWN")),
        ({"outcome": "GO"}, ("GO", "PASS")),
        ({"outcome": "NO_GO"}, ("NO-GO", "FAIL")),
        ({"authorised": True, "signatures": [{"override": ""}]}, ("authorised", "PASS")),
        ({"authorised": True, "signatures": [{"override": ""}, FORCED]},
         ("signed in spite", "UNKNOWN")),
    ],
)  # fmt: skip
def test_a_gate_that_was_signed_in_spite_of_something_is_not_green(changes, state):
    assert words.state(gate(**changes)) == state


def test_the_next_step_is_to_sign_to_measure_or_to_wait():
    failed = line(todo="dvfd check network")
    assert words.next_step(gate(authorised=True)) == "nothing: it is authorised"
    assert words.next_step(gate(outcome="GO", missing=["VP", "CTO"])) == (
        'dvfd sign phase2a --name NAME --role "VP"'
    )
    assert words.next_step(gate(lines=[line("delay", todo=""), failed])) == "dvfd check network"
    assert words.next_step(gate(lines=[line("delay", todo="")])) == (
        "wait, or see the reasons above"
    )

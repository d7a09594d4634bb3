"""Gates: GO stands on every line and nothing else; what is missing, old, cut or strange is HOLD."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from fakes_gates import AT, DAY, GATES, HOUR, attestation, book, catalogue, failing, row, signature
from hypothesis import given, settings
from hypothesis import strategies as st

from dvfd.gates.decide import again as to_type
from dvfd.gates.decide import authorisation
from dvfd.gates.decision import STANDS, Cited, Kind, Line, Outcome, line_document, urgency
from dvfd.gates.proof import Size
from dvfd.model import Limit, Verdict
from dvfd.people.attestations import moment

LINES = [(g, line.id) for g in GATES for line in catalogue(g).gates[g].requires]
VETOES = [(g, veto.id) for g in GATES for veto in catalogue(g).gates[g].vetoes]

NOT_YET = {
    "phase1.no_go_throughput": 225,
    "phase1.no_go_gradient_sync": 0.997,
    "phase2a.no_go_network": 0.8 * 50e9,
    "phase2a.no_go_throughput": 475,
    "phase2a.no_go_efficiency": 1.02,
    "phase2a.no_go_communication": 0.17,
}
"""Where the source leaves a band between GO and No-Go."""


def line(decision, kind, id_):
    return next(each for each in decision.lines if (each.kind, each.id) == (kind, id_))


def veto_of(phase, id_):
    return next(v for v in catalogue(phase).gates[phase].vetoes if v.id == id_)


def beyond(veto):
    """A plausible value at which *veto* holds."""
    limit = veto.limit.value
    step = abs(limit) / 100 or 1.0
    return next(v for v in (limit + step, limit - step, limit) if veto.comparison.holds(v, limit))


# --- GO -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", GATES)
def test_a_gate_whose_every_line_stands_is_go(phase):
    decision = book(phase).decide()
    assert decision.outcome is Outcome.GO
    assert decision.open == ()


def test_there_are_30_go_lines_and_12_vetoes():
    assert (len(LINES), len(VETOES)) == (30, 12)


@pytest.mark.parametrize("phase", GATES)
def test_an_empty_ledger_is_hold_and_every_line_says_what_is_missing(phase):
    made = book(phase)
    made.records.clear()
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    mine = [each for each in decision.lines if each.kind is not Kind.CONDITION]
    assert all(each.verdict is Verdict.UNKNOWN for each in mine)
    assert all(cited.todo.startswith("dvfd ") for each in mine for cited in each.cited)


@pytest.mark.parametrize("phase", GATES)
def test_without_any_one_piece_of_evidence_it_is_not_go(phase):
    for place in range(len(book(phase).records)):
        made = book(phase)
        made.remove(place)
        assert made.decide().outcome is not Outcome.GO, made.records[place - 1].subject


@settings(max_examples=60, deadline=None)
@given(phase=st.sampled_from(GATES), data=st.data())
def test_no_part_of_the_evidence_is_enough(phase, data):
    made = book(phase)
    kept = data.draw(st.sets(st.sampled_from(range(len(made.records)))))
    whole = len(kept) == len(made.records)
    made.records = [record for place, record in enumerate(made.records) if place in kept]
    assert (made.decide().outcome is Outcome.GO) == whole


@pytest.mark.parametrize(("phase", "id_"), LINES)
def test_each_go_line_alone_holds_the_gate_back(phase, id_):
    made = book(phase)
    go = made.decide()
    needs = next(each for each in made.gate.requires if each.id == id_)
    for check in needs.checks:
        made.records = [r for r in made.records if (r.kind, r.subject) != ("run", check)]
    for criterion in needs.criteria:
        made.observe(criterion, verdict="UNKNOWN", observed=None)
    for item in needs.attestations:
        made.change("attestation", item, expires=AT)

    blind = line(made.decide(), Kind.GO, id_)
    alone = [blind if (each.kind, each.id) == (Kind.GO, id_) else each for each in go.lines]

    assert blind.verdict is Verdict.UNKNOWN
    assert replace(go, lines=tuple(alone)).outcome is Outcome.HOLD


@pytest.mark.parametrize(
    ("phase", "check"), [(g, test) for g in GATES for test in catalogue(g).gates[g].tests]
)
def test_each_ticked_test_alone_holds_the_gate_back(phase, check):
    made = book(phase)
    go = made.decide()
    made.records = [r for r in made.records if (r.kind, r.subject) != ("run", check)]
    missing = line(made.decide(), Kind.TEST, check)
    alone = [missing if (each.kind, each.id) == (Kind.TEST, check) else each for each in go.lines]
    assert replace(go, lines=tuple(alone)).outcome is Outcome.HOLD


# --- NO_GO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "id_"), VETOES)
def test_each_no_go_line_vetoes(phase, id_):
    made, veto = book(phase), veto_of(phase, id_)
    go = made.decide()
    made.observe(veto.like, beyond(veto))
    decision = made.decide()
    name = id_.partition(".")[2]
    closed = line(decision, Kind.VETO, name)
    alone = [closed if (each.kind, each.id) == (Kind.VETO, name) else each for each in go.lines]

    assert decision.outcome is Outcome.NO_GO
    assert closed.verdict is Verdict.FAIL
    assert closed.cited[0].margin < 0 or veto.limit.value == beyond(veto)
    assert replace(go, lines=tuple(alone)).outcome is Outcome.NO_GO


@pytest.mark.parametrize(("phase", "id_"), VETOES)
def test_a_veto_that_was_not_measured_is_hold_and_nobody_waives_it(phase, id_):
    made, veto = book(phase), veto_of(phase, id_)
    name = id_.partition(".")[2]
    made.observe(veto.like, verdict="UNKNOWN", observed=None)
    made.add("waiver", veto.like, {"by": "Ann", "role": "CTO", "reason": "no", "expires": AT + DAY})
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    assert line(decision, Kind.VETO, name).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("phase", "id_"), VETOES)
def test_a_veto_whose_waived_figure_was_never_sure_is_not_measured(phase, id_):
    made, veto = book(phase), veto_of(phase, id_)
    made.observe(veto.like, verdict="WAIVED")
    made.add("waiver", veto.like, {"by": "Ann", "role": "CTO", "reason": "no", "expires": AT + DAY})
    assert made.decide().outcome is Outcome.HOLD


@pytest.mark.parametrize(("id_", "observed"), NOT_YET.items())
def test_between_the_bands_is_hold_and_never_rounded_up(id_, observed):
    phase = id_.partition(".")[0]
    made = book(phase)
    made.observe(veto_of(phase, id_).like, observed)
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    assert line(decision, Kind.VETO, id_.partition(".")[2]).verdict is Verdict.PASS


@pytest.mark.parametrize("phase", ["phase2b", "phase2c"])
def test_where_no_veto_is_listed_a_go_line_that_failed_is_no_go(phase):
    made = book(phase)
    criterion = made.catalogue.criteria[f"stability_{phase}.throughput"]
    made.observe(criterion.id, failing(criterion))
    assert made.decide().outcome is Outcome.NO_GO


@pytest.mark.parametrize("phase", GATES)
def test_a_ticked_test_that_failed_and_is_on_no_list_is_hold(phase):
    made = book(phase)
    made.observe("gradient_sync.norms", 0.5)
    assert made.decide().outcome is Outcome.HOLD


def test_a_no_to_an_attested_item_fails_its_line():
    made = book("phase2c")
    made.add("attestation", "team_proficient", attestation("team_proficient", value=False))
    assert made.decide().outcome is Outcome.NO_GO
    made = book("phase1")
    made.add("attestation", "team_confident", attestation("team_confident", value=False))
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    assert line(decision, Kind.GO, "team").verdict is Verdict.FAIL


# --- What does not count --------------------------------------------------------------------------

SPOILED = {
    "too old": {"ended": AT - 15 * DAY},
    "from the future": {"ended": AT + DAY},
    "of no time": {"ended": None},
    "of a time that is none": {"ended": math.nan},
    "shortened": {"shortened": "60 s of 24 h"},
    "aborted": {"aborted": "ended by ann"},
    "silent on whether it was cut": {"shortened": None},
    "of other nodes": {"members": ["elsewhere"]},
    "of nobody": {"members": []},
    "of another kernel": {"fingerprint": {"kernel": "6.9", "driver": "none", "bios": "F.12"}},
    "of another driver": {"fingerprint": {"kernel": "6.8.0-45", "driver": "2", "bios": "F.12"}},
    "of another BIOS": {"fingerprint": {"kernel": "6.8.0-45", "driver": "none", "bios": "F.13"}},
    "of an unknown machine": {"fingerprint": {}},
    "of another profile": {"hashes": {"profile": "other"}},
    "of no profile": {"hashes": None},
    "of another check": {"check": "live"},
    "failed": {"verdict": "FAIL"},
    "unknown": {"verdict": "UNKNOWN"},
    "of no verdict": {"verdict": "GREEN"},
    "empty": {"results": []},
    "garbled": {"results": "all passed"},
    "silent": {"results": None},
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("phase", GATES)
def test_evidence_that_does_not_count_never_yields_go(phase, how):
    for record in book(phase).records:
        ticked = record.subject in book(phase).gate.tests
        if record.kind == "run" and (ticked or "verdict" not in SPOILED[how]):
            made = book(phase)
            made.change("run", record.subject, **SPOILED[how])
            assert made.decide().outcome is not Outcome.GO, record.subject


@pytest.mark.parametrize("phase", GATES)
def test_evidence_of_another_size_does_not_count(phase):
    made = book(phase)
    for check in made.gate.tests:
        known = made.catalogue.checks[check]
        for changes, asked in (
            ({"processes": 3}, known.processes),
            ({"nodes": 9}, not (known.ledger or known.own_size)),
        ):
            made = book(phase)
            made.change("run", check, **changes)
            assert (made.decide().outcome is Outcome.HOLD) == bool(asked), check


@settings(max_examples=80, deadline=None)
@given(phase=st.sampled_from(GATES), data=st.data())
def test_a_criterion_that_lies_is_not_known(phase, data):
    made = book(phase)
    runs = [record for record in made.records if record.kind == "run"]
    record = data.draw(st.sampled_from(runs))
    whole = {*made.gate.tests, *(name for each in made.gate.requires for name in each.checks)}
    about = (
        c.among(record.body["processes"]) for c in made.catalogue.checks[record.subject].criteria
    )
    judged = [c for c in about if not c.inapplicable]
    needed = {each for gate_line in made.gate.requires for each in gate_line.criteria}
    judged = [
        c for c in judged
        if c.severity == "critical" and (record.subject in whole or c.id in needed)
    ]  # fmt: skip
    criterion = data.draw(st.sampled_from(judged))
    lies = [{"observed": None}, {"observed": math.inf}, {"observed": failing(criterion)}]
    lies += [{"limit": None}, {"comparison": "!="}, {"verdict": "FINE"}, {"verdict": "UNKNOWN"}]
    lies += [] if "injection" in criterion.requires else [{"verdict": "NOT_APPLICABLE"}]
    if criterion.limit.value is not None:
        lies += [{"limit": criterion.limit.value * 1.5 + 7}]
    if criterion.possible is not None and criterion.possible.high < math.inf:
        lies += [{"observed": criterion.possible.high * 2 + 1}]
    rows = [
        {**each, **(data.draw(st.sampled_from(lies)) if each["criterion"] == criterion.id else {})}
        for each in record.body["results"]
    ]
    made.change("run", record.subject, results=rows)
    assert made.decide().outcome is not Outcome.GO


def test_what_changed_is_said():
    made = book("phase1")
    made.present = replace(made.present, fingerprint={**made.present.fingerprint, "kernel": "6.9"})
    reason = line(made.decide(), Kind.TEST, "hardware").reason
    assert "kernel was 6.8.0-45, is 6.9" in reason


def test_a_ledger_that_was_edited_proves_nothing_not_even_a_veto():
    made = book("phase1")
    made.observe("stability_phase1.throughput", 100)
    made.problems = ("line 7: edited",)
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    assert "line 7: edited" in line(decision, Kind.CONDITION, "ledger").reason


@pytest.mark.parametrize("ended", [AT - 2 * DAY, AT - 1.5 * DAY])
def test_a_look_at_the_monitoring_counts_for_a_day_and_after_the_phases_run(ended):
    made = book("phase1")
    made.change("run", "monitoring", ended=AT - DAY + 60)
    assert made.decide().outcome is Outcome.GO
    made.change("run", "monitoring", ended=ended)
    assert made.decide().outcome is Outcome.HOLD


def test_a_look_at_the_monitoring_from_before_the_phases_run_says_nothing_of_it():
    made = book("phase1")
    made.change("run", "stability_phase1", ended=AT - 60)
    assert "before the end of the run" in line(made.decide(), Kind.GO, "monitoring").reason


def test_a_look_at_the_monitoring_that_speaks_of_another_run_says_nothing_of_this_one():
    made = book("phase1")
    made.change("run", "monitoring", of={"phase1": "another"})
    reason = line(made.decide(), Kind.VETO, "no_go_monitoring").reason
    assert "it speaks of another, not of stability_phase1-1" in reason
    made.change("run", "monitoring", of=None)
    assert "it speaks of no run" in line(made.decide(), Kind.VETO, "no_go_monitoring").reason


# --- Which run counts -----------------------------------------------------------------------------


def again(made, check, **changes):
    """The newest run of *check* once more, changed."""
    body = made.records[made.found("run", check)].body
    return made.add("run", check, {**body, **changes})


def test_a_run_that_was_cut_short_does_not_undo_a_whole_one():
    made = book("phase1")
    again(made, "stability_phase1", ended=AT - 10, shortened="60 s of 24 h", verdict="UNKNOWN")
    assert made.decide().outcome is Outcome.GO


def test_a_run_that_was_cut_short_can_fail():
    made = book("phase1")
    criterion = made.catalogue.criteria["stability_phase1.unplanned_failures"]
    rows = made.records[made.found("run", "stability_phase1")].body["results"]
    rows = [row(criterion, 1) if each["criterion"] == criterion.id else each for each in rows]
    again(made, "stability_phase1", ended=AT - 10, aborted="it died", verdict="FAIL", results=rows)
    decision = made.decide()
    assert decision.outcome is Outcome.NO_GO
    assert line(decision, Kind.VETO, "no_go_failures").verdict is Verdict.FAIL
    assert line(decision, Kind.VETO, "no_go_throughput").verdict is Verdict.UNKNOWN


def cut_short(phase, check, failing_criterion, observed):
    """A ledger whose newest run of *check* was aborted, and failed in one criterion alone."""
    made = book(phase)
    criterion = made.catalogue.criteria[failing_criterion]
    rows = made.records[made.found("run", check)].body["results"]
    bad = row(criterion, observed)
    rows = [bad if each["criterion"] == criterion.id else each for each in rows]
    again(made, check, ended=AT - DAY / 2, aborted="it died", verdict="FAIL", results=rows)
    return made


@pytest.mark.parametrize(("throughput", "outcome"), [(150, "HOLD"), (225, "GO")])
def test_a_newer_run_that_was_cut_short_beyond_a_veto_is_not_passed_over(throughput, outcome):
    made = book("phase1")
    criterion = made.catalogue.criteria["stability_phase1.throughput"]
    rows = made.records[made.found("run", "stability_phase1")].body["results"]
    rows = [row(criterion, throughput) if e["criterion"] == criterion.id else e for e in rows]
    rows = [{**e, "verdict": "UNKNOWN"} if e["verdict"] != "NOT_APPLICABLE" else e for e in rows]
    changes = {"ended": AT - DAY / 2, "aborted": "ended by ann", "verdict": "UNKNOWN"}
    again(made, "stability_phase1", results=rows, **changes)
    decision = made.decide()
    assert decision.outcome == outcome
    if outcome == "HOLD":
        told = line(decision, Kind.VETO, "no_go_throughput").reason
        assert "150 samples/second would be < 200" in told


@pytest.mark.parametrize(
    "other",
    [
        {"hashes": {"profile": "q"}},
        {"fingerprint": {"kernel": "6.9"}},
        {"limit": 300.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_failure_while_something_was_changed_is_not_undone_by_changing_it_back(other):
    made = book("phase1")
    criterion = made.catalogue.criteria["stability_phase1.throughput"]
    rows = made.records[made.found("run", "stability_phase1")].body["results"]
    limit = {"limit": other["limit"]} if "limit" in other else {}
    for observed, outcome in ((150, "HOLD"), (275, "GO")):
        made = book("phase1")
        bad = row(criterion, observed) | limit
        mine = [bad if each["criterion"] == criterion.id else each for each in rows]
        verdict = {"results": mine, "verdict": bad["verdict"]}
        again(made, "stability_phase1", ended=AT - DAY + 60, **verdict, **other)
        decision = made.decide()
        assert decision.outcome == outcome
        if outcome == "HOLD":
            assert "failed, and does not count" in line(decision, Kind.GO, "stability").reason


@pytest.mark.parametrize("planned", [60.0, 0.0, None, "4 h"])
def test_a_run_that_was_planned_shorter_than_the_check_cannot_pass(planned):
    made = book("phase1")
    made.change("run", "gradient_sync", planned=planned)
    found = line(made.decide(), Kind.TEST, "gradient_sync")
    assert found.verdict is Verdict.UNKNOWN
    assert "it was to run for" in found.reason or "it does not say how long" in found.reason


def test_what_a_run_that_was_cut_short_would_pass_is_not_known():
    made = cut_short("phase2b", "stability_phase2b", "stability_phase2b.uptime", 0.5)
    decision = made.decide()
    assert line(decision, Kind.GO, "stability").verdict is Verdict.FAIL
    assert line(decision, Kind.GO, "throughput").verdict is Verdict.UNKNOWN


def test_a_waiver_makes_no_pass_of_a_run_that_was_cut_short():
    made = cut_short("phase1", "gradient_sync", "gradient_sync.norms", 0.5)
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    made.add("waiver", "gradient_sync.norms", waiver)
    assert line(made.decide(), Kind.TEST, "gradient_sync").verdict is Verdict.UNKNOWN


def test_a_veto_that_somebody_waived_all_the_same_opens_nothing():
    go = book("phase1").decide()
    waived = [
        replace(each, cited=(replace(each.cited[0], verdict=Verdict.WAIVED),))
        if each.kind is Kind.VETO
        else each
        for each in go.lines
    ]
    assert replace(go, lines=tuple(waived)).outcome is Outcome.HOLD


def test_a_run_that_passes_again_takes_the_place_of_one_that_failed():
    made = book("phase1")
    made.observe("stability_phase1.throughput", 100)
    assert made.decide().outcome is Outcome.NO_GO
    good = book("phase1").records[made.found("run", "stability_phase1")].body
    made.add("run", "stability_phase1", {**good, "ended": AT - DAY / 2})
    assert made.decide().outcome is Outcome.GO


def test_an_old_pass_that_is_handed_in_late_does_not_hide_a_later_failure():
    made = book("phase1")
    good = made.records[made.found("run", "gradient_sync")].body
    made.observe("gradient_sync.norms", 0.5)
    made.add("run", "gradient_sync", {**good, "ended": AT - 5 * DAY})
    assert made.decide().outcome is Outcome.HOLD


def test_a_waiver_stands_in_for_a_failed_criterion_until_it_ends():
    made = book("phase1")
    made.observe("gradient_sync.norms", 0.5)
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    made.add("waiver", "gradient_sync.norms", waiver)
    decision = made.decide()
    assert decision.outcome is Outcome.GO
    assert "Ann (CTO)" in decision.waived[0].reason
    assert made.decide(AT + DAY).outcome is not Outcome.GO


@pytest.mark.parametrize("spoiled", [{"by": ""}, {"reason": ""}, {"expires": None}])
def test_a_waiver_of_nobody_for_no_reason_or_without_end_is_none(spoiled):
    made = book("phase1")
    made.observe("gradient_sync.norms", 0.5)
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    made.add("waiver", "gradient_sync.norms", waiver | spoiled)
    assert made.decide().outcome is Outcome.HOLD


@pytest.mark.parametrize(
    "spoiled",
    [{"by": ""}, {"value": "yes"}, {"value": 1}, {"at": AT + DAY}, {"expires": None}],
)
def test_an_attestation_that_is_none_is_not_known(spoiled):
    made = book("phase1")
    made.change("attestation", "team_trained", **spoiled)
    assert line(made.decide(), Kind.GO, "team").verdict is Verdict.UNKNOWN


def test_what_was_said_last_counts_and_not_what_was_entered_last():
    made = book("phase1")
    item, no = "team_trained", {"value": False, "at": AT - DAY / 2}
    made.add("attestation", item, attestation(item, **no), at=AT - DAY / 2)
    made.add("attestation", item, attestation(item, at=AT - 3 * DAY), at=AT - HOUR)
    assert line(made.decide(), Kind.GO, "team").verdict is Verdict.FAIL


@pytest.mark.parametrize("yes", [True, False])
def test_what_was_said_while_the_clock_was_ahead_is_older_than_what_was_said_after(yes):
    made = book("phase1")
    item, ahead = "team_trained", AT - 2 * DAY + 10 * DAY
    made.add("attestation", item, attestation(item, value=not yes, at=ahead), at=ahead)
    made.add("attestation", item, attestation(item, value=yes, at=AT - DAY), at=AT - DAY)
    for at in (AT, AT + 9 * DAY):
        assert line(made.decide(at), Kind.GO, "team").verdict is Verdict("PASS" if yes else "FAIL")


def test_what_was_entered_late_and_said_last_counts():
    made = book("phase1")
    item = "team_trained"
    no = attestation(item, value=False, at=AT - DAY / 2)
    made.add("attestation", item, no, at=AT - HOUR)
    assert line(made.decide(), Kind.GO, "team").verdict is Verdict.FAIL


def test_a_waiver_of_the_future_is_none_and_brings_no_older_one_back():
    made = book("phase1")
    made.observe("gradient_sync.norms", 0.5)
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + 30 * DAY}
    made.add("waiver", "gradient_sync.norms", waiver)
    assert made.decide().outcome is Outcome.GO
    ahead = AT + 10 * DAY
    made.add("waiver", "gradient_sync.norms", waiver | {"expires": ahead}, at=ahead)
    assert made.decide().outcome is Outcome.HOLD


WORD = st.text(max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**400) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(phase=st.sampled_from(GATES), data=st.data())
def test_whatever_stands_in_a_record_a_decision_is_made_and_is_never_go(phase, data):
    made = book(phase)
    record = data.draw(st.sampled_from([r for r in made.records if r.kind == "run"]))
    key = data.draw(st.sampled_from(["ended", "members", "fingerprint", "hashes", "results"]))
    made.change("run", record.subject, **{key: data.draw(ANYTHING)})
    assert made.decide().outcome is not Outcome.GO
    said = {"check": "hardware", "phase": phase, "state": data.draw(ANYTHING)}
    made.add("incident", "i1", said | {"why": data.draw(ANYTHING)})
    for kind, subject in (("waiver", "gradient_sync.norms"), ("delay", "phase2c")):
        made.add(kind, subject, {"expires": data.draw(ANYTHING), "by": data.draw(ANYTHING)})
    assert made.decide().outcome is not Outcome.GO


# --- The order of phases --------------------------------------------------------------------------


def test_a_phase_waits_for_the_one_before_it_and_says_for_whom():
    made = book("phase2b")
    made.remove(made.found("decision", "phase2a"))
    reason = line(made.decide(), Kind.CONDITION, "before").reason
    assert "not signed by Infrastructure Lead" in reason


def test_nobody_has_signed_in_a_ledger_that_is_not_as_it_was_written():
    made = book("phase2a")
    for role in made.gate.authority:
        made.add("decision", "phase2a", signature(role))
    assert authorisation(made.gate, made.seen).granted
    made.problems = ("line 7: edited",)
    assert authorisation(made.gate, made.seen).missing == made.gate.authority
    decision = made.decide()
    assert not decision.authorisation.granted
    assert "cannot be known" in line(decision, Kind.CONDITION, "before").reason


def test_a_signature_stands_when_nodes_are_added_later():
    made = book("phase2a")
    made.present = replace(made.present, fingerprint={}, members=("n1",))
    assert line(made.decide(), Kind.CONDITION, "before").verdict is Verdict.PASS


def test_a_delay_holds_the_gate_until_it_ends():
    made = book("phase1")
    made.add("delay", "phase1", {"weeks": 1, "until": AT + 7 * DAY, "reason": "it failed again"})
    decision = made.decide()
    assert decision.outcome is Outcome.HOLD
    assert "it failed again" in line(decision, Kind.CONDITION, "delay").reason


@pytest.mark.parametrize(("state", "outcome"), [("investigating", "HOLD"), ("resolved", "GO")])
def test_an_open_incident_of_a_test_holds_the_gate(state, outcome):
    made = book("phase1")
    body = {"check": "gradient_sync", "phase": "phase1", "why": "norms"}
    made.add("incident", "i1", {"state": "open", **body})
    made.add("incident", "i1", {"state": state, **body})
    assert made.decide().outcome == outcome


def test_an_incident_of_another_phase_holds_only_that_ones_gate():
    made = book("phase2a")
    made.add("incident", "i1", {"state": "open", "check": "gradient_sync", "phase": "phase1"})
    assert made.decide().outcome is Outcome.GO


def test_where_two_are_named_both_must_sign():
    made = book("phase2a")
    made.add("decision", "phase2a", signature("VP Engineering"))
    assert authorisation(made.gate, made.seen).missing == ("Infrastructure Lead",)
    made.add("decision", "phase2a", signature("Infrastructure Lead"))
    assert authorisation(made.gate, made.seen).granted


@pytest.mark.parametrize(
    ("spoiled", "granted"),
    [
        ({"outcome": "HOLD"}, False),
        ({"outcome": "NO_GO", "override": "the board decided"}, True),
        ({"by": ""}, False),
        ({"role": "Intern"}, False),
    ],
)
def test_only_a_go_or_an_override_of_a_named_authority_authorises(spoiled, granted):
    made = book("phase1")
    made.add("decision", "phase1", signature("VP Engineering") | spoiled)
    assert authorisation(made.gate, made.seen).granted is granted


# --- What is told ---------------------------------------------------------------------------------


def test_every_line_cites_report_age_observed_wanted_and_margin():
    decision = book("phase2a").decide()
    for kind, id_ in (
        (Kind.TEST, "network"),
        (Kind.VETO, "no_go_throughput"),
        (Kind.GO, "network"),
    ):
        cited = line(decision, kind, id_).cited[0]
        assert cited.report == "a" * 64
        assert cited.record is not None
        assert (cited.age, cited.limit is None) == (DAY, False)
        assert None not in (cited.observed, cited.margin)
        assert cited.comparison


def test_a_decision_names_the_records_that_it_stands_on():
    made = book("phase1")
    runs = {r.number for r in made.records if r.kind in {"run", "attestation"}}
    assert set(made.decide().records) == runs


def test_overrides_that_were_in_force_are_cited():
    made = book("phase1")
    made.observe("gradient_sync.norms", overridden="limit 1 -> 0.9 (old nodes)")
    cited = line(made.decide(), Kind.TEST, "gradient_sync").cited[0]
    assert cited.overridden == ("gradient_sync.norms: limit 1 -> 0.9 (old nodes)",)


def test_all_that_stands_is_in_stands():
    assert set(STANDS) == {Verdict.PASS, Verdict.WAIVED}


def test_scenarios_with_sizes_of_their_own_count_whatever_the_size_of_the_phase():
    made = book("phase2c")
    made.change("run", "reliability", processes=0, nodes=1, members=["n1"])
    assert made.decide().outcome is Outcome.GO


# --- Little things that decide ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject"), [("decision", "phase1"), ("attestation", "phase2a"), ("run", "phase2a")]
)
def test_a_signature_is_of_its_own_gate_and_of_nothing_else(kind, subject):
    made = book("phase2a")
    for role in made.gate.authority:
        made.add(kind, subject, signature(role))

    assert authorisation(made.gate, made.seen).missing == made.gate.authority


@pytest.mark.parametrize("moved", [0.01, 1e-6])
def test_a_small_limit_that_was_moved_a_little_is_another_limit(moved):
    made = book("phase1")
    criterion = next(
        c
        for name in made.gate.tests
        for c in made.catalogue.checks[name].criteria
        if c.severity == "critical"
        and c.limit.value is not None
        and not c.inapplicable
        and 0 < abs(c.limit.value) < 1
    )
    held = criterion.limit.value
    made.observe(criterion.id, limit=held - moved)

    assert made.decide().outcome is Outcome.HOLD
    told = line(made.decide(), Kind.TEST, criterion.check).reason
    assert f"was held to {criterion.comparison} {held - moved:g}, now {held:g} is wanted" in told


@pytest.mark.parametrize(
    ("ago", "outcome"), [(1, Outcome.GO), (-4, Outcome.GO), (-6, Outcome.HOLD)]
)
def test_a_run_that_has_just_ended_counts_and_clocks_may_differ_by_five_seconds(ago, outcome):
    made = book("phase1")
    check = next(name for name in made.gate.tests if not made.catalogue.checks[name].every)
    made.change("run", check, ended=AT - ago)

    assert made.decide().outcome is outcome


def test_a_run_counts_to_the_end_of_its_last_day():
    made = book("phase1")
    check = next(name for name in made.gate.tests if not made.catalogue.checks[name].every)
    made.change("run", check, ended=AT - 14 * DAY)
    assert made.decide().outcome is Outcome.GO

    made.change("run", check, ended=AT - 14 * DAY - 1)
    assert made.decide().outcome is Outcome.HOLD


def test_another_version_of_dvfd_undoes_no_run():
    made = book("phase1")
    for record in [r for r in made.records if r.kind == "run"]:
        made.change("run", record.subject, fingerprint={**record.body["fingerprint"], "dvfd": "0"})

    assert made.decide().outcome is Outcome.GO


def test_of_several_delays_the_longest_is_told():
    made = book("phase1")
    for days, why in ((3, "a fan"), (9, "a switch"), (5, "a bolt")):
        made.add("delay", "phase1", {"until": AT + days * DAY, "reason": why})

    told = line(made.decide(), Kind.CONDITION, "delay")
    assert "a switch" in told.reason
    assert moment(AT + 9 * DAY) in told.reason


def test_a_yes_says_whose_it_is_and_asks_for_nothing():
    decision = book("phase1").decide()
    cited = [
        each for found in decision.lines for each in found.cited if "says yes to" in each.reason
    ]

    assert cited
    assert all(each.reason.startswith("Ann Lee (CTO) says yes to") for each in cited)
    assert not any(each.todo for found in decision.lines for each in found.cited)


def cited(verdict, reason):
    return Cited(what="w", verdict=verdict, reason=reason)


def test_a_line_is_told_by_the_worst_that_it_stands_on():
    passed, unknown = cited(Verdict.PASS, "well"), cited(Verdict.UNKNOWN, "nobody knows")
    made = Line(kind=Kind.GO, id="l", text="t", cited=(passed, unknown, cited(Verdict.FAIL, "ill")))

    assert [each.reason for each in made.open] == ["ill", "nobody knows"]
    assert made.reason == "ill"
    assert replace(made, cited=(passed, unknown)).reason == "nobody knows"
    assert replace(made, cited=(passed,)).reason == "well"
    assert replace(made, cited=()).reason == "it stands on nothing"


def test_what_vetoes_is_told_first_then_what_failed_then_what_is_not_known():
    places = [urgency("veto", "FAIL"), urgency("go", "FAIL"), urgency("veto", "UNKNOWN")]

    assert places == sorted(set(places))
    assert urgency("go", "UNKNOWN") == urgency("test", "UNKNOWN") == places[-1]


def test_a_line_as_json_has_its_evidence_with_its_verdict():
    told = line_document(line(book("phase1").decide(), Kind.CONDITION, "ledger"))

    assert [each["verdict"] for each in told["evidence"]] == ["PASS"]
    assert told["evidence"][0]["overridden"] == []
    assert told["evidence"][0].keys() == {each.name for each in fields(Cited)}


def test_a_figure_that_cannot_be_vetoes_nothing_even_where_it_was_judged_a_failure():
    tried = 0
    for phase, id_ in VETOES:
        made, veto = book(phase), veto_of(phase, id_)
        like = made.catalogue.criteria[veto.like]
        if like.possible is None:
            continue
        ends = (like.possible.low - 1, like.possible.high + 1)
        for observed in (end for end in ends if veto.comparison.holds(end, veto.limit.value)):
            made.observe(veto.like, observed, verdict="FAIL")
            found = line(made.decide(), Kind.VETO, id_.partition(".")[2])
            assert found.verdict is Verdict.UNKNOWN, id_
            assert f"{observed:g} cannot be: not measured" in found.reason
            tried += 1
    assert tried


# --- The reason of a line, the figure beside it, and what to type -------------------------------


TO_TYPE = {
    "monitoring": "dvfd check monitoring",
    "hardware": "dvfd check hardware --nodes 2, on each node",
    "stability_phase2a": "dvfd stability start phase2a -- COMMAND",
    "scaling_efficiency": "dvfd check scaling_efficiency --processes 8",
    "scaling_projection": "dvfd check scaling_projection",
    "reliability": "dvfd check reliability",
    "pytorch": "dvfd check pytorch --nodes 2, on each node",
    "network": "dvfd check network --nodes 2, on each node",
}


@pytest.mark.parametrize(("check", "todo"), TO_TYPE.items())
def test_another_run_is_asked_for_in_the_size_of_the_phase(check, todo):
    assert to_type(catalogue("phase2c").checks[check], Size(8, 2)) == todo


def test_on_a_single_node_no_number_of_nodes_is_asked_for():
    assert to_type(catalogue().checks["pytorch"], Size(4, 1)) == "dvfd check pytorch"


def test_what_was_never_measured_is_named_with_the_criterion_that_needs_it():
    made = book("phase2a")
    made.records = [r for r in made.records if r.subject != "network"]
    decision = made.decide()
    for kind, id_, what in (
        (Kind.GO, "network", "network.speed_verified"),
        (Kind.VETO, "no_go_network", "network.speed"),
        (Kind.TEST, "network", "network"),
    ):
        found = line(decision, kind, id_).cited[0]
        assert (found.what, found.reason) == (what, "network: not run yet")
        assert found.todo == TO_TYPE["network"]


def test_what_is_wrong_with_evidence_comes_with_what_to_type_and_what_stands_without():
    made = book("phase2a")
    made.observe("network.speed", 0.8 * 50e9)
    made.observe("network.speed_verified", 0.8 * 50e9)
    decision = made.decide()
    open_ = [line(decision, Kind.GO, "network"), line(decision, Kind.TEST, "network")]
    assert [each.cited[0].todo for each in open_] == [TO_TYPE["network"]] * 2
    assert line(decision, Kind.VETO, "no_go_network").cited[0].todo == ""

    made.observe("network.speed", 0.6 * 50e9)
    vetoed = line(made.decide(), Kind.VETO, "no_go_network").cited[0]
    assert (vetoed.what, vetoed.todo) == ("network.speed", TO_TYPE["network"])
    assert vetoed.reason == "3e+10 bytes/second is < 3.75e+10"


@pytest.mark.parametrize(("observed", "margin"), [(505.0, 55.0), (430.0, -20.0)])
def test_a_veto_has_its_own_limit_beside_the_figure_and_what_is_left_of_it(observed, margin):
    made = book("phase2a")
    made.observe("stability_phase2a.throughput", observed)
    found = line(made.decide(), Kind.VETO, "no_go_throughput").cited[0]
    assert (found.criterion, found.what) == ("stability_phase2a.throughput",) * 2
    assert (found.observed, found.comparison, found.limit) == (observed, "<", 450.0)
    assert (found.margin, found.unit) == (margin, "samples/second")


def retell(made, criterion, **changes):
    """Change what the run says of *criterion*, and nothing else."""
    check = criterion.partition(".")[0]
    rows = made.records[made.found("run", check)].body["results"]
    rows = [each | changes if each["criterion"] == criterion else each for each in rows]
    made.change("run", check, results=rows)


def test_a_veto_without_a_figure_has_no_margin_and_says_where_it_would_close():
    made = book("phase2a")
    retell(made, "stability_phase2a.throughput", verdict="UNKNOWN", observed=None)
    found = line(made.decide(), Kind.VETO, "no_go_throughput").cited[0]
    assert (found.observed, found.limit, found.margin) == (None, 450.0, None)
    assert found.reason == (
        "stability_phase2a.throughput was not measured, and this closes the gate at < 450"
    )


def test_a_figure_that_is_not_sure_is_told_of_with_why():
    made = book("phase2a")
    made.observe("stability_phase2a.throughput", 505.0, verdict="UNKNOWN", reason="too few steps")
    assert line(made.decide(), Kind.VETO, "no_go_throughput").reason == (
        "stability_phase2a.throughput is not known: too few steps"
    )
    made.observe("stability_phase2a.throughput", 430.0, verdict="UNKNOWN", reason="too few steps")
    assert line(made.decide(), Kind.VETO, "no_go_throughput").reason == (
        "430 samples/second would be < 450, and stability_phase2a.throughput is not known: "
        "too few steps"
    )


def with_veto(made, id_, **changes):
    """Where that No-Go line of the gate is another."""
    vetoes = [replace(v, **changes) if v.id == id_ else v for v in made.gate.vetoes]
    made.gate = replace(made.gate, vetoes=tuple(vetoes))
    gates = {**made.catalogue.gates, made.gate.id: made.gate}
    made.catalogue = replace(made.catalogue, gates=gates)


def test_a_veto_without_a_limit_is_not_known_and_has_no_margin():
    made = book("phase1")
    unset = Limit(value=None, of="profile.something", missing="nobody said")
    with_veto(made, "phase1.no_go_throughput", limit=unset)
    found = line(made.decide(), Kind.VETO, "no_go_throughput").cited[0]
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == (
        "stability_phase1.throughput was not measured, and this closes the gate at "
        "a limit that is not set"
    )
    assert (found.observed, found.limit, found.margin) == (252.5, None, None)


def test_a_failure_that_was_waived_still_vetoes_with_its_figure():
    made = book("phase1")
    made.observe("stability_phase1.throughput", 100.0, verdict="WAIVED")
    found = line(made.decide(), Kind.VETO, "no_go_throughput")
    assert (found.verdict, found.reason) == (Verdict.FAIL, "100 samples/second is < 200")


def test_a_waived_figure_without_a_limit_was_never_sure():
    made = book("phase1")
    retell(made, "stability_phase1.throughput", verdict="WAIVED", limit=None)
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    made.add("waiver", "stability_phase1.throughput", waiver)
    found = line(made.decide(), Kind.VETO, "no_go_throughput")
    assert found.verdict is Verdict.UNKNOWN


def test_a_criterion_is_cited_with_all_that_its_run_says_of_it():
    made = book("phase2a")
    run = made.records[made.found("run", "network")]
    found = line(made.decide(), Kind.GO, "network").cited[0]
    told = next(
        each for each in run.body["results"] if each["criterion"] == "network.speed_verified"
    )

    assert (found.what, found.criterion) == ("network.speed_verified",) * 2
    assert (found.observed, found.comparison, found.limit, found.margin, found.unit) == tuple(
        told[key] for key in ("observed", "comparison", "limit", "margin", "unit")
    )
    assert (found.reason, found.todo, found.record) == (told["reason"], "", run.number)
    assert (found.where, found.at, found.age) == ("runs/network-1.json", AT - DAY, DAY)


def test_a_run_that_ended_a_moment_ahead_of_our_clock_is_of_no_age():
    made = book("phase2a")
    made.change("run", "network", ended=AT + 3)
    assert line(made.decide(), Kind.TEST, "network").cited[0].age == 0.0


def test_a_criterion_that_is_not_applicable_shows_nothing_and_says_so():
    made = book("phase1")
    id_ = "loss_convergence.curve"
    retell(made, id_, verdict="NOT_APPLICABLE", observed=None, reason="no loss here")
    check = made.catalogue.checks["loss_convergence"]
    known = [replace(c, inapplicable="no loss") if c.id == id_ else c for c in check.criteria]
    checks = {**made.catalogue.checks, check.id: replace(check, criteria=tuple(known))}
    made.catalogue = replace(made.catalogue, checks=checks)
    found = line(made.decide(), Kind.GO, "loss_convergence").cited[0]
    assert (found.verdict, found.reason) == (
        Verdict.UNKNOWN, "not applicable, so nothing is shown: no loss here"
    )  # fmt: skip
    assert found.todo == "dvfd check loss_convergence"


def test_a_run_that_says_little_is_cited_with_what_it_says():
    made = book("phase2a")
    retell(made, "network.speed_verified", unit=None, margin=None)
    made.change("run", "network", report=None)
    found = line(made.decide(), Kind.GO, "network").cited[0]
    assert (found.unit, found.margin, found.report, found.where) == ("", None, "", "")


@pytest.mark.parametrize("report", ["lost", {"where": None, "sha256": None}])
def test_a_report_that_is_none_is_cited_as_none(report):
    made = book("phase2a")
    made.change("run", "network", report=report)
    found = line(made.decide(), Kind.GO, "network").cited[0]
    assert (found.verdict, found.report, found.where) == (Verdict.PASS, "", "")


def test_what_a_cut_run_cannot_show_says_why_and_what_to_type():
    made = cut_short("phase2b", "stability_phase2b", "stability_phase2b.uptime", 0.5)
    found = line(made.decide(), Kind.GO, "throughput").cited[0]
    number = made.found("run", "stability_phase2b") + 1
    assert found.reason == f"record {number}: it was aborted: it died: it can fail, it cannot pass"
    assert found.todo == "dvfd stability start phase2b -- COMMAND"


def test_a_test_whose_own_word_is_worse_than_its_figures_says_so():
    made = book("phase1")
    made.change("run", "gradient_sync", verdict="UNKNOWN")
    found = line(made.decide(), Kind.TEST, "gradient_sync").cited[0]
    assert (found.verdict, found.reason) == (
        Verdict.UNKNOWN, "gradient_sync: its own word is UNKNOWN"
    )  # fmt: skip
    assert (found.criterion, found.observed) == ("", None)


def narrow(made, check, margins):
    """The run of *check*, of which these have that much left; what must be equal is met."""
    rows = made.records[made.found("run", check)].body["results"]
    met = [0.0 if each["comparison"] == "==" else 1e30 for each in rows]
    rows = [
        each | {"margin": margins.get(each["criterion"], much)}
        for each, much in zip(rows, met, strict=True)
    ]
    made.change("run", check, results=rows)
    return line(made.decide(), Kind.TEST, check).cited[0]


def test_a_test_that_passes_is_told_by_the_figure_that_had_least_to_spare():
    named = [c for c in catalogue("phase2a").checks["network"].criteria if c.severity == "critical"]
    measured = [c for c in named if c.limit.value and c.comparison != "==" and not c.inapplicable]
    assert len(measured) > 1
    for criterion in measured:
        share = {c.id: abs(c.limit.value) * (0.1 if c is criterion else 0.2) for c in measured}
        found = narrow(book("phase2a"), "network", share)
        assert (found.verdict, found.criterion) == (Verdict.PASS, criterion.id)


@pytest.mark.parametrize(("left", "told"), [(0.6, "loss_convergent"), (0.9, "throughput")])
def test_what_is_left_of_a_limit_of_zero_is_told_as_it_is(left, told):
    of = "stability_phase1"
    margins = {f"{of}.loss_convergent": left, f"{of}.throughput": 0.7 * 250.0}
    assert narrow(book("phase1"), of, margins).criterion == f"{of}.{told}"


def test_a_test_that_failed_is_told_by_its_first_failure():
    made = book("phase1")
    first, second = [
        c for c in made.catalogue.checks["gradient_sync"].criteria if c.severity == "critical"
    ][:2]
    for criterion in (second, first):
        made.observe(criterion.id, failing(criterion))
    found = line(made.decide(), Kind.TEST, "gradient_sync").cited[0]
    assert (found.verdict, found.criterion) == (Verdict.FAIL, first.id)


NO = {"value": False}


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        (NO, "FAIL", "Ann Lee (CTO) says no to team_trained"),
        ({"expires": AT}, "UNKNOWN",
         f"what Ann Lee (CTO) said of team_trained ended on {moment(AT)}"),
        ({"at": AT + 6}, "UNKNOWN", "Ann Lee (CTO) said it in the future: a clock was wrong"),
        ({"by": ""}, "UNKNOWN", "record {} of team_trained is no attestation"),
        ({"at": None}, "UNKNOWN", "record {} of team_trained is no attestation"),
    ],
)  # fmt: skip
def test_what_people_said_and_does_not_stand_says_why_and_asks_them_again(changes, verdict, reason):
    made = book("phase1")
    made.change("attestation", "team_trained", **changes)
    record = made.records[made.found("attestation", "team_trained")]
    found = line(made.decide(), Kind.GO, "team").cited[0]
    assert (found.verdict, found.reason) == (verdict, reason.format(record.number))
    assert found.todo.startswith("dvfd attest team_trained --yes")
    at = record.body["at"]
    assert (found.what, found.record, found.at) == ("team_trained", record.number, at)
    assert found.age == (None if at is None else AT - at)


def test_what_people_said_counts_to_its_last_second_and_a_clock_may_be_five_ahead():
    made = book("phase1")
    made.change("attestation", "team_trained", expires=AT + 1, at=AT + 5)
    assert line(made.decide(), Kind.GO, "team").verdict is Verdict.PASS


@pytest.mark.parametrize(("late", "verdict"), [(60.0, Verdict.FAIL), (61.0, Verdict.PASS)])
def test_what_is_entered_within_a_minute_was_said_as_it_was_entered(late, verdict):
    made = book("phase1")
    item, ahead = "team_trained", AT - DAY / 2
    made.add("attestation", item, attestation(item, at=ahead), at=ahead)
    no = attestation(item, at=AT - DAY, **NO)
    made.add("attestation", item, no, at=AT - DAY + late)
    assert line(made.decide(), Kind.GO, "team").cited[0].verdict is verdict


def test_of_runs_that_do_not_count_the_one_that_ended_last_says_why():
    made = book("phase1")
    made.change("run", "hardware", ended=AT - 20 * DAY)
    number = made.found("run", "hardware") + 1
    again(made, "hardware", ended=None)
    assert line(made.decide(), Kind.TEST, "hardware").reason == (
        f"hardware: record {number} does not count: it is 20 d old, at most 14 d counts"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"check": "live"}, "it is a run of 'live'"),
        ({"processes": 3}, "of 3 processes, this phase is of 8"),
        ({"nodes": 9}, "of 9 nodes, this phase is of 2"),
        ({"ended": None}, "it does not say when it ended"),
        ({"ended": AT + 60}, "it ended 60 s in the future: a clock was wrong"),
        ({"ended": AT - 15 * DAY}, "it is 15 d old, at most 14 d counts"),
        ({"members": []}, "it does not say on which nodes"),
        ({"members": ["n9", "n1", "n8"]}, "n8, n9 is no node of this cluster"),
        ({"fingerprint": {}}, "it does not say on what machine"),
        ({"hashes": {"profile": "q"}},
         "the cluster changed since: the profile or an override in the configuration is another"),
        ({"fingerprint": {"kernel": "6.8.0-45", "driver": "none", "disk": "d"}},
         "the cluster changed since: bios was not told, is F.12; disk was d, is gone"),
        ({"results": []}, "pytorch.cores was not judged in it"),
        ({"aborted": None}, "it does not say whether it was aborted"),
        ({"aborted": "it died"}, "it was aborted: it died"),
        ({"shortened": True}, "it was shortened"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)  # fmt: skip
def test_a_run_that_does_not_count_says_why(changes, why):
    made = book("phase2a")
    made.change("run", "pytorch", **changes)
    number = made.found("run", "pytorch") + 1
    first = made.catalogue.checks["pytorch"].criteria[0].id
    told = why.replace("pytorch.cores", first)
    assert line(made.decide(), Kind.TEST, "pytorch").reason == (
        f"pytorch: record {number} does not count: {told}"
    )


@pytest.mark.parametrize(
    ("planned", "why"),
    [
        (None, "it does not say how long it was to run"),
        (3600.0, "it was to run for 60 min, wanted 24 h"),
    ],
)
def test_a_run_that_was_to_be_short_says_how_short(planned, why):
    made = book("phase1")
    made.change("run", "stability_phase1", planned=planned)
    number = made.found("run", "stability_phase1") + 1
    assert line(made.decide(), Kind.TEST, "stability_phase1").reason == (
        f"stability_phase1: record {number} does not count: {why}"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"comparison": "=="}, "was held to ==, now >= is wanted"),
        ({"limit": 300.0}, "was held to >= 300, now 250 is wanted"),
        ({"verdict": "NOT_APPLICABLE"}, "was not applicable then, and is now"),
    ],
)
def test_a_criterion_that_was_held_to_something_else_says_to_what(changes, why):
    made = book("phase1")
    retell(made, "stability_phase1.throughput", **changes)
    reason = line(made.decide(), Kind.TEST, "stability_phase1").reason
    assert reason.endswith(f"does not count: stability_phase1.throughput {why}")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdict": "FINE"}, "'FINE' is no verdict"),
        ({"observed": None}, "it says PASS without a figure"),
        ({"observed": -1.0}, "-1 is not within 0 to 1e+12"),
        ({"observed": 249.0}, "it says PASS of 249, limit 250"),
    ],
)
def test_a_criterion_whose_figure_does_not_bear_it_out_says_so(changes, why):
    made = book("phase1")
    retell(made, "stability_phase1.throughput", **changes)
    reason = line(made.decide(), Kind.TEST, "stability_phase1").reason
    assert reason == f"stability_phase1.throughput: {why}"


def test_what_was_waived_then_and_is_no_longer_says_so_and_what_is_waived_what_it_was():
    made = book("phase1")
    made.observe("gradient_sync.norms", 0.5, verdict="WAIVED", reason="half")
    told = line(made.decide(), Kind.TEST, "gradient_sync").reason
    assert told == "gradient_sync.norms was waived then, and no waiver stands: half"
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    made.add("waiver", "gradient_sync.norms", waiver)
    told = line(made.decide(), Kind.TEST, "gradient_sync").reason
    assert told == f"waived by Ann (CTO) until {moment(AT + DAY)}: known; without it half"


def test_an_open_incident_is_told_with_its_record_and_what_to_type():
    made = book("phase1")
    body = {"state": "open", "check": "hardware", "phase": "phase1", "why": "a fan"}
    record = made.add("incident", "i1", body)
    found = line(made.decide(), Kind.CONDITION, "incidents").cited[0]
    assert (found.reason, found.todo) == ("incident i1 is open: a fan", "dvfd incident show i1")
    assert found.record == record.number


def test_a_failure_without_a_reason_has_none():
    made = book("phase1")
    made.observe("gradient_sync.norms", 0.5, reason=None)
    assert line(made.decide(), Kind.TEST, "gradient_sync").reason == ""

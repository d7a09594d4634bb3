"""The gates as a lead keeps them: read from a real ledger, signed into it, told once a minute."""

from __future__ import annotations

from datetime import date

import pytest
from fakes import FakeClock
from fakes_gates import AT, DAY, book, catalogue, signature, told
from fakes_output import valid

from dvfd.cli.formats import versioned
from dvfd.config import Cluster, Config, Member, Node, Profile, Programme
from dvfd.control import Peer
from dvfd.errors import DvfdError, StoreError
from dvfd.evidence.ledger import Evidence
from dvfd.gates.gatehouse import Gatehouse, operations

FACTS = {"kernel": "6.8.0-45", "BIOS": "F.12"}
CONFIG = Config(
    node=Node(name="n1"),
    profile=Profile(expected_throughput=250.0),
    programme=Programme(start=date(2027, 1, 4)),
)
NAMED = {"gate": "phase1", "name": "Bo", "role": "vp engineering"}


def house(tmp_path, *, config=CONFIG, fill=True, facts=lambda: FACTS):
    """A gatehouse on a ledger on which phase 1 is GO."""
    clock = FakeClock(AT - DAY)
    evidence = Evidence(tmp_path / "evidence", clock, node="n1")
    made = Gatehouse(config, catalogue(), evidence, clock, facts=facts)
    if fill:
        fingerprint = made._present().fingerprint
        for record in book("phase1").records:
            body = dict(record.body)
            if record.kind == "run":
                body |= {
                    "fingerprint": dict(fingerprint),
                    "hashes": {"profile": config.profile_hash},
                }
            evidence.append(record.kind, record.subject, body, submitted="ann")
    clock.advance(DAY)
    return made, evidence, clock


def gate(document, name="phase1"):
    return next(each for each in document["gates"] if each["gate"] == name)


def test_a_ledger_on_which_all_stands_is_go_and_due_on_its_friday(tmp_path):
    found = gate(house(tmp_path)[0].document())
    assert found["outcome"] == "GO"
    assert found["due"]["day"] == "2027-01-15"


def test_an_empty_ledger_is_hold(tmp_path):
    assert gate(house(tmp_path, fill=False)[0].document())["outcome"] == "HOLD"


def test_a_signature_is_refused_before_there_is_evidence_and_says_what_is_missing(tmp_path):
    made, evidence, _ = house(tmp_path, fill=False)
    with pytest.raises(
        DvfdError, match=r"phase1 is HOLD: hardware: hardware: not run yet \(and 20 more"
    ):
        made.sign(NAMED, "bo")
    assert evidence.records("decision") == []


def test_a_signature_is_refused_on_a_veto(tmp_path):
    made, evidence, _ = house(tmp_path)
    spoiled = book("phase1")
    spoiled.observe("stability_phase1.throughput", 100)
    bad = dict(spoiled.records[spoiled.found("run", "stability_phase1")].body)
    old = evidence.newest("run", "stability_phase1").body
    bad |= {key: old[key] for key in ("fingerprint", "hashes")}
    evidence.append("run", "stability_phase1", bad, submitted="ann")
    with pytest.raises(
        DvfdError, match="phase1 is NO_GO: no_go_throughput: 100 samples/second is < 200"
    ):
        made.sign(NAMED, "bo")


def test_a_signature_stands_in_the_ledger_with_the_records_that_it_rests_on(tmp_path):
    made, evidence, _ = house(tmp_path)
    said = made.sign(NAMED, "bo")
    record = evidence.newest("decision", "phase1")

    assert (said["authorised"], record.submitted) == (True, "bo")
    assert record.body["role"] == "VP Engineering"
    assert record.body["override"] is None
    needed = [r.number for r in evidence.records() if r.kind in {"run", "attestation"}]
    assert record.body["evidence"] == needed


def test_an_override_is_signed_on_hold_and_told_ever_after(tmp_path):
    made, evidence, _ = house(tmp_path, fill=False)
    made.sign({**NAMED, "override": "the board wants it"}, "bo")
    found = gate(made.document())
    assert found["authorised"]
    assert found["signatures"][0]["override"] == "the board wants it"
    assert found["signatures"][0]["outcome"] == "HOLD"
    assert evidence.newest("decision", "phase1").body["override"] == "the board wants it"


def test_on_go_there_is_nothing_to_override(tmp_path):
    made, _, _ = house(tmp_path)
    assert made.sign({**NAMED, "override": "to be sure"}, "bo")["override"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"role": "Intern"}, "wanted VP Engineering"),
        ({"name": " "}, "name: missing"),
        ({"gate": "phase9"}, "no such gate"),
    ],
)
def test_a_signature_of_nobody_or_for_nothing_is_refused(tmp_path, wrong, said):
    with pytest.raises(DvfdError, match=said):
        house(tmp_path)[0].sign(NAMED | wrong, "bo")


def test_a_phase_is_refused_before_and_its_gate_opens_after_the_one_before_is_signed(tmp_path):
    made, _, _ = house(tmp_path)
    before = gate(made.document(), "phase2a")["lines"]
    made.sign(NAMED, "bo")
    after = gate(made.document(), "phase2a")["lines"]
    verdicts = [
        next(x["verdict"] for x in lines if x["id"] == "before") for lines in (before, after)
    ]
    assert verdicts == ["UNKNOWN", "PASS"]


def test_an_authorisation_stands_when_its_evidence_ages(tmp_path):
    made, _, clock = house(tmp_path)
    made.sign(NAMED, "bo")
    clock.advance(40 * DAY)
    found = made.document()
    assert (gate(found)["outcome"], gate(found)["authorised"]) == ("HOLD", True)
    hardware = next(row for row in found["table"] if row["title"] == "Hardware validation")
    assert hardware["cells"]["phase1"] == "PASS"


def test_evidence_falls_with_the_kernel(tmp_path):
    facts = dict(FACTS)
    made, _, _ = house(tmp_path, facts=lambda: facts)
    facts["kernel"] = "6.9"
    found = gate(made.document())
    assert found["outcome"] == "HOLD"
    assert any("kernel was 6.8.0-45, is 6.9" in line["reason"] for line in found["lines"])


def test_a_ledger_that_was_edited_holds_every_gate(tmp_path):
    made, evidence, _ = house(tmp_path)
    text = evidence.path.read_text()
    evidence.path.write_text(text.replace("Ann Lee", "Eve Lee", 1))
    found = made.document()
    assert {each["outcome"] for each in found["gates"]} == {"HOLD"}
    assert found["problems"]


def test_of_a_ledger_that_was_edited_nothing_is_authorised_or_green_or_signed(tmp_path):
    made, evidence, _ = house(tmp_path)
    made.sign(NAMED, "bo")
    assert gate(made.document())["authorised"]
    text = evidence.path.read_text()
    evidence.path.write_text(text.replace("Ann Lee", "Eve Lee", 1))
    found = made.document()
    assert not any(each["authorised"] for each in found["gates"])
    ticked = {cell for row in found["table"] for cell in row["cells"].values() if cell}
    assert ticked | {row["verdict"] for row in found["table"]} == {"UNKNOWN"}
    with pytest.raises(DvfdError, match="nothing is signed into a ledger that is not as it was"):
        made.sign({**NAMED, "override": "the board wants it"}, "bo")


def test_a_node_that_does_not_lead_decides_nothing_and_says_who_does(tmp_path):
    members = (Member(name="n1", address="10.0.0.1"), Member(name="n2", address="10.0.0.2"))
    config = Config(node=Node(name="n2"), cluster=Cluster(lead="n1", nodes=members))
    made, evidence, _ = house(tmp_path, config=config, fill=False)
    found = made.document()
    assert (found["elsewhere"], found["gates"], found["table"]) == ("n1", [], [])
    with pytest.raises(DvfdError, match="dvfd sign on n1"):
        made.sign(NAMED, "bo")
    assert evidence.records() == []


def test_what_is_shown_is_made_anew_when_something_is_written_down_or_a_minute_is_over(tmp_path):
    made, evidence, clock = house(tmp_path, fill=False)
    first = made.shown()
    assert made.shown() is first
    clock.advance(61)
    second = made.shown()
    assert second is not first
    evidence.append("decision", "phase1", signature("VP Engineering"), submitted="bo")
    assert gate(made.shown())["authorised"]


def test_runs_that_are_too_old_are_dropped_but_the_newest_says_that_it_is(tmp_path):
    made, _, clock = house(tmp_path)
    clock.advance(60 * DAY)
    reasons = [line["reason"] for line in gate(made.document())["lines"]]
    assert "hardware: record 2 does not count: it is 61 d old, at most 14 d counts" in reasons


def test_what_programs_read_is_as_the_schema_says(tmp_path):
    valid(versioned(told(signed=True)), "gates")
    valid(versioned(house(tmp_path, fill=False)[0].document()), "gates")


TICKS = {
    "Hardware validation": "✓---",
    "CUDA/NCCL validation": "✓✓--",
    "PyTorch distribution": "✓✓✓-",
    "24-48hr stability": "✓✓✓✓",
    "Gradient sync": "✓✓✓✓",
    "Loss convergence": "✓✓✓✓",
    "Scaling efficiency": "-✓✓✓",
    "Network (if applicable)": "-✓✓✓",
    "Reliability": "---✓",
    "Production auth": "---✓",
}
"""The source's own summary table."""


def test_the_table_has_the_ticks_of_the_source(tmp_path):
    table = house(tmp_path)[0].document()["table"]
    found = {
        row["title"]: "".join("-" if cell is None else "✓" for cell in row["cells"].values())
        for row in table
    }
    assert found == TICKS


def test_production_is_authorised_by_a_signature_and_an_override_is_no_pass(tmp_path):
    made, evidence, _ = house(tmp_path)

    def cell():
        return made.document()["table"][-1]["cells"]["phase2c"]

    role = "Chief Technology Officer"
    assert cell() == "UNKNOWN"
    forced = signature(role, outcome="HOLD", override="at once")
    evidence.append("decision", "phase2c", forced, submitted="bo")
    assert cell() == "WAIVED"
    evidence.append("decision", "phase2c", signature(role), submitted="bo")
    assert cell() == "PASS"


def test_a_machine_is_known_by_more_than_its_kernel(tmp_path):
    present = house(tmp_path)[0]._present()
    assert {"kernel", "driver", "bios"} <= present.fingerprint.keys()


def test_a_signature_is_answered_with_what_was_written_down(tmp_path):
    made, evidence, _ = house(tmp_path)
    said = made.sign({**NAMED, "note": "as agreed"}, "bo")
    record = evidence.newest("decision", "phase1")

    whole = {key: said[key] for key in record.body}
    assert whole == dict(record.body)
    assert (said["gate"], said["title"]) == ("phase1", "Phase 1: single node, 4 processes")
    assert (said["record"], said["at"]) == (record.number, record.at)
    assert (said["authorised"], said["missing"]) == (True, [])
    assert (said["outcome"], said["by"], said["note"]) == ("GO", "Bo", "as agreed")
    lines = gate(made.document())["lines"]
    assert [(each["id"], each["verdict"]) for each in said["lines"]] == [
        (each["id"], each["verdict"]) for each in lines
    ]


def test_where_two_decide_one_signature_says_who_is_missing(tmp_path):
    made, _, _ = house(tmp_path)
    role = {"gate": "phase2a", "role": "VP Engineering", "override": "the board wants it"}
    said = made.sign(NAMED | role, "bo")
    assert (said["authorised"], said["missing"]) == (False, ["Infrastructure Lead"])
    assert said["override"] == "the board wants it"


def test_a_role_that_does_not_decide_is_told_who_does(tmp_path):
    with pytest.raises(DvfdError) as refused:
        house(tmp_path)[0].sign(NAMED | {"gate": "phase2a", "role": "Intern"}, "bo")
    assert str(refused.value) == (
        "role 'Intern' does not decide phase2a: wanted VP Engineering or Infrastructure Lead"
    )


def test_a_refusal_says_what_is_open_how_much_more_and_what_to_type(tmp_path):
    made, evidence, _ = house(tmp_path)
    body = dict(evidence.newest("run", "pytorch").body)
    evidence.append("run", "pytorch", body | {"verdict": "UNKNOWN"}, submitted="ann")
    with pytest.raises(DvfdError) as refused:
        made.sign(NAMED, "bo")
    assert str(refused.value) == (
        "phase1 is HOLD: pytorch: pytorch: its own word is UNKNOWN (and 1 more); "
        "dvfd gate phase1 says what is open; "
        "--override --reason TEXT signs all the same, and every later report says so"
    )


def test_a_ledger_that_is_not_as_it_was_refuses_with_what_is_wrong_and_what_to_type(tmp_path):
    made, evidence, _ = house(tmp_path)
    evidence.path.write_text(evidence.path.read_text().replace("Ann Lee", "Eve Lee", 1))
    with pytest.raises(DvfdError) as refused:
        made.sign(NAMED, "bo")
    problems = "; ".join(evidence.problems())
    assert f"not as it was written: {problems}; dvfd evidence verify" in str(refused.value)


def test_a_document_says_of_which_node_when_and_what_counts(tmp_path):
    made, _, clock = house(tmp_path)
    found = made.document()
    assert (found["node"], found["at"], found["elsewhere"]) == ("n1", clock.now(), "")
    assert (found["start"], found["evidence_days"]) == ("2027-01-04", 14)
    assert (found["overrides"], found["problems"]) == (list(catalogue().overrides), [])
    due = gate(found)["due"]
    assert due == {"planned": "2027-01-15", "day": "2027-01-15", "slipped": 0}
    assert gate(found)["due_words"] == "Friday, week 2"


def test_without_a_start_a_gate_has_its_day_in_words_alone(tmp_path):
    bare = CONFIG.model_copy(update={"programme": Programme()})
    found = house(tmp_path, config=bare)[0].document()
    assert (found["start"], gate(found)["due"]) == ("", None)
    assert gate(found)["due_words"] == "Friday, week 2"


def test_what_is_shown_is_the_same_for_a_minute(tmp_path):
    made, _, clock = house(tmp_path, fill=False)
    first = made.shown()
    clock.advance(59.9)
    assert made.shown() is first
    clock.advance(0.1)
    assert made.shown() is not first


def test_a_ledger_that_cannot_be_read_holds_every_gate_and_says_why(tmp_path, monkeypatch):
    made, evidence, _ = house(tmp_path)

    def fails(*_given, **_more):
        raise StoreError("the disk is gone")

    monkeypatch.setattr(evidence, "each", fails)
    found = made.document()
    assert {each["outcome"] for each in found["gates"]} == {"HOLD"}
    assert found["problems"] == ["the disk is gone"]


def test_one_of_a_cluster_is_held_against_all_of_its_nodes_and_alone_against_itself(tmp_path):
    members = (Member(name="n1", address="10.0.0.1"), Member(name="n2", address="10.0.0.2"))
    config = CONFIG.model_copy(update={"cluster": Cluster(lead="n1", nodes=members)})
    together = house(tmp_path / "a", config=config, fill=False)[0]
    alone = house(tmp_path / "b", fill=False)[0]
    assert (together.elsewhere, together._present().members) == ("", ("n1", "n2"))
    assert alone._present().members == ("n1",)
    assert alone._present().profile == CONFIG.profile_hash


def test_of_many_runs_the_newest_fifty_are_looked_at(tmp_path):
    made, evidence, _ = house(tmp_path)
    good = dict(evidence.newest("run", "hardware").body)
    for _ in range(50):
        evidence.append("run", "hardware", good | {"ended": None}, submitted="ann")
    hardware = [x for x in gate(made.document())["lines"] if x["id"] == "hardware"]
    assert {x["verdict"] for x in hardware} == {"UNKNOWN"}
    evidence.append("run", "hardware", good, submitted="ann")
    hardware = [x for x in gate(made.document())["lines"] if x["id"] == "hardware"]
    assert {x["verdict"] for x in hardware} == {"PASS"}


def test_the_table_has_the_worst_of_each_row_and_of_what_was_not_run_nothing(tmp_path):
    made, evidence, _ = house(tmp_path)
    body = dict(evidence.newest("run", "hardware").body)
    rows = [each | {"verdict": "FAIL"} for each in body["results"]]
    failed = body | {"verdict": "FAIL", "results": rows}
    evidence.append("run", "hardware", failed, submitted="ann")
    rows = {row["title"]: row for row in made.document()["table"]}
    assert rows["Hardware validation"]["verdict"] == "FAIL"
    assert rows["Hardware validation"]["cells"] == {
        "phase1": "FAIL", "phase2a": None, "phase2b": None, "phase2c": None
    }  # fmt: skip
    assert rows["CUDA/NCCL validation"]["cells"]["phase1"] == "PASS"
    assert rows["CUDA/NCCL validation"]["verdict"] == "UNKNOWN"  # phase 2a has not run


def test_the_table_of_an_authorised_gate_is_as_it_was_signed(tmp_path):
    made, evidence, _ = house(tmp_path)
    named = {"id": "hardware", "verdict": "FAIL", "kind": "test"}
    odd = [named, {"id": "pytorch", "verdict": "GREEN", "kind": "test"}, "nothing",
           {"id": "gradient_sync", "verdict": "PASS", "kind": "go"}]  # fmt: skip
    body = signature("VP Engineering") | {"lines": odd}
    evidence.append("decision", "phase1", body, submitted="bo")
    rows = {row["title"]: row["cells"]["phase1"] for row in made.document()["table"]}
    assert rows["Hardware validation"] == "FAIL"
    assert rows["PyTorch distribution"] == "UNKNOWN"
    assert rows["Gradient sync"] == "UNKNOWN"


def test_a_daemon_is_asked_for_the_gates_and_for_a_signature_in_the_name_of_who_asks(tmp_path):
    made, evidence, _ = house(tmp_path)
    asked = operations(made)
    peer = Peer(pid=1, uid=2**31, gid=0)  # nobody's number, which is then the name
    assert asked["gates"].answer({}, peer) == made.document()
    assert (asked["gates"].changes, asked["sign"].changes) == (False, True)
    asked["sign"].answer(NAMED, peer)
    assert evidence.newest("decision", "phase1").submitted == peer.name


@pytest.mark.parametrize(
    ("kind", "subject", "body"),
    [
        ("incident", "i1", {"phase": "phase1", "state": "open", "why": "a fan"}),
        ("delay", "phase1", {"until": AT + 7 * DAY, "reason": "a fan"}),
        ("attestation", "team_trained", {"item": "team_trained", "value": False, "by": "Ann",
                                         "role": "CTO", "at": AT, "expires": AT + DAY}),
    ],
)  # fmt: skip
def test_a_decision_rests_on_what_people_and_incidents_say(tmp_path, kind, subject, body):
    made, evidence, _ = house(tmp_path)
    evidence.append(kind, subject, body, submitted="ann")
    assert gate(made.document())["outcome"] == "HOLD"


def test_a_decision_rests_on_waivers(tmp_path):
    made, evidence, _ = house(tmp_path)
    body = dict(evidence.newest("run", "pytorch").body)
    first = next(each for each in body["results"] if each["severity"] == "critical")
    rows = [each | {"verdict": "UNKNOWN"} if each is first else each for each in body["results"]]
    failed = body | {"verdict": "UNKNOWN", "results": rows}
    evidence.append("run", "pytorch", failed, submitted="ann")
    assert gate(made.document())["outcome"] == "HOLD"
    waiver = {"by": "Ann", "role": "CTO", "reason": "known", "expires": AT + DAY}
    evidence.append("waiver", first["criterion"], waiver, submitted="ann")
    assert gate(made.document())["outcome"] == "GO"

"""What people vouch for: refused in words, kept as a history, worth something until it expires."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_runs import healthy

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.control import Peer
from dvfd.errors import DvfdError
from dvfd.evidence.ledger import Evidence
from dvfd.judgements import Judgements
from dvfd.model import ATTESTATION, Verdict
from dvfd.people.attestations import DAY, Attestations, operations
from dvfd.runs.tally import Context

CATALOGUE = load(Config())
ITEM = "production_readiness"
READINESS = CATALOGUE.criteria["stability_phase2c.readiness"]


class Shelf:
    """Records as the store keeps them, JSON; no samples."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}

    def put(self, kind: str, key: str, document: Any) -> None:
        self.records[key] = json.dumps(document)

    def all(self, kind: str) -> dict[str, Any]:
        return {key: json.loads(text) for key, text in self.records.items()}

    def samples(self, *_: object, **__: object) -> list[Any]:
        return []

    def keep(self, *_: object, **__: object) -> None: ...


class Desk:
    """Attestations on a fake clock; `desk.says(...)` states something."""

    def __init__(self) -> None:
        self.clock, self.shelf = FakeClock(), Shelf()
        self.book = Attestations(CATALOGUE, self.shelf, self.clock)

    def says(self, **more: Any) -> Any:
        request = {"item": ITEM, "value": True, "name": "Ann Lee", "role": "CTO", **more}
        return self.book.attest(request, "root")

    def judged(self, criterion: Any = READINESS) -> Any:
        return self.book.judged(criterion, self.clock.now())


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_every_attestation_that_the_catalogue_asks_for_can_be_given(desk):
    asked = {dict(c.where)["item"] for c in CATALOGUE.criteria.values() if c.source == ATTESTATION}
    asked |= {i for g in CATALOGUE.gates.values() for line in g.requires for i in line.attestations}

    assert set(desk.book.items) == asked
    assert {ITEM, "team_operational_confidence", "team_trained"} <= asked


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"item": "production_readyness"}, "did you mean 'production_readiness'"),
        ({"item": None}, "no such item"),
        ({"value": "yes"}, "value: true or false"),
        ({"value": 1}, "value: true or false"),
        ({"name": " "}, "name: missing"),
        ({"name": "Ann\x1b[2J"}, "name: printable words"),
        ({"name": "x" * 101}, "name: 101 letters, wanted at most 100"),
        ({"role": ""}, "role: missing"),
        ({"note": "n" * 1001}, "note: 1001 letters"),
        ({"note": 7}, "note: printable words"),
        ({"expires": 1_800_000_000.0}, "is past"),
        ({"expires": -1.0}, "is past"),
        ({"expires": "tomorrow"}, "expires: Unix seconds"),
        ({"expires": True}, "expires: Unix seconds"),
        ({"expires": float("nan")}, "no moment"),
        ({"expires": float("inf")}, "no moment"),
        ({"expires": 1e15}, "no moment"),
    ],
)
def test_what_is_no_statement_is_refused_in_words_and_not_kept(desk, wrong, says):
    with pytest.raises(DvfdError, match=says):
        desk.says(**wrong)
    assert not desk.shelf.records


def test_a_name_that_is_missing_altogether_is_refused(desk):
    with pytest.raises(DvfdError, match="name: missing"):
        desk.book.attest({"item": ITEM, "value": True, "role": "CTO"}, "root")


def test_the_record_says_who_stated_and_who_submitted_it(desk):
    made = desk.says(note="all drills passed")

    assert (made.by, made.role, made.note, made.submitted) == (
        "Ann Lee", "CTO", "all drills passed", "root",
    )  # fmt: skip


def test_it_stands_for_90_days_where_nobody_says(desk):
    assert desk.says().expires == desk.clock.now() + 90 * DAY


@pytest.mark.parametrize(("typed", "kept"), [("cto", "CTO"), ("On call", "On call")])
def test_a_role_that_gates_know_is_written_as_they_write_it(desk, typed, kept):
    assert desk.says(role=typed).role == kept


def test_nobodys_word_is_unknown_and_says_what_to_type(desk):
    result = desk.judged()

    assert result.verdict is Verdict.UNKNOWN
    assert f"nobody has attested {ITEM}: dvfd attest {ITEM} --yes" in result.reason


@pytest.mark.parametrize(("value", "verdict"), [(True, Verdict.PASS), (False, Verdict.FAIL)])
def test_a_statement_decides_and_the_reason_names_who_and_until_when(desk, value, verdict):
    desk.says(value=value, expires=desk.clock.now() + DAY, note="see wiki")
    result = desk.judged()

    answer = "yes" if value else "no"
    assert result.verdict is verdict
    assert f"Ann Lee (CTO) says {answer}, until 2027-01-16 08:00:00 UTC: see wiki" in result.reason


def test_it_expires_to_the_second(desk):
    desk.says(expires=desk.clock.now() + 10)
    desk.clock.advance(9.999)
    assert desk.judged().verdict is Verdict.PASS

    desk.clock.advance(0.001)
    result = desk.judged()
    assert result.verdict is Verdict.UNKNOWN
    assert "the attestation of Ann Lee (CTO) expired on 2027-01-15 08:00:10 UTC" in result.reason
    assert f"dvfd attest {ITEM}" in result.reason


def test_a_no_that_expired_is_unknown_not_a_failure(desk):
    assert desk.judged().absent

    desk.says(value=False, expires=desk.clock.now() + 10)
    desk.clock.advance(10)
    result = desk.judged()
    assert result.verdict is Verdict.UNKNOWN
    assert not result.absent  # which would end an alert that the no has raised


def test_the_newest_statement_stands_and_all_stay_readable(desk):
    desk.says(value=True)
    desk.clock.advance(60)
    desk.says(value=False, name="Bo Day", role="SRE")

    assert desk.judged().verdict is Verdict.FAIL
    assert [s.by for s in desk.book.history(ITEM)] == ["Ann Lee", "Bo Day"]


def test_an_earlier_statement_never_comes_back_when_the_newest_expires(desk):
    desk.says(expires=desk.clock.now() + 90 * DAY)
    desk.says(value=False, expires=desk.clock.now() + 10)
    desk.clock.advance(11)
    assert desk.judged().verdict is Verdict.UNKNOWN


def test_a_statement_on_one_item_says_nothing_of_another(desk):
    desk.says(item="team_operational_confidence")
    assert desk.judged().verdict is Verdict.UNKNOWN


def test_two_at_once_are_two_records(desk):
    put = desk.shelf.put

    def slowly(*record: Any) -> None:
        time.sleep(0.001)  # others run meanwhile
        put(*record)

    desk.shelf.put = slowly
    threads = [threading.Thread(target=desk.says) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.book.history(ITEM)) == 20


ASKED = [c for c in CATALOGUE.criteria.values() if c.source == ATTESTATION]


@pytest.mark.parametrize("criterion", ASKED, ids=[c.id for c in ASKED])
def test_each_criterion_of_the_catalogue_passes_once_its_item_is_attested(desk, criterion):
    judgements = Judgements(
        CATALOGUE, store=desk.shelf, clock=desk.clock, attested=desk.book.judged
    )
    check = CATALOGUE.checks[criterion.check]

    def verdict() -> Verdict:
        report = judgements.run_check(check)
        return next(r.verdict for r in report.results if r.criterion.id == criterion.id)

    before = verdict()
    desk.says(item=dict(criterion.where)["item"])
    assert (before, verdict()) == (Verdict.UNKNOWN, Verdict.PASS)


def test_what_a_run_is_held_against_is_what_stands_when_it_is_asked(desk):
    values, lacks, vouchers = desk.book.values(), desk.book.lacks(), desk.book.vouchers()
    assert (values.get(ITEM), vouchers.get(ITEM)) == (None, None)
    assert "nobody has attested" in lacks[ITEM]

    desk.says()
    assert (values[ITEM], lacks.get(ITEM)) == (1.0, None)
    assert vouchers[ITEM].startswith("Ann Lee (CTO) says yes")


def test_who_submits_is_the_kernels_word_and_may_be_refused(desk):
    found = operations(desk.book)
    request = {"item": ITEM, "value": True, "name": "A", "role": "B", "submitted": "nobody"}

    answer = found["attest"].answer(request, Peer(1, 0, 0))
    assert answer["submitted"] == "root"
    assert found["attest"].changes
    assert not found["attestations"].changes


def test_the_list_says_of_every_item_how_it_stands(desk):
    desk.says(item="team_trained", expires=desk.clock.now() + 1)
    desk.says(item="cost_analysis", value=False)
    desk.says()
    desk.clock.advance(1)

    state = {i["item"]: i["state"] for i in desk.book.document()["items"]}
    assert [state[i] for i in ("team_trained", "cost_analysis", ITEM, "team_confident")] == [
        "expired", "no", "yes", "nobody",
    ]  # fmt: skip


def test_a_run_keeps_who_stated_what_as_it_was_at_its_end(desk):
    desk.says(value=False)
    story = healthy("stability_phase2c")
    live = Context(
        attested=desk.book.values(), unattested=desk.book.lacks(), vouchers=desk.book.vouchers()
    )
    story.context = Context.from_document(json.loads(json.dumps(live.to_document())))
    desk.says(value=True)  # too late for the report

    found = story.judged()
    assert found["readiness"].result.verdict is Verdict.FAIL
    assert "; Ann Lee (CTO) says no, until" in found["readiness"].result.reason
    assert "nobody has attested team_operational_confidence: dvfd attest" in (
        found["confidence"].result.reason
    )


# --- In the ledger of evidence ------------------------------------------------------------------


def test_what_people_say_stands_in_the_ledger_as_well(tmp_path: Path) -> None:
    desk = Desk()
    ledger = Evidence(tmp_path, desk.clock)
    desk.book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)

    made = desk.says(value=False)

    (record,) = ledger.records("attestation", ITEM)
    assert record.body == asdict(made)
    assert record.submitted == "root"


def test_what_was_said_before_there_was_a_ledger_is_entered_once(tmp_path: Path) -> None:
    desk = Desk()
    first = desk.says(name="Bo")
    desk.clock.advance(5)
    ledger = Evidence(tmp_path, desk.clock)
    book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)

    book.enter()
    book.enter()

    assert [record.body for record in ledger.records("attestation")] == [asdict(first)]
    assert book.newest(ITEM) == first


def test_an_older_word_is_not_entered_behind_a_newer_one(tmp_path: Path) -> None:
    desk = Desk()
    desk.says(value=True)
    desk.clock.advance(5)
    ledger = Evidence(tmp_path, desk.clock)
    desk.book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)
    desk.says(value=False)  # as after the ledger was founded anew

    desk.book.enter()

    assert [record.body["value"] for record in ledger.records("attestation")] == [False]
    assert desk.book.newest(ITEM).value is False


def test_a_word_that_stands_in_the_ledger_alone_counts_also_here(tmp_path: Path) -> None:
    desk = Desk()
    ledger = Evidence(tmp_path, desk.clock)
    desk.book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)
    desk.says(value=True)
    copy = dict(desk.shelf.records)
    desk.clock.advance(5)
    said = desk.says(value=False)
    desk.shelf.records = copy  # the store is restored

    desk.book.enter()
    desk.book.enter()

    assert desk.book.standing(ITEM, desk.clock.now()) == said
    assert len(desk.book.history(ITEM)) == 2
    assert len(ledger.records("attestation")) == 2


def test_a_record_that_is_no_statement_is_not_taken_for_one(tmp_path: Path) -> None:
    desk = Desk()
    ledger = Evidence(tmp_path, desk.clock)
    desk.book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)
    body = asdict(desk.says())
    for spoilt in ({}, body | {"by": []}, body | {"at": "now"}, body | {"value": 1}):
        ledger.append("attestation", ITEM, {**spoilt}, submitted="root")

    desk.book.enter()

    assert len(desk.book.history(ITEM)) == 1


def test_what_cannot_be_written_down_is_not_said(tmp_path: Path) -> None:
    desk = Desk()
    (tmp_path / "file").write_text("", encoding="ascii")
    ledger = Evidence(tmp_path / "file" / "evidence", desk.clock)
    desk.book = Attestations(CATALOGUE, desk.shelf, desk.clock, ledger)

    with pytest.raises(DvfdError, match="nothing was recorded"):
        desk.says()
    assert desk.book.newest(ITEM) is None


@pytest.mark.parametrize("value", [True, False])
def test_what_was_said_while_the_clock_was_ahead_is_not_known(desk, value):
    desk.clock.step(400 * DAY)
    desk.says(value=value)
    desk.clock.step(-400 * DAY)

    found = desk.judged()

    assert found.verdict is Verdict.UNKNOWN
    assert "in the future" in found.reason
    assert not desk.book.values()

"""A breach that somebody waives: seen as such, to the second, no way around the ledger."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeClock
from fakes_output import valid
from fakes_report import CATALOGUE, CONFIG

from dvfd.errors import DvfdError, StoreError
from dvfd.evidence.ledger import FILE, Evidence
from dvfd.judgements import Judgements
from dvfd.model import Report, Result, Sample, Verdict
from dvfd.people.waivers import Waivers, operations
from dvfd.remembered import remembered
from dvfd.state import Sources, State
from dvfd.store import report_document
from dvfd.store.documents import StoredReport, to_text

if TYPE_CHECKING:
    from pathlib import Path

NAME = "daily.cpu_temperature"
CRITERION = CATALOGUE.criteria[NAME]
DAY = 86_400.0


class Desk:
    """Waivers on a ledger of their own."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.path = directory / FILE
        self.ledger = Evidence(directory, self.clock, node="n1")
        self.book = Waivers(CATALOGUE, self.ledger, self.clock)

    def waives(self, of: str = NAME, **more: Any) -> Any:
        request = {
            "criterion": of, "name": "Ann Lee", "role": "cto", "reason": "the fan is ordered",
            "expires": self.clock.now() + DAY, **more,
        }  # fmt: skip
        return self.book.waive(request, "root")

    def applied(self, verdict: Verdict = Verdict.FAIL, name: str = NAME) -> Result:
        now = self.clock.now()
        found = Result(CATALOGUE.criteria[name], verdict, now, "80 degrees, wanted below 75")
        return self.book.applied(found, now)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.UNKNOWN])
def test_a_breach_is_waived_with_a_name_a_reason_and_what_was_found(
    desk: Desk, verdict: Verdict
) -> None:
    desk.waives()
    result = desk.applied(verdict)

    assert result.verdict is Verdict.WAIVED
    assert "waived by Ann Lee (CTO) until 2027-01-16 08:00:00 UTC" in result.reason
    assert "the fan is ordered" in result.reason
    assert f"it is {verdict}: 80 degrees, wanted below 75" in result.reason
    assert result.bare().verdict is verdict
    assert result.bare().reason == "80 degrees, wanted below 75"


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.NOT_APPLICABLE])
def test_what_is_no_breach_is_not_touched(desk: Desk, verdict: Verdict) -> None:
    desk.waives()
    assert desk.applied(verdict).verdict is verdict


def test_no_other_criterion_is_waived(desk: Desk) -> None:
    desk.waives()
    assert desk.applied(name="daily.memory").verdict is Verdict.FAIL


def test_a_waiver_ends_to_the_second(desk: Desk) -> None:
    desk.waives(expires=desk.clock.now() + 10)

    desk.clock.advance(9)
    assert desk.applied().verdict is Verdict.WAIVED
    desk.clock.advance(1)
    assert desk.applied().verdict is Verdict.FAIL


def test_a_waiver_can_be_ended_before_its_time(desk: Desk) -> None:
    desk.waives()
    desk.clock.advance(1)
    desk.waives(end=True, reason="fixed", expires=None)

    assert desk.applied().verdict is Verdict.FAIL
    with pytest.raises(DvfdError, match="nothing to end"):
        desk.waives(end=True, reason="fixed", expires=None)


def test_a_waiver_that_was_ended_stays_ended_when_the_clock_is_set_right(desk: Desk) -> None:
    desk.waives(expires=desk.clock.now() + 30 * DAY)
    desk.clock.step(10 * DAY)
    desk.waives(end=True, reason="fixed", expires=None)
    desk.clock.step(-10 * DAY)

    assert desk.applied().verdict is Verdict.FAIL
    assert desk.book.standing(NAME, desk.clock.now()) is None


def test_a_waiver_of_a_day_to_come_does_not_stand_yet(desk: Desk) -> None:
    desk.clock.step(DAY)
    desk.waives()
    desk.clock.step(-DAY)

    assert desk.applied().verdict is Verdict.FAIL
    assert desk.book.stand(desk.clock.now()) == []


@pytest.mark.parametrize("spoilt", [{"expires": None}, {"expires": 1e300}, {"by": 1}, {"role": []}])
def test_a_waiver_that_dvfd_did_not_write_counts_for_nothing_and_stops_nothing(
    desk: Desk, spoilt: dict[str, Any]
) -> None:
    desk.waives()
    body = dict(desk.ledger.records("waiver")[0].body) | spoilt
    desk.waives("daily.memory")

    desk.ledger.append("waiver", NAME, body, submitted="root")

    assert desk.applied().verdict is Verdict.FAIL
    assert desk.book.stand(desk.clock.now()) == ["daily.memory"]
    assert len(desk.book.document()["waivers"]) == 2


def test_a_file_that_could_not_be_opened_for_a_moment_voids_waivers_for_that_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.waives()
    fresh = Waivers(CATALOGUE, Evidence(desk.path.parent, desk.clock), desk.clock)

    def full(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(type(desk.path), "open", full)
        assert fresh.standing(NAME, desk.clock.now()) is None
    assert fresh.standing(NAME, desk.clock.now()) is not None


def test_a_waiver_that_waits_for_the_disk_holds_up_no_judgement_and_counts_once_safe(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, go, reached = os.fsync, threading.Event(), threading.Event()

    def wait(descriptor: int) -> None:
        reached.set()
        assert go.wait(60)
        sync(descriptor)

    desk.waives("daily.memory")
    monkeypatch.setattr(os, "fsync", wait)
    writer = threading.Thread(target=desk.waives)
    found: list[Result] = []
    judge = threading.Thread(target=lambda: found.append(desk.applied()), daemon=True)
    writer.start()
    assert reached.wait(60)
    judge.start()
    judge.join(30)
    meanwhile = list(found)
    go.set()
    writer.join(60)

    assert [result.verdict for result in meanwhile] == [Verdict.FAIL]
    assert desk.applied().verdict is Verdict.WAIVED


def test_waivers_that_cannot_be_read_anew_count_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.waives()
    assert desk.applied().verdict is Verdict.WAIVED
    desk.waives("daily.memory")

    def refuse(*_: object) -> Any:
        raise StoreError("no more files")

    with monkeypatch.context() as patch:
        patch.setattr(desk.ledger, "records", refuse)
        assert desk.applied().verdict is Verdict.FAIL
    assert desk.applied().verdict is Verdict.WAIVED


def test_the_newest_waiver_decides(desk: Desk) -> None:
    desk.waives(expires=desk.clock.now() + 1)
    desk.waives(expires=desk.clock.now() + 5, name="Bo")

    desk.clock.advance(2)
    assert "waived by Bo" in desk.applied().reason


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"criterion": "daily.cpu_temprature"}, "did you mean 'daily.cpu_temperature'"),
        ({"criterion": "phase1.no_go_throughput"}, "a No-Go line, which nobody waives"),
        ({"name": " "}, "name: missing"),
        ({"role": ""}, "role: missing"),
        ({"reason": ""}, "reason: missing"),
        ({"expires": None}, "a waiver ends"),
        ({"expires": 1.0}, "is past"),
        ({"expires": float("inf")}, "no moment"),
        ({"expires": "tomorrow"}, "Unix seconds wanted"),
    ],
)
def test_half_a_waiver_is_refused_and_nothing_is_written(
    desk: Desk, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(DvfdError, match=said):
        desk.waives(**wrong)
    assert desk.ledger.records() == []


def test_no_waiver_counts_while_the_ledger_does_not_verify(desk: Desk) -> None:
    desk.waives()
    desk.waives("daily.memory")
    data = desk.path.read_bytes()
    desk.path.write_bytes(data.replace(b"daily.memory", b"daily.memorx"))

    result = desk.applied()
    assert result.verdict is Verdict.FAIL
    assert "which does not count: the ledger does not verify: line 3: edited" in result.reason
    assert desk.book.stand(desk.clock.now()) == []


def test_a_waiver_written_by_another_process_counts_at_once(desk: Desk) -> None:
    assert desk.applied().verdict is Verdict.FAIL

    Waivers(CATALOGUE, Evidence(desk.path.parent, desk.clock), desk.clock).waive(
        {
            "criterion": NAME, "name": "Bo", "role": "lead", "reason": "because",
            "expires": desk.clock.now() + 9,
        },
        "root",
    )  # fmt: skip

    assert desk.applied().verdict is Verdict.WAIVED


def test_all_waivers_are_listed_and_which_stand(desk: Desk) -> None:
    desk.waives()
    desk.waives("daily.memory", expires=desk.clock.now() + 1)
    desk.clock.advance(2)

    rows = desk.book.document()["waivers"]

    assert [(row["criterion"], row["stands"]) for row in rows] == [
        (NAME, True), ("daily.memory", False),
    ]  # fmt: skip


def test_the_daemon_judges_the_criterion_anew_when_it_is_waived(desk: Desk) -> None:
    changed: list[str] = []
    request = {"criterion": NAME, "name": "A", "role": "b", "reason": "c", "expires": 2e9}

    class Somebody:
        name = "ann"

    made = operations(desk.book, changed.append)["waive"].answer(request, Somebody())  # type: ignore[arg-type]

    assert (changed, made["submitted"]) == ([NAME], "ann")


# --- In reports ---------------------------------------------------------------------------------


class Hot:
    """A store in which it is too hot; keeps reports."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.reports: list[Report] = []

    def samples(self, criterion: Any, *, until: float) -> list[Sample]:
        return []

    def keep(self, report: Report, *, scheduled: float | None = None) -> None:
        self.reports.append(report)

    def last_report(self, check_id: str) -> StoredReport | None:
        report = self.reports[-1]
        if report.check.id != check_id:
            return None
        text = to_text(report_document(report))
        return StoredReport(check_id, report.at, str(report.verdict), 0.0, None, text)


class House:
    """A daily list of which nothing is known, judged with waivers, and the state that shows it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, Hot(desk.clock)
        self.state = State(CONFIG, CATALOGUE, Sources(), clock=desk.clock)
        self.judgements = Judgements(
            CATALOGUE, store=self.store, clock=desk.clock, sinks=(self.state,),
            profile_hash=CONFIG.profile_hash, waived=desk.book.applied,
        )  # fmt: skip

    def report(self) -> dict[str, Any]:
        return report_document(self.judgements.run_check(CATALOGUE.checks["daily"]))

    def shown(self) -> Verdict:
        return self.state.snapshot().results[NAME].verdict


def row(report: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in report["results"] if each["criterion"] == NAME)


def test_a_report_says_in_its_row_who_waived_what(desk: Desk) -> None:
    house = House(desk)
    assert "waived" not in row(house.report())

    desk.waives()
    report = house.report()

    assert row(report)["verdict"] == "WAIVED"
    assert row(report)["waived"]["by"] == "Ann Lee"
    assert row(report)["waived"]["verdict"] == "UNKNOWN"
    valid(report, "report")


def test_what_is_shown_falls_back_to_the_second_also_after_a_restart(desk: Desk) -> None:
    desk.waives(expires=desk.clock.now() + 100)
    house = House(desk)
    house.report()
    again = State(CONFIG, CATALOGUE, Sources(), clock=desk.clock)
    for kept in remembered(house.store, CATALOGUE, CONFIG.profile_hash):
        again.tell(kept)
    assert again.snapshot().results[NAME].verdict is Verdict.WAIVED

    desk.clock.advance(99)
    assert (house.shown(), house.state.lapsed()) == (Verdict.WAIVED, set())
    desk.clock.advance(1)
    assert (house.shown(), house.state.lapsed()) == (Verdict.UNKNOWN, {"daily"})
    assert again.snapshot().results[NAME].verdict is Verdict.UNKNOWN

    house.report()
    assert house.state.lapsed() == set()

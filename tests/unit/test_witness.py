"""What came to its end stands in the ledger: once, before anybody waives, with its report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeClock
from fakes_report import CATALOGUE, PHASE1, plan, rows
from fakes_report import report as report_of
from fakes_report import run as run_of

from dvfd.drills.drill import Fact
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError, StoreError
from dvfd.evidence.ledger import Evidence
from dvfd.evidence.witness import Witness
from dvfd.model import Report, Result, Severity, Verdict, Waived
from dvfd.runs.report import as_text
from dvfd.runs.run import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from dvfd.runs.run import Run

HARDWARE = CATALOGUE.checks["hardware"]
HERE = {"kernel": "6.1", "BIOS": "ACME 1.2", "accelerator driver": "nvidia 550", "processor": "X"}


class Desk:
    """A witness, its ledger, and the state directory of both."""

    def __init__(self, state: Path) -> None:
        self.state, self.clock = state, FakeClock()
        self.ledger = Evidence(state / "evidence", self.clock, node="n1")
        self.witness = self.another()

    def another(self) -> Witness:
        """As after a restart."""
        return Witness(self.ledger, self.state)

    def tested(
        self,
        *verdicts: Verdict,
        waived: Waived | None = None,
        other: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The body of the record of a test of hardware whose criteria begin with *verdicts*; in
        *other* the run that was judged is another.
        """
        now = self.clock.now()
        given = [*verdicts, *[Verdict.PASS] * len(HARDWARE.criteria)]
        results = tuple(
            Result(c, v, now, "so it is", observed=1.0, waived=waived if v in verdicts else None)
            for c, v in zip(HARDWARE.criteria, given, strict=False)
        )
        found = Findings(
            check="hardware", began=now - 9, ended=now, by="ann", node=HERE, members=("n1",), **more
        )
        judged = replace(found, **other).run if other else found.run
        report = Report(HARDWARE, results, now, "n1", "cat", "prof", "env", run=judged)
        return dict(self.witness.tested(report, found).body)

    def frozen(self, *, write: bool = True, **keys: Any) -> Run:
        """A stability run with its report on the disk."""
        run = run_of(lasted=3600.0, plan=plan(duration=3600.0), **keys)
        text = as_text(report_of(run, rows(3600.0))).encode()
        if write:
            (self.state / "runs").mkdir(exist_ok=True)
            (self.state / "runs" / f"{run.id}.json").write_bytes(text)
        return replace(run, frozen=hashlib.sha256(text).hexdigest())

    def ran(self, run: Run) -> list[dict[str, Any]]:
        return [dict(r.body) for r in self.witness.ran([run], CATALOGUE.checks)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- Tests --------------------------------------------------------------------------------------


def test_a_test_is_written_down_with_who_ran_it_when_where_and_on_what(desk: Desk) -> None:
    body = desk.tested(processes=4)
    record = desk.ledger.newest("run", "hardware")

    assert record is not None
    assert record.submitted == "ann"
    assert (body["check"], body["phase"], body["processes"]) == ("hardware", "phase1", 4)
    assert (body["members"], body["nodes"], body["shortened"]) == (["n1"], 1, "")
    assert body["ended"] - body["began"] == 9
    assert body["hashes"] == {"catalogue": "cat", "profile": "prof", "environment": "env"}
    assert body["fingerprint"]["kernel"] == "6.1"
    assert body["fingerprint"]["bios"] == "ACME 1.2"
    assert body["fingerprint"]["driver"] == "nvidia 550"
    assert body["fingerprint"]["membership"] == "n1"


def test_a_test_says_of_which_stability_runs_it_speaks(desk: Desk) -> None:
    facts = (Fact("run of phase1", "phase1_x"), Fact("test alert", "routed"))
    assert desk.tested(facts=facts)["of"] == {"phase1": "phase1_x"}


@pytest.mark.parametrize("other", [{"began": 1.0}, {"ended": 2.0}, {"by": "Bo"}, {"processes": 2}])
def test_a_report_of_another_run_is_not_written_down(desk: Desk, other: dict[str, Any]) -> None:
    with pytest.raises(DvfdError, match="not the run that was handed in"):
        desk.tested(other=other)

    assert not desk.ledger.records("run")


def test_the_worst_critical_verdict_is_that_of_the_record(desk: Desk) -> None:
    assert desk.tested()["verdict"] == "PASS"
    assert desk.tested(Verdict.UNKNOWN)["verdict"] == "UNKNOWN"
    assert HARDWARE.criteria[0].severity is Severity.CRITICAL
    assert desk.tested(Verdict.FAIL)["verdict"] == "FAIL"


def test_every_criterion_stands_in_the_record_with_both_sides(desk: Desk) -> None:
    rows_ = desk.tested()["results"]

    assert [row["criterion"] for row in rows_] == [c.id for c in HARDWARE.criteria]
    assert rows_[0]["observed"] == 1.0
    assert rows_[0]["comparison"] == HARDWARE.criteria[0].comparison.value


def test_what_somebody_waives_is_written_down_as_it_was_found(desk: Desk) -> None:
    waived = Waived(
        verdict=Verdict.FAIL, found="too hot", by="Bo", role="CTO", reason="fan", expires=2e9,
        record=1,
    )  # fmt: skip
    body = desk.tested(Verdict.WAIVED, waived=waived)

    assert body["results"][0]["verdict"] == "FAIL"
    assert body["verdict"] == "FAIL"
    report = json.loads((desk.state / body["report"]["where"]).read_bytes())
    assert (report["verdict"], report["results"][0]["waived"]["by"]) == ("WAIVED", "Bo")


def test_the_report_is_kept_under_the_hash_that_the_record_names(desk: Desk) -> None:
    report = desk.tested()["report"]

    data = (desk.state / report["where"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == report["sha256"]
    assert json.loads(data)["check"] == "hardware"


def test_a_report_that_cannot_be_kept_is_not_written_down(desk: Desk) -> None:
    desk.tested()
    reports = desk.state / "evidence" / "reports"
    for path in reports.iterdir():
        path.unlink()
    reports.rmdir()
    reports.write_text("", encoding="ascii")

    desk.clock.advance(1)
    with pytest.raises(StoreError, match="nothing was recorded"):
        desk.tested()
    assert len(desk.ledger.records("run")) == 1


# --- Stability runs -----------------------------------------------------------------------------


def test_a_run_with_its_report_is_written_down_once_also_after_a_restart(desk: Desk) -> None:
    run = desk.frozen()

    assert len(desk.ran(run)) == 1
    assert desk.ran(run) == []
    desk.witness = desk.another()
    assert desk.ran(run) == []
    assert [record.body["run"] for record in desk.ledger.records("run", PHASE1.id)] == [run.id]


def test_a_run_says_what_was_ordered_and_what_it_was_worth(desk: Desk) -> None:
    (body,) = desk.ran(run := desk.frozen())

    assert (body["verdict"], body["shortened"], body["aborted"]) == (
        "UNKNOWN",
        "60 min of 24 h",
        "",
    )
    assert body["job_hash"]
    assert body["report"] == {"where": f"runs/{run.id}.json", "sha256": run.frozen}
    assert {row["criterion"] for row in body["results"]} == {c.id for c in PHASE1.criteria}
    assert body["ended"] == run.ended_at


def test_a_run_that_was_broken_off_says_why(desk: Desk) -> None:
    (body,) = desk.ran(desk.frozen(stage=Stage.ABORTED, reason="stopped by ann"))

    assert body["aborted"] == "stopped by ann"
    assert "aborted: stopped by ann" in body["uncounted"]


def test_a_run_without_a_report_waits(desk: Desk) -> None:
    assert desk.ran(replace(desk.frozen(), frozen="")) == []
    assert not desk.witness.owed


def test_a_report_that_was_changed_is_no_evidence(desk: Desk) -> None:
    run = desk.frozen()
    path = desk.state / "runs" / f"{run.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"UNKNOWN"', b'"PASS"'))

    assert desk.ran(run) == []
    assert desk.witness.owed


def test_what_could_not_be_written_down_is_owed_until_it_can(desk: Desk) -> None:
    run = desk.frozen(write=False)
    assert desk.ran(run) == []
    assert desk.witness.owed

    desk.frozen()
    assert len(desk.ran(run)) == 1
    assert not desk.witness.owed

"""Write down what came to its end: a test, a stability run, what people had said before.

The record says what every criterion was worth, before anybody waives one. The report that says it
whole is kept under its own hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from dvfd.environment import fingerprint
from dvfd.errors import DvfdError, StoreError
from dvfd.evidence.ledger import leave, settle
from dvfd.model import Severity, Verdict, worst
from dvfd.runs.baselines import job_hash
from dvfd.runs.report import as_text
from dvfd.runs.run import Stage, name
from dvfd.store import report_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dvfd.drills.findings import Findings
    from dvfd.evidence.ledger import Evidence, Record
    from dvfd.model import Check, Report
    from dvfd.model import Run as Tested
    from dvfd.runs.run import Run

log = structlog.get_logger()

KIND = "run"

KEPT = (
    "criterion", "verdict", "observed", "comparison", "limit", "margin", "unit", "reason",
    "overridden", "severity", "labels",
)  # fmt: skip
"""What of a result stands in the record; the report has the rest."""


class Witness:
    """Makes the `run` records of this node. Any thread."""

    def __init__(self, evidence: Evidence, state: Path) -> None:
        """*state* is where reports lie: of tests in evidence/reports, of stability runs in runs."""
        self._evidence = evidence
        self._state = state
        self._lock = threading.Lock()
        self._known: set[str] | None = None
        self._refused: dict[str, str] = {}

    def tested(self, report: Report, findings: Findings) -> Record:
        """Write down that a test was run and judged. Raises StoreError; then it is not recorded.
        Raises DvfdError where *report* judges another run than that of *findings*.
        """
        if _who(report.run) != _who(findings.run):
            raise DvfdError(
                f"{report.check.id}: nothing was recorded: what was judged is not the run that was "
                "handed in; run it again"
            )
        document = report_document(report)
        data = as_text(document).encode(errors="replace")
        sha256 = hashlib.sha256(data).hexdigest()
        where = f"evidence/reports/{sha256}.json"
        _keep(self._state / where, data)
        body = _of_test(report, findings, document) | {"report": _report(where, sha256)}
        return self._evidence.append(KIND, report.check.id, body, submitted=findings.by)

    def ran(self, runs: Iterable[Run], checks: Mapping[str, Check]) -> list[Record]:
        """Write down every stability run that has its report and is not written down yet: once,
        whoever ended it and whatever came between. What is wrong with one is logged, once.
        """
        with self._lock:
            if self._known is None:
                self._known = {str(r.body.get("run")) for r in self._evidence.each(KIND)}
            wanted = [run for run in runs if run.frozen and run.id not in self._known]
            made = [self._end(run, checks.get(run.plan.check)) for run in wanted]
            self._known |= {str(record.body["run"]) for record in made if record}
        return [record for record in made if record]

    @property
    def owed(self) -> bool:
        """Whether something could not be written down."""
        return bool(self._refused)

    def _end(self, run: Run, check: Check | None) -> Record | None:
        try:
            report = self._frozen(run)
            body = _of_run(run, report, check)
            record = self._evidence.append(KIND, run.plan.check, body, submitted=run.plan.by)
        except (DvfdError, KeyError, TypeError, ValueError) as error:
            if self._refused.get(run.id) != str(error):
                log.exception("run not in the ledger", run=run.id)
            self._refused[run.id] = str(error)
            return None
        self._refused.pop(run.id, None)
        return record

    def _frozen(self, run: Run) -> dict[str, Any]:
        """The report that *run* was frozen with. Raises StoreError."""
        path = self._state / "runs" / f"{run.id}.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
        if (found := hashlib.sha256(data).hexdigest()) != run.frozen:
            raise StoreError(f"{path}: its SHA-256 is {found}, it was frozen with {run.frozen}")
        report: dict[str, Any] = json.loads(data)
        return report


def _of_test(report: Report, findings: Findings, document: Mapping[str, Any]) -> dict[str, Any]:
    check = report.check
    return {
        "run": name(check.id, findings.ended),
        "check": check.id,
        "title": check.title,
        "phase": check.phase,
        "processes": findings.processes,
        "nodes": len(findings.members) or 1,
        "members": list(findings.members) or [report.node],
        "began": findings.began,
        "ended": findings.ended,
        "shortened": findings.shortened,
        "planned": findings.planned,
        "aborted": "",
        "of": findings.of,
        "hashes": dict(document["hashes"]),
        "fingerprint": fingerprint(findings.node, findings.members or [report.node]),
        "job_hash": "",
        **_judged(document["results"]),
    }


def _of_run(run: Run, report: Mapping[str, Any], check: Check | None) -> dict[str, Any]:
    members = [run.node, *(peer for peer in run.peers if peer != run.node)]
    return {
        "run": run.id,
        "check": run.plan.check,
        "title": check.title if check else report["title"],
        "phase": report["phase"],
        "processes": run.plan.processes,
        "nodes": run.plan.nodes,
        "members": members,
        "leader": run.leader,
        "began": run.armed_at + (run.began_t or run.armed_t) - run.armed_t,
        "ended": run.ended_at,
        "shortened": run.plan.shortened,
        "planned": run.plan.planned,
        "aborted": (report["reason"] or "nobody said why") if run.stage is Stage.ABORTED else "",
        "uncounted": list(report["uncounted"]),
        "hashes": {key: report["hashes"].get(key, "") for key in HASHES},
        "fingerprint": fingerprint(report["environment"], members),
        "job_hash": job_hash(run),
        **_judged(report["results"]),
        "report": _report(f"runs/{run.id}.json", run.frozen),
    }


def _who(run: Tested | None) -> tuple[object, ...]:
    """What tells one run of a test from another."""
    return (run.began, run.ended, run.by, run.processes) if run else ()


HASHES = ("catalogue", "profile", "environment")


def _judged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results as they were before anybody waived one, and what they come to."""
    results = [_bare({key: row.get(key) for key in KEPT}, row.get("waived")) for row in rows]
    critical = (row["verdict"] for row in results if row["severity"] == Severity.CRITICAL)
    return {"verdict": worst(map(Verdict, critical)).value, "results": results}


def _bare(row: dict[str, Any], waived: Mapping[str, Any] | None) -> dict[str, Any]:
    return row | {"verdict": waived["verdict"]} if waived else row


def _report(where: str, sha256: str) -> dict[str, str]:
    return {"where": where, "sha256": sha256}


def _keep(path: Path, data: bytes) -> None:
    """Whole or not at all, also through a power cut. Raises StoreError that says what to do."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        leave(path.parent.parent, path.parent)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        leave(path.parent, beside)
        beside.replace(path)
        settle(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(
            f"{path}: nothing was recorded: {error.strerror}: make room or give dvfd's user the "
            "right to write there, then do it again"
        ) from None

"""One phase from its first check to its signature, as people live it: days pass by a clock that is
told to; daemon, store, ledger, commands and pages are the real ones. What a machine of this size
cannot measure in minutes, the figures of its tests and the rows of its 24 hours, is made up here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes_gates import passing
from fakes_report import BEGAN, FakeRows, event, rows, write
from fakes_report import plan as plan_of
from fakes_report import run as run_of
from testbed import eventually

from dvfd.asking import ask
from dvfd.clock import SystemClock
from dvfd.config import parse
from dvfd.daemon import Daemon
from dvfd.drills.drill import Fact
from dvfd.drills.findings import Findings
from dvfd.environment import environment_facts
from dvfd.model import DRILL, Criterion, Sample, labels
from dvfd.runs.conductor import KIND
from dvfd.runs.rows import What
from dvfd.runs.run import Axis, name
from dvfd.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOUR, DAY = 3600.0, 86_400.0

TESTS = ("hardware", "openmpi_gloo", "pytorch", "gradient_sync", "loss_convergence")

STABILITY = "stability_phase1"

PEOPLE = ("team_trained", "team_confident")

CONFIG = """
[node]
name = "node4"
phase = "phase1"
[http]
port = 0
[profile]
nodes = 1
processes_per_node = 4
expected_throughput = 250.0
[programme]
start = {start:%Y-%m-%d}
"""


class Days(SystemClock):
    """The machine's clocks, ahead by what the story has lived through."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def boot(self) -> float:
        return super().boot() + self.ahead


class Lead:
    """The lead's daemon in this process, and a shell beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.clock = Days()
        start = datetime.now(UTC) - timedelta(days=7)
        self.file = directory / "dvfd.toml"
        self.file.write_text(CONFIG.format(start=start))
        self.daemon = self._made()

    def _made(self) -> Any:
        return Daemon(parse(self.file.read_text()), path=self.file, clock=self.clock)

    @property
    def catalogue(self) -> Any:
        return self.daemon._catalogue

    def away(self) -> None:
        self.daemon.stop()

    def back(self) -> None:
        self.daemon = self._made()
        self.daemon.start()

    def shell(self, *words: str) -> tuple[int, str]:
        """Exit code and all that a person would read."""
        done = subprocess.run(
            [sys.executable, "-m", "dvfd", *words],
            env={**os.environ, "DVFD_CONFIG": str(self.file)},
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def document(self, *words: str) -> Any:
        return json.loads(self.shell(*words, "-o", "json")[1])

    def gate(self, phase: str = "phase1") -> tuple[int, dict[str, Any]]:
        code, text = self.shell("gate", phase, "-o", "json")
        found = json.loads(text)
        assert found["gate"] == phase
        return code, found

    def incident(self) -> dict[str, Any]:
        """The only one."""
        (brief,) = self.document("incident", "list")["incidents"]
        return dict(self.document("incident", "show", brief["id"]))

    def calls(self) -> set[str]:
        """Whom alerts of phase tests call."""
        alerts = [entry.alert for entry in self.daemon._pager.entries() if entry.firing]
        told = [dict(alert.labels) for alert in alerts if alert.name == "DvfdPhaseTestFailed"]
        return {labels["escalation"] for labels in told}

    def page(self, path: str) -> str:
        with urllib.request.urlopen(self.daemon.address.rstrip("/") + path, timeout=30) as answer:
            return str(answer.read().decode())

    # --- What is made up ------------------------------------------------------------------------

    def tested(self, check: str, *facts: Fact) -> dict[str, Any]:
        """Figures of a test that went well, as the command that ran it hands them in."""
        now = self.clock.now()
        of = self.catalogue.checks[check]
        findings = Findings(
            check=check, began=now - 60, ended=now - 1, planned=of.duration, ran=of.duration,
            samples=tuple(self.figures(of.criteria, now - 1)), processes=4 if of.processes else 0,
            members=("node4",), node=environment_facts(), facts=facts,
        )  # fmt: skip
        answer = ask(self.directory / "control.sock", "drilled", findings=findings.to_dict())
        bad = [r["reason"] for r in answer["results"] if r["verdict"] in ("FAIL", "UNKNOWN")]
        assert not bad, bad
        return dict(answer)

    def figures(self, criteria: Sequence[Criterion], at: float) -> Iterator[Sample]:
        """A value for everything that *criteria* ask of a test, inside all limits on it."""
        asked = defaultdict(list)
        for criterion in criteria:
            if criterion.source == DRILL and not criterion.inapplicable:
                asked[criterion.metric, criterion.where].append(criterion)
        for (metric, where), together in asked.items():
            tried = [passing(each) for each in together]
            good = next(v for v in tried if all(fits(each, v) for each in together))
            free = [
                label for label in self.catalogue.metrics[metric].labels if label not in dict(where)
            ]
            for number in range(4 if "rank" in free else 1):
                own = labels(**dict(where), **dict.fromkeys(free, str(number)))
                yield Sample(metric, good, at, own)

    def trained(self, given: FakeRows) -> str:
        """24 hours of training that the daemon watched to their end, and was restarted before it
        had written the report.
        """
        self.away()
        self.clock.ahead += DAY + HOUR
        ended = self.clock.now() - 60.0
        check = self.catalogue.checks[STABILITY]
        armed = ended - DAY - BEGAN
        run = replace(
            run_of(plan=plan_of(check, by="ann")),
            id=name(check.id, ended), node="node4", armed_at=armed, ended_at=ended, seen_at=ended,
            armed_t=0.0, axis=Axis(boot_id="b", offset=0.0),
        )  # fmt: skip
        write(self.state / "runs" / f"{run.id}.db", run, given).close()
        store = Store(self.state / "dvfd.db", metrics=self.catalogue.metrics, clock=self.clock)
        store.start()
        store.put(KIND, run.id, run.to_document())
        store.stop()
        self.back()
        eventually(lambda: self.shell("evidence", "list", "-o", "json")[1].count(run.id) > 0, 60)
        return run.id


def fits(criterion: Criterion, value: float) -> bool:
    limit = criterion.limit.value
    return limit is None or criterion.comparison.holds(value, limit)


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lead]:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("DVFD_SOCKET", str(tmp_path / "ingest.sock"))
    made = Lead(tmp_path)
    made.daemon.start()
    try:
        yield made
    finally:
        made.away()


def line(found: dict[str, Any], name: str, kind: str = "go") -> dict[str, Any]:
    (only,) = [each for each in found["lines"] if (each["kind"], each["id"]) == (kind, name)]
    return dict(only)


def test_a_phase_fails_is_mended_and_is_signed(lead: Lead) -> None:
    sign = ("sign", "phase1", "--name", "Bo Lind", "--role", "VP Engineering")

    # Week 2, Monday: the tests pass, and nothing was trained yet.
    for check in TESTS:
        lead.tested(check)
    code, found = lead.gate()
    assert (code, found["outcome"]) == (1, "HOLD")
    assert line(found, "hardware")["verdict"] == "PASS"
    assert line(found, "stability")["verdict"] == "UNKNOWN"
    assert line(lead.gate("phase2a")[1], "before", "condition")["verdict"] == "UNKNOWN"

    # Tuesday: a rank died in the fifth of 24 hours.
    died = lead.trained(rows(DAY, event(5 * HOUR, What.FAILURE, "rank 2 died")))
    code, found = lead.gate()
    assert (code, found["outcome"]) == (2, "NO_GO")
    assert line(found, "no_go_failures", "veto")["verdict"] == "FAIL"
    refused, why = lead.shell(*sign)
    assert refused != 0
    assert "phase1 is NO_GO" in why

    # Its protocol: an hour of the team lead's, then the team's, with what was preserved at once.
    incident = lead.incident()
    assert incident["state"] == "open"
    assert died in str(incident["failures"])
    assert lead.calls() == {"team_lead"}
    eventually(lambda: (lead.incident()["bundle"] or {}).get("path"), 60)
    sealed = Path(lead.incident()["bundle"]["path"])
    with tarfile.open(sealed) as bundle:
        assert any(name.endswith("report.json") for name in bundle.getnames()), bundle.getnames()
    lead.clock.ahead += HOUR
    eventually(lambda: lead.incident()["state"] == "investigating", 60)
    assert lead.calls() == {"team"}
    incident_id = incident["id"]
    said = ("incident", "update", incident_id, "--by", "Cy")
    assert lead.shell(*said, "--finding", "the kernel killed rank 2: no memory left")[0] == 0

    # Wednesday: no restart loses the 24-hour mark; the cause is known, all of it is run again.
    lead.away()
    lead.clock.ahead += 23 * HOUR
    lead.back()
    eventually(lambda: lead.incident()["state"] == "decision", 60)
    mended = ("--cause", "fixed", "--finding", "the page cache is bounded now")
    assert lead.shell(*said, *mended)[0] == 0
    assert {need["check"] for need in lead.incident()["needs"]} == {*TESTS, STABILITY}

    lead.clock.ahead += HOUR
    for check in TESTS:
        lead.tested(check)
    assert lead.incident()["state"] != "resolved"
    whole = lead.trained(rows(DAY))
    eventually(lambda: lead.incident()["state"] == "resolved", 60)
    assert lead.calls() == set()

    # Friday: what only people can say, whether the monitoring works, and GO.
    code, found = lead.gate()
    assert (code, found["outcome"]) == (1, "HOLD")
    assert {each["id"] for each in found["lines"] if each["verdict"] != "PASS"} == {
        "monitoring", "team", "no_go_monitoring",
    }  # fmt: skip
    lead.tested("monitoring", Fact("run of phase1", died))
    assert line(lead.gate()[1], "monitoring")["verdict"] == "UNKNOWN"
    lead.tested("monitoring", Fact("run of phase1", whole))
    for item in PEOPLE:
        yes = ("--yes", "--name", "Ann Lee", "--role", "Infrastructure Lead")
        assert lead.shell("attest", item, *yes)[0] == 0
    code, found = lead.gate()
    assert (code, found["outcome"]) == (0, "GO"), lead.shell("gate", "phase1")[1]
    assert lead.shell(*sign)[0] == 0

    # Phase 2a may begin; what it needs itself is still to be shown.
    before = line(lead.gate("phase2a")[1], "before", "condition")
    assert before["verdict"] == "PASS"
    assert lead.gate("phase2a")[0] == 1
    assert "Bo Lind" in lead.page("/gates?gate=phase1")
    assert lead.shell("evidence", "verify")[0] == 0

    # Somebody mends history: nothing stands on it any more.
    ledger = lead.state / "evidence" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"rank 2 died", b"rank 2 rose").replace(
        b'"verdict":"FAIL"', b'"verdict":"PASS"'
    ))  # fmt: skip
    assert lead.shell("evidence", "verify")[0] == 2
    assert lead.gate()[1]["outcome"] == "HOLD"

"""A ledger, a node and a clock for incidents: days pass when they are told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import FakeClock
from fakes_sinks import FakeOutbox

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.evidence.chain import Record
from dvfd.evidence.ledger import Evidence
from dvfd.incidents.incident import Incident, Moment, Ran
from dvfd.incidents.protocol import Acted, Incidents
from dvfd.sinks.pager import Pager

HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0

STABILITY = "stability_phase1"
SUITE = ("hardware", "openmpi_gloo", "pytorch", STABILITY, "gradient_sync", "loss_convergence")
"""What phase 1 asks for, as the catalogue says."""

CATALOGUE = load(Config())


def moment(at: float = 0.0, *, boot_id: str = "a", step: float = 0.0) -> Moment:
    """*at* seconds after the beginning; *step* moves the wall clock alone."""
    return Moment(wall=1_800_000_000.0 + at + step, boot=1000.0 + at, boot_id=boot_id)


def ran(number: int = 7, verdict: str = "FAIL", at: float = 0.0, **more: Any) -> Ran:
    """A run that began an hour before it was recorded, unless *more* says otherwise."""
    wall = 1_800_000_000.0 + at
    given = {
        "number": number, "at": wall, "run": f"r{number}", "check": STABILITY, "title": "24 hours",
        "phase": "phase1", "verdict": verdict, "began": wall - HOUR, "ended": wall,
        "reasons": (f"{STABILITY}.throughput: 190, wanted 250",) if verdict == "FAIL" else (),
    }  # fmt: skip
    return Ran(**{**given, **more})


def body(check: str = STABILITY, verdict: str = "FAIL", *, at: float, **more: Any) -> dict:
    """The body of a `run` record, as the ledger has it."""
    row = {
        "criterion": f"{check}.throughput", "verdict": verdict, "severity": "critical",
        "reason": "190 samples/s, wanted at least 250",
    }  # fmt: skip
    return {
        "run": f"run-{check}", "check": check, "title": f"Title of {check}", "phase": "phase1",
        "processes": 4, "nodes": 1, "members": ["n1"], "verdict": verdict, "began": at - HOUR,
        "ended": at, "shortened": "", "aborted": "", "results": [row],
        "report": {"where": "runs/r.json", "sha256": "0"}, **more,
    }  # fmt: skip


class Kept(FakeOutbox):
    """The store: the outbox, documents, and the head of the ledger."""

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.all(kind).get(key)


class Preserver:
    """Does nothing at once, and says that it did."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.again: Callable[[], str] | None = None

    def __call__(
        self, incident: Incident, record: Record | None, acted: Acted
    ) -> dict[str, object]:
        self.asked.append(incident.id)
        acted({"action": "notify", "words": "left alone"}, self.again)
        return {"path": "b.tar.gz", "bytes": 9, "parts": 2, "sha256": "ab", "missing": []}


class Place:
    """A node with a ledger; `restart` is another daemon on what the first one left."""

    def __init__(
        self, directory: Path, *, phase: str = "phase1", clock: FakeClock | None = None
    ) -> None:
        self.directory = directory
        self.phase = phase
        self.clock = clock or FakeClock()
        self.boot_id = "a"
        self.store = Kept()
        self.at_once = Preserver()
        self.restart()

    def restart(self, *, boot_id: str = "") -> None:
        if boot_id:
            self.boot_id = boot_id
        self.evidence = Evidence(self.directory, self.clock, node="n1", store=self.store)
        self.pager = Pager(self.store, push=True)
        self.pager.load()
        self.incidents = Incidents(
            CATALOGUE,
            store=self.store,
            evidence=self.evidence,
            clock=self.clock,
            boot_id=self.boot_id,
            directory=self.directory / "incidents",
            node="n1",
            phase=self.phase,
            pager=self.pager,
            at_once=self.at_once,
        )
        self.incidents.load()

    def run(self, check: str = STABILITY, verdict: str = "FAIL", **more: Any) -> Record:
        """A test comes to its end and is recorded."""
        document = body(check, verdict, at=self.clock.now(), **more)
        record = self.evidence.append("run", check, document, submitted="ann")
        self.incidents.tick()
        return record

    def suite(self, *checks: str) -> None:
        """Run *checks*, all of phase 1 if none are named, and have them pass."""
        for check in checks or SUITE:
            self.run(check, "PASS", began=self.clock.now())

    def pass_time(self, seconds: float, every: float = HOUR) -> None:
        """Let time pass, with a look at the deadlines now and then."""
        while seconds > 0:
            self.clock.advance(min(every, seconds))
            seconds -= every
            self.incidents.tick()

    def say(self, **said: Any) -> dict[str, Any]:
        """Ann says something of the only incident that is on."""
        id_ = self.incidents.on()[0]["id"]
        return self.incidents.update({"id": id_, "name": "Ann Lee", **said}, "ann")

    @property
    def on(self) -> dict[str, Any]:
        """The only incident that is not over, in short."""
        (found,) = self.incidents.on()
        return found

    def calls(self) -> dict[str, str]:
        """Whom the alerts that fire now call, by the alert's name."""
        firing = [entry.alert for entry in self.pager.entries() if entry.firing]
        return {alert.name: alert.labels["escalation"] for alert in firing}

"""Failed tests of a phase: written into the ledger, an incident each, findings, its alert, its end.

Where an incident stands lies in the store, its opening and its end in the ledger, whom it calls in
the outbox. What is done at once (bundles) is left out: it has a harness of its own beside it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing.files import Lived, once, only, unsound
from bench.crashing.killing import Story, Words
from bench.crashing.people import CATALOGUE, PEER
from dvfd.evidence.ledger import Evidence
from dvfd.incidents.protocol import Incidents, operations
from dvfd.operations import lasting
from dvfd.sinks.pager import Pager
from dvfd.store import Store

PHASE = "phase1"
TESTS = CATALOGUE.gates[PHASE].tests


class Desk:
    """Ledger, incidents and pager over what lies in a directory."""

    def __init__(self, place: Path, clock: Lived) -> None:
        self.clock = clock
        self.store = Store(place / "dvfd.db", metrics=CATALOGUE.metrics, clock=clock)
        self.store.start()
        self.evidence = Evidence(place / "evidence", clock, node="n1", store=self.store)
        self.pager = Pager(self.store, push=True)
        self.pager.load()
        self.incidents = Incidents(
            CATALOGUE, store=self.store, evidence=self.evidence, clock=clock, boot_id="b",
            known=lambda: self.store.known,
            directory=place / "incidents", node="n1", phase=PHASE, pager=self.pager,
        )  # fmt: skip
        self.incidents.load()
        self.operations = lasting(self.store, operations(self.incidents))

    def run(self, check: str, verdict: str, key: str) -> None:
        """A test comes to its end, as the witness writes it down."""
        at = self.clock.now()
        row = {"criterion": f"{check}.x", "verdict": verdict, "severity": "critical", "reason": key}
        body = {
            "run": key, "check": check, "title": check, "phase": PHASE, "processes": 4, "nodes": 1,
            "members": ["n1"], "verdict": verdict, "began": at - 5.0, "ended": at, "shortened": "",
            "aborted": "", "results": [row],
        }  # fmt: skip
        self.evidence.append("run", check, body, submitted="ann")

    def say(self, id_: str, key: str, **more: Any) -> None:
        """As `dvfd incident update` does."""
        request = {"id": id_, "name": "Ann Lee", "finding": key, **more}
        self.operations["incident_update"].answer(request, PEER)

    def stop(self) -> None:
        """Let go of the files."""
        self.store.stop()


class Followed:
    """See the module."""

    name, text = "incidents", "incidents: opened from the ledger, followed, told, resolved"

    def prepare(self, place: Path) -> None:
        """Nothing."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Tests fail and pass; somebody says what was found, and that it is fixed."""
        life = story.lives
        desk = Desk(place, Lived(life, 60.0))
        chance = Random(life)
        words.ready()
        number = 0
        while True:
            number += 1
            key = f"{life}/{number}"
            on = desk.incidents.on()
            if on and chance.random() < 0.5:
                cause = {"cause": "fixed"} if chance.random() < 0.4 else {}
                words.begin(f"say {key}")
                desk.say(chance.choice(on)["id"], f"say {key}", **cause)
                words.done(f"say {key}")
            else:
                verdict = "FAIL" if chance.random() < 0.3 else "PASS"
                words.begin(f"run {verdict} {key}")
                desk.run(chance.choice(TESTS), verdict, key)
                words.done(f"run {verdict} {key}")
            desk.incidents.tick()

    def hold(self, place: Path, story: Story) -> list[str]:
        """Start on it, look once, and hold it against the ledger and what was said."""
        desk = Desk(place, Lived(story.lives + 0.5, 60.0))
        desk.incidents.tick()
        desk.store.flush(60)
        found = [f"ledger: {problem}" for problem in desk.evidence.verify()]
        found += [*_said(desk, story), *_records(desk), *_alerts(desk)]
        if desk.incidents.trouble:
            found.append(f"incidents do not move on: {desk.incidents.trouble}")
        desk.stop()
        return [*found, *unsound(place / "dvfd.db")]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


def _documents(desk: Desk) -> list[dict[str, Any]]:
    return [desk.incidents.show({"id": id_}) for id_ in desk.incidents.ids()]


def _said(desk: Desk, story: Story) -> list[str]:
    """Every finding once, every run in the ledger once, each failure in one incident."""
    documents = _documents(desk)
    whys = [e["why"] for d in documents for e in d["journal"] if e["what"] != "opened"]
    findings = [why.removeprefix("say ") for why in whys if why.startswith("say ")]
    runs = [f"{r.body['verdict']} {r.body['run']}" for r in desk.evidence.records("run")]
    failures = [f"FAIL {each['run']}" for d in documents for each in d["failures"]]
    wanted = [run for run in runs if run.startswith("FAIL")]
    return [
        *once("findings", story.finished("say "), _unique(findings)),
        *only("findings", findings, story.tried("say ")),
        *once("runs", story.finished("run "), runs),
        *only("runs", runs, story.tried("run ")),
        *once("failures in incidents", wanted, failures),
        *only("failures in incidents", failures, wanted),
    ]


def _unique(findings: list[str]) -> list[str]:
    """A word on the cause stands in the journal twice: as it was said, and as what follows."""
    counts = Counter(findings)
    return [key for key, count in counts.items() for _ in range(1 if count <= TWICE else count)]


TWICE = 2


def _records(desk: Desk) -> list[str]:
    """Of each incident the ledger has one opening, and one end if it is over."""
    found = []
    told = Counter((r.subject, r.body["state"]) for r in desk.evidence.records("incident"))
    for document in _documents(desk):
        over = document["state"] == "resolved"
        if told[document["id"], "open"] != 1 or told[document["id"], "resolved"] != int(over):
            found.append(f"{document['id']} is {document['state']}, the ledger has {dict(told)}")
    return found


def _alerts(desk: Desk) -> list[str]:
    """One phase's alert fires for each incident that is not over, and none else."""
    firing = Counter(key.split(":")[1] for key in desk.pager.firing())
    wanted = Counter(each["check"] for each in desk.incidents.on())
    return [] if firing == wanted else [f"alerts fire for {firing}, incidents are {wanted}"]

"""What people say, sign and enter, asked for as the control socket is asked: statements, waivers,
signatures under gates and the whole, measurements, test records, a ledger founded anew.

The ledger of evidence lies under most of it, the store beside it. An answer is a promise.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing.files import Lived, once, only, unsound
from bench.crashing.killing import Story, Words
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.control import Operation, Peer
from dvfd.evidence.chain import Chain
from dvfd.evidence.ledger import Evidence
from dvfd.gates import gatehouse as gates
from dvfd.model import Clock
from dvfd.operations import lasting
from dvfd.people import attestations as people
from dvfd.people import signoffs as signing
from dvfd.people import waivers as waiving
from dvfd.runs.baselines import Baselines
from dvfd.scaling import ledger as scaling
from dvfd.store import Store

CONFIG = Config()
CATALOGUE = load(CONFIG)
ITEMS = tuple(people.answers(CATALOGUE))[:3]
WHO = {"name": "Ann Lee", "role": "VP Engineering"}
PEER = Peer(os.getpid(), 0, 0)


class Desk:
    """The rooms in which people are heard, over what lies in a directory."""

    def __init__(self, place: Path, clock: Clock) -> None:
        self.store = Store(place / "dvfd.db", metrics=CATALOGUE.metrics, clock=clock)
        self.store.start()
        self.clock = clock
        self.evidence = Evidence(place / "evidence", clock, node="n1", store=self.store)
        self.attestations = people.Attestations(CATALOGUE, self.store, clock, self.evidence)
        self.attestations.enter()
        self.scaling = scaling.Ledger(
            self.store, Baselines(place / "runs", self.store, clock), clock
        )
        waivers = waiving.Waivers(CATALOGUE, self.evidence, clock)
        house = gates.Gatehouse(CONFIG, CATALOGUE, self.evidence, clock, facts=dict)
        self.operations = lasting(
            self.store,
            {
                **people.operations(self.attestations),
                **waiving.operations(waivers, lambda _criterion: None),
                **signing.operations(signing.SignOffs(CATALOGUE, self.evidence)),
                **gates.operations(house),
                **scaling.operations(self.scaling),
                "renew": Operation(self._renew, changes=True),
            },
        )

    def _renew(self, request: Any, peer: Peer) -> str:
        return str(self.evidence.renew(dict(request), submitted=peer.name))

    def ask(self, op: str, key: str, **more: Any) -> Any:
        """As somebody would; *key* is in the note, or wherever words stand."""
        return self.operations[op].answer({**WHO, "note": key, "reason": key, **more}, PEER)


def requests(now: float, chance: Random) -> tuple[str, dict[str, Any]]:
    """What somebody asks for next."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("attest", {"item": chance.choice(ITEMS), "value": chance.random() < 0.5}),
        ("waive", {"criterion": "live.exceptions", "expires": now + 1e6}),
        ("signoff", {}),
        ("sign", {"gate": "phase1", "override": "in spite of it"}),
        ("scaling_record", {"processes": 4, "throughput": 270.0, "job": "gpt"}),
    ]
    return chance.choice(kinds)


class Spoken:
    """See the module."""

    name, text = "people", "statements, waivers, signatures, measurements, the ledger under them"

    def prepare(self, place: Path) -> None:
        """Nothing: the first word founds the ledger."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """One request after another."""
        life = story.lives
        desk = Desk(place, Lived(life))
        chance = Random(life)
        renewed = chance.randint(2, 12)
        words.ready()
        number = 0
        while True:
            number += 1
            op, more = requests(desk.clock.now(), chance)
            if number == renewed:  # once in a life: a ledger that is set aside bears its second
                op, more = "renew", {}
            key = f"{op} {life}/{number}"
            words.begin(key)
            desk.ask(op, key, **more)
            words.done(key)

    def hold(self, place: Path, story: Story) -> list[str]:
        """Start as the daemon does, read it all, and read the ledger anew."""
        return self.looked(Desk(place, Lived(story.lives + 0.5)), place, story)

    @staticmethod
    def looked(desk: Desk, place: Path, story: Story) -> list[str]:
        """What is wrong with what lies in *place*, over which *desk* was started."""
        found = [f"ledger: {problem}" for problem in desk.evidence.verify()]
        for kind, op in LEDGER.items():
            found += _written(place, story, kind, op)
        found += _kept(desk, story)
        found += [fault for path in _files(place) for fault in _broken(path)]
        desk.store.stop()
        return [*found, *unsound(place / "dvfd.db")]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


def _written(place: Path, story: Story, kind: str, op: str) -> list[str]:
    """The records of a kind: each once in its file. What people stated is carried over into a
    ledger that was founded anew, by the store's own copy.
    """
    files = [
        [key.removeprefix(f"{op} ") for of, key in _records(path) if of == kind]
        for path in _files(place)
    ]
    every = [key for keys in files for key in keys]
    apart = files if kind == people.KIND else [every]
    return [
        *once(f"ledger, {kind}", story.finished(f"{op} "), set(every)),
        *only(f"ledger, {kind}", every, [*story.tried(f"{op} "), FIRST]),
        *(fault for keys in apart for fault in once(f"ledger, {kind}", (), keys)),
    ]


FIRST = "first"
"""The founding that nobody asked for."""

LEDGER = {"attestation": "attest", "waiver": "waive", "signoff": "signoff", "decision": "sign",
          "ledger": "renew"}  # fmt: skip
"""Kinds of records, and what they are asked for with."""


def _key(body: Any) -> str:
    """What the request that led to a record was called; the founding itself nobody asked for."""
    return str(body.get("note") or body.get("reason") or FIRST)


def _records(path: Path) -> list[tuple[str, str]]:
    """Kind of each record of a file, and what the request that led to it was called."""
    records = [json.loads(line) for line in _whole(path)]
    return [(record["kind"], _key(record["body"])) for record in records]


def _whole(path: Path) -> list[bytes]:
    """The lines that end: what a kill cut off was promised to nobody."""
    return path.read_bytes().split(b"\n")[:-1]


def _files(place: Path) -> list[Path]:
    """The ledger and those before it; one that was being set aside may have two names."""
    found = sorted((place / "evidence").glob("ledger*.jsonl"))
    return list({path.stat().st_ino: path for path in found}.values())


def _broken(path: Path) -> list[str]:
    """What is wrong with a file of the ledger by itself."""
    chain = Chain()
    for line in _whole(path):
        chain.take(line)
    return [f"{path.name}: {problem}" for problem in chain.problems]


def _kept(desk: Desk, story: Story) -> list[str]:
    """What the store has of it: statements once each, in the order of the ledger; measurements."""
    said = [each.note for item in ITEMS for each in desk.attestations.history(item)]
    stated = [note.removeprefix("attest ") for note in said]
    entered = [point.note.removeprefix("scaling_record ") for point in desk.scaling.points()]
    return [
        *once("store, statements", story.finished("attest "), stated),
        *only("store, statements", stated, story.tried("attest ")),
        *once("store, measurements", story.finished("scaling_record "), entered),
        *only("store, measurements", entered, story.tried("scaling_record ")),
    ]

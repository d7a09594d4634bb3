"""Every place where dvfd writes, as something that is asked to write one thing after another.

`write` gives an empty string where it was promised that the thing is safe, else what dvfd said.
`there` says of the things that were tried which are found when it is all started anew.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from bench.crashing import incidents, people, runs, whole
from bench.crashing.files import Lived, once, only, rows, unsound
from bench.crashing.store import CHECK, RULE, opened
from dvfd.errors import DvfdError
from dvfd.evidence import bundle, witness
from dvfd.evidence.ledger import Evidence
from dvfd.incidents.preserve import Orders, Sealing
from dvfd.model import Report, Result, Verdict
from dvfd.runs import freezing
from dvfd.store import StepFold
from dvfd.store.backup import backup
from dvfd.telemetry.fold import folds
from dvfd.telemetry.wire import Row

COMMIT = 1.0
"""Seconds that a promise of the store is waited for."""


class Sitter(Protocol):
    """A writing point at work."""

    def write(self, key: str) -> str:
        """Try to write *key*; what was said against it."""
        ...

    def close(self) -> None:
        """Let go of the files, as far as the disk lets it."""
        ...


class Refused(Enum):
    """What becomes of what was refused."""

    GONE = "it is not there"
    WAITS = "it is there in the end"
    EITHER = "it may be there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place where something is written, and what becomes of what was refused there."""

    name: str
    sit: Callable[[Path], Sitter]
    there: Callable[[Path, Iterable[str]], tuple[list[str], list[str]]]
    refused: Refused = Refused.WAITS

    def faults(self, place: Path, tried: list[str], promised: list[str]) -> list[str]:
        """What is wrong with what lies in *place* after all of it."""
        found, faults = self.there(place, tried)
        wanted = tried if self.refused is Refused.WAITS else promised
        allowed = promised if self.refused is Refused.GONE else tried
        return [
            *faults,
            *once(self.name, wanted, found),
            *only(self.name, found, allowed),
        ]


# --- The store ------------------------------------------------------------------------------------


class Storing:
    """Reports, alerts and telemetry into the store."""

    def __init__(self, place: Path) -> None:
        self._clock = Lived(0)
        self._store = opened(place, self._clock)

    def write(self, key: str) -> str:
        """See Sitter."""
        at = self._clock.now()
        next_ = self._store.cursor("s") + 1  # as a rank that connects again after each word
        row = StepFold(job="j", rank=0, first_step=next_, last_step=next_, count=1, at=at)
        self._store.commit_telemetry("s", next_, [row], lambda _: None)
        result = Result(RULE, Verdict.PASS, at, key, 70.0, 75.0)
        self._store.keep(Report(CHECK, (result,), at), scheduled=at)
        self._store.outbox_put(key, {"key": key, "text": "x" * 2000}, {"key": key})
        if self._store.flush(COMMIT):
            return ""
        return self._store.health().reason

    def close(self) -> None:
        """See Sitter."""
        self._store.stop()


def _stored(place: Path, _tried: Iterable[str]) -> tuple[list[str], list[str]]:
    path = place / "dvfd.db"
    reports = "SELECT json_extract(document, '$.results[0].reason') FROM reports"
    found = [key for (key,) in rows(path, reports)]
    alerts = [key for (key,) in rows(path, "SELECT key FROM outbox")]
    steps = [n for (n,) in rows(path, "SELECT sequence FROM folds ORDER BY sequence")]
    hole = steps != list(range(1, len(steps) + 1))
    return found, [
        *unsound(path),
        *([f"telemetry is missing or doubled: {steps}"] if hole or not steps else []),
        *([f"alerts {alerts}, reports {found}"] if set(alerts) != set(found) else []),
    ]


# --- What people say ------------------------------------------------------------------------------


class Saying:
    """One kind of request after another, as the control socket answers it."""

    def __init__(self, place: Path, op: str, more: dict[str, Any]) -> None:
        self._desk = people.Desk(place, Lived(0))
        self._op, self._more = op, more

    def write(self, key: str) -> str:
        """See Sitter."""
        try:
            self._desk.ask(self._op, key, **self._more)
        except DvfdError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """See Sitter."""
        self._desk.store.stop()


def _said(kind: str) -> Callable[[Path, Iterable[str]], tuple[list[str], list[str]]]:
    """Of records of a kind; of measurements those in the store."""

    def there(place: Path, _tried: Iterable[str]) -> tuple[list[str], list[str]]:
        desk = people.Desk(place, Lived(1))
        if kind:
            bodies = [record.body for record in desk.evidence.records(kind)]
            found = [str(body.get("note") or body.get("reason")) for body in bodies]
        else:
            found = [point.note for point in desk.scaling.points()]
        problems = desk.evidence.verify()
        desk.store.stop()
        return found, [*problems, *unsound(place / "dvfd.db")]

    return there


def _person(op: str, kind: str, **more: Any) -> Point:
    return Point(
        name=op,
        sit=lambda place: Saying(place, op, more),
        there=_said(kind),
        refused=Refused.GONE if kind else Refused.EITHER,
    )


ATTACHED = 2000
CONTENT = base64.b64encode(b"x" * ATTACHED).decode()


class Finding:
    """Findings of an incident, in words and as files."""

    def __init__(self, place: Path, *, attached: bool) -> None:
        self._desk = incidents.Desk(place, Lived(0))
        self._attached = attached

    def write(self, key: str) -> str:
        """See Sitter."""
        file = {"file": "log.txt", "content": CONTENT} if self._attached else {}
        self._desk.incidents.tick()
        try:
            if not self._desk.incidents.ids():
                self._desk.run(incidents.TESTS[0], "FAIL", "failed")
                self._desk.incidents.tick()
            if not self._desk.incidents.on():
                return self._desk.incidents.trouble
            self._desk.say(self._desk.incidents.on()[0]["id"], key, **file)
        except DvfdError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """See Sitter."""
        self._desk.stop()


def _found(place: Path, _tried: Iterable[str]) -> tuple[list[str], list[str]]:
    desk = incidents.Desk(place, Lived(1))
    desk.incidents.tick()
    journal = [e for d in incidents._documents(desk) for e in d["journal"]]
    found = [entry["why"] for entry in journal if entry["what"] in {"finding", "attached"}]
    files = [Path(e["attached"].partition(",")[0]) for e in journal if e.get("attached")]
    lost = [str(path) for path in files if path.stat().st_size != ATTACHED]
    problems = [*desk.evidence.verify(), *([f"attached, not whole: {lost}"] if lost else [])]
    desk.stop()
    return found, [*problems, *unsound(place / "dvfd.db")]


# --- Stability runs -------------------------------------------------------------------------------


class Arming:
    """Runs that are armed and stopped."""

    def __init__(self, place: Path) -> None:
        self._node = runs.Node(place, 0.0)

    def write(self, key: str) -> str:
        """See Sitter."""
        self._node.conductor.tick()
        on = self._node.on
        try:
            if on is not None and not on.stage.over:
                self._node.ask("stability_stop", id=on.id, reason="r")
            if on is not None:
                self._node.clock.advance(5.0)
                self._node.conductor.tick()  # frozen; without room it is over without a report
            self._node.ask(
                "stability_arm", check=runs.CHECK, job="gpt", duration=60.0, note=key, force=True
            )
        except DvfdError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """See Sitter."""
        self._node.conductor.stop()
        self._node.store.stop()


def _armed(place: Path, _tried: Iterable[str]) -> tuple[list[str], list[str]]:
    node = runs.Node(place, 100.0)
    found = [run.plan.note for run in node.conductor.runs()]
    # One that ended without room for its report, and that another followed, is not taken up.
    every = node.conductor.runs()
    whole_ = [run for run in every if run.frozen or run is every[-1]]
    faults = [f for run in whole_ for f in runs._file(_path(place, run.id), run)]
    node.conductor.stop()
    node.store.stop()
    return found, [*faults, *unsound(place / "dvfd.db")]


def _path(place: Path, run: str) -> Path:
    return place / "runs" / f"{run}.db"


class Recording:
    """Rows of a run that is on, which ranks must not be told are safe before its file has them.

    A rank here connects again before each word, and sends what is not acknowledged.
    """

    def __init__(self, place: Path) -> None:
        self._node = runs.Node(place, 0.0)
        if self._node.on is None:
            self._node.ask("stability_arm", check=runs.CHECK, job="gpt", note="n", force=True)
        self._steps = 0

    def write(self, key: str) -> str:
        """See Sitter: two more steps, and whether all of them are acknowledged."""
        node = self._node
        self._steps += 2
        node.clock.advance(1)
        before = node.store.cursor("s")
        split = max(before, min(node.store.recorded("s"), self._steps))
        done: list[int] = []
        for since, until in ((before, split), (split, self._steps)):
            if since < until:
                made = tuple(folds("gpt", 0, self._rows(since, until), node.clock.now()))
                node.store.commit_telemetry("s", until, made, done.append, job="gpt")
        node.conductor.tick()
        if node.store.flush(COMMIT) and done and done[-1] == self._steps:
            return ""
        on = node.on
        assert on
        trouble = node.conductor.status(on.id)["trouble"] or node.store.health().reason
        return str(trouble or "not acknowledged")

    def _rows(self, since: int, until: int) -> list[Row]:
        at = self._node.clock.boot() - self._steps / 2
        return [Row(n, n, at + n / 2, samples=1.0, loss=2.0) for n in range(since + 1, until + 1)]

    def close(self) -> None:
        """See Sitter."""
        self._node.conductor.stop()
        self._node.store.stop()


# --- Files ----------------------------------------------------------------------------------------

Make = Callable[[Path, Path], object]


class Making:
    """Files that are whole or not there, one after another, in a directory of the disk."""

    def __init__(self, place: Path, beside: Path, make: Make) -> None:
        self._place = place / "made"
        self._place.mkdir(exist_ok=True)
        self._beside, self._make = beside, make

    def write(self, key: str) -> str:
        """See Sitter."""
        try:
            self._make(self._beside, self._place / key.replace("/", "-"))
        except (DvfdError, OSError) as error:
            return str(error)
        return ""

    def close(self) -> None:
        """See Sitter."""


def _made(
    holds: Callable[[Path], list[str]],
) -> Callable[[Path, Iterable[str]], tuple[list[str], list[str]]]:
    def there(place: Path, tried: Iterable[str]) -> tuple[list[str], list[str]]:
        names = {key.replace("/", "-"): key for key in tried}
        paths = list((place / "made").iterdir())
        left = [path.name for path in paths if path.name not in names]
        faults = [f"{path.name}: {fault}" for path in paths if path.name in names
                  for fault in holds(path)]  # fmt: skip
        litter = [f"left behind after it was refused: {left}"] if left else []
        return [names[p.name] for p in paths if p.name in names], [*faults, *litter]

    return there


def _file(name: str, beside: Path, make: Make, holds: Callable[[Path], list[str]]) -> Point:
    return Point(
        name=name,
        sit=lambda place: Making(place, beside, make),
        there=_made(holds),
        refused=Refused.GONE,
    )


def _calibrated(beside: Path, path: Path) -> None:
    whole.calibrations.kept(path, whole.calibrations.seen(beside / "node"))


def _bundled(beside: Path, path: Path) -> None:
    lines = list(Evidence(beside / "evidence", Lived(0)).lines())
    bundle.write(path, lines, lambda _where: None)


def _preserved(_beside: Path, path: Path) -> None:
    orders = Orders(
        path=path, incident="i", node="n1", at=1.8e9, since=1.8e9 - 60, until=1.8e9,
        texts={"a.txt": "word " * 50_000}, limit=10 << 20, spare=0,
    )  # fmt: skip
    Sealing(orders).make()


def _nothing(_path: Path) -> list[str]:
    return []


def points(beside: Path) -> list[Point]:
    """All of them; *beside* lies on a disk that is well."""
    whole.Replaced().prepare(beside)
    report = whole._report
    return [
        Point(name="store", sit=Storing, there=_stored),
        _person("attest", "attestation", item=people.ITEMS[0], value=True),
        _person("waive", "waiver", criterion="live.exceptions", expires=4e9),
        _person("signoff", "signoff"),
        _person("sign", "decision", gate="phase1", override="in spite of it"),
        _person("scaling_record", "", processes=4, throughput=270.0, job="gpt"),
        Point(name="incident", sit=lambda p: Finding(p, attached=False), there=_found,
              refused=Refused.EITHER),
        Point(name="attach", sit=lambda p: Finding(p, attached=True), there=_found,
              refused=Refused.EITHER),
        Point(name="arm", sit=Arming, there=_armed, refused=Refused.EITHER),
        Point(name="run rows", sit=Recording, there=_rows),
        _file("report of a test", beside, lambda _b, p: witness._keep(p, report(p.name)),
              whole._whole),
        _file("report of a run", beside, lambda _b, p: freezing._write(p, report(p.name)),
              whole._whole),
        _file("backup", beside, lambda b, p: backup(b / "old.db", p), whole._database),
        _file("calibration", beside, _calibrated, whole._calibration),
        _file("evidence export", beside, _bundled, whole._bundle),
        _file("incident bundle", beside, _preserved, _nothing),
    ]  # fmt: skip


def _rows(place: Path, tried: Iterable[str]) -> tuple[list[str], list[str]]:
    """The run's file: no step twice, none missing; what was acknowledged is asked of the store."""
    (path,) = (place / "runs").glob("*.db")
    torn = rows(path, TORN)
    acknowledged = dict(rows(place / "dvfd.db", SESSIONS))
    reached = dict(rows(path, "SELECT session, sequence FROM sessions"))
    late = [s for s, n in acknowledged.items() if reached.get(s, 0) < n]
    return list(tried), [
        *unsound(path),
        *unsound(place / "dvfd.db"),
        *([f"steps missing or doubled: {torn}"] if torn else []),
        *([f"acknowledged and not in the run's file: {late}"] if late else []),
    ]


TORN = (
    "SELECT session FROM windows GROUP BY session"
    " HAVING max(last_step) - min(first_step) + 1 <> sum(steps)"
)
SESSIONS = "SELECT session, sequence FROM sessions"

"""Files that are whole or not there: a backup, a restored store, a calibration, evidence to take
along, a report under its hash. What is left beside them under a passing name promises nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from bench.crashing.files import BASE, Lived, rows, unsound
from bench.crashing.killing import Story, Words
from bench.harness import testbed
from dvfd import calibration
from dvfd.evidence import bundle, witness
from dvfd.evidence.ledger import Evidence
from dvfd.store import Store
from dvfd.store.backup import backup, restore

assert testbed  # the tests' directory is on the path since that was imported
calibrations = importlib.import_module("fakes_calibration")

ROWS = 200
OLD, NEW = "old", "new"


class Replaced:
    """See the module."""

    name, text = "files", "backup, restore, calibration, bundle, report"

    def prepare(self, place: Path) -> None:
        """A store with rows, another to be restored, a ledger, and a machine to calibrate."""
        for name in (OLD, NEW):
            _make(place / f"{name}.db", name)
        ledger = Evidence(place / "evidence", Lived(0))
        for number in range(20):
            ledger.append("run", "x", {"n": number, "text": "x" * 500}, submitted="ann")
        calibrations.node(place / "node")

    def live(self, place: Path, story: Story, words: Words) -> None:
        """One after another, each under a name of its own."""
        life, number = story.lives, 0
        here = calibrations.seen(place / "node")
        makers: dict[str, Callable[[Path], object]] = {
            "backup": lambda path: backup(place / f"{OLD}.db", path),
            "restore": lambda path: restore(place / f"{NEW}.db", path, at=BASE),
            "calibration": lambda path: calibrations.kept(path, here),
            "bundle": lambda path: bundle.write(
                path, list(Evidence(place / "evidence", Lived(0)).lines()), lambda _where: None
            ),
            "report": lambda path: witness._keep(path, _report(path.name)),
        }
        words.ready()
        while True:
            for kind, make in makers.items():
                number += 1
                path = place / kind / f"{life}-{number}"
                path.parent.mkdir(exist_ok=True)
                if kind == "restore":
                    _lay_out(place, path)
                words.begin(f"{kind} {path.name}")
                make(path)
                words.done(f"{kind} {path.name}")

    def hold(self, place: Path, story: Story) -> list[str]:
        """Each file of this life: there if that was promised, and whole if it is there."""
        found = []
        for key in (k for k in story.begun if k.split()[1].startswith(f"{story.lives}-")):
            kind, name = key.split()
            path = place / kind / name
            if path.exists():
                found += [f"{key}: {fault}" for fault in HOLDS[kind](path)]
            elif key in story.done or kind == "restore":
                found.append(f"{key} is not there")
        for kind in HOLDS:
            shutil.rmtree(place / kind, ignore_errors=True)
        return found

    def end(self, place: Path, story: Story) -> list[str]:
        """There is nothing more."""
        return []


def _make(path: Path, what: str) -> None:
    """A store that says what it is."""
    store = Store(path, metrics={}, clock=Lived(0))
    store.start()
    for number in range(ROWS):
        store.put("kind", f"k{number}", {"what": what, "text": "x" * 200})
    store.flush()
    store.stop()


def _lay_out(place: Path, path: Path) -> None:
    """The old store under *path*, its newest rows in the WAL."""
    shutil.copy(place / f"{OLD}.db", path)
    held = sqlite3.connect(path)
    held.execute("PRAGMA journal_mode = WAL")
    held.execute("UPDATE records SET document = replace(document, 'xxxx', 'wwww')")
    held.commit()
    kept = path.with_name(f"{path.name}.kept")
    kept.mkdir()
    for suffix in ("", "-wal"):  # as a daemon that was killed leaves them
        shutil.copy(path.with_name(path.name + suffix), kept)
    held.close()
    for suffix in ("", "-wal"):
        shutil.copy(kept / (path.name + suffix), path.parent)


def _report(name: str) -> bytes:
    return name.encode() * 20_000


def _database(path: Path) -> list[str]:
    """Whole, and of one kind: the old rows with what lay in the WAL, or the new ones."""
    faults = unsound(path)
    with contextlib.suppress(sqlite3.Error):
        texts = [text for (text,) in rows(path, "SELECT document FROM records")]
        old = sum('"old"' in text for text in texts)
        late = sum("wwww" in text for text in texts)
        if len(texts) != ROWS or old not in {0, ROWS} or (old and late not in {0, ROWS}):
            faults.append(f"{len(texts)} rows, {old} old, {late} of the WAL")
        return faults
    return [*faults, "cannot be read"]


def _calibration(path: Path) -> list[str]:
    document = calibration.read(path)
    told = document["calibration"].get("checksum")
    return [] if told == calibration.checksum(document) else ["its checksum is another"]


def _bundle(path: Path) -> list[str]:
    return list(bundle.opened(path).problems)


def _whole(path: Path) -> list[str]:
    wanted = hashlib.sha256(_report(path.name)).hexdigest()
    return [] if hashlib.sha256(path.read_bytes()).hexdigest() == wanted else ["not as written"]


HOLDS: dict[str, Callable[[Path], list[str]]] = {
    "backup": _database, "restore": _database, "calibration": _calibration, "bundle": _bundle,
    "report": _whole,
}  # fmt: skip

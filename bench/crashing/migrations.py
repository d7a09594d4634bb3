"""An older file that becomes a newer one, step by step: each is whole or not there at all.

There is one version of the store's tables so far. The steps after it stand for later ones: they do
what migrations do, by the store's own opener.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from functools import partial
from pathlib import Path

from bench.crashing.files import rows, unsound
from bench.crashing.killing import Story, Words
from dvfd.store import database
from dvfd.store.schema import MIGRATIONS, migrate

ROWS = 1000

LATER = (
    (
        "ALTER TABLE alarms RENAME TO old_alarms",
        "CREATE TABLE alarms (key TEXT PRIMARY KEY, document TEXT NOT NULL, at REAL) STRICT",
        "INSERT INTO alarms SELECT key, document, 0.0 FROM old_alarms",
        "DROP TABLE old_alarms",
    ),
    (
        "ALTER TABLE records ADD COLUMN at REAL",
        "UPDATE records SET at = length(document)",
        "CREATE INDEX records_by_at ON records (at)",
    ),
)
NEWEST = len(MIGRATIONS) + len(LATER)


class Migrated:
    """See the module."""

    name, text = "migrations", "migrations of an older store"

    def prepare(self, place: Path) -> None:
        """An old file with rows, and an empty one for those who begin."""
        with contextlib.closing(sqlite3.connect(place / "old.db")) as old:
            old.isolation_level = None
            migrate(old)
            old.execute("BEGIN")
            texts = [(f"k{n}", f'{{"n":{n}}}') for n in range(ROWS)]
            old.executemany("INSERT INTO alarms VALUES (?, ?)", texts)
            old.executemany("INSERT INTO records VALUES ('kind', ?, ?)", texts)
            old.execute("COMMIT")

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Open a copy of the old file, then one that is not there, and again."""
        life = story.lives
        steps = (*MIGRATIONS, *LATER)
        vars(database)["migrate"] = partial(migrate, migrations=steps)
        words.ready()
        number = 0
        while True:
            number += 1
            path = place / f"{life}-{number}.db"
            if number % 3:
                shutil.copy(place / "old.db", path)
            words.note(f"{path.name} {int(path.exists())}")
            words.begin(path.name)
            database.open_database(path).close()
            words.done(path.name)

    def hold(self, place: Path, story: Story) -> list[str]:
        """Every file of this life: of one version, whole, with all rows; then opened to the end."""
        found: list[str] = []
        steps = (*MIGRATIONS, *LATER)
        vars(database)["migrate"] = partial(migrate, migrations=steps)
        full = {name for name, was in map(str.split, story.notes) if was == "1"}
        for name in story.tried(f"{story.lives}-"):
            path = place / f"{story.lives}-{name}"
            if not path.exists():
                continue
            promised = path.name in story.done
            found += _held(path, full=path.name in full, promised=promised)
            database.open_database(path).close()
            found += _held(path, full=path.name in full, promised=True)
            for each in path.parent.glob(f"{path.name}*"):
                each.unlink()
        return found

    def end(self, place: Path, story: Story) -> list[str]:
        """There is nothing more."""
        return []


def _held(path: Path, *, full: bool, promised: bool) -> list[str]:
    version = rows(path, "PRAGMA user_version")[0][0]
    least = NEWEST if promised else len(MIGRATIONS) if full else 0
    found = unsound(path)
    if not least <= version <= NEWEST:
        found.append(f"{path.name}: version {version}, wanted {least} to {NEWEST}")
    if (there := _tables(path)) != _wanted(version):
        found.append(f"{path.name}: of version {version} it has {sorted(there)}")
    if version and _counts(path) != ({ROWS} if full else {0}):
        found.append(f"{path.name}: of {ROWS} rows there are {_counts(path)}")
    return found


def _tables(path: Path) -> set[tuple[str, str]]:
    return set(rows(path, "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))


def _wanted(version: int) -> set[tuple[str, str]]:
    """What a file of that version is made of, as SQLite writes it down."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        migrate(model, (*MIGRATIONS, *LATER)[:version])
        sql = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        return set(model.execute(sql).fetchall())


def _counts(path: Path) -> set[int]:
    return {
        int(rows(path, f"SELECT count(*) FROM {table}")[0][0])  # ours
        for table in ("alarms", "records")
    }

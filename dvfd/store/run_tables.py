"""What a run's file is made of: its tables, and how it is opened. Knows no rows' meaning."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from dvfd.errors import StoreError
from dvfd.runs.rows import Window
from dvfd.store.database import WAL_BYTES, is_corrupt

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
"""The file's `user_version`: a run is judged by the dvfd that knows its tables."""

ROWS = ("windows", "minutes", "events")

HEARD = "peer:{}"
"""Key of what the run's leader has heard of another node."""

COLUMNS = Window._fields

TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL) STRICT""",
    """CREATE TABLE windows (
        node TEXT NOT NULL, rank INTEGER NOT NULL, window INTEGER NOT NULL, session TEXT NOT NULL,
        first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, steps INTEGER NOT NULL,
        began REAL NOT NULL, ended REAL NOT NULL, samples REAL, loss REAL NOT NULL,
        losses INTEGER NOT NULL, nonfinite INTEGER NOT NULL, norm REAL NOT NULL,
        norms INTEGER NOT NULL, compute REAL NOT NULL, computes INTEGER NOT NULL,
        communication REAL NOT NULL, stepping REAL NOT NULL, allreduce REAL NOT NULL,
        allreduces INTEGER NOT NULL, moved REAL NOT NULL, mark INTEGER NOT NULL,
        PRIMARY KEY (window, node, rank, session)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX windows_by_mark ON windows (mark)",
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, metric TEXT NOT NULL, labels TEXT NOT NULL,
        UNIQUE (node, metric, labels)) STRICT""",
    """CREATE TABLE minutes (
        id INTEGER PRIMARY KEY, series INTEGER NOT NULL, minute INTEGER NOT NULL,
        count INTEGER NOT NULL, sum REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
        last REAL NOT NULL, grown REAL NOT NULL, covered REAL NOT NULL,
        mark INTEGER NOT NULL) STRICT""",
    "CREATE INDEX minutes_by_mark ON minutes (mark)",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, t REAL NOT NULL, at REAL NOT NULL,
        what TEXT NOT NULL, rank INTEGER, step INTEGER, value REAL, text TEXT NOT NULL,
        origin TEXT NOT NULL, mark INTEGER NOT NULL) STRICT""",
    "CREATE UNIQUE INDEX events_by_origin ON events (origin, what) WHERE origin <> ''",
    "CREATE INDEX events_by_mark ON events (mark)",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open to be written. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA cache_size = -512")
    # NORMAL: a kill -9 loses nothing committed; a power cut may lose the last commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """Open to be read, also while somebody writes. Raises sqlite3.Error, OSError."""
    path.stat()
    # A frozen file has no WAL, and may lie where nobody may write.
    frozen = not path.with_name(f"{path.name}-wal").exists()
    mode = "immutable=1" if frozen and not path.stat().st_mode & 0o200 else "mode=ro"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{mode}", timeout=2.0, isolation_level=None, uri=True,
        check_same_thread=False,
    )  # fmt: skip
    connection.execute("PRAGMA cache_size = -512")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def check(path: Path, connection: sqlite3.Connection) -> None:
    """Raises StoreError if the file is not of a run, or of a newer dvfd."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version > VERSION:
        raise StoreError(f"{path}: made by a newer dvfd: version {version}, this knows {VERSION}")
    if version < 1 or not {"windows", "minutes", "events"} <= tables:
        raise StoreError(f"{path}: no file of a run: it lacks the tables of one")


def made(path: Path, document: str) -> sqlite3.Connection:
    """A new file's tables and what the run is, whole or not at all. Raises sqlite3.Error."""
    connection = connect(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES:
            connection.execute(statement)
        put(connection, "run", document)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def wrong(error: Exception) -> str:
    """What an error says of the file."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
        return "no file of a run"
    return "is damaged" if is_corrupt(error) else "cannot be read"


def newest_mark(connection: sqlite3.Connection) -> int:
    """The newest mark, 0 where there is no row."""
    marks = [
        connection.execute(f"SELECT max(mark) FROM {table}").fetchone()[0]  # noqa: S608  # ours
        for table in ROWS
    ]
    return max((mark for mark in marks if mark is not None), default=0)


def put(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Keep *value* under *key*."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

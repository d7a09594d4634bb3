"""The tables, and how an older file becomes a newer one. Only ever forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_ROLLUP = """
    series INTEGER NOT NULL, start INTEGER NOT NULL, count INTEGER NOT NULL,
    sum REAL NOT NULL, sumsq REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL,
    last REAL NOT NULL, covered REAL NOT NULL, low REAL, high REAL"""

FIRST = (
    # Series whose ended_at is null are live: silence of one of them is news.
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, metric TEXT NOT NULL, labels TEXT NOT NULL, ended_at REAL,
        UNIQUE (metric, labels)) STRICT""",
    # Milliseconds in an integer take 6 bytes where a float takes 8, five million times.
    """CREATE TABLE samples (
        series INTEGER NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL, low REAL, high REAL,
        PRIMARY KEY (series, at)) STRICT, WITHOUT ROWID""",
    f"CREATE TABLE minutes ({_ROLLUP}, PRIMARY KEY (series, start)) STRICT, WITHOUT ROWID",
    f"""CREATE TABLE hours ({_ROLLUP}, median REAL NOT NULL,
        PRIMARY KEY (series, start)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL,
        at REAL NOT NULL) STRICT""",
    """CREATE TABLE folds (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL, sequence INTEGER NOT NULL,
        job TEXT NOT NULL, rank INTEGER NOT NULL, first_step INTEGER NOT NULL,
        last_step INTEGER NOT NULL, count INTEGER NOT NULL, at REAL NOT NULL, samples_sum REAL,
        loss_sum REAL, loss_count INTEGER NOT NULL, nonfinite INTEGER NOT NULL,
        compute_sum REAL, comm_sum REAL, bytes_sum REAL) STRICT""",
    """CREATE TABLE reports (
        id INTEGER PRIMARY KEY, check_id TEXT NOT NULL, at REAL NOT NULL, scheduled REAL,
        verdict TEXT NOT NULL, late REAL NOT NULL, watch INTEGER NOT NULL,
        document TEXT NOT NULL) STRICT""",
    "CREATE INDEX reports_by_check ON reports (check_id, at)",
    """CREATE TABLE transitions (
        subject TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (subject, at)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE alarms (key TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    # One row an alert, however often it is put: an alert is never doubled.
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, alert TEXT NOT NULL) STRICT""",
    """CREATE TABLE records (
        kind TEXT NOT NULL, key TEXT NOT NULL, document TEXT NOT NULL,
        PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (FIRST,)
"""Statements that lead from `user_version` i to i + 1. Published ones never change."""


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Bring the file to the newest version, each step whole or not at all.

    Raises StoreError if the file was made by a newer dvfd.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise StoreError(
            f"made by a newer dvfd: its schema is {version}, this one knows {len(migrations)}; "
            "upgrade dvfd or move the file away"
        )
    for number, statements in enumerate(migrations[version:], version + 1):
        _step(connection, statements, number)


def _step(connection: sqlite3.Connection, statements: Sequence[str], number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

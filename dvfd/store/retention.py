"""How long each kind of row is kept, and deleting the older ones in small batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.store.database import Database

HOUR = 3600.0
DAY = 24 * HOUR

BATCH = 2000
"""Rows deleted in one transaction: 2 to 5 ms, so that telemetry never waits longer."""

WATCH_REPORTS = 1000
"""Reports kept of a check that is judged all the time: a flapping one writes 30 KB a flap."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that rows are kept. 26 h: a day's checklist, run late. 400 d: a year and a month.

    Minutes are read for windows up to 2 d, so they are kept an hour longer.
    """

    raw: float = 26 * HOUR
    minutes: float = 49 * HOUR
    hours: float = 400 * DAY
    folds: float = 2 * HOUR
    sessions: float = 26 * HOUR
    reports: float = 400 * DAY


IN_MEMORY = Retention(raw=HOUR, minutes=6 * HOUR, hours=2 * DAY, folds=600.0, reports=2 * DAY)
"""For a store without a file: about 15 MiB for 100 series."""


PRUNE_EVERY = HOUR
"""Seconds between two passes: the file is at most a 26th larger for it."""


def prune(
    database: Database, now: float, retention: Retention, rolled_until: float
) -> Iterator[None]:
    """Delete what is older than its time, one small transaction a turn.

    Raw samples stay until they are rolled up (*rolled_until*), and the newest of a live series
    stays for good: how old it is must be known for as long as the series lives.
    """
    raw = int(min(now - retention.raw, rolled_until) * 1000)
    for series, ended in database.read("SELECT id, ended_at FROM series"):
        before = raw if ended is not None else min(raw, _newest(database, series))
        yield from _prune_clustered(database, "samples", "at", series, before)
        for table, age in (("minutes", retention.minutes), ("hours", retention.hours)):
            yield from _prune_clustered(database, table, "start", series, int(now - age))
    for sql, value in _others(now, retention):
        yield from _repeat(database, sql, value)


def _newest(database: Database, series: int) -> int:
    found = database.read("SELECT max(at) FROM samples WHERE series = ?", series)[0][0]
    return 0 if found is None else int(found)


def _prune_clustered(
    database: Database, table: str, column: str, series: int, before: int
) -> Iterator[None]:
    """Delete rows of one series with *column* below *before*, from the oldest on."""
    old = f"FROM {table} WHERE series = ? AND {column} < ?"
    oldest = f"SELECT {column} {old} ORDER BY {column} LIMIT 1 OFFSET ?"  # ours
    while database.read(oldest, series, before, 0):
        row = database.read(oldest, series, before, BATCH)
        with database.transaction() as connection:
            connection.execute(f"DELETE {old}", (series, row[0][0] if row else before))
        yield


def _others(now: float, retention: Retention) -> tuple[tuple[str, float], ...]:
    """Bounded DELETEs with their one value, for what is not clustered by series."""
    return (
        (_SERIES, now - retention.hours),
        (_oldest("folds"), now - retention.folds),
        (_oldest("reports"), now - retention.reports),
        (_SESSIONS, now - retention.sessions),
        (_TRANSITIONS, now - retention.reports),
        (_WATCHED, WATCH_REPORTS),
    )


def _oldest(table: str) -> str:
    return (
        f"DELETE FROM {table} WHERE at < ? AND id IN"  # noqa: S608  # a table of ours
        f" (SELECT id FROM {table} ORDER BY id LIMIT {BATCH})"
    )


_SERIES = f"""DELETE FROM series WHERE id IN (
    SELECT id FROM series s WHERE ended_at < ?
    AND NOT EXISTS (SELECT 1 FROM samples WHERE series = s.id)
    AND NOT EXISTS (SELECT 1 FROM minutes WHERE series = s.id)
    AND NOT EXISTS (SELECT 1 FROM hours WHERE series = s.id) LIMIT {BATCH})"""  # noqa: S608
"""A series goes after its last row: its id may be used again."""

_SESSIONS = f"""DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions s WHERE at < ?
    AND NOT EXISTS (SELECT 1 FROM folds WHERE session = s.id) LIMIT {BATCH})"""  # noqa: S608

_TRANSITIONS = f"""DELETE FROM transitions WHERE (subject, at) IN (
    SELECT subject, at FROM transitions t WHERE at < ? AND EXISTS (
        SELECT 1 FROM transitions later WHERE later.subject = t.subject AND later.at > t.at)
    LIMIT {BATCH})"""  # noqa: S608
"""The newest state of a subject stays: it still holds."""

_WATCHED = f"""DELETE FROM reports WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY check_id ORDER BY at DESC) place
        FROM reports WHERE watch) WHERE place > ? LIMIT {BATCH})"""  # noqa: S608


def _repeat(database: Database, sql: str, value: float) -> Iterator[None]:
    """Run a bounded DELETE until it finds nothing more."""
    found = BATCH
    while found >= BATCH:
        with database.transaction() as connection:
            found = connection.execute(sql, (value,)).rowcount
        yield

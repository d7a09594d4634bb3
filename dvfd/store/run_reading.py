"""A run's file as it is read: by whoever judges, reports or follows it, also while it grows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from dvfd.errors import StoreError
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.store.run_tables import COLUMNS, HEARD, ROWS, check, newest_mark, reader, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCH = 2000
"""Rows fetched at once: the daemon never holds a whole run in memory."""


class Reading:
    """A run's file to be read, also while a daemon writes it. Implements Rows.

    Every method raises StoreError on a file that is none, or that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def document(self) -> dict[str, Any]:
        """What the run is."""
        found: dict[str, Any] = json.loads(self._meta("run") or "{}")
        return found

    def last_heartbeat(self) -> tuple[float, float] | None:
        """Run seconds and Unix time at which somebody looked last."""
        text = self._meta("heartbeat")
        if text is None:
            return None
        t, at = json.loads(text)
        return float(t), float(at)

    def check(self) -> None:
        """Read all of it, and look whether it is whole."""
        with self._open() as connection:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if said != "ok":
            raise StoreError(f"{self.path}: is damaged: {said}")

    def heard(self, node: str) -> dict[str, Any]:
        """What was heard of another node so far; nothing before that."""
        found: dict[str, Any] = json.loads(self._meta(HEARD.format(node)) or "{}")
        return found

    def reach(self, since: int, rows: int) -> int:
        """The mark up to which there are about *rows* rows of each kind after mark *since*."""
        with self._open() as connection:
            newest = newest_mark(connection)
            beyond = [
                connection.execute(
                    f"SELECT mark FROM {table} WHERE mark > ? ORDER BY mark LIMIT 1 OFFSET ?",  # noqa: S608
                    (since, rows),
                ).fetchone()
                for table in ROWS
            ]
            until = min([newest, *(found[0] - 1 for found in beyond if found)])
            return int(max(until, min(since + 1, newest)))

    def mark(self) -> int:
        """The newest mark."""
        with self._open() as connection:
            return newest_mark(connection)

    def windows(self, since: int = 0, until: int | None = None) -> Iterator[Window]:
        """See Rows."""
        order = "window, node, rank, began"
        rows = self._rows(", ".join(COLUMNS), "windows", order, since, until)
        yield from map(Window._make, rows)

    def minutes(self, since: int = 0, until: int | None = None) -> Iterator[Minute]:
        """See Rows."""
        with self._open() as connection:
            series = {
                number: (node, metric, tuple((str(k), str(v)) for k, v in json.loads(labels)))
                for number, node, metric, labels in connection.execute(
                    "SELECT id, node, metric, labels FROM series"
                )
            }
        columns = "series, minute, count, sum, low, high, last, grown, covered"
        for number, *rest in self._rows(columns, "minutes", "id", since, until):
            yield Minute._make((*series[number], *rest))

    def events(self, since: int = 0, until: int | None = None) -> Iterator[Event]:
        """See Rows."""
        columns = "node, t, at, what, rank, step, value, text, origin"
        known = {str(what): what for what in What}
        for row in self._rows(columns, "events", "t, id", since, until):
            node, t, at, what, rank, step, value, text, origin = row
            if what not in known:
                raise StoreError(f"{self.path}: is damaged: an event is {what!r}")
            yield Event(
                node=node, t=t, at=at, what=known[what], rank=rank, step=step, value=value,
                text=text, origin=origin,
            )  # fmt: skip

    def _rows(
        self, columns: str, table: str, order: str, since: int, until: int | None
    ) -> Iterator[tuple[Any, ...]]:
        where = "" if since == 0 and until is None else " WHERE mark > ? AND mark <= ?"
        bounds = () if not where else (since, 1 << 62 if until is None else until)
        query = f"SELECT {columns} FROM {table}{where} ORDER BY {order}"  # noqa: S608  # ours
        with self._open() as connection:
            cursor = connection.execute(query, bounds)
            while batch := cursor.fetchmany(BATCH):
                yield from batch

    def _meta(self, key: str) -> str | None:
        with self._open() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            connection = reader(self.path)
            check(self.path, connection)
            yield connection
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {wrong(error)}: {error}") from None
        finally:
            if connection is not None:
                connection.close()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

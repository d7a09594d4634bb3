"""The small documents in memory: records, alarms, outbox, states. The file follows behind.

Memory answers, so that alerts go out and probes go on while the disk is full.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from dvfd.store.operations import (
    AlertDone,
    Move,
    PutAlert,
    PutRecord,
    PutRecordNow,
    SaveAlarm,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.store.database import Database
    from dvfd.store.operations import Operation


class Records:
    """What the newest of everything is. Thread-safe; documents are kept as JSON text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], str] = {}
        self._alarms: dict[str, str] = {}
        self._outbox: dict[str, str] = {}
        self._states: dict[str, tuple[str, float]] = {}
        self._removed: set[object] | None = set()  # before the file was read; None afterwards

    @property
    def loaded(self) -> bool:
        """Whether the file was read."""
        return self._removed is None

    def load(self, database: Database) -> None:
        """Add what the file knows and we do not know better. Raises sqlite3.Error."""
        records = database.read("SELECT kind, key, document FROM records")
        alarms = database.read("SELECT key, document FROM alarms")
        outbox = database.read("SELECT key, alert FROM outbox ORDER BY id")
        states = database.read("SELECT subject, state, max(at) FROM transitions GROUP BY subject")
        with self._lock:
            self._add(self._records, {(kind, key): text for kind, key, text in records})
            self._add(self._alarms, dict(alarms))
            self._add(self._outbox, dict(outbox))
            self._add(self._states, {subject: (state, at) for subject, state, at in states})
            self._removed = None

    def _add(self, ours: dict[Any, Any], theirs: dict[Any, Any]) -> None:
        """The file's rows first, in their order; ours count where both have one."""
        mine = dict(ours)
        ours.clear()
        ours.update((k, v) for k, v in theirs.items() if k not in (self._removed or ()))
        ours.update(mine)

    def _gone(self, key: object) -> None:
        if self._removed is not None:
            self._removed.add(key)

    def put(self, kind: str, key: str, text: str | None, *, urgent: bool = False) -> PutRecord:
        """Replace a record, or delete it with None; return the operation that makes it last."""
        with self._lock:
            if text is None:
                self._gone((kind, key))
                self._records.pop((kind, key), None)
            else:
                self._records[kind, key] = text
        return PutRecordNow((kind, key), text) if urgent else PutRecord((kind, key), text)

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """One record."""
        with self._lock:
            text = self._records.get((kind, key))
        return None if text is None else json.loads(text)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records of a kind by key."""
        with self._lock:
            found = {key: text for (of, key), text in self._records.items() if of == kind}
        return {key: json.loads(text) for key, text in found.items()}

    def save_alarm(self, alarm: str, text: str) -> SaveAlarm | None:
        """Note an alarm's state; nothing to write if it is the same."""
        with self._lock:
            if self._alarms.get(alarm) == text:
                return None
            self._alarms[alarm] = text
        return SaveAlarm(alarm, text)

    def alarms(self) -> dict[str, dict[str, Any]]:
        """All alarms by key."""
        with self._lock:
            found = dict(self._alarms)
        return {key: json.loads(text) for key, text in found.items()}

    def put_alert(self, alarm: str, alert: str, text: str) -> PutAlert:
        """Put an alert into the outbox, or replace it there, and note its alarm's *text*."""
        with self._lock:
            self._outbox[alarm] = alert
            self._alarms[alarm] = text
        return PutAlert(alarm, alert, text)

    def alert_done(self, alarm: str) -> AlertDone:
        """Take a delivered alert out of the outbox."""
        with self._lock:
            self._gone(alarm)
            self._outbox.pop(alarm, None)
        return AlertDone(alarm)

    def outbox(self) -> list[dict[str, Any]]:
        """What waits to be sent, oldest first."""
        with self._lock:
            found = list(self._outbox.values())
        return [json.loads(text) for text in found]

    def move(self, subject: str, state: str, at: float) -> Move | None:
        """Note a subject's state; nothing to write if it is the same."""
        with self._lock:
            if self._states.get(subject, ("",))[0] == state:
                return None
            self._states[subject] = (state, at)
        return Move(subject, state, at)

    def states(self) -> dict[str, tuple[str, float]]:
        """The newest state of every subject, and since when."""
        with self._lock:
            return dict(self._states)

    def everything(self) -> Iterator[Operation]:
        """What a new file needs to know all that we know."""
        with self._lock:
            records, alarms = dict(self._records), dict(self._alarms)
            outbox, states = dict(self._outbox), dict(self._states)
        yield from (PutRecord(place, text) for place, text in records.items())
        yield from (SaveAlarm(key, text) for key, text in alarms.items())
        yield from (PutAlert(key, text, alarms.get(key, "{}")) for key, text in outbox.items())
        yield from (Move(subject, state, at) for subject, (state, at) in states.items())

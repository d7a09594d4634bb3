"""Hold what is firing and what has just ended, so that none of it is lost. Sends nothing itself.

Every transition goes to the store's outbox together with the alarm's own state, in one
transaction; after a restart the set is read back and told again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from dvfd.sinks.alert import ESCALATION, Alert
from dvfd.state import Raised

TOLD = "told"
"""Kind of the records that say what was accepted; their key is the alert's."""


class Outbox(Protocol):
    """What the pager needs of the store."""

    def outbox_put(self, key: str, alert: dict[str, Any], alarm: dict[str, Any]) -> None:
        """Keep an alert and the state of its alarm, in one transaction."""
        ...

    def outbox(self) -> list[dict[str, Any]]:
        """Every alert kept."""
        ...

    def outbox_done(self, key: str) -> None:
        """Forget an alert."""
        ...

    def put(
        self, kind: str, key: str, document: dict[str, Any] | None, *, urgent: bool = False
    ) -> None:
        """Keep a small document, an *urgent* one at once; None deletes it."""
        ...

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every document of a kind by key."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait until all that was kept is on the disk, at most *timeout* seconds."""
        ...


class Told(StrEnum):
    """What some Alertmanager has accepted of an alert."""

    NOTHING = ""
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An alert on its way. `revision` grows with each transition; `unheard` is one that ended
    before anybody had accepted it.
    """

    alert: Alert
    resolved_at: float | None = None
    told: Told = Told.NOTHING
    revision: int = 0
    unheard: bool = False

    @property
    def firing(self) -> bool:
        """Whether it has not ended."""
        return self.resolved_at is None

    @property
    def wanted(self) -> Told:
        """What to tell next. An alert that ended unheard is told as firing first: an Alertmanager
        that hears of an alert only when it is over tells nobody.
        """
        if self.firing or self.told is Told.NOTHING:
            return Told.FIRING
        return Told.RESOLVED


class Pager:
    """The firing set. Any thread."""

    def __init__(self, store: Outbox, *, push: bool) -> None:
        """With *push* ended alerts stay until a sender has told them and forgets them."""
        self._store = store
        self._push = push
        self._entries: dict[str, Entry] = {}
        self._listeners: list[Callable[[Entry], None]] = []
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Call *listener* with every entry that starts or stops firing. It must not block."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Read back what an earlier daemon left; what has happened since then counts more."""
        heard = self._store.all(TOLD)
        left = [_entry(document) for document in self._store.outbox()]
        with self._lock:
            kept = {e.alert.key: _with(e, heard.get(e.alert.key, {})) for e in left}
            self._entries = kept | self._entries

    def raise_alert(self, alert: Alert, alarm: Mapping[str, Any]) -> None:
        """Start or, with new words, continue to fire. *alarm* is kept in the same transaction."""
        with self._lock:
            old = self._entries.get(alert.key)
            news = old is None or not old.firing
            entry = Entry(alert=alert, revision=old.revision + 1 if old else 0)
            if old is not None and not news:
                entry = replace(old, alert=alert)
            self._keep(entry, alarm)
        if news:
            self._announce(entry)

    def clear_alert(self, key: str, at: float, alarm: Mapping[str, Any]) -> None:
        """Stop firing at Unix time *at*. Unknown and ended keys are left as they are."""
        with self._lock:
            old = self._entries.get(key)
            if old is None or not old.firing:
                return
            unheard = old.told is Told.NOTHING
            entry = replace(old, resolved_at=at, revision=old.revision + 1, unheard=unheard)
            self._keep(entry, alarm)
        if not self._push:
            self.forget(entry)
        self._announce(entry)

    def firing(self) -> frozenset[str]:
        """The keys that fire, to be held against the alarms after a restart."""
        return frozenset(entry.alert.key for entry in self.entries() if entry.firing)

    def entries(self) -> tuple[Entry, ...]:
        """All of them: firing, and ended but still to be told."""
        with self._lock:
            return tuple(self._entries.values())

    def told(self, sent: Iterable[Entry]) -> None:
        """Note that *sent* were accepted as they then were; what changed since stays news."""
        with self._lock:
            for entry in sent:
                now = self._entries.get(entry.alert.key)
                if now is not None and _heard(entry, now) and now.told is not entry.wanted:
                    self._note(replace(now, told=entry.wanted))

    def settle(self, timeout: float) -> bool:
        """Wait until a restart knows what `entries` said so far, at most *timeout* seconds."""
        return self._store.flush(timeout)

    def forget(self, entry: Entry) -> None:
        """Drop an ended alert that everybody knows of, unless it fires again."""
        with self._lock:
            now = self._entries.get(entry.alert.key)
            if now is not None and now.revision == entry.revision:
                del self._entries[entry.alert.key]
                self._store.outbox_done(entry.alert.key)
                self._store.put(TOLD, entry.alert.key, None)

    def raised(self) -> tuple[Raised, ...]:
        """What fires now, oldest first, for page and status."""
        firing = sorted((e for e in self.entries() if e.firing), key=lambda e: e.alert.since)
        return tuple(_raised(entry) for entry in firing)

    def _keep(self, entry: Entry, alarm: Mapping[str, Any]) -> None:
        self._entries[entry.alert.key] = entry
        self._store.outbox_put(entry.alert.key, asdict(entry), dict(alarm))

    def _note(self, entry: Entry) -> None:
        """Remember, over a restart too, what somebody accepted of *entry*: at once, since an alert
        that is over is told twice by whoever forgets that it was.
        """
        self._entries[entry.alert.key] = entry
        heard = {"told": entry.told.value, "since": entry.alert.since}
        self._store.put(TOLD, entry.alert.key, heard, urgent=True)

    def _announce(self, entry: Entry) -> None:
        for listener in self._listeners:
            listener(entry)


def _heard(sent: Entry, now: Entry) -> bool:
    """Whether what was *sent* is part of the story that *now* ends: not of one before it."""
    ended_since = sent.firing and not now.firing and now.revision == sent.revision + 1
    return now.revision == sent.revision or ended_since


def _with(entry: Entry, heard: Mapping[str, Any]) -> Entry:
    """*entry* with what was heard of this very breach."""
    if heard.get("since") != entry.alert.since:
        return entry
    return replace(entry, told=Told(heard["told"]))


def _entry(document: Mapping[str, Any]) -> Entry:
    return Entry(
        alert=Alert(**document["alert"]),
        resolved_at=document["resolved_at"],
        told=Told(document["told"]),
        revision=document["revision"],
        unheard=document.get("unheard", False),  # earlier versions kept none
    )


def _raised(entry: Entry) -> Raised:
    alert = entry.alert
    return Raised(
        key=alert.key,
        name=alert.name,
        severity=alert.severity,
        since=alert.since,
        summary=alert.summary,
        description=alert.description,
        delivered=entry.told is not Told.NOTHING,
        escalation=alert.labels.get(ESCALATION, ""),
    )

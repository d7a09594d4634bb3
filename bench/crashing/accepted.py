"""What an Alertmanager was told in one life and what the next one knew of that.

Its interface has no key that makes a request the same as one before, so who is killed between its
answer and the commit of it tells it once more. To Alertmanager that is the same alert (fingerprint
and startsAt), of which no webhook hears again; unless it had heard of an end in between.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.crashing.killing import Story, Words
from dvfd.sinks.pager import TOLD, Entry
from dvfd.store import Store

POST, FORGOT, WINDOW = "post ", "forgot ", "window "
RANK = {"": 0, "firing": 1, "resolved": 2}


class Noting:
    """The store as a pager sees it; says how long after an Alertmanager's answer that is kept."""

    def __init__(self, store: Store, words: Words) -> None:
        self._store, self._words = store, words
        self._asked: list[float] = []
        self._more = threading.Condition()
        threading.Thread(target=self._watch, daemon=True).start()

    def put(
        self, kind: str, key: str, document: dict[str, Any] | None, *, urgent: bool = False
    ) -> None:
        """See Outbox."""
        self._store.put(kind, key, document, urgent=urgent)
        if kind == TOLD and document is not None:
            with self._more:
                self._asked.append(time.monotonic())
                self._more.notify()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _watch(self) -> None:
        """One commit at a time: what is asked during one is counted until the end of the next."""
        while True:
            with self._more:
                self._more.wait_for(lambda: bool(self._asked))
                asked, self._asked = self._asked, []
            if self._store.flush(60):
                now = time.monotonic()
                self._words.note(WINDOW + " ".join(f"{1000 * (now - at):.2f}" for at in asked))


def noting(post: Callable[..., Any], words: Words) -> Callable[..., Any]:
    """*post*, which says before what it is about."""

    def told(url: str, *, data: str, **more: Any) -> Any:
        words.note(POST + json.dumps(_statuses(json.loads(data))))
        return post(url, data=data, **more)

    return told


def _statuses(alerts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    now = time.time()
    return {
        alert["labels"]["criterion"]: (
            "resolved" if datetime.fromisoformat(alert["endsAt"]).timestamp() <= now else "firing"
        )
        for alert in alerts
    }


def forgotten(story: Story, entries: Iterable[Entry]) -> dict[str, str]:
    """What the lives before posted, and *entries*, as they were read back, do not know."""
    posted = _posted(story)
    return {
        e.alert.key: posted[e.alert.key]
        for e in entries
        if RANK[posted.get(e.alert.key, "")] > RANK[e.told.value]
    }


def _posted(story: Story) -> dict[str, str]:
    """The furthest of each alert that was posted, and is not known to be forgotten."""
    found: dict[str, str] = {}
    for note in story.notes:
        if note.startswith(POST):
            for key, status in json.loads(note.removeprefix(POST)).items():
                found[key] = max(status, found.get(key, ""), key=RANK.__getitem__)
        elif note.startswith(FORGOT):
            for key in json.loads(note.removeprefix(FORGOT)):
                found.pop(key, None)
    return found


@dataclass(frozen=True)
class Windows:
    """How often a kill fell between Alertmanager's answer and our commit, and on which alerts."""

    kills: int
    keys: frozenset[str]
    milliseconds: Sequence[float]


def windows(story: Story) -> Windows:
    """Of a story that is over."""
    forgot = [note.removeprefix(FORGOT) for note in story.notes if note.startswith(FORGOT)]
    spans = [note.removeprefix(WINDOW) for note in story.notes if note.startswith(WINDOW)]
    keys = {key for text in forgot for key in json.loads(text)}
    return Windows(len(forgot), frozenset(keys), [float(ms) for t in spans for ms in t.split()])


def repeats(told: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Notifications that told a webhook again what it had been told of the same episode, by alert
    and status.
    """
    marks = Counter(
        (a["labels"]["criterion"], a["status"], a["fingerprint"], a["startsAt"]) for a in told
    )
    return Counter({mark[:2]: count - 1 for mark, count in marks.items() if count > 1})

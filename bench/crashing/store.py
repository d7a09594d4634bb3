"""The store under all that is written into it at once: telemetry, samples, reports, transitions,
alarms with their alerts, records, series that end; rollups and retention go on beside it.

Each life begins half an hour later on its own clock, so that buckets close and rows grow old.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.crashing.files import Lived, once, only, rows, unsound
from bench.crashing.killing import Story, Words, eventually
from dvfd.model import (
    Check,
    Comparison,
    Criterion,
    Limit,
    Metric,
    Report,
    Result,
    Sample,
    Verdict,
    labels,
)
from dvfd.store import Retention, StepFold, Store
from dvfd.store.rollups import GRACE, MINUTES, Level

NAME = "dvfd.db"
METRICS = {"heat": Metric(name="heat", unit="celsius", help="Heat")}
SERIES = 5
ALERTS, RECORDS = 7, 5

KEEP = Retention(raw=2 * 3600.0, minutes=6 * 3600.0, folds=2 * 3600.0)
"""Shorter than a site's, so that there is something to prune in every life."""

RULE = Criterion(
    id="live.heat", item="1", clause="Heat", text="not too hot", metric="heat", unit="celsius",
    comparison=Comparison.AT_MOST, limit=Limit(value=75.0), reduce="mean", window=60.0,
)  # fmt: skip
CHECK = Check(id="live", title="Live", clause="x", criteria=(RULE,))


class Stored:
    """See the module."""

    name, text = "store", "store, with rollups and retention"

    def prepare(self, place: Path) -> None:
        """Nothing: the first life makes the file."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Batches of everything, each promised once `flush` says that it is on the disk."""
        life = story.lives
        clock = Lived(life)
        store = opened(place, clock)
        words.ready()
        sequence, number = store.cursor("s"), 0
        while True:
            number += 1
            sequence += 1
            key = f"{life}/{number}"
            words.begin(f"batch {key}")
            fold = f"fold {life} {sequence}"
            words.begin(fold)
            row = StepFold(
                job="j", rank=0, first_step=sequence, last_step=sequence, count=1, at=clock.now()
            )
            store.commit_telemetry("s", sequence, [row], partial(_safe, words, fold))
            write_batch(store, clock.now(), life, number)
            if store.flush(60):
                words.done(f"batch {key}")

    def hold(self, place: Path, story: Story) -> list[str]:
        """Start on it, let it close its buckets and prune, and look."""
        clock = Lived(story.lives + 0.5)
        store = opened(place, clock)
        path = place / NAME
        kept = eventually(lambda: _kept_up(path, clock.now()))
        reason = store.health().reason
        store.stop()
        return [
            *([] if kept else ["rollups not closed, or old rows not pruned, after the start"]),
            *([f"store: {reason}"] if reason else []),
            *unsound(path),
            *_folds(path, story, clock.now()),
            *_batches(path, story),
            *_samples(path, story, clock.now()),
        ]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


def _safe(words: Words, fold: str, _reached: int) -> None:
    words.done(fold)


def opened(place: Path, clock: Lived) -> Store:
    """The store, started."""
    store = Store(place / NAME, metrics=METRICS, clock=clock, retention=KEEP)
    store.start()
    return store


def write_batch(store: Store, at: float, life: int, number: int) -> None:
    """One of everything that is marked with the batch it is of."""
    key = f"{life}/{number}"
    store.write([Sample("heat", 20.0, at, labels(series=n)) for n in range(SERIES)])
    result = Result(RULE, Verdict.PASS, at, key, 70.0, 75.0)
    store.keep(Report(CHECK, (result,), at), scheduled=at)
    store.transition("subject", key, at)
    store.outbox_put(f"a{number % ALERTS}", {"key": key}, {"key": key})
    store.put("kind", f"r{number % RECORDS}", {"key": key})
    if number % 4 == 0:
        store.outbox_done(f"a{(number + 3) % ALERTS}")
    if number % 6 == 0:
        store.end_series({"series": "3"}, at)


def _folds(path: Path, story: Story, now: float) -> list[str]:
    """Every acknowledged fold within its time once, and none is missing between them."""
    there = [str(n) for (n,) in rows(path, "SELECT sequence FROM folds ORDER BY sequence")]
    oldest = int(there[0]) if there else 1
    done = [key.split() for key in story.finished("fold ")]
    young = now - KEEP.folds + SLACK
    wanted = [number for life, number in done if Lived(int(life)).now() > young]
    gaps = there != [str(n) for n in range(oldest, oldest + len(there))]
    reached = rows(path, "SELECT sequence FROM sessions WHERE session = 's'")
    last = max((int(number) for _, number in done), default=0)
    return [
        *once("folds", wanted, there),
        *only("folds", there, [key.split()[1] for key in story.tried("fold ")]),
        *(["folds: there is a gap between them"] if gaps else []),
        *(["sessions: behind what was acknowledged"] if last > (reached or [(0,)])[0][0] else []),
    ]


def _batches(path: Path, story: Story) -> list[str]:
    """Reports and transitions of every batch once; what is replaced, no older than promised."""
    documents = [json.loads(text) for (text,) in rows(path, "SELECT document FROM reports")]
    reports = [document["results"][0]["reason"] for document in documents]
    found = rows(path, "SELECT state FROM transitions WHERE state <> 'unobserved'")
    done, tried = story.finished("batch "), story.tried("batch ")
    moves = [state for (state,) in found]
    return [
        *once("reports", done, reports),
        *only("reports", reports, tried),
        *once("transitions", done, moves),
        *only("transitions", moves, tried),
        *_alerts(path, story),
        *_older("records", _texts(path, "SELECT key, document FROM records"), story, RECORDS),
    ]  # fmt: skip


def _alerts(path: Path, story: Story) -> list[str]:
    """An alert and the state of its alarm: both or neither, and the newest that was promised."""
    pairs = rows(path, "SELECT o.alert = a.document FROM outbox o JOIN alarms a USING (key)")
    count = rows(path, "SELECT count(*) FROM outbox")[0][0]
    torn = len(pairs) != count or any(not same for (same,) in pairs)
    return [
        *(["outbox: an alert without the state of its alarm, or another's"] if torn else []),
        *_older("alarms", _texts(path, "SELECT key, document FROM alarms"), story, ALERTS),
    ]


def _texts(path: Path, sql: str) -> dict[str, str]:
    """Documents by the number in their key."""
    return {key[1:]: text for key, text in rows(path, sql)}


def _older(what: str, there: Mapping[str, str], story: Story, count: int) -> list[str]:
    """What is kept by number, *count* of them, must be as new as the newest that was promised."""
    late = []
    for key in story.finished("batch "):
        life, number = order(key)
        kept = there.get(str(number % count))
        if kept is None or order(json.loads(kept)["key"]) < (life, number):
            late.append(key)
    return [f"{what}: older than promised, or gone: {late[:5]}"] if late else []


def order(key: str) -> tuple[int, int]:
    """A batch's place in time."""
    life, _, number = key.partition("/")
    return int(life), int(number)


def _samples(path: Path, story: Story, now: float) -> list[str]:
    """Every batch's samples are there raw as long as those are kept, then in the minutes; hours say
    what the raw rows do.
    """
    done = Counter(order(key)[0] for key in story.finished("batch "))
    tried = Counter(order(key)[0] for key in story.tried("batch "))
    found: list[str] = []
    for life, least in done.items():
        age = now - Lived(life).now()
        if age < KEEP.raw - SLACK:
            found += _counted(path, RAW, life, 1000.0, (least, tried[life]))
        if GRACE + 60 < age < KEEP.minutes - SLACK:
            found += _counted(path, ROLLED, life, 1.0, (least, tried[life]))
    differ = rows(path, DIFFER, now - KEEP.raw + 3600)
    return [*found, *([f"hours differ from their raw rows: {differ[:3]}"] if differ else [])]


def _counted(path: Path, sql: str, life: int, unit: float, bounds: tuple[int, int]) -> list[str]:
    """The samples of one life: as many of each series as batches were promised, to as many as were
    begun. Lives are half an hour apart.
    """
    begin = Lived(life).now()
    found = rows(path, sql, int(unit * (begin - 60)), int(unit * (begin + 900)))
    if len(found) == SERIES and all(bounds[0] <= count <= bounds[1] for _, count in found):
        return []
    return [f"samples of life {life}: {found}, wanted {bounds} each in {sql[25:45]}"]


SLACK = 180.0
"""Seconds about the edge of what is kept in which nothing is asked."""

RAW = "SELECT series, count(*) FROM samples WHERE at >= ? AND at < ? GROUP BY series"
ROLLED = "SELECT series, sum(count) FROM minutes WHERE start >= ? AND start < ? GROUP BY series"
DIFFER = (
    "SELECT h.series, h.start, h.count, count(s.at) FROM hours h JOIN samples s"
    " ON s.series = h.series AND s.at >= h.start * 1000 AND s.at < (h.start + 3600) * 1000"
    " WHERE h.start >= ? GROUP BY 1, 2 HAVING h.count <> count(s.at)"
)


def _kept_up(path: Path, now: float) -> bool:
    """Whether what is due beside writing has been done."""
    old = rows(path, "SELECT count(*) FROM folds WHERE at < ?", now - KEEP.folds - 60)
    return _closed(path, MINUTES) >= now - 60 - 2 * GRACE and old == [(0,)]


def _closed(path: Path, level: Level) -> float:
    """How far the file says that the buckets of *level* are closed."""
    found = rows(path, "SELECT value FROM meta WHERE key = ?", f"closed {level.table}")
    return float(found[0][0]) if found else 0.0

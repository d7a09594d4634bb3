"""What the store's tests share: an open store on a fake clock, and short names for its nouns."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import FakeClock

from dvfd.model import (
    Check,
    Comparison,
    Criterion,
    Kind,
    Limit,
    Metric,
    Report,
    Result,
    Sample,
    Verdict,
    labels,
)
from dvfd.store import StepFold, Store

METRICS = {
    "heat": Metric(name="heat", unit="celsius", help="Heat"),
    "events": Metric(name="events", unit="events", help="Events", kind=Kind.COUNTER),
}


def sample(value: float, at: float, metric: str = "heat", **of: object) -> Sample:
    return Sample(metric, value, at, labels(**of))


def criterion(reduce: str = "mean", window: float = 60.0, **more: object) -> Criterion:
    return Criterion(
        **{  # type: ignore[arg-type]
            "id": "live.heat",
            "item": "1",
            "clause": "Heat",
            "text": "not too hot",
            "metric": "heat",
            "unit": "celsius",
            "comparison": Comparison.AT_MOST,
            "limit": Limit(value=75.0),
            "reduce": reduce,
            "window": window,
            **more,
        }
    )


def report(at: float, verdict: Verdict = Verdict.PASS, *, watch: bool = False) -> Report:
    rule = criterion()
    check = Check(id="live", title="Live", clause="x", criteria=(rule,), watch=watch)
    return Report(check, (Result(rule, verdict, at, "70 °C, wanted at most 75", 70.0, 75.0),), at)


def fold(step: int, at: float = 0.0) -> StepFold:
    return StepFold(job="gpt", rank=0, first_step=step, last_step=step, count=1, at=at)


@contextmanager
def opened(path: Path | None, clock: FakeClock | None = None) -> Iterator[Store]:
    """A store that is started, and stopped at the end."""
    store = Store(path, metrics=METRICS, clock=clock or FakeClock())
    store.start()
    try:
        yield store
    finally:
        store.stop()


def rows(path: Path, sql: str) -> list[tuple]:
    """What a query finds in the file, beside whoever has it open."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether *holds* comes true in real time, which may be long where others work."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Heads:
    """What the store keeps of the ledger."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}

    def put(self, kind: str, key: str, document: Any) -> None:
        self.kept[kind, key] = dict(document)

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.kept.get((kind, key))

    def flush(self) -> bool:
        return True

"""`dvfd history --engine`: what the engine has of one metric of this node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dvfd.catalogue import load as load_catalogue
from dvfd.config import load
from dvfd.errors import HistoryError
from dvfd.history.course import Period, Reading
from dvfd.history.engine import Engine
from dvfd.history.past import EnginePast, patterns, where
from dvfd.history.question import HOUR
from dvfd.query import ROWS, known, row

if TYPE_CHECKING:
    from dvfd.config import Config

NO_ENGINE = '[history] url is not given: whom to ask, like "http://prometheus:9090"'


def asked(
    name: str, hours: float, config: Config | None = None, *, now: float | None = None
) -> dict[str, Any]:
    """The newest rows of metric *name* as `dvfd.query.history` has them. Raises DvfdError."""
    settings = config or load()
    if not settings.engine.url:
        raise HistoryError(NO_ENGINE)
    metrics = load_catalogue(settings).metrics
    known({"metric": name}, "metric", metrics)
    until = time.time() if now is None else now
    engine, called = Engine(settings.engine), patterns(settings)
    period = Period(until - HOUR * hours, until)
    reading = Reading(engine, metrics, where(settings.engine, called), period)
    engine.in_time()
    past = EnginePast(reading, metrics, settings.node.name, called)
    rows = [row(sample) for sample in past.all(name)]
    return {"name": name, "rows": sorted(rows, key=lambda found: float(found["at"]))[-ROWS:]}

"""`dvfd history --engine`: what the engine has of one metric of this node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dvfd.catalogue import load as load_catalogue
from dvfd.config import load
from dvfd.errors import ConfigError, HistoryError
from dvfd.history.course import Period, Reading
from dvfd.history.engine import Engine
from dvfd.history.look import FIRST, named
from dvfd.history.past import EnginePast, patterns, where
from dvfd.history.question import HOUR, exactly
from dvfd.query import ROWS, known, row

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.history.course import Where

NO_ENGINE = '[history] url is not given: whom to ask, like "http://prometheus:9090"'

HOURS_LIMIT = 10 * 8_784.0
"""Ten years: more than engines keep, in some hundreds of questions."""

PATIENCE = 120.0
"""Seconds for all of them."""

NAMED = 5
"""Targets that a complaint names."""


def asked(
    name: str,
    hours: float,
    config: Config | None = None,
    *,
    engine: Engine | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """The newest rows of metric *name* as `dvfd.query.history` has them. Raises DvfdError, also
    where there are none, and says what there is instead.
    """
    settings = config or load()
    if not settings.engine.url:
        raise ConfigError([NO_ENGINE])
    if not 0 < hours <= HOURS_LIMIT:  # nan is neither
        raise HistoryError(f"hours {hours:g}: wanted above 0 and at most {HOURS_LIMIT:g}")
    metrics = load_catalogue(settings).metrics
    known({"metric": name}, "metric", metrics)
    until = time.time() if now is None else now
    engine = engine or Engine(settings.engine, end=time.monotonic() + PATIENCE)
    called = patterns(settings)
    period = Period(until - HOUR * hours, until)
    nodes = where(settings.engine, called)
    reading = Reading(engine, metrics, nodes, period)
    engine.in_time()
    past = EnginePast(reading, metrics, settings.node.name, called)
    rows = [row(sample) for sample in past.all(name)]
    if not rows:
        others = exactly(settings.engine.matchers)
        raise HistoryError(f"{name}: {_nothing(engine, nodes, others, period)}")
    return {"name": name, "rows": sorted(rows, key=lambda found: float(found["at"]))[-ROWS:]}


def _nothing(engine: Engine, nodes: Where, others: str, period: Period) -> str:
    """Why an engine has no sample: it does not know this node, or not this of it."""
    length = min(period.until - period.since, engine.longest)
    over = f"in the last {length / HOUR:g} h"

    def targets(matchers: str) -> list[str]:
        shown = ",".join(filter(None, (named(FIRST), matchers)))
        asks = f"last_over_time({{{shown}}}[{max(1, int(length))}s])"
        lines = engine.instant(f"count by ({nodes.node_label}) ({asks})", at=period.until)
        return sorted({line.labels.get(nodes.node_label, "(none)") for line in lines})

    if own := targets(nodes.matchers):
        return (
            f"{engine.words} has no sample of it {over}, and others of {', '.join(own)}: "
            "dvfd doctor, dvfd status, whether it is measured here"
        )
    there = targets(others)
    more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
    has = f"{nodes.node_label} is {', '.join(there[:NAMED])}{more}" if there else "none at all"
    return (
        f"{engine.words} has nothing of {{{nodes.matchers}}} {over}, wanted this node; of dvfd it "
        f"has: {has}; [history] node, node_label, matchers, or its scraping"
    )

"""35 days of 300 series through the real writer, and the same data in a Prometheus beside it.

Time is simulated: the store's clock is moved on by 5 s, all series are written, and the writer
takes the turn that its thread would take then, chores and all: minutes are closed each minute,
hours each hour, what is too old is deleted each hour, all while samples come. Each 5 s are one
commit; a daemon's probes, which share few beats, make two or three of them.

Write amplification is what the process handed to write(2) and its like (`wchar` of /proc/PID/io)
over 16 bytes a sample, 8 of a time and 8 of a value; `write_bytes` beside it is what of that was
bound for a disk, which is less where a page is overwritten before it went there. What a Prometheus
writes into files that it maps (the newest chunks of its head) is in `write_bytes` alone.

A course is read as the page and the lists read it, by `Store.series`; Prometheus is asked for the
same, means of hours over as many days, by its HTTP interface. The short form has 3 days of 10
series, and nothing is concluded from it for 35 days.
"""

from __future__ import annotations

import math
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.engine import Prometheus
from bench.harness import chosen, finish, quantile, testbed, written
from bench.made_up import BEATS, DAY, EVERY, HOUR, Series, hours, series
from bench.record import Figure, at_most, exactly, unlimited
from bench.remote_write import send
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.model import Comparison, Criterion, Limit, Metric, Sample
from dvfd.store import Store
from dvfd.store.retention import PRUNE_EVERY, Retention
from dvfd.store.writer import Writer

PLAIN = 16
"""Bytes of a sample, written as a time and a value."""

MB = 1e6
PIECE = BEATS // 2
"""Beats in a request to Prometheus: its head takes nothing older than an hour behind its newest."""

ASKED = 20
"""Series whose course is read."""

HOLDS = 10.0
"""Seconds without a commit from which telemetry would be sent again (receiver.STUCK)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is written: *days* until *end*, Unix seconds."""

    days: int
    series: tuple[Series, ...]
    end: int

    @property
    def start(self) -> int:
        """Of the first sample."""
        return self.end - self.days * DAY

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.series) * self.days * DAY // EVERY

    def hours(self) -> Iterator[tuple[int, Any]]:
        """The values of each hour; the same ones however often it is asked."""
        return hours(len(self.series), self.start, self.days * DAY // HOUR)


class ToldClock:
    """A clock that is where it was put."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        """Unix seconds."""
        return self.at

    def boot(self) -> float:
        """The same: this machine never slept."""
        return self.at


class Stepped(Store):
    """The store, its writer turned by who moves the clock: no thread waits in real time."""

    def begin(self) -> None:
        """Open the file."""
        self._hand.turn()

    def step(self) -> None:
        """Commit what was written, and do every chore that is due now."""
        self._hand.turn()
        while self._hand.busy:
            self._hand.turn()

    @property
    def _hand(self) -> Writer:
        assert isinstance(self._writer, Writer)
        return self._writer


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, days=35, series=300)
    days, count = (3, 10) if options.short else (options.days, options.series)
    plan = Plan(days, series(count), math.floor(time.time() / HOUR) * HOUR)
    with tempfile.TemporaryDirectory() as place:
        own = _own(plan, Path(place))
        other = _prometheus(plan, Path(place))
    raw = {"days": days, "series": count, "samples": plan.samples, "own": own, "prometheus": other}
    finish("history", options, _figures(plan, own, other), raw)


# --- dvfd -----------------------------------------------------------------------------------------


def _own(plan: Plan, place: Path) -> dict[str, Any]:
    path, clock, metrics = place / "dvfd.db", ToldClock(plan.start), load(Config()).metrics
    store = Stepped(path, metrics=metrics, clock=clock, pacing=clock.boot)
    store.begin()
    wrote, cpu = written("self"), time.process_time()
    beats = _fill(store, clock, plan)
    found = {
        "cpu_seconds": time.process_time() - cpu,
        **_grown(wrote, written("self")),
        "beat_median_ms": 1e3 * statistics.median(beats),
        "beat_p99_ms": 1e3 * quantile(beats, 0.99),
        "beat_longest_ms": 1e3 * max(beats),
        "bytes": path.stat().st_size,
        "bytes_with_wal": sum(each.stat().st_size for each in place.glob("dvfd.db*")),
        "lost": _lost(store),
    }
    found |= _queries(store, metrics, clock, plan)
    store.stop()
    return found | _kept(path, clock.at)


def _fill(store: Stepped, clock: ToldClock, plan: Plan) -> list[float]:
    """Write everything; the seconds that each beat took."""
    names = [(each.metric, each.labels) for each in plan.series]
    took = []
    for at, values in plan.hours():
        for beat, row in enumerate(values.T.tolist()):
            clock.at = float(at + beat * EVERY)
            samples = [
                Sample(metric, value, clock.at, labels)
                for (metric, labels), value in zip(names, row, strict=True)
            ]
            began = time.perf_counter()
            store.write(samples)
            store.step()
            took.append(time.perf_counter() - began)
    return took


def _lost(store: Store) -> int:
    health = store.health()
    return health.dropped + health.nonfinite + health.refused + health.queue


def _queries(
    store: Store, metrics: Mapping[str, Metric], clock: ToldClock, plan: Plan
) -> dict[str, Any]:
    """Milliseconds: of the courses of some series, of all, and of what a list judges at once."""
    found: dict[str, Any] = {}
    for name, days in _periods(plan).items():
        course = partial(_course, store, clock.at, days)
        asked = replace(_criterion(metrics), window=float(days * DAY))
        found |= {
            f"{name}_ms": [_timed(partial(course, each)) for each in plan.series[:ASKED]],
            f"{name}_all_ms": _timed(partial(list, map(course, plan.series))),
            f"{name}_criterion_ms": _timed(partial(store.samples, asked, until=clock.at)),
        }
    return found


def _course(store: Store, at: float, days: int, series: Series) -> list[Sample]:
    return store.series(series.metric, series.labels, since=at - days * DAY, until=at)


def _criterion(metrics: Mapping[str, Metric]) -> Criterion:
    """One over sixteen ranks' worth of series, and more, as a list would have it."""
    metric = metrics["rank_step_seconds"]
    return Criterion(
        id="bench.history", item="", clause="", text="", metric=metric.name, unit=metric.unit,
        comparison=Comparison.AT_MOST, limit=Limit(value=1.0), reduce="mean",
    )  # fmt: skip


def _periods(plan: Plan) -> dict[str, int]:
    """Days of each question; what a short run has is all of it."""
    return {"week": min(7, plan.days), "month": min(30, plan.days)}


def _timed(what: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    what()
    return 1e3 * (time.perf_counter() - began)


def _kept(path: Path, now: float) -> dict[str, Any]:
    """Rows by table, and how many are older than they may be: an hour passes between two looks."""
    kept, found = Retention(), {}
    with sqlite3.connect(path) as connection:
        for table, column, scale, age in (
            ("samples", "at", 1000, kept.raw),
            ("minutes", "start", 1, kept.minutes),
            ("hours", "start", 1, kept.hours),
        ):
            oldest = (now - age - PRUNE_EVERY - HOUR) * scale  # the batch of the hour that ends
            found[f"rows_{table}"] = _count(connection, f"SELECT count(*) FROM {table}")
            found[f"overdue_{table}"] = _count(
                connection, f"SELECT count(*) FROM {table} WHERE {column} < {oldest:.0f}"
            )
        found["free_pages"] = _count(connection, "PRAGMA freelist_count")
        found["intact"] = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    return found


def _count(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {key: after[key] - before[key] for key in before}


# --- Prometheus -----------------------------------------------------------------------------------

CONFIG = "global: {scrape_interval: 1h}\n"
"""Scrapes nothing: a sample of today would make all of ours too old."""

OPTIONS = (
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.retention.time=400d",  # as long as dvfd keeps hours
    "--query.max-samples=1000000000",  # of a month at 5 s the usual 50 million are too few
)

MEANS = "avg_over_time({selector}[1h])"

QUIET = 5.0
"""Seconds without a compaction after which there is none to come; it looks once a minute for one,
and at every write."""


def _prometheus(plan: Plan, place: Path) -> dict[str, Any]:
    data = place / "data"
    with _server(place, data) as server:
        cpu = server.cpu()
        for at, values in plan.hours():
            for first in range(0, BEATS, PIECE):
                part = values[:, first : first + PIECE]
                send(server.url, plan.series, at + first * EVERY, part)
        _settle(server)
        found = {
            "cpu_seconds": server.cpu() - cpu,
            **written(server.pid),
            "bytes": _size(data),
            "blocks_bytes": sum(_size(each) for each in data.glob("01*")),
            "rss_mib": server.memory(),
            "peak_mib": server.memory("VmHWM"),
        }
        found["samples"] = _appended(server)
        return found | _asked(server, plan)


@contextmanager
def _server(place: Path, data: Path) -> Iterator[Prometheus]:
    config, port = place / "prometheus.yml", testbed.free_port()
    config.write_text(CONFIG, encoding="utf-8")
    command = [
        testbed.need(testbed.PROMETHEUS), f"--config.file={config}",
        f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}", *OPTIONS,
    ]  # fmt: skip
    with testbed.running(command, port, place / "prometheus.log") as server:
        testbed.eventually(lambda: _ready(server.url), 60, every=0.2)
        yield Prometheus(server.url, server.process.pid)


def _ready(url: str) -> bytes:
    try:
        return bytes(testbed.fetch(f"{url}/-/ready"))
    except OSError:
        return b""


def _settle(server: Prometheus) -> None:
    """Wait until it has compacted what it can."""
    seen, since = -1.0, time.monotonic()
    while time.monotonic() - since < QUIET:
        time.sleep(0.5)
        if (now := _told(server, "prometheus_tsdb_compactions_total")) != seen:
            seen, since = now, time.monotonic()


def _appended(server: Prometheus) -> float:
    return _told(server, "prometheus_tsdb_head_samples_appended_total")


def _told(server: Prometheus, name: str) -> float:
    """A metric of its own: it scrapes nobody, so from its /metrics."""
    told = testbed.fetch(f"{server.url}/metrics", timeout=60).decode().splitlines()
    found = [text for text in told if text.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(text.rpartition(" ")[2]) for text in found)


def _asked(server: Prometheus, plan: Plan) -> dict[str, Any]:
    """Milliseconds: the questions of `_queries`, in its language."""
    found: dict[str, Any] = {}
    end = float(plan.end - EVERY)
    for name, days in _periods(plan).items():
        since = end - days * DAY
        found[f"{name}_ms"] = [
            1e3 * server.course(MEANS.format(selector=_selector(each)), since, end, HOUR)[0]
            for each in plan.series[:ASKED]
        ]
        every = MEANS.format(selector='{__name__=~".+"}')
        seconds, many = server.course(every, since, end, HOUR)
        found[f"{name}_all_ms"], found[f"{name}_all_series"] = 1e3 * seconds, many
        asked = f"avg_over_time(rank_step_seconds[{days}d])"
        found[f"{name}_criterion_ms"] = _timed(partial(server.query, asked, end))
    return found


def _selector(series: Series) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in series.labels)
    return f"{series.metric}{{{inside}}}"


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


# --- What it comes to -----------------------------------------------------------------------------


def _figures(plan: Plan, own: dict[str, Any], other: dict[str, Any]) -> list[Figure]:
    of = f"{plan.days} days of {len(plan.series)} series"
    full = plan.days >= 35 and len(plan.series) >= 300
    least = PLAIN * plan.samples
    weeks, months = own["week_ms"], own["month_ms"]
    overdue = sum(own[f"overdue_{table}"] for table in ("samples", "minutes", "hours"))
    limited = at_most if full else unlimited
    return [
        limited("size", f"{of}: database", own["bytes_with_wal"] / MB, "MB", 300),
        Figure("size_prometheus", f"{of}: Prometheus, all at 5 s", other["bytes"] / MB, "MB"),
        exactly("lost", f"{of}: samples that dvfd lost", own["lost"], "samples", 0),
        exactly("lost_prometheus", f"{of}: samples that Prometheus did not take",
                plan.samples - other["samples"], "samples", 0),
        exactly("overdue", f"{of}: rows older than they are kept", overdue, "rows", 0),
        Figure("amplification", f"{of}: handed to the kernel, of 16 bytes a sample",
               own["wchar"] / least, "times"),
        Figure("amplification_disk", f"{of}: bound for the disk, of 16 bytes a sample",
               own["write_bytes"] / least, "times"),
        Figure("amplification_prometheus", f"{of}: Prometheus, handed to the kernel",
               other["wchar"] / least, "times"),
        Figure("amplification_disk_prometheus", f"{of}: Prometheus, bound for the disk",
               other["write_bytes"] / least, "times"),
        limited("month", f"{of}: a month of one series, slowest of {len(months)}",
                max(months) / 1e3, "s", 1),
        limited("month_criterion", f"{of}: a month of a criterion over "
                f"{_over(plan)} series", own["month_criterion_ms"] / 1e3, "s", 1),
        Figure("month_all", f"{of}: a month of every series", own["month_all_ms"] / 1e3, "s"),
        Figure("week", f"{of}: a week of one series, median",
               statistics.median(weeks) / 1e3, "s"),
        Figure("week_criterion", f"{of}: a week of that criterion",
               own["week_criterion_ms"] / 1e3, "s"),
        Figure("month_prometheus", f"{of}: Prometheus, a month of one series, slowest",
               max(other["month_ms"]) / 1e3, "s"),
        Figure("month_criterion_prometheus", f"{of}: Prometheus, a month of that criterion",
               other["month_criterion_ms"] / 1e3, "s"),
        Figure("month_all_prometheus", f"{of}: Prometheus, a month of every series",
               other["month_all_ms"] / 1e3, "s"),
        Figure("week_prometheus", f"{of}: Prometheus, a week of one series, median",
               statistics.median(other["week_ms"]) / 1e3, "s"),
        Figure("beat", f"{of}: writing 5 s of all, p99", own["beat_p99_ms"], "ms"),
        limited("beat_longest", f"{of}: writing 5 s of all while a batch of what is too old goes",
                own["beat_longest_ms"] / 1e3, "s", HOLDS),
        Figure("cpu", f"{of}: processor time a sample", 1e6 * own["cpu_seconds"] / plan.samples,
               "us"),
        Figure("cpu_prometheus", f"{of}: Prometheus, processor time a sample",
               1e6 * other["cpu_seconds"] / plan.samples, "us"),
    ]  # fmt: skip


def _over(plan: Plan) -> int:
    return sum(each.metric == "rank_step_seconds" for each in plan.series)


if __name__ == "__main__":
    main()

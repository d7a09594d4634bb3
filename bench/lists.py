"""What the weekly and monthly lists decide of simulated weeks, and what a monthly list costs.

`python -m bench.lists`. A simulated hour is the median of an hour: AR(1) noise about a level that
falls by so much in a week. A false alarm is a FAIL where the truth is within the margin; at its
edge that is the size of the test. Seeds of the chance are fixed.
"""

from __future__ import annotations

import math
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from bench.harness import chosen, finish
from bench.record import Figure, at_most
from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.judgements import Judgements
from dvfd.model import Catalogue, Verdict
from dvfd.reviews.capacity import capacity
from dvfd.reviews.review import Reviews
from dvfd.reviews.slopes import Array, trend
from dvfd.runs.baselines import Baselines
from dvfd.scaling.ledger import Ledger
from dvfd.store import Store
from dvfd.store.operations import label_text

WEEK = 168
MEMORIES = (0.0, 0.5, 0.8)
NOISES = (0.005, 0.01, 0.02)
FALLS = (0.0, -0.02, -0.05)
MARGIN = 0.02
"""Of weekly.trend_floor."""

SETTLED = 300
"""Hours of noise thrown away before a simulated week."""

DAYS, RANKS = 30, 16

TABLE: dict[str, Any] = {}
"""Everything that the figures are the worst of."""


def main() -> None:
    """Simulate, measure, and keep what was found."""
    options = chosen(__doc__, trials=2000)
    trials = 100 if options.short else options.trials
    figures = [*decisions(trials), *monthly(3 if options.short else 10)]
    finish("lists", options, figures, raw={"trials": trials, "found": TABLE})


# --- The trend ----------------------------------------------------------------------------------


def week(fall: float, noise: float, memory: float, chance: np.random.Generator) -> Array:
    """The hours of a week that falls by *fall* of what it is in its middle."""
    white = chance.normal(0.0, noise * math.sqrt(1 - memory**2), WEEK + SETTLED)
    resembling = signal.lfilter([1.0], [1.0, -memory], white)[SETTLED:]
    return np.asarray(240.0 * (1.0 + resembling + fall * (np.arange(WEEK) / WEEK - 0.5)))


def decided(fall: float, noise: float, memory: float, trials: int) -> dict[str, float]:
    """Shares of weeks: failed, passed, unknown; and those whose interval missed the truth."""
    chance = np.random.default_rng(7)
    hours = np.arange(WEEK, dtype=np.float64)
    failed = passed = missed = 0
    for _ in range(trials):
        slope = trend(hours, week(fall, noise, memory, chance)).slope
        low, high = slope.low * WEEK, slope.high * WEEK
        failed += high < -MARGIN
        passed += low >= -MARGIN
        missed += not low <= fall <= high
    return {
        "failed": 100 * failed / trials,
        "passed": 100 * passed / trials,
        "unknown": 100 * (trials - failed - passed) / trials,
        "missed": 100 * missed / trials,
    }


def decisions(trials: int) -> Iterator[Figure]:
    """What comes of every noise, memory and fall; the figures are the worst of them."""
    found = {
        (fall, noise, memory): decided(fall, noise, memory, trials)
        for fall in FALLS
        for noise in NOISES
        for memory in MEMORIES
    }
    TABLE["decided"] = {f"{f:+.0%} {n:.1%} AR {m:g}": row for (f, n, m), row in found.items()}

    def shares(what: str, fall: float, memory: float, noise: float | None = None) -> list[float]:
        return [
            row[what]
            for (f, n, m), row in found.items()
            if (f, m) == (fall, memory) and noise in (None, n)
        ]

    for memory in MEMORIES:
        of = f"noise of AR(1) {memory:g}"
        yield at_most(
            f"false_{memory:g}", f"steady weeks that fail, {of} and up to 2 %",
            max(shares("failed", 0.0, memory)), "%", 5.0,
        )  # fmt: skip
        yield at_most(
            f"edge_{memory:g}", f"weeks that fall by the 2 % allowed and fail, {of} and up to 2 %",
            max(shares("failed", -MARGIN, memory)), "%", 5.0,
        )  # fmt: skip
    yield at_most(
        "seen_0.8", "steady weeks said to change, noise of AR(1) 0.8 and up to 2 %",
        max(shares("missed", 0.0, MEMORIES[-1])), "%", 5.0,
    )  # fmt: skip
    yield Figure(
        "missed", "intervals that miss the true trend, the worst of all these",
        max(row["missed"] for row in found.values()), "%",
    )  # fmt: skip
    for noise in NOISES:
        for memory in MEMORIES:
            of = f"{noise:.1%} of noise, AR(1) {memory:g}"
            said = f"{noise:g}_{memory:g}"
            for name, text, what, fall in (
                ("steady", "steady weeks that pass", "passed", 0.0),
                ("two", "weeks that fall by 2 % and do not pass", "passed", -0.02),
                ("five", "weeks that fall by 5 % and fail", "failed", -0.05),
            ):
                [share] = shares(what, fall, memory, noise)
                value = 100.0 - share if name == "two" else share
                yield Figure(f"{name}_{said}", f"{text}, {of}", value, "%")


# --- A monthly list -----------------------------------------------------------------------------


def monthly(repeats: int) -> list[Figure]:
    """Seconds that a monthly list takes on a store of thirty days of sixteen ranks."""
    catalogue, clock = load(Config()), SystemClock()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "dvfd.db"
        fill(path, catalogue, clock.now())
        store = Store(path, metrics=catalogue.metrics, clock=clock)
        store.start()
        accepted = Baselines(Path(place), store, clock)
        ledger = Ledger(store, accepted, clock)
        for processes, throughput in ((1, 62.5), (4, 240.0), (8, 470.0), (16, 900.0)):
            figure = {"processes": processes, "throughput": throughput, "job": "gpt"}
            ledger.record(figure | {"name": "bench", "note": "made up"}, "bench")
        review = Reviews(store, accepted, clock, capacity=lambda: capacity(ledger, catalogue))
        judgements = Judgements(catalogue, store=store, clock=clock, reviewed=review.of)
        times, before = [], processor()
        for _ in range(repeats):
            began = time.perf_counter()
            report = judgements.run_check(catalogue.checks["monthly"])
            times.append(time.perf_counter() - began)
        used = (processor() - before) / repeats
        store.stop()
    verdicts = {r.criterion.id: r.verdict for r in report.results}
    TABLE["facts"] = dict(report.run.facts) if report.run else {}
    if verdicts["monthly.uptime"] is not Verdict.PASS:
        raise RuntimeError(f"the filled store was not read: {report.results[0].reason}")
    text = f"A monthly list over {DAYS} days of {RANKS} ranks"
    return [
        at_most("monthly", f"{text}, slowest of {repeats}", max(times), "s", 2.0),
        at_most("monthly_cpu", f"{text}, processor time with its children", used, "s", 2.0),
    ]


def processor() -> float:
    """Seconds of it that this process and its children have used."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(found.ru_utime + found.ru_stime for found in map(resource.getrusage, who))


def fill(path: Path, catalogue: Catalogue, now: float) -> None:
    """A store with the rollups of the hours of a healthy month."""
    store = Store(path, metrics=catalogue.metrics, clock=SystemClock())
    store.start()
    store.stop()
    last, paces = math.floor(now / 3600), {"job_throughput_samples_per_second": 1.001}
    first = last - DAYS * 24 - 2
    with sqlite3.connect(path) as file:
        for series, (metric, labels, rate) in enumerate(courses(), 1000):
            text = label_text(labels)
            file.execute("INSERT INTO series VALUES (?, ?, ?, NULL)", (series, metric, text))
            rows, counts = [], metric.endswith("_total")
            for hour in range(first, last):
                value = (
                    rate * 3600 * (hour - first + 1)
                    if counts
                    else rate * paces.get(metric, 1.0) ** (hour % 7)
                )
                many, start = 720, hour * 3600
                rows.append((series, start, many, value * many, 0.0, value, value, value, 3600.0,
                             None, None, value))  # fmt: skip
            file.executemany(f"INSERT INTO hours VALUES ({', '.join('?' * 12)})", rows)
            end = last * 3600
            tail = [
                (series, at * 1000, rate * (at - first * 3600) if counts else rate, None, None)
                for at in range(end, int(now), 5)
            ]
            file.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?)", tail)
        file.execute("UPDATE meta SET value = ? WHERE key = 'closed hours'", (str(last * 3600),))
    file.close()


def courses() -> Iterator[tuple[str, Any, float]]:
    """Every series of the month: metric, labels, and what it is or grows by in a second."""
    job = (("job", "gpt"),)
    yield "job_up_seconds_total", job, 1.0
    yield "job_observed_seconds_total", job, 1.0
    yield "job_hash_comparisons_total", job, 3.0
    yield "job_hash_mismatches_total", job, 0.0
    yield "job_samples_total", job, 1000.0
    for package in range(2):
        yield "cpu_package_energy_joules_total", (("package", str(package)),), 150.0
    yield "job_throughput_samples_per_second", job, 1000.0
    yield "job_processes", job, float(RANKS)
    for rank in range(RANKS):
        of = (("job", "gpt"), ("rank", str(rank)))
        for metric, value in {
            "rank_step_seconds": 0.25, "rank_compute_seconds": 0.2, "rank_cpu_ratio": 0.9,
            "rank_steps_total": 4.0, "rank_responding": 1.0,
        }.items():  # fmt: skip
            yield metric, of, value


if __name__ == "__main__":
    main()

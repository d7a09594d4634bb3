"""Rollups say what the samples say, once and for all, whatever happened in between."""

from __future__ import annotations

import math
import statistics

import pytest
from fakes_store import METRICS, sample
from hypothesis import given
from hypothesis import strategies as st

from dvfd.store.database import Database, open_database
from dvfd.store.operations import Tables
from dvfd.store.rollups import HOURS, MINUTES, Rollups, fold

START = 1_800_000_000  # a whole hour
VALUES = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40)


@pytest.mark.slow
@given(VALUES)
def test_a_rollup_agrees_with_brute_force(values: list[float]) -> None:
    step = 60 / len(values)
    rows = [(START + i * step, value, None, None) for i, value in enumerate(values)]

    rollup = fold(START, rows, None, 15.0, HOURS)

    assert (rollup.count, rollup.min, rollup.max) == (len(values), min(values), max(values))
    assert rollup.last == values[-1]
    assert rollup.mean == pytest.approx(statistics.fmean(values), abs=1e-3)
    assert rollup.deviation == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-3)
    assert rollup.median == pytest.approx(statistics.median(values), abs=1e-3)


def test_a_minute_sampled_every_five_seconds_is_covered_whole() -> None:
    rows = [(START + 5.0 * i, 1.0, None, None) for i in range(12)]

    assert fold(START, rows, START - 5.0, 15.0, MINUTES).covered == 60.0


def test_a_hole_covers_no_more_than_the_maximum_age() -> None:
    rows = [(START + 5.0, 1.0, None, None), (START + 55.0, 1.0, None, None)]

    assert fold(START, rows, START, 15.0, MINUTES).covered == 20.0


def test_a_rollup_of_intervals_bounds_them_all() -> None:
    rows = [(START + 1.0, 5.0, 4.0, 9.0), (START + 2.0, 3.0, None, None)]

    rollup = fold(START, rows, None, 15.0, MINUTES)

    assert (rollup.low, rollup.high) == (3.0, 9.0)


def test_huge_values_stay_finite() -> None:
    rows = [(START + 1.0, 1.7e308, None, None), (START + 2.0, 1.7e308, None, None)]

    rollup = fold(START, rows, None, 15.0, HOURS)

    assert all(map(math.isfinite, (rollup.sum, rollup.sumsq, rollup.median or 0.0)))


class Bench:
    """A database in memory with rollups that a test drives by hand."""

    def __init__(self) -> None:
        self.database: Database = open_database(None)
        self.rollups = Rollups(METRICS)
        self.rollups.opened(self.database, START)
        self.tables = Tables(self.rollups)

    def write(self, *ats: float, value: float = 1.0) -> None:
        with self.database.transaction() as self.tables.connection:
            self.tables.put_samples([sample(value, at) for at in ats])

    def close(self, now: float) -> None:
        for _ in self.rollups.close(self.database, now, START - 86_400):
            pass

    def counts(self, table: str) -> list[tuple[int, int]]:
        return self.database.read(f"SELECT start - {START}, count FROM {table} ORDER BY start")


def test_a_minute_is_closed_when_it_is_over_and_not_before() -> None:
    bench = Bench()
    bench.write(START + 1, START + 31, START + 61)

    bench.close(START + 64)
    early = bench.counts("minutes")
    bench.close(START + 66)

    assert (early, bench.counts("minutes")) == ([], [(0, 2)])


def test_closing_again_after_a_restart_changes_nothing() -> None:
    bench = Bench()
    bench.write(*(START + 5 * i for i in range(24)))
    bench.close(START + 130)
    before = bench.counts("minutes")

    bench.rollups.opened(bench.database, START + 131)
    bench.close(START + 132)

    assert bench.counts("minutes") == before == [(0, 12), (60, 12)]


def test_minutes_that_a_crash_left_open_are_closed_after_it() -> None:
    bench = Bench()
    bench.close(START + 66)
    bench.write(*(START + 60 + 5 * i for i in range(24)))

    bench.rollups = Rollups(METRICS)
    bench.rollups.opened(bench.database, START + 7200)
    bench.close(START + 7200)

    assert bench.counts("minutes") == [(60, 12), (120, 12)]
    assert bench.counts("hours") == [(0, 24)]


def test_a_sample_that_comes_late_is_taken_into_its_closed_minute_and_hour() -> None:
    bench = Bench()
    bench.write(START + 1)
    bench.close(START + 3700)

    bench.write(START + 2)
    bench.close(START + 3701)

    assert (bench.counts("minutes"), bench.counts("hours")) == ([(0, 2)], [(0, 2)])


def test_a_clock_set_back_leaves_rollups_that_hold_both_passes() -> None:
    bench = Bench()
    bench.write(START + 10, START + 70)
    bench.close(START + 130)

    bench.write(START + 20)
    bench.close(START + 30)
    bench.close(START + 130)

    assert bench.counts("minutes") == [(0, 2), (60, 1)]


def test_a_late_sample_never_thins_out_a_bucket_whose_raw_rows_are_gone() -> None:
    bench = Bench()
    bench.write(START + 1, START + 2)
    bench.close(START + 3700)
    with bench.database.transaction() as connection:
        connection.execute("DELETE FROM samples")

    bench.write(START + 3)
    for _ in bench.rollups.close(bench.database, START + 3701, keep_from=START + 60):
        pass

    assert bench.counts("minutes") == [(0, 2)]

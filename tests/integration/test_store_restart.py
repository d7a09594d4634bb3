"""A restart forgets nothing that was committed, and a kill at any moment breaks nothing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_store import METRICS, criterion, eventually, fold, opened, rows, sample

from dvfd.store import Interval, Retention, Store
from dvfd.store.schema import MIGRATIONS, migrate

NOW = FakeClock().now()
NAME = "dvfd.db"

VICTIM = """
import sys
from pathlib import Path
from dvfd import log
from dvfd.clock import SystemClock
from dvfd.model import Sample, labels
from dvfd.store import StepFold, Store

log.setup()
clock = SystemClock()
store = Store(Path(sys.argv[1]), metrics={}, clock=clock)
store.start()
sequence = store.cursor("s")
while True:
    sequence += 1
    at = clock.now()
    row = StepFold(job="j", rank=0, first_step=sequence, last_step=sequence, count=1, at=at)
    store.commit_telemetry("s", sequence, [row], lambda n: print(n, flush=True))
    store.write([Sample("m", 1.0, clock.now(), labels(series=i)) for i in range(20)])
    store.outbox_put("alert", {"n": sequence}, {"n": sequence})
    if sequence % 7 == 0:
        store.end_series({"series": "3"}, clock.now())
    store.flush(0.003)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_and_doubles_nothing_committed(tmp_path: Path) -> None:
    path, told = tmp_path / NAME, 0
    for _ in range(20):
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert victim.stdout
        first = victim.stdout.readline()  # it has begun to commit, however slow the machine
        time.sleep(random.random() * 0.15)
        victim.send_signal(signal.SIGKILL)
        lines = (first + victim.communicate()[0]).decode().splitlines(keepends=True)
        told = max([told, *(int(line) for line in lines if line.endswith("\n"))])

        committed = [sequence for (sequence,) in rows(path, "SELECT sequence FROM folds")]
        assert committed == list(range(1, len(committed) + 1))
        assert len(committed) >= told
        assert rows(
            path, "SELECT a.document = o.alert FROM alarms a JOIN outbox o USING (key)"
        ) in (
            [],
            [(1,)],
        )
    assert told > 20
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_restart_remembers_the_ring_and_every_silent_series(tmp_path: Path) -> None:
    old = [sample(1.0, NOW - 90_000, rank=0)]
    new = [sample(float(i), NOW - 5 * i, rank=1) for i in range(12)]
    with opened(tmp_path / NAME) as store:
        store.write([*old, *new])
        before = store.samples(criterion(), until=NOW)
    with opened(tmp_path / NAME) as store:
        assert store.samples(criterion(), until=NOW) == before
        assert store.latest("heat") == [old[0], new[0]]


def test_an_ended_series_stays_ended_and_a_revived_one_lives(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        store.write([sample(1.0, NOW, job="a"), sample(1.0, NOW, job="b")])
        store.end_series({"job": "a"}, NOW)
        store.end_series({"job": "b"}, NOW)
        store.write([sample(2.0, NOW + 1, job="b")])
        assert [s.value for s in store.latest("heat")] == [2.0]
    with opened(tmp_path / NAME) as store:
        assert store.latest("heat") == [sample(2.0, NOW + 1, job="b")]
        ended = store.series("heat", (("job", "a"),), since=NOW - 60, until=NOW + 60)
        assert ended == [sample(1.0, NOW, job="a")]


def test_a_series_of_one_metric_ends_beside_another_of_the_same_labels(tmp_path: Path) -> None:
    other = replace(sample(1.0, NOW, job="a"), metric="site_heat")
    with opened(tmp_path / NAME) as store:
        store.write([sample(1.0, NOW, job="a"), other])
        store.end_series({"job": "a"}, NOW, "site_heat")
        assert (store.latest("site_heat"), len(store.latest("heat"))) == ([], 1)
    with opened(tmp_path / NAME) as store:
        assert (store.latest("site_heat"), len(store.latest("heat"))) == ([], 1)


def test_the_time_between_two_daemons_was_not_observed(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        store.transition("job", "up", NOW)
        store.write([sample(1.0, NOW + 100)])
    with opened(tmp_path / NAME) as store:
        store.transition("job", "up", NOW + 160)

        assert store.transitions("job", NOW, NOW + 200) == [
            Interval("job", "up", NOW, NOW + 100),
            Interval("job", "unobserved", NOW + 100, NOW + 160),
            Interval("job", "up", NOW + 160, NOW + 200),
        ]


def test_alarms_outbox_and_records_survive(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        store.outbox_put("a", {"n": 1}, {"s": 1})
        store.save_alarms({"b": {"s": 2}})
        store.put("kind", "key", {"x": [1]})
    with opened(tmp_path / NAME) as store:
        assert store.outbox() == [{"n": 1}]
        assert store.load_alarms() == {"a": {"s": 1}, "b": {"s": 2}}
        assert store.get("kind", "key") == {"x": [1]}


def test_an_older_file_is_migrated_and_a_broken_step_leaves_it_as_it_was(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    migrate(connection)
    steps = (*MIGRATIONS, ("CREATE TABLE fresh (x INTEGER) STRICT", "SELECT nonsense"))

    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        migrate(connection, steps)
    migrate(connection, (*MIGRATIONS, ("CREATE TABLE fresh (x INTEGER) STRICT",)))

    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.close()


def test_old_rows_go_while_new_ones_come_and_the_newest_stays(tmp_path: Path) -> None:
    path, clock = tmp_path / NAME, FakeClock()
    with opened(path, clock) as store:
        store.write([sample(1.0, NOW + i / 10, rank=0) for i in range(6000)])
        store.write([sample(1.0, NOW + 1, rank=1)])
    clock.advance(30 * 3600)
    keep = Retention(raw=3600.0)
    store = Store(path, metrics=METRICS, clock=clock, retention=keep)
    store.start()
    for i in range(100):
        store.write([sample(2.0, clock.now() + i / 10, rank=0)])
        time.sleep(0.001)

    assert eventually(lambda: rows(path, "SELECT count(*) FROM samples") == [(101,)])
    assert rows(path, "SELECT sum(count) FROM hours") == [(6001,)]
    assert len(store.latest("heat")) == 2
    store.stop()


def test_telemetry_is_on_the_disk_within_fifty_milliseconds(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        waits = []
        for sequence in range(1, 11):
            done = threading.Event()
            started = time.monotonic()
            store.commit_telemetry("s", sequence, [fold(1)], lambda _, done=done: done.set())
            assert done.wait(5)
            waits.append(time.monotonic() - started)

    assert sorted(waits)[5] < 0.05


def test_the_lock_names_who_holds_it(tmp_path: Path) -> None:
    with opened(tmp_path / NAME):
        assert (tmp_path / f"{NAME}.lock").read_text() == f"{os.getpid()}\n"


def test_a_file_with_larger_pages_keeps_them_and_is_written_on(tmp_path: Path) -> None:
    older = tmp_path / NAME
    with sqlite3.connect(older) as connection:
        connection.execute("PRAGMA page_size = 4096")
        migrate(connection)
    connection.close()
    with opened(older) as store, opened(tmp_path / "new.db") as new:
        for each in (store, new):
            each.write([sample(70.0, 1_000.0)])
            assert each.flush()
            assert each.health().ok

    assert rows(older, "PRAGMA page_size") == [(4096,)]
    assert rows(tmp_path / "new.db", "PRAGMA page_size") == [(1024,)]
    assert rows(older, "SELECT count(*) FROM samples") == [(1,)]

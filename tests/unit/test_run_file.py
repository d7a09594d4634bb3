"""The file of a run: what was acknowledged is in it once, and it explains itself."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeClock

from dvfd.errors import StoreError
from dvfd.model import labels
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.runs.run import Axis
from dvfd.store import Store, run_file, run_tables
from dvfd.store.folds import StepFold
from dvfd.store.run_file import RunFile
from dvfd.store.run_reading import Reading, digest
from dvfd.store.run_tables import TABLES

BOOT = 1000.0
MINUTE = Minute(
    node="n", metric="rank_cpu_ratio", labels=labels(job="gpt", rank=1), minute=3, count=6,
    sum=5.4, low=0.8, high=1.0, last=0.9, covered=60.0,
)  # fmt: skip
EVENT = Event(node="n", t=12.5, at=1.8e9, what=What.SAVED, rank=0, step=500, value=1.5, text="/c")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RunFile]:
    made = RunFile.create(tmp_path / "runs" / "r.db", {"id": "r"})
    made.node, made.job, made.every = "n", "gpt", 100
    made.set_axis(Axis(boot_id="b", offset=-BOOT))
    yield made
    made.close()


def fold(first: int, last: int, rank: int = 0, **more: float) -> StepFold:
    """Steps of one second each, of 8 samples."""
    count = last - first + 1
    return StepFold(
        job="gpt", rank=rank, first_step=first, last_step=last, count=count, at=0.0,
        samples_sum=8.0 * count, began=BOOT + first, ended=BOOT + last, **more,
    )  # fmt: skip


def test_packets_of_one_interval_become_one_window(file: RunFile) -> None:
    assert file.take([("s", 10, [fold(1, 10)]), ("s", 50, [fold(11, 50, exposed_sum=2.0)])])
    [window] = file.windows()
    assert window == Window(
        node="n", rank=0, window=0, session="s", first_step=1, last_step=50, steps=50, began=1.0,
        ended=50.0, samples=400.0, communication=2.0,
    )  # fmt: skip


def test_step_100_is_the_last_of_the_first_interval(file: RunFile) -> None:
    file.take([("s", 2, [fold(51, 100), fold(101, 150)])])
    assert [(w.window, w.first_step, w.last_step) for w in file.windows()] == [
        (0, 51, 100),
        (1, 101, 150),
    ]


def test_a_packet_that_comes_again_counts_once(file: RunFile) -> None:
    for _ in range(2):
        file.take([("s", 10, [fold(1, 10)])])
    assert [w.steps for w in file.windows()] == [10]


def test_a_rank_that_came_back_has_a_window_of_its_own(file: RunFile) -> None:
    file.take([("a", 10, [fold(1, 10)]), ("b", 10, [fold(6, 10)])])
    assert [(w.session, w.steps) for w in file.windows()] == [("a", 10), ("b", 5)]


def test_what_happened_before_the_arming_is_not_of_the_run(file: RunFile) -> None:
    file.take([("s", 10, [replace(fold(1, 10), began=BOOT - 9, ended=BOOT - 1)])])
    assert list(file.windows()) == []
    assert file.cursor("s") == 10


def test_a_job_that_reports_no_samples_is_told_from_one_that_has_none(file: RunFile) -> None:
    file.take([("s", 1, [replace(fold(1, 1), samples_sum=None)])])
    assert [w.samples for w in file.windows()] == [None]
    file.take([("s", 2, [fold(2, 2)])])
    assert [w.samples for w in file.windows()] == [8.0]


def test_minutes_and_events_come_back_as_they_were(file: RunFile) -> None:
    file.add([MINUTE, EVENT])
    file.flush()
    assert list(file.minutes()) == [MINUTE]
    assert list(file.events()) == [EVENT]


def test_between_two_marks_every_row_comes_once(file: RunFile) -> None:
    file.take([("s", 10, [fold(1, 10)])])
    first = file.mark()
    file.take([("s", 20, [fold(11, 20)])])
    file.add([MINUTE])
    file.flush()
    second = file.mark()
    file.take([("s", 30, [fold(101, 110)])])
    assert [w.steps for w in file.windows(first, second)] == [20]
    assert list(file.minutes(first, second)) == [MINUTE]
    assert [w.window for w in file.windows(second)] == [1]


def test_it_goes_on_after_a_restart(file: RunFile) -> None:
    file.take([("s", 10, [fold(1, 10)])])
    file.heartbeat(10.0, 1.8e9)
    file.close()
    again = RunFile.open(file.path)
    again.job, again.every, again.node = "gpt", 100, "n"
    again.set_axis(Axis(boot_id="b", offset=-BOOT))
    mark = again.mark()
    again.take([("s", 10, [fold(1, 10)]), ("s", 20, [fold(11, 20)])])
    assert (again.last_heartbeat(), again.cursor("s")) == ((10.0, 1.8e9), 20)
    assert [w.steps for w in again.windows(mark)] == [20]
    again.close()


def test_a_reader_beside_it_sees_what_is_written(file: RunFile) -> None:
    file.take([("s", 10, [fold(1, 10)])])
    reading = Reading(file.path)
    assert [w.steps for w in reading.windows()] == [10]
    assert (reading.document(), reading.mark()) == ({"id": "r"}, file.mark())


def test_a_frozen_file_is_one_file_that_nobody_writes(file: RunFile) -> None:
    file.take([("s", 10, [fold(1, 10)])])
    file.add([EVENT])
    said = file.freeze()
    assert said == digest(file.path)
    assert [p.name for p in file.path.parent.iterdir()] == ["r.db"]
    assert file.path.stat().st_mode & 0o777 == 0o444
    assert not file.take([("s", 20, [fold(11, 20)])])
    with pytest.raises(StoreError, match="is frozen"):
        RunFile.open(file.path)
    assert list(Reading(file.path).events()) == [EVENT]
    assert digest(file.path) == said


def test_a_second_run_of_that_name_is_refused(file: RunFile) -> None:
    with pytest.raises(StoreError, match="a run of that name already"):
        RunFile.create(file.path, {})


@pytest.mark.parametrize("text", [b"", b"no database at all, but long enough to be read as one"])
def test_what_is_no_file_of_a_run_is_refused_in_words(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(text * 100)
    with pytest.raises(StoreError, match=r"r\.db: no file of a run"):
        RunFile.open(path)
    with pytest.raises(StoreError, match=r"r\.db: no file of a run"):
        Reading(path).document()


def test_a_newer_file_is_refused_in_words(file: RunFile) -> None:
    file.close()
    with sqlite3.connect(file.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="made by a newer dvfd"):
        RunFile.open(file.path)


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        RunFile.open(tmp_path / "none.db")
    with pytest.raises(StoreError, match="cannot be read"):
        Reading(tmp_path / "none.db").document()


def test_a_disk_that_refuses_is_told_and_nothing_is_lost(file: RunFile) -> None:
    other = sqlite3.connect(file.path, isolation_level=None)
    file._connection.execute("PRAGMA busy_timeout = 10")
    other.execute("BEGIN IMMEDIATE")
    file.add([EVENT])
    file.flush()
    assert not file.take([("s", 10, [fold(1, 10)])])
    assert "locked" in file.trouble
    other.execute("ROLLBACK")
    other.close()
    assert file.take([("s", 10, [fold(1, 10)])])
    file.flush()
    assert (file.trouble, list(file.events())) == ("", [EVENT])
    assert [w.steps for w in file.windows()] == [10]


def test_a_full_disk_is_told_and_nothing_is_acknowledged(file: RunFile) -> None:
    pages = file._connection.execute("PRAGMA page_count").fetchone()[0]
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    folds = [fold(100 * n + 1, 100 * n + 50, rank) for n in range(200) for rank in range(4)]
    assert not file.take([("s", 10, folds)])
    assert "full" in file.trouble
    assert (file.cursor("s"), list(file.windows())) == (0, [])


def test_a_place_that_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(StoreError, match="cannot be created"):
        RunFile.create(tmp_path / "runs" / "r.db", {})


def test_what_is_half_made_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.db"
    monkeypatch.setattr(run_tables, "TABLES", (*TABLES, "no SQL"))
    with pytest.raises(StoreError, match="cannot be created"):
        RunFile.create(path, {})
    monkeypatch.undo()
    RunFile.create(path, {}).close()


def test_a_reader_passes_over_no_row_that_is_just_being_written(file: RunFile) -> None:
    seen: list[int] = []
    insert = file._insert

    def asked_meanwhile(connection, row, mark: int) -> None:
        seen.append(file.mark())
        insert(connection, row, mark)

    file._insert = asked_meanwhile
    file.add([EVENT])
    file.flush()
    assert list(file.events(seen[0])) == [EVENT]


def test_rows_that_come_again_in_other_packets_count_once(file: RunFile) -> None:
    file.take([("s", 15, [replace(fold(1, 15), sequence=15)])])
    cut = [replace(fold(11, 15), sequence=15), replace(fold(16, 20), sequence=20)]
    file.take([("s", 20, cut)])
    assert [(w.steps, w.samples) for w in file.windows()] == [(20, 160.0)]


def test_what_a_rank_tells_again_happened_once(file: RunFile) -> None:
    told = replace(EVENT, origin="s/7")
    file.add([told, replace(told, t=99.0), replace(told, what=What.UNVERIFIED)])
    file.flush()
    assert [e.what for e in file.events()] == [What.SAVED, What.UNVERIFIED]


def test_a_file_that_was_removed_takes_nothing_and_says_so(file: RunFile) -> None:
    file.path.unlink()
    assert not file.take([("s", 10, [fold(1, 10)])])
    assert "removed while in use" in file.trouble


def test_a_cursor_that_cannot_be_read_is_not_zero(file: RunFile) -> None:
    file._connection.execute("DROP TABLE sessions")
    assert file.cursor("s") is None
    assert "sessions" in file.trouble


def test_a_damaged_file_is_refused_in_words(file: RunFile) -> None:
    folds = [fold(100 * n + 1, 100 * n + 50, rank) for n in range(200) for rank in range(4)]
    file.take([("s", 10, folds)])
    file.close()
    size = file.path.stat().st_size
    with file.path.open("r+b") as raw:
        raw.seek(size // 2)
        raw.write(bytes(8192))
    with pytest.raises(StoreError, match="is damaged"):
        RunFile.open(file.path)


def test_freezing_waits_for_who_reads_just_then(file: RunFile) -> None:
    folds = [fold(100 * n + 1, 100 * n + 50, rank) for n in range(800) for rank in range(4)]
    file.take([("s", 10, folds)])
    reading = Reading(file.path).windows()
    next(reading)
    freezing = threading.Thread(target=file.freeze)
    freezing.start()
    freezing.join(0.2)
    assert freezing.is_alive()
    reading.close()
    freezing.join(30)
    assert file.path.stat().st_mode & 0o777 == 0o444


def test_a_sum_of_norms_too_large_for_a_float_is_taken(file: RunFile) -> None:
    assert file.take([("s", 10, [fold(1, 10, norm_sum=math.inf, loss_sum=math.inf)])])


# --- Behind the store ---------------------------------------------------------------------------


@pytest.fixture
def store(file: RunFile, tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.db", metrics={}, clock=FakeClock())
    made.start()
    made.record(file)
    yield made
    made.stop()


def commit(store: Store, sequence: int, told: list[int], rows: tuple[StepFold, ...] = ()) -> None:
    store.commit_telemetry("s", sequence, rows, told.append, job="gpt")


def test_after_what_was_refused_nothing_of_that_session_is_taken(
    file: RunFile, store: Store
) -> None:
    told: list[int] = []
    take, file.take = file.take, lambda _packets: False
    commit(store, 10, told, (fold(1, 10),))
    assert store.flush()
    file.take = take
    commit(store, 20, told, (fold(11, 20),))
    assert store.flush()
    assert (told, list(file.windows())) == ([], [])

    assert store.cursor("s") == 0
    commit(store, 20, told, (fold(1, 20),))
    assert store.flush()
    assert (told, [w.steps for w in file.windows()]) == ([20], [20])


def test_an_event_is_not_acknowledged_before_the_file_has_it(file: RunFile, store: Store) -> None:
    told: list[int] = []
    file.take = lambda _packets: False
    commit(store, 1, told)
    assert store.flush()
    assert told == []


def test_another_job_goes_on_beside_a_file_that_refuses(file: RunFile, store: Store) -> None:
    told: list[int] = []
    file.take = lambda _packets: False
    store.commit_telemetry("o", 1, [replace(fold(1, 1), job="other")], told.append, job="other")
    assert store.flush()
    assert told == [1]


def test_once_it_is_frozen_ranks_go_on(file: RunFile, store: Store) -> None:
    told: list[int] = []
    file.freeze()
    commit(store, 10, told, (fold(1, 10),))
    assert store.flush()
    assert told == [10]


def test_what_the_file_has_and_the_store_lacks_is_asked_for_again(
    file: RunFile, store: Store
) -> None:
    file.take([("s", 15, [replace(fold(1, 15), sequence=15)])])
    assert (store.cursor("s"), store.recorded("s")) == (0, 15)


# --- Rows of other nodes --------------------------------------------------------------------------


def test_rows_of_another_node_come_with_how_far_it_was_heard_or_not_at_all(file: RunFile) -> None:
    assert file.receive("n2", [replace(EVENT, node="n2")], {"mark": 7})
    assert (file.heard("n2"), file.heard("n3")) == ({"mark": 7}, {})
    bad = MINUTE._replace(node="n2", count=1 << 70)
    assert not file.receive("n2", [replace(EVENT, node="n2"), bad], {"mark": 8})
    assert file.heard("n2") == {"mark": 7}
    assert len(list(file.events())) == 1


def test_a_window_of_another_node_takes_the_place_of_what_it_was(file: RunFile) -> None:
    file.take([("s", 10, [fold(1, 10)])])
    [window] = file.windows()
    for steps in (10, 50):
        file.receive("n2", [window._replace(node="n2", steps=steps)], {})
    assert [(w.node, w.steps) for w in file.windows()] == [("n", 10), ("n2", 50)]


def test_what_is_new_is_read_in_pieces_of_whole_marks(file: RunFile) -> None:
    for number in range(10):
        file.add([MINUTE._replace(minute=number) for _ in range(4)])
        file.flush()
    reading, since, read = Reading(file.path), 0, []
    while since < reading.mark():
        until = reading.reach(since, 10)
        assert until > since
        read.append(len(list(reading.minutes(since, until))))
        since = until
    assert (sum(read), max(read)) == (40, 8)


def test_a_mark_that_is_larger_than_was_asked_for_comes_alone_and_whole(file: RunFile) -> None:
    for _ in range(2):
        file.add([EVENT] * 30)
        file.flush()
    reading = Reading(file.path)
    assert len(list(reading.events(0, reading.reach(0, 10)))) == 30


def test_no_mark_has_more_rows_than_go_over_a_network(
    file: RunFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_file, "MARKED", 10)
    file.add([EVENT] * 25)
    assert file.flush()
    reading = Reading(file.path)
    assert [len(list(reading.events(n, n + 1))) for n in range(3)] == [10, 10, 5]

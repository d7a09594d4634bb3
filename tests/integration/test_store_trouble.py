"""When the disk fails the store says so, keeps watching in memory, and recovers by itself."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_store import METRICS, criterion, eventually, fold, opened, report, rows, sample

from dvfd.store import Store

NOW = FakeClock().now()
NAME = "dvfd.db"


class SmallDisk:
    """A place that can fill up: a tmpfs of 1 MiB; without the right to mount, a limit on files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
        self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(self) -> None:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, self._hard))
            return
        (self.place / "ballast").touch()
        with suppress(OSError), (self.place / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))
        (self.place / "ballast").unlink(missing_ok=True)

    def freeze(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", self.place], check=True)
        else:
            self.place.chmod(0o500)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    small = SmallDisk(tmp_path / "disk")
    yield small
    signal.signal(signal.SIGXFSZ, ignored)
    if small.mounted:
        subprocess.run(["umount", "-l", small.place], check=True)
    else:
        small.make_room()


def test_a_full_disk_is_told_lived_through_and_recovered_from(disk: SmallDisk) -> None:
    told: list[int] = []
    with opened(disk.place / NAME) as store:
        store.commit_telemetry("s", 1, [fold(1)], told.append)
        assert store.flush()
        disk.fill()
        sequence = 1
        while store.health().ok and sequence < 2000:
            sequence += 1
            store.commit_telemetry("s", sequence, [fold(sequence)] * 20, told.append)
            store.write([sample(70.0, NOW)])
            store.flush(0.05)

        assert "full" in store.health().reason or "I/O" in store.health().reason
        assert told[-1] < sequence
        assert store.samples(criterion(), until=NOW) == [sample(70.0, NOW)]
        store.outbox_put("alert", {"n": 1}, {})
        assert store.outbox() == [{"n": 1}]

        disk.make_room()
        assert eventually(lambda: store.health().ok)
        assert store.flush()
        assert told[-1] == sequence
        assert told == sorted(told)  # what waited together is told together
        assert rows(disk.place / NAME, "SELECT count(*) FROM outbox") == [(1,)]


def test_a_damaged_file_is_moved_aside_and_it_is_said_until_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"this is no database" * 1000)
    with opened(path) as store:
        assert store.health().ok
        assert "moved to dvfd.db.corrupt-" in store.health().reason
        assert store.flush()
        assert eventually(lambda: rows(path, "SELECT 1 FROM meta WHERE key = 'notice'") == [(1,)])
    with opened(path) as store:
        assert "knows nothing older" in store.health().reason
        store.acknowledge()
        assert store.health().reason == ""
        assert eventually(lambda: rows(path, "SELECT 1 FROM meta WHERE key = 'notice'") == [])
    assert len(list(tmp_path.glob("dvfd.db.corrupt-*"))) == 1


def test_damage_found_while_running_costs_the_past_and_not_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with opened(path) as store:
        store.write([sample(1.0, NOW - 5000), sample(2.0, NOW, rank=1)])
        store.outbox_put("alert", {"n": 1}, {"s": 2})
        store.flush()
    with opened(path) as store:
        damage(path)
        store.put("k", "k", {})
        assert eventually(lambda: "corrupt" in store.health().reason and store.health().ok)
        assert store.flush()
    assert rows(path, "SELECT key FROM outbox") == [("alert",)]
    assert rows(path, "SELECT value FROM samples ORDER BY value") == [(1.0,), (2.0,)]


def damage(path: Path) -> None:
    """Overwrite every page but the first, as a dying disk does."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def test_a_dying_disk_is_not_given_new_files_for_ever(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"this is no database" * 1000)
    for i in range(5):
        (tmp_path / f"{NAME}.corrupt-{i}").touch()

    with opened(path) as store:
        assert "check the disk" in store.health().reason
        assert not store.health().ok


def test_a_second_daemon_names_the_first_and_takes_over_when_it_ends(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as first, opened(tmp_path / NAME) as second:
        assert f"locked by another dvfd, pid {os.getpid()}" in second.health().reason
        second.write([sample(1.0, NOW)])
        assert second.latest("heat") == [sample(1.0, NOW)]

        first.stop()

        assert eventually(lambda: second.health().ok)
        assert second.flush()


def test_a_directory_that_cannot_be_made_is_told_and_telemetry_is_not_acknowledged() -> None:
    told: list[int] = []
    with opened(Path("/proc/dvfd/store") / NAME) as store:
        assert store.cursor("s") == 0
        store.commit_telemetry("s", 1, [fold(1)], told.append)
        store.keep(report(NOW))
        store.transition("job", "up", NOW)

        assert not store.flush(0.1)
        assert "/proc/dvfd/store" in store.health().reason
        assert (told, store.last_run("live")) == ([], NOW)
        assert [i.state for i in store.transitions("job", NOW, NOW + 1)] == ["up"]


def test_a_queue_that_overflows_is_told_with_what_was_lost() -> None:
    with opened(Path("/proc/dvfd/store") / NAME) as store:
        for i in range(21):
            store.write([sample(1.0, NOW + i + j / 1000) for j in range(1000)])

        assert "queue full: 1000 samples lost" in store.health().reason
        assert (store.health().queue, store.health().dropped) == (20_000, 1000)


def test_a_directory_that_became_read_only_is_told(disk: SmallDisk) -> None:
    disk.freeze()
    with opened(disk.place / NAME) as store:
        assert not store.health().ok
        assert str(disk.place) in store.health().reason


def test_a_file_made_by_a_newer_dvfd_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / NAME
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with opened(path) as store:
        assert "made by a newer dvfd: its schema is 99" in store.health().reason
    assert rows(path, "PRAGMA user_version") == [(99,)]


def test_a_file_removed_while_in_use_is_made_again_with_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with opened(path) as store:
        store.put("log", "a", {"offset": 1})
        store.commit_telemetry("s", 5, [fold(1)], lambda _: None)
        store.flush()
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / (NAME + suffix)).unlink()
        store.acknowledge()  # looks at once, not only within 5 s

        assert eventually(path.exists, 60)
        assert store.flush()
        assert "removed while in use" in store.health().reason
    with opened(path) as store:
        assert (store.get("log", "a"), store.cursor("s")) == ({"offset": 1}, 5)


def test_reading_beside_a_daemon_sees_what_it_committed(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        store.write([sample(1.0, NOW)])
        store.keep(report(NOW))
        store.flush()
        reader = Store.read_only(tmp_path / NAME, METRICS, FakeClock())

        assert reader.latest("heat") == [sample(1.0, NOW)]
        assert reader.last_run("live") == NOW
        reader.stop()

"""A backup is whole or not there, and a restore loses neither the old store nor the new one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import FakeClock
from fakes_store import criterion, eventually, opened, rows, sample
from testbed import reachable

from dvfd.cli.store import store as command
from dvfd.errors import StoreError
from dvfd.store.backup import backup, check, restore
from dvfd.store.schema import MIGRATIONS

NOW = FakeClock().now()

WRITING = """
import sys, time
from pathlib import Path
from fakes import FakeClock
from fakes_store import METRICS, fold
from dvfd.store import Store
store = Store(Path(sys.argv[1]), metrics=METRICS, clock=FakeClock())
store.start()
sequence = 0
while True:
    sequence += 1
    store.commit_telemetry("s", sequence, [fold(sequence)] * 50, lambda done: None)
    time.sleep(0.002)
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A store with one sample that no daemon holds."""
    path = tmp_path / "state" / "dvfd.db"
    with opened(path) as store:
        store.write([sample(70.0, NOW)])
        assert store.flush()
    return path


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that commits telemetry until it is killed."""
    here = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{here.parent}"}
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(path)], env=environment)
    try:
        assert eventually(lambda: folds(path) > 2000, 60)
        yield process
    finally:
        process.kill()
        process.wait()


def folds(path: Path) -> int:
    """How many are committed; none while there is no such table."""
    with suppress(StoreError):
        return check(path).rows["folds"]
    return 0


def test_a_backup_holds_what_the_store_holds_and_is_for_its_owner_only(kept, tmp_path):
    facts = backup(kept, tmp_path / "copy.db")

    assert facts.rows["samples"] == 1
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.db", "state"]


def test_a_backup_is_of_one_moment_while_the_writer_writes_and_is_killed(tmp_path):
    path = tmp_path / "state" / "dvfd.db"
    with writer(path):
        beside = backup(path, tmp_path / "beside.db")
        assert eventually(lambda: folds(path) > beside.rows["folds"])
    after = backup(path, tmp_path / "after.db")

    whole = "SELECT count(*), max(last_step) * 50 FROM folds"
    for name in ("beside.db", "after.db"):
        count, wanted = rows(tmp_path / name, whole)[0]
        assert count == wanted > 0
    assert after.rows["folds"] > beside.rows["folds"]


def test_commits_meanwhile_do_not_send_a_slow_backup_back_to_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr("dvfd.store.backup.PAGES", 4)
    monkeypatch.setattr("dvfd.store.backup.BREATH", 0.02)
    path = tmp_path / "state" / "dvfd.db"
    with writer(path):
        copied = backup(path, tmp_path / "copy.db", patience=20).rows["folds"]
        assert eventually(lambda: folds(path) > copied)


def test_a_backup_refuses_to_write_over_anything(kept, tmp_path):
    (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(StoreError, match="is there already"):
        backup(kept, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_a_backup_that_takes_too_long_leaves_nothing_behind(kept, tmp_path):
    with pytest.raises(StoreError, match="within 0 s"):
        backup(kept, tmp_path / "copy.db", patience=0.0)

    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("ballast", [0, 900])
def test_a_backup_onto_a_full_disk_says_so_and_leaves_nothing_behind(kept, tmp_path, ballast):
    small = tmp_path / "small"
    small.mkdir()
    connection = sqlite3.connect(kept)
    connection.execute("INSERT INTO records VALUES ('big', 'x', hex(randomblob(700000)))")
    connection.commit()
    connection.close()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        (small / "ballast").write_bytes(b"x" * ballast * 1024)
        with pytest.raises(StoreError, match=r"bytes free|full"):
            backup(kept, small / "copy.db")
        assert [p.name for p in small.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_restored_store_is_the_backup_and_the_old_one_lies_beside_it(kept, tmp_path):
    backup(kept, tmp_path / "copy.db")
    with opened(kept) as store:
        store.write([sample(71.0, NOW + 1)])
        assert store.flush()
    _, aside = restore(tmp_path / "copy.db", kept, at=NOW)

    assert aside
    assert (check(kept).rows["samples"], check(aside).rows["samples"]) == (1, 2)
    with opened(kept) as store:
        assert [s.value for s in store.samples(criterion(), until=NOW)] == [70.0]


def test_a_store_whose_writer_was_killed_is_set_aside_with_what_its_wal_holds(tmp_path):
    path = tmp_path / "state" / "dvfd.db"
    with writer(path):
        copied = backup(path, tmp_path / "copy.db").rows["folds"]
        assert eventually(lambda: folds(path) > copied)
    before = folds(path)
    _, aside = restore(tmp_path / "copy.db", path, at=NOW)

    assert aside
    assert folds(aside) == before > folds(path) == copied


def test_a_dry_run_replaces_nothing(kept, tmp_path):
    backup(kept, tmp_path / "copy.db")
    before = kept.stat()
    restore(tmp_path / "copy.db", kept, at=NOW, dry_run=True)

    assert kept.stat().st_ino == before.st_ino
    assert not list(kept.parent.glob("*.replaced-*"))


def test_a_store_in_use_is_not_restored(kept, tmp_path):
    backup(kept, tmp_path / "copy.db")

    with (
        opened(kept),
        pytest.raises(StoreError, match=f"locked by another dvfd, pid {os.getpid()}"),
    ):
        restore(tmp_path / "copy.db", kept, at=NOW)


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))


def foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE other (x); PRAGMA user_version = 1;")
    connection.close()


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (spoil, "damaged|malformed"),
        (foreign, "no store of dvfd"),
        (newer, "made by a newer dvfd"),
        (lambda path: path.write_text("hello " * 1000), "not a database"),
        (lambda path: path.write_bytes(b""), "no store of dvfd"),
        (lambda path: path.unlink(), "No such file"),
    ],
    ids=["spoilt", "foreign", "newer", "text", "empty", "gone"],
)
def test_what_is_no_whole_store_of_ours_is_not_restored(kept, tmp_path, harm, said):
    copy = tmp_path / "copy.db"
    backup(kept, copy)
    harm(copy)
    before = kept.stat()

    with pytest.raises(StoreError, match=said):
        restore(copy, kept, at=NOW)
    assert (kept.stat().st_ino, check(kept).rows["samples"]) == (before.st_ino, 1)
    assert not list(kept.parent.glob("*.replaced-*"))


def test_a_damaged_store_is_not_backed_up(kept, tmp_path):
    spoil(kept)

    with pytest.raises(StoreError, match=r"damaged|malformed"):
        backup(kept, tmp_path / "copy.db")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_refused(kept, tmp_path):
    reachable(tmp_path)
    tmp_path.chmod(0o777)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="ask root"):
            backup(kept, tmp_path / "copy.db")
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_root_restores_belongs_to_the_daemons_user(kept, tmp_path):
    (kept.parent / "dvfd.db.lock").unlink()
    for place in (kept.parent, kept):
        os.chown(place, 65534, 65534)
    backup(kept, tmp_path / "copy.db")
    restore(tmp_path / "copy.db", kept, at=NOW)

    owners = {p.name: p.stat().st_uid for p in kept.parent.iterdir()}
    assert set(owners.values()) == {65534}, owners


@pytest.fixture
def alone(kept, tmp_path, monkeypatch) -> Path:
    """The environment of a command beside whose store no daemon lives."""
    monkeypatch.setenv("DVFD_STATE_DIR", str(kept.parent))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return kept


def test_the_commands_back_up_check_and_restore(alone, tmp_path):
    copy = str(tmp_path / "copy.db")
    run = CliRunner().invoke
    assert f"copied to {copy}" in run(command, ["backup", copy]).output
    assert "whole" in run(command, ["check"]).output
    assert "would lie" in run(command, ["restore", copy, "--dry-run"]).output
    assert "lies in" in run(command, ["restore", copy]).output
    assert time.time() - alone.stat().st_ctime < 60


def test_check_tells_damage_by_its_exit_code(alone):
    connection = sqlite3.connect(alone)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = 'reports_by_check'")
    connection.commit()
    connection.close()
    found = CliRunner().invoke(command, ["check"])

    assert (found.exit_code, "never used" in found.output) == (2, True)

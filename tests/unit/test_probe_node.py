"""The node's boot, load and clock; free space where jobs write."""

from __future__ import annotations

import errno
import os

import pytest
from fakes import FakeClock
from fakes_probes import FIXTURES, measure, values

from dvfd.model import labels
from dvfd.probes.node import Discipline, FileSystems, Node, ask_kernel

ROOT = FIXTURES / "loaded"


def node(clock=None, *, root=ROOT, discipline=lambda: Discipline(0, 0.0015)):
    return Node(
        clock=clock or FakeClock(), proc=root / "proc", sys=root / "sys", discipline=discipline
    )


def value(probe, metric):
    return values(measure(probe)[0], metric)[()]


def test_load_is_over_logical_processors():
    assert value(node(), "node_load_ratio") == 1.5


def test_boot_time_holds_still_while_the_clock_is_corrected():
    clock = FakeClock(now=10_000, boot=1_000)
    probe = node(clock)
    assert value(probe, "node_boot_timestamp_seconds") == 9_000
    clock.step(0.8)
    assert value(probe, "node_boot_timestamp_seconds") == 9_000

    clock.step(3600)

    assert value(probe, "node_boot_timestamp_seconds") == pytest.approx(12_600.8)


def test_a_disciplined_clock_is_told_with_its_error():
    probe = node()

    assert value(probe, "node_clock_synchronised") == 1.0
    assert value(probe, "node_clock_error_seconds") == 0.0015


def test_a_free_running_clock_is_not_synchronised():
    assert value(node(discipline=lambda: Discipline(0x2040, 16.0)), "node_clock_synchronised") == 0


def test_a_forbidden_clock_is_an_error_and_the_rest_is_read():
    samples, error = measure(node(discipline=refuse))

    assert values(samples, "node_load_ratio")
    assert not values(samples, "node_clock_synchronised")
    assert "ProtectClock" in error


def refuse():
    raise OSError(errno.EPERM, "Operation not permitted")


def test_an_unreadable_load_is_an_error_and_the_rest_is_read(tmp_path):
    samples, error = measure(node(root=tmp_path))

    assert values(samples, "node_clock_synchronised")
    assert error == f"{tmp_path}/proc/loadavg: no such file or directory"


def test_the_kernel_tells_of_its_clock():
    found = ask_kernel()

    assert found.error >= 0
    assert found.synchronised in {True, False}


def statvfs(**fields):
    """A full file system of 1000 blocks and inodes, but for *fields*."""
    base = dict(zip(FIELDS, (4096, 4096, 1000, 0, 0, 1000, 0, 0, 0, 255), strict=True))
    return os.statvfs_result(tuple((base | fields)[name] for name in FIELDS))


FIELDS = (
    *("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail"),
    *("f_files", "f_ffree", "f_favail", "f_flag", "f_namemax"),
)


def disks(*paths, **fields):
    return FileSystems(lambda: paths, statvfs=lambda _: statvfs(**fields))


def test_free_space_is_what_ordinary_users_have():
    samples, error = measure(disks("/ckpt", f_bfree=300, f_bavail=250, f_favail=100))

    where = labels(path="/ckpt")
    assert values(samples, "filesystem_free_ratio") == {where: 0.25}
    assert values(samples, "filesystem_free_inodes_ratio") == {where: 0.1}
    assert error == ""


def test_a_path_watched_twice_is_told_once():
    assert len(measure(disks("/ckpt", "/ckpt"))[0]) == 2


def test_a_file_system_without_inodes_to_count_says_so():
    probe = disks("/btrfs", f_files=0)

    samples, error = measure(probe)

    assert values(samples, "filesystem_free_inodes_ratio") == {}
    assert "/btrfs" in probe.gaps["filesystem_free_inodes_ratio"]
    assert error == ""


def test_no_path_to_watch_is_a_gap_with_a_reason():
    probe = disks()

    assert measure(probe) == ([], "")
    assert "no path is watched" in probe.gaps["filesystem_free_ratio"]


def test_a_path_that_is_gone_is_never_looked_up_at_its_parent(tmp_path):
    probe = FileSystems(lambda: [tmp_path / "gone", tmp_path])

    samples, error = measure(probe)

    assert list(values(samples, "filesystem_free_ratio")) == [labels(path=tmp_path)]
    assert error == f"{tmp_path}/gone: no such file or directory"


def test_a_file_system_without_a_size_is_an_error():
    assert "has no size" in measure(disks("/proc", f_blocks=0))[1]


def test_a_network_file_system_may_hang_so_it_has_a_deadline():
    assert FileSystems(list).deadline == 5.0

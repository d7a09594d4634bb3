"""The node itself: when it booted, its load, its clock; and the file systems jobs write to."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from dvfd.model import Clock

STA_UNSYNC = 0x0040
"""The clock is not disciplined: <sys/timex.h>."""

MICRO = 1e6
"""maxerror is in microseconds: adjtimex(2)."""

BOOT_JITTER = 2.0
"""Boot time is wall clock less uptime: it moves with every correction of the clock. Less than
this is no reboot and no step."""


@dataclass(frozen=True, slots=True)
class Discipline:
    """What the kernel says of its clock: status bits and largest error in seconds."""

    status: int
    error: float

    @property
    def synchronised(self) -> bool:
        """Whether something disciplines the clock."""
        return not self.status & STA_UNSYNC


class Node:
    """Boot time, load over logical processors, and the clock's state."""

    name = "node"
    metrics = (
        "node_boot_timestamp_seconds",
        "node_load_ratio",
        "node_clock_synchronised",
        "node_clock_error_seconds",
    )
    deadline = 0.0

    def __init__(
        self,
        *,
        clock: Clock,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        discipline: Callable[[], Discipline] | None = None,
        interval: float = 5.0,
    ) -> None:
        self.interval = interval
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._discipline = discipline or ask_kernel
        self._boot: float | None = None

    def sample(self, at: float) -> Iterator[Sample]:
        """Four samples. Raises ProbeError, after the rest, for what cannot be read."""
        yield Sample("node_boot_timestamp_seconds", self._booted(), at)
        problems: list[str] = []
        try:
            yield Sample("node_load_ratio", self._load(), at)
        except ProbeError as error:
            problems.append(str(error))
        try:
            clock = self._discipline()
        except OSError as error:
            problems.append(_refused(error))
        else:
            yield Sample("node_clock_synchronised", float(clock.synchronised), at)
            yield Sample("node_clock_error_seconds", clock.error, at)
        files.raise_all(problems)

    def _booted(self) -> float:
        """Unix seconds, held steady against the clock's small corrections."""
        boot = self._clock.now() - self._clock.boot()
        if self._boot is None or abs(boot - self._boot) > BOOT_JITTER:
            self._boot = boot
        return self._boot

    def _load(self) -> float:
        text = files.text(self._proc / "loadavg")
        online = files.cpus(files.text(self._sys / "devices/system/cpu/online"))
        try:
            return float(text.split()[0]) / len(online)
        except (ValueError, IndexError, ZeroDivisionError):
            raise ProbeError(
                f"{self._proc}/loadavg: read {text[:40]!r} on {len(online)} processors"
            ) from None


class FileSystems:
    """Free space and inodes where watched paths lie. Blocks on a dead network file system.

    The samples of one call come together: one dead file system silences all of this object's
    paths. `gaps` names the paths whose file system has no inodes to count (btrfs). `forget` is
    told the paths before each look: the series of all others are over, since nobody writes there.
    """

    name = "filesystems"
    metrics = ("filesystem_free_ratio", "filesystem_free_inodes_ratio")

    def __init__(
        self,
        paths: Callable[[], Iterable[Path]],
        *,
        forget: Callable[[Collection[str]], None] = lambda _paths: None,
        interval: float = 15.0,  # max_age is 45 s
        deadline: float = 5.0,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
    ) -> None:
        self.interval = interval
        self.deadline = deadline
        self.gaps: dict[str, str] = {}
        self._paths = paths
        self._forget = forget
        self._statvfs = statvfs

    def sample(self, at: float) -> Iterator[Sample]:
        """Two samples for each path. Raises ProbeError, after the rest, for a path that is gone.

        A path that is gone is never looked up at its parent: an unmounted file system would
        then read as the disk of the root.
        """
        problems: list[str] = []
        bottomless: list[str] = []
        paths = list(dict.fromkeys(map(str, self._paths())))
        self._forget(paths)
        for path in paths:
            try:
                found = self._statvfs(path)
            except OSError as error:
                problems.append(files.explain(path, error))
                continue
            if not found.f_blocks:
                problems.append(f"{path}: its file system has no size, wanted one on a disk")
                continue
            where = labels(path=path)
            yield Sample("filesystem_free_ratio", found.f_bavail / found.f_blocks, at, where)
            if found.f_files:
                ratio = found.f_favail / found.f_files
                yield Sample("filesystem_free_inodes_ratio", ratio, at, where)
            else:
                bottomless.append(path)
        self.gaps = _gaps(paths, bottomless)
        files.raise_all(problems)


def _gaps(watched: Sequence[str], bottomless: Sequence[str]) -> dict[str, str]:
    """Why free space, or inodes, are not told."""
    if not watched:
        return dict.fromkeys(FileSystems.metrics, "no path is watched: no job said where it writes")
    why = f"no fixed number of inodes on {', '.join(bottomless)}"
    return {"filesystem_free_inodes_ratio": why} if bottomless else {}


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), with its padding."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),  # at least what the kernel writes behind it
    )


def ask_kernel() -> Discipline:
    """The kernel's clock through adjtimex(2), changing nothing. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = _Timex()  # modes = 0: read only, for anyone
    if libc.adjtimex(ctypes.byref(state)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return Discipline(state.status, state.maxerror / MICRO)


def _refused(error: OSError) -> str:
    cause = f"adjtimex: {(error.strerror or str(error)).lower()}"
    if error.errno in {errno.EPERM, errno.EACCES, errno.ENOSYS}:
        return f"{cause}: a system call filter forbids it (ProtectClock=yes in the unit?)"
    return cause

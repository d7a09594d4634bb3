"""Which process writes a file: its life is the job's, where a log is all that speaks for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.telemetry.processes import PROC, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dvfd.telemetry.processes import Process


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that holds a file open for writing, and where its relative paths begin."""

    process: Process
    directory: str


def writer(path: Path, *, proc: Path = PROC) -> Writer | None:
    """The oldest process that has *path* open for writing: a launcher rather than its workers.

    None if there is none that can be seen: another user's descriptors are not shown.
    """
    try:
        wanted = path.stat()
    except OSError:
        return None
    table = Processes(proc)
    pids = [entry.name for entry in os.scandir(proc) if entry.name.isdecimal()]
    found = [
        process
        for pid in pids
        if _writes(proc / pid, (wanted.st_dev, wanted.st_ino), path.resolve().name)
        and (process := table.identify(int(pid))) is not None
    ]
    if not found:
        return None
    oldest = min(found, key=lambda process: (process.start, process.pid))
    return Writer(oldest, _directory(proc / str(oldest.pid)))


def _writes(process: Path, wanted: tuple[int, int], name: str) -> bool:
    return any(
        (status.st_dev, status.st_ino) == wanted and _for_writing(process, descriptor)
        for descriptor, status in _open_files(process, name)
    )


def _open_files(process: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """The open files of a process that are called *name*: others are not touched, they may hang."""
    try:
        for descriptor in os.listdir(process / "fd"):  # noqa: PTH208  # names, for every process
            link = f"{process}/fd/{descriptor}"
            if os.readlink(link).rpartition("/")[2] == name:  # noqa: PTH115
                yield descriptor, os.stat(link)  # noqa: PTH116
    except OSError:  # not ours to look at, or gone
        return


def _for_writing(process: Path, descriptor: str) -> bool:
    try:
        text = (process / "fdinfo" / descriptor).read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
    flags = next((line.split()[1] for line in text.splitlines() if line.startswith("flags:")), "0")
    return bool(int(flags, 8) & (os.O_WRONLY | os.O_RDWR))


def _directory(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""

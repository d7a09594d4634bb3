"""Who a process is and whether it runs: its state and start time, from /proc/PID/stat."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

STOPPED = frozenset("Tt")
"""States of proc(5) in which a process does not run until told to: by a signal, by a tracer."""

GONE = frozenset("ZXx")
"""Dead, whether its parent has taken note or not."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: pid and start time (clock ticks since boot) name it for good; pids return."""

    pid: int
    start: int


def owner_of(pid: int) -> str:
    """The name of the user whose process that is, for a person to read."""
    try:
        return pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
    except (OSError, KeyError):
        return "another user"


class Processes:
    """The process table under one root of /proc."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def identify(self, pid: int) -> Process | None:
        """The process that has *pid* now; None if it cannot be seen (gone, another namespace)."""
        found = self._stat(pid) if pid > 0 else None
        return Process(pid, found[1]) if found else None

    def state(self, process: Process) -> str:
        """One letter of proc(5), and X once the process is gone or its pid is another's."""
        found = self._stat(process.pid)
        if found is None or found[1] != process.start:
            return "X"
        return found[0]

    def boot_id(self) -> str:
        """What names this boot of the machine; empty if unknown."""
        try:
            return (self._proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""

    def _stat(self, pid: int) -> tuple[str, int] | None:
        """State and start time. The name before them may hold spaces and parentheses."""
        try:
            descriptor = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
            finally:
                os.close(descriptor)
            return fields[0].decode("ascii"), int(fields[19])
        except (OSError, ValueError, IndexError):
            return None

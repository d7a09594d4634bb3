"""Stop a job's processes: ask them, give them time for a last checkpoint, then kill what is left.

Only processes that registered are touched, each known by pid and start time, held by a descriptor
of the kernel's so that a pid which was given away meanwhile is never hit. A process group goes with
them only where its leader is one of them: the group of somebody's shell is not the job's. Its
members are asked once their leader has gone, for it may end them itself; who left the group is left
alone.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.telemetry.processes import GONE, Process, Processes, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LOOK = 0.1
"""Seconds between looks at what is left."""

GOING = 5.0
"""Seconds for killed processes to go; one in uninterruptible sleep may stay, and is named."""

LONGEST = 900.0
"""Seconds after which a job that is started again and again is left to people: longer than any
grace.
"""

DROP_IN = "systemd/drop-ins/stop-jobs.conf"


@dataclass(slots=True)
class Halted:
    """What became of it, by pid: asked to end, killed, not allowed to, still there."""

    asked: set[int] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def words(self, job: str) -> str:
        """All of it in a sentence."""
        if not (self.asked or self.refused):
            return f"nothing of job {job} ran here any more"
        parts = [f"{len(self.asked)} processes of job {job} were asked to end"]
        if self.killed:
            parts.append(f"{len(self.killed)} did not within the grace and were killed")
        if self.refused:
            pids = ", ".join(f"{pid} of {owner}" for pid, owner in sorted(self.refused.items()))
            parts.append(f"not allowed to signal pid {pids}: install {DROP_IN}, or end them")
        if self.left:
            parts.append(f"still there: pid {', '.join(map(str, sorted(self.left)))}")
        return "; ".join([*parts, f"after {self.seconds:.0f} s"])


def halt(
    registered: Callable[[], Iterable[Process]],
    *,
    grace: float,
    linger: float = 0.0,
    processes: Processes | None = None,
    wait: Callable[[float], object] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Halted:
    """End what *registered* names, asking it again: a launcher may start ranks anew, which then
    register too, for *linger* seconds after the last one went. *grace* seconds after one was asked
    in vain everything that is left is killed.
    """
    table = processes or Processes()
    halted, began = Halted(), monotonic()
    groups: dict[int, set[Process]] = {}
    asked: dict[Process, float] = {}
    seen = began
    while (now := monotonic()) - began < LONGEST:
        _renew(groups, table)
        left = [*_living(registered(), table), *_orphans(groups, table)]
        seen = now if left else seen
        if not left and now - seen >= linger:
            break
        if any(now - asked.get(process, now) >= grace for process in left):
            break
        for process in (each for each in left if each not in asked):
            asked[process] = now
            _ask(process, table, halted, groups)
        if left and {process.pid for process in left} <= set(halted.refused):
            break
        wait(LOOK)
    _kill(registered, table, halted, groups, wait=wait, monotonic=monotonic)
    halted.seconds = monotonic() - began
    return halted


def _kill(
    registered: Callable[[], Iterable[Process]],
    table: Processes,
    halted: Halted,
    groups: Mapping[int, set[Process]],
    *,
    wait: Callable[[float], object],
    monotonic: Callable[[], float],
) -> None:
    """Kill what is left of them and of the groups that they led, and see it gone."""
    until = monotonic() + GOING
    while left := [*_living(registered(), table), *_of(groups, table)]:
        for leader in {leader for leader in groups if _in_group(leader, groups, table)}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        for process in left:
            if _signal(process, signal.SIGKILL, table, halted):
                halted.killed.add(process.pid)
        if monotonic() > until or {process.pid for process in left} <= set(halted.refused):
            break
        wait(LOOK)
    halted.left = {process.pid for process in left} - set(halted.refused)


def _living(registered: Iterable[Process], table: Processes) -> list[Process]:
    ours = os.getpid()
    return [p for p in registered if p.pid not in (0, 1, ours) and table.state(p) not in GONE]


def _in_group(leader: int, groups: Mapping[int, set[Process]], table: Processes) -> list[Process]:
    """Who lives of a group and is in it still: so long its number is theirs."""
    return [p for p in _living(groups[leader], table) if _group(p.pid) == leader]


def _of(groups: Mapping[int, set[Process]], table: Processes) -> list[Process]:
    return [process for leader in groups for process in _in_group(leader, groups, table)]


def _orphans(groups: Mapping[int, set[Process]], table: Processes) -> list[Process]:
    """The members of groups whose leader has gone."""
    found = {leader: _in_group(leader, groups, table) for leader in groups}
    return [p for leader, left in found.items() if all(m.pid != leader for m in left) for p in left]


def _renew(groups: Mapping[int, set[Process]], table: Processes) -> None:
    """Take in what was forked meanwhile."""
    for leader in groups:
        if _in_group(leader, groups, table):
            groups[leader].update(members(leader, table))


def _ask(
    process: Process, table: Processes, halted: Halted, groups: dict[int, set[Process]]
) -> None:
    if not _signal(process, signal.SIGTERM, table, halted):
        return
    halted.asked.add(process.pid)
    # A stopped process takes the signal only once it runs again.
    _signal(process, signal.SIGCONT, table, halted)
    if process.pid != os.getpgrp() and _group(process.pid) == process.pid:
        groups[process.pid] = {process, *members(process.pid, table)}


def members(group: int, table: Processes, proc: Path = Path("/proc")) -> set[Process]:
    """The processes that are in process group *group* now."""
    pids = (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    found = (table.identify(pid) for pid in pids if _group(pid) == group)
    return {process for process in found if process is not None}


def _group(pid: int) -> int:
    """The process group of *pid*; 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _signal(process: Process, number: signal.Signals, table: Processes, halted: Halted) -> bool:
    """Send a signal to that very process; whether it was taken."""
    try:
        held = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if table.identify(process.pid) != process:  # held now: what is checked is what is hit
            return False
        signal.pidfd_send_signal(held, number)
    except PermissionError:
        halted.refused[process.pid] = owner_of(process.pid)
        return False
    except ProcessLookupError:
        return False
    finally:
        os.close(held)
    return True

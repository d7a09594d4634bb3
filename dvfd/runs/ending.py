"""End the training of a run with all that it started, and see it gone. Asks first, then kills."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import tree
from dvfd.errors import ToolError
from dvfd.telemetry.processes import owner_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

GRACE = 60.0
"""Seconds for a last checkpoint. torchrun gives its ranks 30 of them."""

HOLDER = 600.0 + tree.PATIENCE + 5.0
"""Seconds in which a supervisor ends its training: the longest grace that it can be given."""

LOOK = 0.1
"""Seconds between looks at what is left."""


def mark(run: str) -> str:
    """What every process of the training of *run* has in its environment."""
    return f"{tree.HELD}{run}"


def living(run: str) -> set[int]:
    """The processes of the training of *run*, as far as this user may see them."""
    return set(tree.marked(mark(run)))


def end(run: str, *, grace: float = GRACE, spared: AbstractSet[int] | None = None) -> int:
    """Ask the training of *run* to end, and kill what is left of it after *grace* seconds; how
    many processes there were at the most at once. With *spared* also our children but these.

    Raises ToolError naming what cannot be ended.
    """
    most, asked = 0, set[int]()
    until = time.monotonic() + grace
    while (left := living(run)) and time.monotonic() < until:
        most = max(most, len(left))
        for pid in topmost(left) - asked:
            asked.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(LOOK)
    return max(most, tree.sweep(mark(run), spared=spared))


def stop(run: str, launched: Mapping[str, Any]) -> int:
    """End the training of *run* with its supervisor, *launched* as Launched tells; how many
    processes there were. A supervisor that was killed is not needed: the mark finds them.

    Raises ToolError naming what cannot be ended, and by whom it could be.
    """
    count = len(living(run))
    held = end_holder(launched.get("pid", 0), launched.get("start", 0), patience=HOLDER)
    return max(count, int(held), end(run, grace=0.0 if held else GRACE))


def topmost(pids: AbstractSet[int]) -> set[int]:
    """Those of *pids* that none of them started: a launcher hands the signal on, or left ranks."""
    return {pid for pid in pids if parent(pid) not in pids}


def parent(pid: int, proc: Path = Path("/proc")) -> int:
    """Whose child *pid* is; 0 if it is gone."""
    return _stat(pid, proc).get("ppid", 0)


def started(pid: int, proc: Path = Path("/proc")) -> int:
    """When *pid* started, in clock ticks since boot; 0 if it is gone or only waits for burial."""
    return _stat(pid, proc).get("start", 0)


def _stat(pid: int, proc: Path) -> Mapping[str, int]:
    """See proc_pid_stat(5). Empty for what has ended."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return {}
    return {} if fields[0] in b"ZX" else {"ppid": int(fields[1]), "start": int(fields[19])}


def end_holder(pid: int, start: int, *, patience: float) -> bool:
    """Have the supervisor that is *pid* since *start* end its training and itself; whether there
    was one.

    One that does not within *patience* seconds is killed. Raises ToolError if it is not ours.
    """
    if not start or started(pid) != start:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        owner = owner_of(pid)
        raise ToolError(
            f"pid {pid} holds the training and is {owner}'s: only {owner} or root can end it"
        ) from None
    until = time.monotonic() + patience
    while started(pid) == start:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(LOOK)
    return True

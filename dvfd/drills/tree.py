"""Run a tool and be sure that nothing of it is left: children in sessions of their own included.

torchrun gives every worker a session, mpirun a process group, so killing the tool's own group
leaves them. A mark in the environment, which every descendant inherits, finds them wherever they
went; what hides its environment, as behind `env -i` or sudo, is left to us once its parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import shell
from dvfd.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

MARK = "DVFD_DRILL"
"""The environment variable; its value is new for each run of a tool: `PID.RANDOM` of ours."""

HELD = "stability."
"""How the mark of a stability run's training begins, its run's name follows. That is a job and no
drill: it is nobody's orphan, and other drills keep away from it.
"""

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

PATIENCE = 10.0
"""Seconds for killed processes to go. One in uninterruptible sleep may stay: that is told."""


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    on_line: Callable[[str], None] | None = None,
    temporary: str = "",
) -> shell.Output:
    """Run *argv* to its end like `shell.run`, then kill every process that it left and see it gone.

    *env* takes the place of ours; *on_line* gets each line of stdout as it comes; *temporary* is
    where the tool puts its temporary files, which torchrun does not remove. Raises ToolError,
    ToolTimeout, and ToolError if something of it cannot be ended.
    """
    mark = f"{os.getpid()}.{secrets.token_hex(8)}"
    environment = {**(os.environ if env is None else env), MARK: mark}
    if temporary:
        environment["TMPDIR"] = temporary
    theirs = children()
    shell.LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what loses its parent becomes a child of ours
    try:
        return shell.run(
            argv, timeout=timeout, env=environment, stdin=stdin, on_line=on_line, bound=True
        )
    finally:
        sweep(mark, spared=theirs)
        shell.LIBC.prctl(PR_SET_CHILD_SUBREAPER, 0)


def sweep(
    mark: str,
    proc: Path = Path("/proc"),
    patience: float = PATIENCE,
    *,
    spared: AbstractSet[int] | None = None,
) -> int:
    """Kill every process with *mark* in its environment; how many there were, at the most at once.
    With *spared* also our own children but these: what hid its environment and left its parent.

    Raises ToolError if some are still there after *patience* seconds.
    """
    until = time.monotonic() + patience
    most, seen = 0, set[int]()
    while left := {*marked(mark, proc), *(children() - spared if spared is not None else ())}:
        most = max(most, len(left))
        seen |= left
        for pid in left:
            _kill(pid)
        if time.monotonic() > until:
            raise ToolError(f"cannot be ended: pid {', '.join(map(str, left))}; look with ps")
        time.sleep(0.01)
    for pid in seen:
        with contextlib.suppress(ChildProcessError):  # not left to us
            os.waitpid(pid, os.WNOHANG)
    return most


def children() -> set[int]:
    """Our living children: those that we started, and those that lost their parent to us."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, *_ = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(parent) == os.getpid() and state not in b"ZX":
                    found.add(int(entry.name))
    return found


def orphans(proc: Path = Path("/proc")) -> dict[int, str]:
    """What runs on though the command that started it is gone, by pid, with its mark.

    Only SIGKILL of a command can leave one, and only behind a script in the interpreter's place.
    """
    ours = (proc / "self/ns/pid").readlink()
    found = {}
    for pid, mark in _marks(proc):
        owner = mark.partition(".")[0]
        if owner.isdigit() and not (proc / owner).exists():
            with contextlib.suppress(OSError):  # in a container of its own, other numbers count
                if (proc / str(pid) / "ns/pid").readlink() == ours:
                    found[pid] = mark
    return found


def marked(mark: str, proc: Path = Path("/proc")) -> Iterator[int]:
    """The living processes that inherited *mark*, not ourselves and no zombies."""
    return (pid for pid, its in _marks(proc) if its == mark)


def _marks(proc: Path) -> Iterator[tuple[int, str]]:
    """The processes that inherited a mark, and which."""
    name = f"{MARK}=".encode()
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone, or somebody else's: ours can be read
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(name):
                    yield int(entry.name), variable[len(name) :].decode(errors="replace")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # what stays is told
        os.kill(pid, signal.SIGKILL)

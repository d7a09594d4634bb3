"""Find a job's path in our view of the file systems: a container's lies below /proc/PID/root."""

from __future__ import annotations

import os
from pathlib import Path

from dvfd.errors import ProbeError
from dvfd.sandbox import hidden


def locate(path: str, pid: int | None, *, proc: Path = Path("/proc")) -> Path:
    """Where *path*, in the words of process *pid*, can be opened by us.

    Raises ProbeError if we may not look where the process looks and cannot tell.
    """
    if not os.path.isabs(path):  # noqa: PTH117  # a string from a job
        raise ProbeError(f"{path[:200]!r}: a relative path; report an absolute one")
    if "\0" in path:
        raise ProbeError(f"{path[:200]!r}: no path")
    if pid is None:
        return _ours(path)
    try:
        theirs = (proc / str(pid) / "ns/mnt").readlink()
        ours = (proc / "self/ns/mnt").readlink()
    except FileNotFoundError:  # the process has ended
        return _ours(path)
    except OSError as error:
        return _visible(path, pid, error)
    return Path(path) if ours == theirs else proc / str(pid) / "root" / path.lstrip("/")


def _visible(path: str, pid: int, error: OSError) -> Path:
    """*path* in our own view, if what holds it is there."""
    found = _ours(path)
    if found.parent.is_dir():
        return found
    raise ProbeError(
        f"{path[:200]}: not in our view, and that of process {pid} may not be read"
        f" ({(error.strerror or '').lower()}): run dvfd as the job's user or with CAP_SYS_PTRACE"
    )


def _ours(path: str) -> Path:
    """*path* in our own view. Raises ProbeError if our sandbox hides what lies there."""
    if why := hidden(path):
        raise ProbeError(f"{path[:200]}: {why}")
    return Path(path)

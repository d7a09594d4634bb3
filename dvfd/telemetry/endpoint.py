"""The socket that ranks connect to: from systemd if it gives one, else made here, never stolen."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from pathlib import Path

BACKLOG = 512
"""Lines waiting to be taken, as a node's ranks start at one moment; net.core.somaxconn caps it."""

PASSED = 3
"""The first descriptor that systemd passes: sd_listen_fds(3)."""


def listen(path: Path, *, group: str = "") -> socket.socket:
    """A listening SOCK_SEQPACKET socket. Raises OSError, also if another daemon listens there.

    Everyone may connect, since the kernel says who does; with *group* only its members may.
    """
    listener = _passed() or _made(path, group)
    listener.setblocking(False)
    return listener


def withdraw(listener: socket.socket, path: Path) -> None:
    """Close the socket, and take away its file if it is ours; systemd's goes on listening."""
    listener.close()
    if not _is_passed() and _inode(path) is not None:
        path.unlink(missing_ok=True)


def hand_on() -> None:
    """Keep systemd's socket open over an execve: what ranks send meanwhile waits in it."""
    if _is_passed():
        os.set_inheritable(PASSED, True)


def _is_passed() -> bool:
    count = os.environ.get("LISTEN_FDS", "")
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return ours and count.isdigit() and int(count) >= 1


def _passed() -> socket.socket | None:
    """A duplicate of dvfd-ingest.socket, if systemd started us with it."""
    if not _is_passed():
        return None
    os.set_inheritable(PASSED, False)
    given = socket.socket(fileno=os.dup(PASSED))
    if (given.family, given.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        given.close()
        raise OSError(errno.EPROTOTYPE, "systemd passed a socket that is not SOCK_SEQPACKET")
    return given


def _made(path: Path, group: str) -> socket.socket:
    _directory(path.parent)
    _take_over(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        path.chmod(0o660 if group else 0o666)
        if group:
            shutil.chown(path, group=group)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _directory(directory: Path) -> None:
    """Make the directory; one under /tmp is private, and refused if somebody else made it."""
    private = directory.parent == Path("/tmp")  # noqa: S108  # what this guards against
    directory.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    found = directory.lstat()
    if private and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EPERM, "belongs to somebody else", str(directory))


def _take_over(path: Path) -> None:
    """Remove a socket that nobody listens on; raise OSError if somebody does."""
    mode = _inode(path)
    if mode is None:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "is there and is no socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, with a full backlog
    raise OSError(errno.EADDRINUSE, "another dvfd listens here", str(path))


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None

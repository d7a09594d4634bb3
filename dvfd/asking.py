"""Ask the daemon: the client's end of the control socket. Imports nothing that is slow.

dvfd.control is the other end and says what passes between them.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError, NoAnswer

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 30.0
"""Seconds in which a command wants its answer, and a peer has to take it."""

BREATH = 0.01
"""Seconds before the next try where the queue of a daemon is full."""

NOT_UNDERSTOOD = "not understood"
"""How the answer to what a daemon has never heard of begins."""


def ask(path: Path, op: str, *, timeout: float = TIMEOUT, **arguments: Any) -> Any:
    """Ask the daemon at *path*; None where none listens.

    Raises DvfdError with its refusal, NoAnswer if it listens and does not answer.
    """
    until = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        if not _reached(channel, path, until):
            return None
        if doubt := _doubt(channel, path):
            raise NoAnswer(f"{path}: {doubt}")
        try:
            send(channel, {"op": op, **arguments})
            reply = json.loads(_all(channel, until))
        except (OSError, ValueError) as error:
            raise NoAnswer(f"{path}: a daemon listens but does not answer: {error}") from None
    match reply:
        case {"error": str(refusal)} if refusal.startswith(NOT_UNDERSTOOD):
            raise DvfdError(
                f"the daemon does not know {op!r}, so its version is another: restart it"
            )
        case {"error": str(refusal)}:
            raise DvfdError(refusal)
        case {"answer": answer}:
            return answer
    raise NoAnswer(f"{path}: what listens there answers like no daemon: {reply!r:.80}")


def _reached(channel: socket.socket, path: Path, until: float) -> bool:
    """Whether somebody listens on *path*. Raises NoAnswer if its queue is full until *until*."""
    while True:
        channel.settimeout(_left(until))
        try:
            channel.connect(str(path))
        except BlockingIOError:  # it listens; the queue before it is full at this moment
            if time.monotonic() > until:
                raise NoAnswer(f"{path}: too many ask this daemon at once") from None
            time.sleep(BREATH)
        except OSError:
            return False
        else:
            return True


def _all(channel: socket.socket, until: float) -> bytes:
    """What is said to its end. Raises TimeoutError after *until*, however often a byte comes."""
    heard = bytearray()
    while True:
        channel.settimeout(_left(until))
        if not (chunk := channel.recv(65536)):
            return bytes(heard)
        if time.monotonic() > until:
            raise TimeoutError("timed out")
        heard += chunk


def _left(until: float) -> float:
    """Seconds; a socket takes 0 for: do not wait at all."""
    return max(0.001, until - time.monotonic())


def _doubt(channel: socket.socket, path: Path) -> str:
    """Why who listens there is not to be believed; empty if it is.

    Anybody can be the first to make a directory in /tmp. A place of root's or of one's own is as
    good as its owner; another's is, if nobody but they, root and oneself could have made it.
    """
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    peer = int.from_bytes(credentials[4:8], sys.byteorder)
    place = path.parent.absolute()
    try:
        owner = os.lstat(place).st_uid
        believed = {0, os.geteuid(), owner}
        own = owner in {0, os.geteuid()}
        given = own or all(_closed(above.stat(), believed) for above in place.parents)
    except OSError as error:
        return f"whose place that is cannot be known: {error}"
    if not given:
        return (
            f"user {owner} made that directory where anybody can make one, so who listens there is "
            "not asked: remove it, or start dvfd where only root can"
        )
    if peer not in believed:
        return f"user {peer} listens there, wanted {' or '.join(map(str, sorted(believed)))}"
    return ""


def _closed(place: os.stat_result, believed: set[int]) -> bool:
    """Whether nobody but who is *believed* can make anything there."""
    return place.st_uid in believed and not place.st_mode & 0o022


def send(channel: socket.socket, document: object) -> None:
    """One JSON document on a line."""
    channel.sendall(json.dumps(document).encode() + b"\n")

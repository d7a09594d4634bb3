"""Ask the daemon: the client's end of the control socket. Imports nothing that is slow.

dvfd.control is the other end and says what passes between them.
"""

from __future__ import annotations

import json
import socket
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
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(timeout)
        until = time.monotonic() + timeout
        while True:
            try:
                channel.connect(str(path))
                break
            except BlockingIOError:  # it listens; the queue before it is full at this moment
                if time.monotonic() > until:
                    raise NoAnswer(f"{path}: too many ask this daemon at once") from None
                time.sleep(BREATH)
            except OSError:
                return None
        try:
            send(channel, {"op": op, **arguments})
            line = b"".join(iter(lambda: channel.recv(65536), b""))
            reply = json.loads(line)
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


def send(channel: socket.socket, document: object) -> None:
    """One JSON document on a line."""
    channel.sendall(json.dumps(document).encode() + b"\n")

"""The control socket: every change of state, and reads that must agree with the daemon's memory.

One JSON object a line each way. The kernel says who asks (SO_PEERCRED): anybody on the node may
read, only root, the daemon's own user and the group `dvfd` may change something.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from dvfd.asking import NOT_UNDERSTOOD, TIMEOUT, send
from dvfd.errors import DvfdError

log = structlog.get_logger()

REQUEST_LIMIT = 1 << 16
"""Bytes of a request: the longest that a command sends to ask something is under 1 KiB."""

FINDINGS_LIMIT = 1 << 21
"""Bytes of a request from somebody who may change state: what a drill found is some 100 KiB."""

ASKING = 5.0
"""Seconds that a peer may take to ask: a command writes its line at once."""

CONNECTIONS = 16
"""Peers served at once; more are told to come again."""

RESERVED = 4
"""Peers served beyond that if they are root or the daemon's own user: nobody locks them out."""

BREATH = 0.2
"""Seconds before the next try to accept where no descriptor is left."""

GROUP = "dvfd"

ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What arguments of another kind than an operation takes come to: anybody may send them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or the number where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may_change(self) -> bool:
        """Whether this peer may change state: root, the daemon's own user, the group `dvfd`."""
        if self.uid in (0, os.geteuid()):
            return True
        try:
            group = grp.getgrnam(GROUP)
        except KeyError:
            return False
        return self.gid == group.gr_gid or self.name in group.gr_mem


Answer = Callable[[Mapping[str, Any], Peer], Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for."""

    answer: Answer
    changes: bool = False


class ControlServer:
    """Listens, and answers each connection's one request in a thread of its own."""

    def __init__(self, path: Path, operations: Mapping[str, Operation]) -> None:
        self._path = path
        self._operations = operations
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._reserve = threading.BoundedSemaphore(RESERVED)
        self._stop = threading.Event()
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Bind the socket. Raises OSError; a socket that somebody answers on is left alone."""
        if _listens(self._path):
            raise FileExistsError(f"{self._path}: another dvfd listens there")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(self._path))
        self._path.chmod(0o666)  # who may change what is decided for each request
        listener.listen(CONNECTIONS)
        self._listener = listener
        self._thread.start()

    def stop(self) -> None:
        """Close the socket and remove it."""
        self._stop.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        assert self._listener is not None
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._stop.wait(BREATH):
                    log.warning("control peer not accepted", error=str(error))
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        slot = self._slot(_peer(connection))
        if slot is None:
            # Nobody may be there any more to hear it.
            with contextlib.suppress(OSError), connection:
                connection.setblocking(False)
                send(connection, {"error": "busy: too many commands at once; try again"})
            return
        threading.Thread(
            target=self._converse, args=(connection, slot), name="control-peer", daemon=True
        ).start()

    def _slot(self, peer: Peer) -> threading.BoundedSemaphore | None:
        """Room for one more peer, taken; None if there is none."""
        if self._slots.acquire(blocking=False):
            return self._slots
        owner = peer.uid in (0, os.geteuid())
        return self._reserve if owner and self._reserve.acquire(blocking=False) else None

    def _converse(self, connection: socket.socket, slot: threading.BoundedSemaphore) -> None:
        try:
            with connection:
                peer = _peer(connection)
                limit = FINDINGS_LIMIT if peer.may_change() else REQUEST_LIMIT
                line = _receive(connection, time.monotonic() + ASKING, limit)
                connection.settimeout(TIMEOUT)
                send(connection, self._reply(line, peer))
        except (OSError, ValueError) as error:
            log.info("control request broke off", error=str(error))
        except TypeError as error:  # an answer that is no JSON: ours to mend, not to die of
            log.exception("control answer is no JSON", error=str(error))
        finally:
            slot.release()

    def _reply(self, line: bytes, peer: Peer) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = self._operations[request["op"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            known = ", ".join(sorted(self._operations))
            return {"error": f"{NOT_UNDERSTOOD}; wanted one JSON object with op one of {known}"}
        if operation.changes and not peer.may_change():
            return {
                "error": f"user {peer.name} may not change this daemon's state: "
                f"ask root or a member of the group {GROUP}"
            }
        try:
            return {"answer": operation.answer(request, peer)}
        except DvfdError as error:
            return {"error": str(error)}
        except ODD as error:
            log.info("control request with odd arguments", uid=peer.uid, error=repr(error)[:200])
            return {"error": f"its arguments are not what {request['op']} takes: {error!r:.200}"}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        return channel.connect_ex(str(path)) == 0


def _receive(connection: socket.socket, until: float, limit: int) -> bytes:
    """One line, or what came before the end. Raises OSError after *until*, in monotonic time."""
    line = bytearray()
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, until - time.monotonic()))
        chunk = connection.recv(65536)
        if not chunk:
            break
        line += chunk
        if len(line) > limit:
            raise ValueError(f"request of more than {limit} bytes")
    return bytes(line)


def _peer(connection: socket.socket) -> Peer:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", packed))

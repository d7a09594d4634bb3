"""One connection from a rank: who is there, how far it got, and how it behaves."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from dvfd.telemetry.jobs import Peer
from dvfd.telemetry.reporter import PACKET_LIMIT
from dvfd.telemetry.wire import encode_ack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.telemetry.jobs import Seat
    from dvfd.telemetry.processes import Processes

_CREDENTIALS = struct.Struct("3i")

PACKETS = 500
"""Packets a second that a line may bring. A rank brings one, and one more for each event; what
waits after an outage is 16."""

TURN = 32
"""Packets taken from one line before the others have their turn."""


class Silent(Exception):
    """The other end closed the line."""


class Line:
    """A connected socket and its peer. Owned by the receiver's thread."""

    def __init__(self, connection: socket.socket, processes: Processes, now: float) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.peer = _peer(connection, processes)
        self.since = now
        self.heard = 0.0  # when it last had something to say
        self.seat: Seat | None = None
        self.session = ""
        self.nonce = 0
        self.handed = 0  # the last sequence given to the store
        self.done = 0  # the last one that is committed
        self.recorded = 0  # the last one that lay in the file of a run when the line began
        self.waiting: float | None = None  # since when the store owes an answer
        self.malformed = 0
        self.pidfd: int | None = None
        self._second = 0.0
        self._packets = 0

    @property
    def open(self) -> bool:
        """Whether it is not closed yet."""
        return self.socket.fileno() >= 0

    def watch(self) -> int | None:
        """A descriptor that becomes readable when the process dies; None where there is none."""
        if self.peer.process is not None:
            try:
                self.pidfd = os.pidfd_open(self.peer.pid)
            except OSError:
                self.pidfd = None
        return self.pidfd

    def packets(self, buffer: bytearray, limit: int) -> Iterator[bytes]:
        """What has arrived, at most *limit* packets. Raises Silent once the line is closed."""
        for _ in range(limit):
            try:
                size = self.socket.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                raise Silent(error.strerror) from None
            if not size:
                raise Silent
            yield bytes(memoryview(buffer)[:size])

    def too_fast(self, now: float) -> bool:
        """Count a packet; whether there are more of them than any rank has to say."""
        if now - self._second >= 1.0:
            self._second, self._packets = now, 0
        self._packets += 1
        return self._packets > PACKETS

    def asked(self, sequence: int, now: float) -> None:
        """Note that the store was given everything up to *sequence*."""
        self.handed = sequence
        if self.waiting is None:
            self.waiting = now

    def acknowledge(self, sequence: int, now: float) -> None:
        """Tell the rank what is committed. One that does not read learns it from the next."""
        self.done = max(self.done, sequence)
        self.waiting = None if self.done >= self.handed else now
        try:
            self.socket.send(encode_ack(self.nonce, self.done), socket.MSG_NOSIGNAL)
        except OSError:
            return

    def close(self) -> None:
        """Close the line and stop watching the process."""
        self.socket.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def buffer() -> bytearray:
    """Room for the largest packet that is taken, and one byte to see that one is larger."""
    return bytearray(PACKET_LIMIT + 1)


def _peer(connection: socket.socket, processes: Processes) -> Peer:
    """Who connected: SO_PEERCRED. A pid of 0 lives in a namespace that we cannot see."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(uid=uid, pid=pid, process=processes.identify(pid))

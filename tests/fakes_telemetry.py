"""Stand-ins for the other end of each line: a bare listener, a store in memory, packets to send."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dvfd.telemetry import wire
from dvfd.telemetry.reporter import PACKET_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "DVFD_", "TORCHELASTIC_", "SLURM_")


class Listener:
    """A socket that a reporter finds at *path*, read by hand."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(self.path)
        self._socket.listen(8)
        self._socket.settimeout(5)
        self._line: socket.socket | None = None

    def packets(self) -> list[wire.Hello | wire.Steps | wire.Event]:
        """Everything that has arrived, decoded."""
        if self._line is None:
            self._line, _ = self._socket.accept()
            self._line.setblocking(False)
        found = []
        while packet := self._read(self._line):
            found.append(wire.decode(packet))
        return found

    def rows(self) -> list[wire.Row]:
        return [row for p in self.packets() if isinstance(p, wire.Steps) for row in p.rows]

    def acknowledge(self, session: int, sequence: int) -> None:
        assert self._line
        self._line.send(wire.encode_ack(session, sequence))

    def hang_up(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def close(self) -> None:
        self.hang_up()
        self._socket.close()

    @staticmethod
    def _read(line: socket.socket) -> bytes:
        try:
            return line.recv(PACKET_LIMIT)
        except BlockingIOError:
            return b""


@contextmanager
def listening(path: Path) -> Iterator[Listener]:
    listener = Listener(path)
    try:
        yield listener
    finally:
        listener.close()


def without_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a launcher around the tests may have set."""
    for name in [n for n in os.environ if n.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)

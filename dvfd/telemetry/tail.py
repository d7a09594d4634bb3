"""Follow a text file that somebody else writes, rotates and truncates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at one look: a file that grows faster than this is read late, never unboundedly."""

LINE_LIMIT = 1 << 16
"""Bytes of a line without an end that are kept; a longer one is given up."""


class Tail:
    """The lines of *path* as they are completed, from the first look on.

    What is in the file at the first look is the past, whose time nobody knows: it is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._rest = b""
        self._met = False

    def lines(self) -> list[str]:
        """The lines since the last look. Raises OSError if the file cannot be read."""
        found = self._read() if self._descriptor is not None else []
        if self._descriptor is None or self._replaced(self._descriptor):
            self._open()
            found += self._read()
        return found

    def owner(self) -> int:
        """The uid of the file's owner. Raises OSError."""
        return self._path.stat().st_uid

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> None:
        self.close()
        self._rest = b""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self._met = True  # whatever comes is new
            return
        if not self._met:
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._met = True

    def _replaced(self, descriptor: int) -> bool:
        """Whether another file has the name now."""
        try:
            named, held = self._path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return False  # between two steps of a rotation
        return (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)

    def _read(self) -> list[str]:
        if self._descriptor is None:
            return []
        if os.fstat(self._descriptor).st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # truncated: what is there is new
            self._rest = b""
        *lines, rest = (self._rest + os.read(self._descriptor, CHUNK)).split(b"\n")
        self._rest = rest if len(rest) <= LINE_LIMIT else b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

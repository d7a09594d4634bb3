"""Follow a growing file through rotation, truncation and restarts of the daemon. Judges no line.

A file is known by inode and by its first bytes: copytruncate keeps the inode, a new file may be
given an old one. What is left of a renamed file is read before its successor.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from dvfd.errors import ProbeError
from dvfd.sandbox import hidden

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LINE = 4096
"""Bytes kept of a line: what matters stands at its beginning, and a line may be a gigabyte."""

BLOCK = 1 << 16
"""Bytes read at a time."""

HEAD = 64
"""Bytes by which a file is known: its first ones, more than a timestamp, and the last ones that
were read. A banner may be the same in two logs; a line of progress, with its times, is not.
"""

SKEW = 600.0
"""Seconds by which the clock of a file server may be behind."""

SIBLINGS = 1000
"""Names looked through for the file that a rotation renamed."""


class Tail:
    """One followed file. `position` is what a later Tail needs to go on where this one ended."""

    every = 0.0  # a look is four system calls

    def __init__(
        self, path: Path, position: Mapping[str, Any] | None = None, *, line: int = LINE
    ) -> None:
        """*line* is how many bytes are kept of each."""
        self._path = path
        self._line = line
        self._known = dict(position or {})
        self._begin_at_end = not self._known  # what was written before dvfd ever looked is old
        self._handle: int | None = None
        self._offset = 0
        self._head = b""
        self._last = b""  # the bytes before the offset, as they were read
        self._missed: float | None = None  # Unix time of the first look that found no file
        self._partial = b""
        self._skipping = False  # inside a line whose first bytes were handed out

    def blocks(self, budget: int) -> Iterator[str]:
        """Whole lines written since the last call, in pieces of many; reads *budget* bytes at most.

        Raises ProbeError if the file is not there or cannot be read.
        """
        try:
            yield from self._blocks(budget)
        except FileNotFoundError:
            if self._missed is None:
                self._missed = time.time()
            self._begin_at_end = False  # when it comes, all of it is new
            why = hidden(self._path) or "no such file"
            raise ProbeError(f"{self._path}: {why}") from None
        except OSError as error:
            cause = hidden(self._path) or (error.strerror or str(error)).lower()
            raise ProbeError(f"{self._path}: {cause}") from None

    def lines(self, budget: int) -> list[str]:
        """The lines of `blocks`, one by one. Where the file goes away behind them, the next call
        says so.
        """
        found: list[str] = []
        try:
            for block in self.blocks(budget):
                found += block.split("\n")
        except ProbeError:
            if not found:
                raise
        return found

    @property
    def owner(self) -> int:
        """The uid of whose file it is. Only once it was read."""
        return self._stat().st_uid

    @property
    def behind(self) -> int:
        """Bytes of the open file not read yet."""
        if self._handle is None:
            return 0
        return max(0, self._stat().st_size - self._offset)

    @property
    def position(self) -> dict[str, Any]:
        """Where the next line begins: small, and JSON."""
        if self._handle is None:
            return dict(self._known)
        found = self._stat()
        return {
            "device": found.st_dev,
            "inode": found.st_ino,
            "offset": self._offset - len(self._partial),
            "head": self._head.hex(),
            "read": self._offset,
            "last": self._last.hex(),
            "skipping": self._skipping,
        }

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            self._known = self.position
            os.close(self._handle)
            self._handle = None

    def _blocks(self, budget: int) -> Iterator[str]:
        if self._handle is None:
            self._resume()
        assert self._handle is not None
        self._notice_truncation()
        while budget > 0:
            data = os.read(self._handle, min(BLOCK, budget))
            self._offset += len(data)
            self._last = (self._last + data)[-HEAD:]
            budget -= len(data)
            if data:
                if text := self._lines(data):
                    yield text
            elif self._renamed():
                if left := self._leftover():
                    yield left
                self._open(self._path)
            else:
                return

    def _stat(self) -> os.stat_result:
        assert self._handle is not None
        return os.fstat(self._handle)

    # --- which file ---------------------------------------------------------------------------

    def _resume(self) -> None:
        """Open what `position` named, under its own name or the one a rotation gave it."""
        self._open(self._path)
        if self._begin_at_end or self._is_old():
            self._seek(self._stat().st_size)
        elif self._known and not self._is_known():
            renamed = self._find_renamed()
            if renamed is not None:
                self._open(renamed)
            if renamed is None or not self._is_known():
                self._open(self._path)
                self._known = {}
        if self._known:
            self._seek(int(self._known["offset"]))
            self._skipping = bool(self._known.get("skipping"))
        self._known = {}
        self._begin_at_end = False

    def _open(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ProbeError(f"{path}: no plain file")
        if self._handle is not None:
            os.close(self._handle)
        self._handle = handle
        self._seek(0)
        self._head = os.pread(handle, HEAD, 0)

    def _seek(self, offset: int) -> None:
        assert self._handle is not None
        self._offset = os.lseek(self._handle, offset, os.SEEK_SET)
        self._last = self._before(offset)
        self._partial, self._skipping = b"", False

    def _is_known(self) -> bool:
        """Whether the open file is the one of the position that was given."""
        found = self._stat()
        head = bytes.fromhex(self._known["head"])
        same = (found.st_dev, found.st_ino) == (self._known["device"], self._known["inode"])
        read = int(self._known.get("read", self._known["offset"]))
        last = bytes.fromhex(self._known.get("last", ""))
        return (
            same
            and self._head.startswith(head)
            and found.st_size >= read
            and self._before(read).endswith(last)
        )

    def _is_old(self) -> bool:
        """Whether a file that came late was last written before anybody looked for it: what a file
        system that is mounted now held all along.
        """
        found = self._stat().st_mtime
        return not self._known and self._missed is not None and found < self._missed - SKEW

    def _before(self, offset: int) -> bytes:
        """The bytes before *offset*, as they are now."""
        assert self._handle is not None
        begin = max(0, offset - HEAD)
        return os.pread(self._handle, offset - begin, begin)

    def _find_renamed(self) -> Path | None:
        with contextlib.suppress(OSError), os.scandir(self._path.parent) as entries:
            for _, entry in zip(range(SIBLINGS), entries, strict=False):
                if entry.name.startswith(self._path.name) and (
                    entry.inode() == self._known["inode"] and entry.is_file(follow_symlinks=False)
                ):
                    return self._path.parent / entry.name
        return None

    def _renamed(self) -> bool:
        """Whether the path now leads to another file. Raises FileNotFoundError if to none."""
        ours, theirs = self._stat(), self._path.stat()
        return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)

    def _notice_truncation(self) -> None:
        assert self._handle is not None
        head = os.pread(self._handle, HEAD, 0)
        if (
            not head.startswith(self._head)
            or self._stat().st_size < self._offset
            or self._before(self._offset) != self._last
        ):
            self._seek(0)
        self._head = head

    # --- which lines --------------------------------------------------------------------------

    def _lines(self, data: bytes) -> str:
        """The whole lines in what was kept and *data*; keeps the beginning of the last one."""
        data = self._partial + data.replace(b"\r", b"\n")  # progress bars end lines with \r
        if self._skipping:
            _, found, data = data.partition(b"\n")
            self._skipping = not found
        whole, _, rest = data.rpartition(b"\n")
        if len(rest) > self._line:
            whole, rest = whole + b"\n" + rest[: self._line], b""
            self._skipping = True
        self._partial = rest
        return whole.decode("utf-8", "replace")

    def _leftover(self) -> str:
        """A last line without an end, in a file that will not grow any more."""
        left, self._partial = self._partial, b""
        return left.decode("utf-8", "replace")

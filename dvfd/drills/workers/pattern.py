"""Memory filled with a pattern no two blocks of which are alike, and what of it came back wrong.

The standard library only. Copying and comparing are libc's: 8 and 11 GB/s on a core where a loop
over pages in Python makes a fraction of one. A page's first touch costs far more than either.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import random

BLOCK = 1 << 20
SHIFT = 4159
"""Bytes by which a block's pattern is shifted against the one before. Odd, so that it returns
after 2^20 blocks, a tebibyte: a page that answers for another is noticed."""

PAGE = mmap.PAGESIZE

_LIBC = ctypes.CDLL(None)
_LIBC.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_INVERTED = bytes(255 - byte for byte in range(256))


class Memory:
    """*size* bytes of anonymous memory, none of it there before it is written.

    Raises OSError if that much address space is refused. `invert` writes and expects the
    complement from then on: after both, every bit has been a 0 and a 1.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.bytes = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
            self.bytes.madvise(mmap.MADV_HUGEPAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        pattern = random.Random(seed).randbytes(2 * BLOCK)  # noqa: S311  # no secret
        self._pattern = ctypes.create_string_buffer(pattern, 2 * BLOCK)

    def write(self, start: int, end: int) -> None:
        """Fill from *start* to *end*, multiples of BLOCK but for the end of all."""
        for at in range(start, min(end, self.size), BLOCK):
            ctypes.memmove(self._start + at, self._expected(at), self._length(at))

    def invert(self) -> None:
        """Write and expect the complement from here on."""
        self._pattern.raw = self._pattern.raw.translate(_INVERTED)

    def wrong(self) -> int:
        """Pages of all that was to be written which do not hold what was written."""
        return sum(self._wrong(at) for at in range(0, self.size, BLOCK))

    def _wrong(self, at: int) -> int:
        here, expected, length = self._start + at, self._expected(at), self._length(at)
        if _LIBC.memcmp(here, expected, length) == 0:
            return 0
        pages = range(0, length, PAGE)
        return sum(_LIBC.memcmp(here + page, expected + page, PAGE) != 0 for page in pages)

    def _expected(self, at: int) -> int:
        """The address of what the block at *at* is to hold."""
        return ctypes.addressof(self._pattern) + at // BLOCK * SHIFT % BLOCK

    def _length(self, at: int) -> int:
        return min(BLOCK, self.size - at)

"""Small PNGs of flat drawings: a browser's picture again, with a palette."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}
"""Bytes a pixel, by the colour type: RGB and RGBA, 8 bits each."""

COLOURS = 160


def shrink(path: Path) -> None:
    """Write *path* anew with at most COLOURS colours."""
    width, rows = _rows(path.read_bytes())
    names: Counter[bytes] = Counter()
    for row in rows:
        names.update(row)
    kept = [name for name, _ in names.most_common(COLOURS)]
    index = {name: bytes([_nearest(name, kept)]) for name in names}
    lines = b"".join(b"\0" + b"".join([index[pixel] for pixel in row]) for row in rows)
    head = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    parts = (b"IHDR", head), (b"PLTE", b"".join(kept)), (b"IDAT", zlib.compress(lines, 9))
    path.write_bytes(SIGNATURE + b"".join(_chunk(*part) for part in (*parts, (b"IEND", b""))))


def _nearest(name: bytes, kept: list[bytes]) -> int:
    def away(number: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(name, kept[number], strict=True))

    return min(range(len(kept)), key=away)


def _rows(data: bytes) -> tuple[int, list[list[bytes]]]:
    chunks = list(_chunks(data))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if (depth, interlaced) != (8, 0) or kind not in CHANNELS:
        raise ValueError(f"want a plain PNG of 8 bits, read depth {depth}, colour type {kind}")
    size = CHANNELS[kind]
    raw = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    above, rows = bytearray(width * size), []
    for start in range(0, len(raw), width * size + 1):
        line = bytearray(raw[start + 1 : start + 1 + width * size])
        above = _plain(raw[start], line, above, size)
        rows.append([bytes(above[at : at + 3]) for at in range(0, width * size, size)])
    assert len(rows) == height
    return width, rows


def _plain(how: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    """A row without its filter: see the PNG specification, 9.2."""
    if how == 0:
        return line
    for at, value in enumerate(line):
        left = line[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        guess = (0, left, above[at], (left + above[at]) // 2)[how] if how < 4 else _paeth(
            left, above[at], corner
        )  # fmt: skip
        line[at] = (value + guess) & 0xFF
    return line


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda found: abs(guess - found))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

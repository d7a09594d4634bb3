"""Packets that no reporter would send, made of packets that one did. Pure but for the recording.

The same seed makes the same packets. Half of the changes know the layout (extremes in the fields of
a header or a row, keys twice, nests), half know nothing (bits, cuts, splices).
"""

from __future__ import annotations

import json
import math
import random
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dvfd.telemetry.reporter import (
    EVENT,
    HEADER,
    HELLO,
    PACKET_LIMIT,
    ROW,
    ROWS_LIMIT,
    STEPS,
    Reporter,
)

FLOATS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0, 0.0, 1.0, 1e11, 1e18)
WHOLE = (0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[object, ...] = (
    *FLOATS, *WHOLE, -1, -(2**63), 10**400, True, False, None, "", "x" * 5000, "\0", "\ud800",
    "\x1b[2J", "<script>", "../../etc/passwd", [], {}, [[]], {"a": {"b": [1]}}, "1", "nan", 1e400,
)  # fmt: skip
"""What a key may hold that no reporter writes there."""

HEADER_FIELDS = ("4s", "B", "B", "H", "Q", "Q", "Q", "d", "d", "d")
HEADER_AT = (0, 4, 5, 6, 8, 16, 24, 32, 40, 48)
ROW_AT = ((0, "H"), (8, "q"), *((16 + 8 * n, "d") for n in range(10)), (96, "Q"), (104, "Q"))
"""Where a field lies, and of what kind it is, as struct writes it."""

DEEPEST = 60_000


def recorded() -> list[bytes]:
    """What a real Reporter sent of a job that does all that a job can say."""
    with tempfile.TemporaryDirectory() as place, socket.socket(*_KIND) as listener:
        path = str(Path(place) / "ingest.sock")
        listener.bind(path)
        listener.listen()
        reporter = Reporter(
            job="gpt", run="r", rank=0, world_size=4, local_rank=0, local_world_size=4,
            socket=path, checkpoint_every=50, batch=4, interval=60.0,
        )  # fmt: skip
        _live(reporter)
        line, _ = listener.accept()
        with line:
            line.settimeout(5)
            return list(iter(lambda: line.recv(PACKET_LIMIT), b""))


_KIND = (socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _live(reporter: Reporter) -> None:
    """Everything that a rank can say, from its hello to its end."""
    for step in range(1, 65):
        reporter.step(step, samples=32, loss=2.5 / step, grad_norm=1.0, compute=0.01)
    for step in range(65, 129):
        reporter.step(
            step, samples=32, loss=1.0, allreduce=0.001, bytes=1 << 20, lr=1e-4, val_loss=2.0,
            grad_hash=7 * step, param_hash=9 * step,
        )  # fmt: skip
    reporter.step(129, loss=math.nan)
    reporter.checkpoint_begin("/ckpt/129.pt", 129)
    reporter.checkpoint_saved("/ckpt/129.pt", 129)
    reporter.checkpoint_failed("/ckpt/130.pt", 130, "no space")
    reporter.checkpoint_loaded("/ckpt/129.pt", 129, 0.5)
    reporter.collective("64KiB", 0.001)
    reporter.note("x")
    reporter.pause(5, "validation")
    reporter.exception(ValueError("x"))
    reporter.end()


def _encoded(fields: dict[str, object], *, ascii_only: bool = True) -> bytes:
    return json.dumps(fields, ensure_ascii=ascii_only).encode(errors="surrogatepass")


class Fuzzed:
    """An endless source of packets; a *seed* makes the same ones each time."""

    def __init__(self, seeds: list[bytes], seed: int) -> None:
        self._seeds = seeds
        kinds = sorted({packet[5] for packet in seeds})
        self._by_kind = [[p for p in seeds if p[5] == kind] for kind in kinds]
        self._chance = random.Random(seed)
        blind: tuple[Callable[[bytes], bytes], ...] = (self._bits, self._cut, self._splice)
        knowing = (self._header, self._row, self._rows, self._key, self._twice, self._made)
        rare = (self._nest, self._long, self._utf8)
        self._ways = (*blind * 3, *knowing * 2, *rare)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            packet = self._chance.choice(self._chance.choice(self._by_kind))
            for _ in range(self._chance.choice((1, 1, 2, 4))):
                packet = self._chance.choice(self._ways)(packet)
            yield packet

    # --- What knows nothing ---------------------------------------------------------------------

    def _bits(self, packet: bytes) -> bytes:
        changed = bytearray(packet)
        for _ in range(self._chance.choice((1, 1, 3, 16)) if changed else 0):
            changed[self._chance.randrange(len(changed))] ^= 1 << self._chance.randrange(8)
        return bytes(changed)

    def _cut(self, packet: bytes) -> bytes:
        return packet[: self._chance.randrange(len(packet) + 1)]

    def _splice(self, packet: bytes) -> bytes:
        other = self._chance.choice(self._seeds)
        at = self._chance.randrange(len(packet) + 1)
        return packet[:at] + other[self._chance.randrange(len(other)) :]

    # --- What knows the layout ------------------------------------------------------------------

    def _put(self, packet: bytes, at: int, kind: str) -> bytes:
        size = struct.calcsize(f"<{kind}")
        if len(packet) < at + size:
            return packet
        value: object = self._chance.choice(FLOATS if kind == "d" else WHOLE)
        if kind == "4s":
            value = self._chance.choice((b"HTTP", b"DVFD", b"\0\0\0\0"))
        elif isinstance(value, int):
            value %= 1 << 8 * size
            value -= (1 << 8 * size) if kind == "q" and value >= 1 << 63 else 0
        return packet[:at] + struct.pack(f"<{kind}", value) + packet[at + size :]

    def _header(self, packet: bytes) -> bytes:
        field = self._chance.randrange(3, len(HEADER_FIELDS))
        if self._chance.random() < 0.1:
            field = self._chance.randrange(3)
        return self._put(packet, HEADER_AT[field], HEADER_FIELDS[field])

    def _row(self, packet: bytes) -> bytes:
        rows = max(1, (len(packet) - HEADER.size) // ROW.size)
        at, kind = self._chance.choice(ROW_AT)
        return self._put(packet, HEADER.size + self._chance.randrange(rows) * ROW.size + at, kind)

    def _rows(self, packet: bytes) -> bytes:
        """Another number of rows, and that many of them: what the count says is true."""
        rows = self._chance.choice((1, 2, 64, ROWS_LIMIT, ROWS_LIMIT + 1))
        body = packet[HEADER.size :][: ROW.size].ljust(ROW.size, b"\0")
        head = bytearray(packet[: HEADER.size].ljust(HEADER.size, b"\0"))
        head[5], head[6:8] = STEPS, struct.pack("<H", rows)
        return bytes(head) + body * rows

    def _made(self, packet: bytes) -> bytes:
        """A header that is well, and rows of noise."""
        rows = self._chance.randrange(1, 4)
        stamp = (1, self._chance.randrange(1, 1000), 0, 900.0, 1000.0, 1.8e9)
        mask = b"\0\0" if self._chance.random() < 0.5 else b"\xff\x07"
        noise = b"".join(mask + self._chance.randbytes(ROW.size - 2) for _ in range(rows))
        return HEADER.pack(b"DVFD", 1, STEPS, rows, *stamp) + noise

    def _fields(self, packet: bytes) -> dict[str, object]:
        try:
            found = json.loads(packet[HEADER.size :])
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {"event": "end", "at": 1.0}

    def _text(self, packet: bytes, body: bytes) -> bytes:
        head = bytearray(packet[: HEADER.size].ljust(HEADER.size, b"\0"))
        if head[5] not in {HELLO, EVENT}:
            head[5] = EVENT
        return bytes(head) + body

    def _key(self, packet: bytes) -> bytes:
        fields = self._fields(packet)
        fields[self._chance.choice([*fields, "path", "step", "took", "message"])] = (
            self._chance.choice(VALUES)
        )
        return self._text(packet, json.dumps(fields).encode())

    def _twice(self, packet: bytes) -> bytes:
        fields = self._fields(packet)
        key, value = self._chance.choice([*fields]), self._chance.choice(VALUES)
        again = json.dumps({key: value})[1:-1]
        return self._text(packet, f"{json.dumps(fields)[:-1]}, {again}}}".encode())

    def _nest(self, packet: bytes) -> bytes:
        deep = self._chance.choice((100, 900, 1000, 5000, DEEPEST))
        opening = self._chance.choice((b"[", b'{"a":', b'{"event":['))
        return self._text(packet, (opening * deep)[: PACKET_LIMIT - HEADER.size])

    def _long(self, packet: bytes) -> bytes:
        fields = self._fields(packet)
        size = self._chance.choice((127, 128, 129, 4096, 4097, 60_000, 70_000))
        word = self._chance.choice(("x", "\u202e", "\\", "9"))
        fields[self._chance.choice([*fields])] = int("9" * min(size, 4300)) if word == "9" else (
            word * size
        )  # fmt: skip
        return self._text(packet, _encoded(fields, ascii_only=word != "x"))

    def _utf8(self, packet: bytes) -> bytes:
        body = json.dumps(self._fields(packet)).encode()
        at = self._chance.randrange(len(body) + 1)
        wrong = self._chance.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88", b"\0"))
        return self._text(packet, body[:at] + wrong + body[at:])

"""Samples into a Prometheus by its remote write: the same path as from another Prometheus.

Protocol buffers and Snappy by hand, as a request has one message of two fields: the samples of a
series are records of equal length as long as their times take as many bytes, so numpy packs them.
Snappy may hold its content as it is, as one literal.
"""

from __future__ import annotations

import struct
import urllib.request
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.made_up import EVERY, Series, Values

HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
MILLISECONDS = 1000
TIME_BYTES = 6
"""Of a time in milliseconds as a varint, from 1971 to 2109."""

PATIENCE = 300.0


def send(url: str, series: Sequence[Series], at: int, values: Values) -> None:
    """Write values[series, beat], the first beat at Unix second *at*. Raises OSError."""
    body = b"".join(
        _field(1, _series(one, _samples(at, row))) for one, row in zip(series, values, strict=True)
    )
    request = urllib.request.Request(f"{url}/api/v1/write", _snappy(body), HEADERS)
    with urllib.request.urlopen(request, timeout=PATIENCE):
        pass


def _series(series: Series, samples: bytes) -> bytes:
    """TimeSeries: labels in the order of their names, then the samples."""
    named = {"__name__": series.metric, **dict(series.labels)}
    pairs = [_field(1, name.encode()) + _field(2, named[name].encode()) for name in sorted(named)]
    return b"".join(_field(1, pair) for pair in pairs) + samples


def _samples(at: int, row: Values) -> bytes:
    """Every sample as its field of TimeSeries: 2, length, then value and time."""
    times = (at + EVERY * np.arange(len(row), dtype=np.int64)) * MILLISECONDS
    record = np.zeros(len(row), dtype=np.dtype([
        ("head", "u1", 3), ("value", "<f8"), ("tag", "u1"), ("time", "u1", TIME_BYTES),
    ]))  # fmt: skip
    record["head"] = (2 << 3 | 2, 1 + 8 + 1 + TIME_BYTES, 1 << 3 | 1)
    record["value"], record["tag"], record["time"] = row, 2 << 3, _varints(times)
    return record.tobytes()


def _varints(times: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Seven bits a byte, the lowest first; all but the last say that there are more."""
    septets = [times >> 7 * place & 0x7F for place in range(TIME_BYTES)]
    return np.stack([*(s | 0x80 for s in septets[:-1]), septets[-1]], axis=1).astype(np.uint8)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _snappy(content: bytes) -> bytes:
    """One literal with a length of four bytes."""
    return _varint(len(content)) + bytes([63 << 2]) + struct.pack("<I", len(content) - 1) + content

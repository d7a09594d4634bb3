"""Read the samples of Prometheus' text format line by line: a mistake is told by its line. Pure.

Each line goes to the client library's own parser alone. Given whole, it names no line, and renames
what a TYPE line calls a counter: DCGM's energy would come out under a name that nobody exposes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

NAME = re.compile(r"[^\s{]*")

LONGEST = 16 << 10
"""Bytes of a line. The library copies its rest at every label: a megabyte takes half a minute."""

SHOWN = 60
"""Characters of a line that cannot be read."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """One sample as it stands there. `at` is the exporter's own timestamp in Unix seconds."""

    name: str
    labels: Mapping[str, str]
    value: float
    at: float | None
    line: int


def samples(body: bytes, wanted: Collection[str] | None = None) -> Iterator[Exposed]:
    """Every sample of *body*; with *wanted* those of these names, and no other line is looked at.

    Raises ProbeError with the number of the line that is none.
    """
    if body and not body.endswith(b"\n"):
        last = body.count(b"\n") + 1
        raise ProbeError(f"line {last}: cut off, wanted a newline at its end")
    for number, raw in enumerate(body.split(b"\n"), 1):
        if len(raw) > LONGEST:
            raise ProbeError(f"line {number}: {len(raw)} bytes long, wanted at most {LONGEST}")
        line = _decoded(raw, number).strip()
        if not line or line.startswith("#"):
            continue
        if wanted is None or _name(line) in wanted:
            yield _sample(line, number)


def _decoded(raw: bytes, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ProbeError(
            f"line {number}: not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _name(line: str) -> str:
    found = NAME.match(line)
    return found[0] if found else ""


def _sample(line: str, number: int) -> Exposed:
    try:
        (family,) = text_string_to_metric_families(line + "\n")
        (found,) = family.samples
        return Exposed(found.name, found.labels, float(found.value), _time(found), number)
    except (ValueError, KeyError, IndexError, OverflowError):
        raise ProbeError(
            f"line {number}: read {line[:SHOWN]!r}, wanted NAME{{LABEL='...'}} VALUE"
        ) from None


def _time(found: object) -> float | None:
    stamp = getattr(found, "timestamp", None)
    return None if stamp is None else float(stamp)

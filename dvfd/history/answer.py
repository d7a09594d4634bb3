"""Read what an engine answers, and refuse what cannot be believed. Pure.

An answer that is partial, broken off, of other times than those that were asked for, or of more
than was asked for is refused with what was read, what was wanted and what to do.
"""

from __future__ import annotations

import http
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dvfd.errors import HistoryError
from dvfd.words import printable

Point = tuple[float, float]
"""Unix seconds and a value."""

SAID = 200
"""Characters of an engine's own words that are repeated."""

MOST_LINES = 20_000
"""Series of one answer: a metric of each rank of a thousand nodes of sixteen."""

ROUNDING = 0.002
"""Seconds by which a time may differ from the one asked for: engines answer in milliseconds."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of an answer, its points in order of time."""

    labels: Mapping[str, str]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """For which times an answer was asked: [since, until], and the step between two points where
    there is a grid; at most so many points of a series.
    """

    since: float
    until: float
    step: float | None = None
    points: int = 1_000_000


HINTS: Mapping[int, str] = {
    301: "[history] url, and say where it leads to: no redirect is followed",
    302: "[history] url, and say where it leads to: no redirect is followed",
    307: "[history] url, and say where it leads to: no redirect is followed",
    308: "[history] url, and say where it leads to: no redirect is followed",
    400: "the path in [history] url, and tenant",
    401: "[history] username with a password, or token_file",
    403: "[history] username with a password, or token_file, or tenant",
    404: "[history] url needs the engine's path: /prometheus, /select/0/prometheus",
    405: "does what stands before it let POST through to /api/v1/query?",
    413: "[history] points, fewer",
    422: "its limits on samples, series or length; [history] range_days, points",
    429: "it is busy: ask again, or its limits on queries",
    502: "what stands before it does not reach it",
    503: "it is starting, overloaded, or was too slow",
    504: "[history] timeout, and the engine's own",
}
"""What to look at when an engine answers with such a status."""


def read(status: int, body: bytes, asked: Asked) -> list[Line]:
    """The series of an answer. Raises HistoryError for all that cannot be believed."""
    document = _document(status, body)
    _whole(document)
    data = document.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise HistoryError(f"answers like no engine: {_start(body)}; wanted data.result")
    kind, rows = data.get("resultType"), data["result"]
    if len(rows) > MOST_LINES:
        raise HistoryError(f"answers with {len(rows)} series, wanted at most {MOST_LINES}")
    if kind == "scalar":
        rows = [{"metric": {}, "value": rows}]
    lines = [_line(row, str(kind), asked) for row in rows]
    _apart(lines)
    return [line for line in lines if line.points]


def _document(status: int, body: bytes) -> dict[str, Any]:
    """The answer as JSON. Raises HistoryError if it is a refusal, broken off or something else."""
    try:
        found, broken = json.loads(body), ""
    except (ValueError, RecursionError) as error:
        found, broken = None, printable(str(error))[:SAID]
    said = str(found.get("error", "")) if isinstance(found, dict) else ""
    refused = isinstance(found, dict) and found.get("status") != "success"
    if status != http.HTTPStatus.OK or (refused and said):
        hint = HINTS.get(status, "")
        words = printable(said)[:SAID] or _start(body)
        raise HistoryError(f"answers {status}: {words}{f'; see {hint}' if hint else ''}")
    if broken:
        off = body[:1] in {b"{", b"["}
        what = "JSON that breaks off" if off else "no JSON"
        raise HistoryError(f"answers {what} ({broken}): {_start(body)}; wanted PromQL's API")
    if refused or not isinstance(found, dict):
        raise HistoryError(f"answers like no engine: {_start(body)}; wanted status success")
    return found


def _whole(document: Mapping[str, Any]) -> None:
    """Raises HistoryError if the engine says that some of it is missing."""
    warnings = document.get("warnings") or ()
    if document.get("isPartial"):
        raise HistoryError("answers with a part only (isPartial): a storage node of it is away")
    if warnings:
        each = warnings if isinstance(warnings, list) else [warnings]
        told = "; ".join(printable(str(warning)) for warning in each)[:SAID]
        raise HistoryError(f"answers with warnings, so maybe with a part only: {told}")


def _line(row: Any, kind: str, asked: Asked) -> Line:
    match kind, row:
        case "matrix", {"metric": dict(labels), "values": list(pairs)}:
            pass
        case "vector" | "scalar", {"metric": dict(labels), "value": pair}:
            pairs = [pair]
        case _:
            raise HistoryError(f"answers a {kind} with {str(row)[:80]!r}: wanted floats")
    if len(pairs) > asked.points:
        raise HistoryError(
            f"answers {len(pairs)} points of one series, wanted at most {asked.points}"
        )
    points = tuple(map(_point, pairs))
    _in_time(points, asked)
    return Line({str(k): str(v) for k, v in labels.items()}, points)


def _point(pair: Any) -> Point:
    try:
        at, text = pair
        point = float(at), float(text)
    except (TypeError, ValueError, OverflowError):
        point = math.nan, math.nan
    if not all(map(math.isfinite, point)):
        raise HistoryError(f"answers {str(pair)[:80]!r}: wanted a time and a finite number")
    return point


def _in_time(points: tuple[Point, ...], asked: Asked) -> None:
    """Raises HistoryError unless all lie where they were asked for, one after the other."""
    for at, _ in points:
        if not asked.since - ROUNDING <= at <= asked.until + ROUNDING:
            raise HistoryError(
                f"answers a point of {at:.3f}, asked for {asked.since:.3f} to {asked.until:.3f}: "
                "its times cannot be believed"
            )
        off = math.remainder(at - asked.since, asked.step) if asked.step else 0.0
        if abs(off) > ROUNDING:
            raise HistoryError(
                f"answers a point of {at:.3f}, asked for every {asked.step:g} s from "
                f"{asked.since:.3f}: its times cannot be believed"
            )
    for (before, _), (after, _) in pairwise(points):
        if after <= before:
            raise HistoryError(f"answers {after:.3f} after {before:.3f}: its times run backwards")


def _apart(lines: list[Line]) -> None:
    """Raises HistoryError if two lines have the same labels."""
    named = [tuple(sorted(line.labels.items())) for line in lines]
    if len(set(named)) < len(named):
        raise HistoryError("answers two series with the very same labels: it contradicts itself")


def _start(body: bytes) -> str:
    return repr(printable(body[:80].decode("utf-8", "replace")).strip())[:120]

"""Read what an engine answers, and refuse what cannot be believed. Pure.

An answer that is partial, broken off, of other times than those that were asked for, or of more
than was asked for is refused with what was read, what was wanted and what to do.
"""

from __future__ import annotations

import http
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dvfd.errors import HistoryError
from dvfd.masking import redacted
from dvfd.words import printable

Hide = Callable[[str], str]
"""Takes secrets out of a text."""

Point = tuple[float, float]
"""Unix seconds and a value."""

SAID = 200
"""Characters of an engine's own words that are repeated."""

LONG = 1 << 12
"""Characters in which secrets are looked for before the rest of them is repeated."""

KINDS = ("matrix", "vector", "scalar")
"""What an answer of figures may be."""

PARTLY = ("isPartial", "partialResponse")
"""What engines say of an answer that lacks something."""

NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""What PromQL writes a finite number as."""

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


def read(status: int, body: bytes, asked: Asked, hide: Hide = redacted) -> list[Line]:
    """The series of an answer. *hide* takes the secrets out of words of its that are repeated.

    Raises HistoryError for all that cannot be believed.
    """
    document = _document(status, body, hide)
    _whole(document, hide)
    data = document.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise HistoryError(f"answers like no engine: {_start(body, hide)}; wanted data.result")
    _whole(data, hide)
    kind, rows = str(data.get("resultType")), data["result"]
    if kind not in KINDS:
        raise HistoryError(f"answers a {_cut(kind, hide)!r}, wanted one of {', '.join(KINDS)}")
    if len(rows) > MOST_LINES:
        raise HistoryError(f"answers with {len(rows)} series, wanted at most {MOST_LINES}")
    if kind == "scalar":
        rows = [{"metric": {}, "value": rows}]
    lines = [_line(row, kind, asked, hide) for row in rows]
    _apart(lines)
    return [line for line in lines if line.points]


def _document(status: int, body: bytes, hide: Hide) -> dict[str, Any]:
    """The answer as JSON. Raises HistoryError if it is a refusal, broken off or something else."""
    try:
        found, broken = json.loads(body), ""
    except (ValueError, RecursionError) as error:
        found, broken = None, printable(str(error))[:SAID]
    said = str(found.get("error", "")) if isinstance(found, dict) else ""
    refused = isinstance(found, dict) and found.get("status") != "success"
    if status != http.HTTPStatus.OK or (refused and said):
        hint = HINTS.get(status, "")
        words = _cut(said, hide) or _start(body, hide)
        raise HistoryError(f"answers {status}: {words}{f'; see {hint}' if hint else ''}")
    if broken:
        off = body[:1] in {b"{", b"["}
        what = "JSON that breaks off" if off else "no JSON"
        raise HistoryError(f"answers {what} ({broken}): {_start(body, hide)}; wanted PromQL's API")
    if refused or not isinstance(found, dict):
        raise HistoryError(f"answers like no engine: {_start(body, hide)}; wanted status success")
    return found


def _whole(document: Mapping[str, Any], hide: Hide) -> None:
    """Raises HistoryError if the engine says that some of it is missing."""
    for name in PARTLY:
        if document.get(name):
            raise HistoryError(f"answers with a part only ({name}): a storage node of it is away")
    if warnings := document.get("warnings"):
        each = warnings if isinstance(warnings, list) else [warnings]
        told = _cut("; ".join(map(str, each)), hide)
        raise HistoryError(f"answers with warnings, so maybe with a part only: {told}")


def _line(row: Any, kind: str, asked: Asked, hide: Hide) -> Line:
    match kind, row:
        case _, {"histograms": [_, *_]} | {"histogram": _}:
            pairs = None
        case "matrix", {"metric": dict(labels), "values": list(pairs)}:
            pass
        case "vector" | "scalar", {"metric": dict(labels), "value": pair}:
            pairs = [pair]
        case _:
            pairs = None
    if pairs is None:
        raise HistoryError(f"answers a {kind} with {_cut(str(row), hide)[:80]!r}: wanted floats")
    if len(pairs) > asked.points:
        raise HistoryError(
            f"answers {len(pairs)} points of one series, wanted at most {asked.points}"
        )
    points = tuple(_point(pair, hide) for pair in pairs)
    _in_time(points, asked)
    return Line({str(k): str(v) for k, v in labels.items()}, points)


def _point(pair: Any, hide: Hide) -> Point:
    match pair:
        case [int() | float() as at, int() | float() | str() as value] if _numbers(at, value):
            point = _float(at), _float(value)
        case _:
            point = math.nan, math.nan
    if not all(map(math.isfinite, point)):
        told = _cut(str(pair), hide)[:80]
        raise HistoryError(f"answers {told!r}: wanted a time and a finite number")
    return point


def _numbers(*found: object) -> bool:
    """Whether each is what JSON or PromQL writes a number as: Python reads 1_000 and true too."""
    return not any(
        isinstance(each, bool) or (isinstance(each, str) and not NUMBER.fullmatch(each))
        for each in found
    )


def _float(found: float | str) -> float:
    try:
        return float(found)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


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


def _cut(said: str, hide: Hide) -> str:
    """The beginning of what an engine wrote, the secrets taken out before it is cut."""
    return printable(hide(said[:LONG]))[:SAID]


def _start(body: bytes, hide: Hide) -> str:
    return repr(_cut(body[:LONG].decode("utf-8", "replace"), hide).strip()[:80])[:120]

"""Put counts, moments and durations into words. The terminal and the page share them. Pure."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dvfd.model import WORST_FIRST, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE = "–"  # noqa: RUF001  # an en dash is meant
"""What stands where nothing is known."""

PHRASES = {
    Verdict.FAIL: ("fails", "fail"),
    Verdict.UNKNOWN: ("cannot be known", "cannot be known"),
    Verdict.WAIVED: ("is waived", "are waived"),
    Verdict.PASS: ("passes", "pass"),
    Verdict.NOT_APPLICABLE: ("does not apply", "do not apply"),
}
"""How one criterion does, and how several do."""


UNITLESS = frozenset({"", "bool", "ratio", "version", "status", "value"})
"""Units that a message leaves out: the number says it all."""

GIGA = 1e9

VERSIONS = 1e6
"""Above any major version, below where a float can no longer tell patches apart."""


SOURCES = ("overdue", "down", "partly", "up", "not applicable")
"""How a source can be, worst first. Partly: it is read, but not all that it should measure is."""


def source_state(*, up: bool, overdue: bool, not_applicable: bool, error: str) -> str:
    """How a source is doing, one of SOURCES."""
    if overdue:
        return "overdue"
    if not_applicable:
        return "not applicable"
    if not up:
        return "down"
    return "partly" if error else "up"


def counted(found: Iterable[tuple[str, str]]) -> str:
    """How many criteria have which verdict, worst first, from (verdict, severity) of each."""
    rows = list(found)
    counts = Counter(verdict for verdict, _ in rows)
    lesser = sum(v == Verdict.FAIL and s != Severity.CRITICAL for v, s in rows)
    return ", ".join(_part(v, counts[v], lesser) for v in WORST_FIRST if counts[v])


def _part(verdict: Verdict, count: int, lesser: int) -> str:
    text = f"{count} {PHRASES[verdict][count > 1]}"
    if verdict is not Verdict.FAIL or not lesser:
        return text
    if lesser == count:
        return f"{text} as {'warnings' if count > 1 else 'a warning'}"
    return f"{text} ({lesser} as {'warnings' if lesser > 1 else 'a warning'})"


def ago(at: float | None, now: float) -> str:
    """How long before *now* that was, in one unit."""
    if at is None:
        return "never"
    age = max(0.0, now - at)
    return "just now" if age < 1 else f"{duration(age)} ago"


CALLS = {
    "team_lead": "the team lead alone",
    "team": "the team",
    "infrastructure": "the infrastructure team",
}
"""Whom an incident calls, by its escalation."""


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would use."""
    if seconds is None:
        return NONE
    if 0 < seconds < 0.001:
        return "< 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def lasting(seconds: float) -> str:
    """Seconds to the minute, as one tells the length of a run: `23 h 59 min`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(filter(None, parts)) or f"{whole} s"


def minute(at: float) -> str:
    """A moment to the minute, as it is read in more than one time zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def digits(value: float, unit: str) -> str:
    """*value* as people write it: 4.001006 of a version is 4.1.6, 6.4e10 bytes are 64 GB."""
    if unit == "bytes" and GIGA <= abs(value) < math.inf:
        return f"{value / GIGA:.6g} GB"
    if unit != "version" or not 0 < value < VERSIONS:
        return f"{value:.6g}"
    halves = round(value * 2e6)  # an odd one is a pre-release, half a patch below its release
    whole = (halves + 1) // 2
    text = f"{whole // 10**6}.{whole // 1000 % 1000}.{whole % 1000}"
    return f"before {text}" if halves % 2 else text


def printable(text: str) -> str:
    """*text* without what would move a terminal's cursor or set its title; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)

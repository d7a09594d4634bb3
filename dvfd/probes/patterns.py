"""Which lines of a log count: pattern sets as data, less what a site accepts until a date."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.config import data_dir
from dvfd.errors import ConfigError
from dvfd.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dvfd.config import Allow

SEVERITIES = {"error": Severity.CRITICAL, "warning": Severity.WARNING}


@dataclass(frozen=True, slots=True)
class Pattern:
    """What to search in a line, how loud it is, and whose words it knows."""

    name: str
    severity: Severity
    regex: re.Pattern[str]
    source: str


@dataclass(frozen=True, slots=True)
class Found:
    """A line that counts: the pattern, and a note where an acceptance of it has run out."""

    pattern: Pattern
    note: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An entry of the allow-list, compiled. `until` is Unix seconds."""

    regex: re.Pattern[str]
    until: float
    reason: str


class PatternSet:
    """Patterns and acceptances that are held against one log."""

    def __init__(self, patterns: Sequence[Pattern], accepted: Sequence[Accepted] = ()) -> None:
        # Errors first: the first match decides.
        self._patterns = sorted(patterns, key=lambda p: p.severity is not Severity.CRITICAL)
        self._accepted = accepted

    def any(self, text: str) -> bool:
        """Whether any line of *text* may count: a quick no for whole blocks."""
        return any(pattern.regex.search(text) for pattern in self._patterns)

    def find(self, line: str, *, at: float) -> Found | None:
        """The loudest pattern in *line*, unless an acceptance in force covers the line."""
        pattern = next((p for p in self._patterns if p.regex.search(line)), None)
        if pattern is None:
            return None
        covering = [a for a in self._accepted if a.regex.search(line)]
        if any(at < a.until for a in covering):
            return None
        return Found(pattern, "; ".join(f"acceptance expired: {a.reason}" for a in covering))


def load(name: str, *, directory: Path | None = None) -> tuple[Pattern, ...]:
    """The pattern set *name* of patterns.toml. Raises ConfigError with every mistake in it."""
    path = (directory or data_dir("checks")) / "patterns.toml"
    sets = tomllib.loads(path.read_text(encoding="utf-8"))
    if name not in sets:
        near = difflib.get_close_matches(name, sets, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError([f"logs.patterns: no set {name!r}, there are {', '.join(sets)}{hint}"])
    problems: list[str] = []
    found = [_pattern(f"{path.name}: {name}.{key}", key, table, problems)
             for key, table in sets[name].items()]  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return tuple(pattern for pattern in found if pattern)


def _pattern(where: str, name: str, table: dict[str, str], problems: list[str]) -> Pattern | None:
    if wrong := set(table) ^ {"severity", "pattern", "source"}:
        problems.append(
            f"{where}: wanted severity, pattern and source, trouble with {sorted(wrong)}"
        )
        return None
    if table["severity"] not in SEVERITIES:
        problems.append(f"{where}: severity {table['severity']!r}, wanted error or warning")
        return None
    regex = _compiled(f"{where}.pattern", table["pattern"], problems)
    return regex and Pattern(name, SEVERITIES[table["severity"]], regex, table["source"])


def accept(log: str, entries: Iterable[Allow]) -> tuple[Accepted, ...]:
    """Compile a log's allow-list. Raises ConfigError with every mistake in it."""
    problems: list[str] = []
    found: list[Accepted] = []
    for entry in entries:
        where = f"logs ({log}).allow"
        if entry.until.tzinfo is None:
            problems.append(f"{where}: until needs an offset, like 2026-03-01T08:00:00Z")
        elif regex := _compiled(f"{where}.pattern", entry.pattern, problems):
            found.append(Accepted(regex, entry.until.timestamp(), entry.reason))
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def _compiled(where: str, text: str, problems: list[str]) -> re.Pattern[str] | None:
    try:
        regex = re.compile(text)
    except re.error as error:
        problems.append(f"{where}: {text!r} is no regular expression: {error}")
        return None
    if regex.search(""):
        problems.append(f"{where}: {text!r} matches every line")
        return None
    return regex

"""What is asked of a database file after a kill, and a clock on which time passes between lives."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BASE = 1_800_000_000.0
"""Unix seconds at which the first life begins."""


class Lived:
    """A clock that runs as ours does, and on which each life begins *every* seconds later."""

    def __init__(self, life: float, every: float = 1800.0, speed: float = 1.0) -> None:
        self._offset = life * every
        self._began = time.monotonic()
        self._speed = speed

    def now(self) -> float:
        """Unix seconds."""
        return BASE + self.boot() - 1000.0

    def boot(self) -> float:
        """Seconds since a boot that never comes again."""
        passed = time.monotonic() - self._began
        return 1000.0 + self._offset + passed * self._speed


def rows(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What a query finds in the file, beside whoever has it open."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()


def unsound(path: Path) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    integrity = [text for (text,) in rows(path, "PRAGMA integrity_check") if text != "ok"]
    foreign = rows(path, "PRAGMA foreign_key_check")
    return [f"{path.name}: {text}" for text in integrity] + [
        f"{path.name}: foreign key {row}" for row in foreign
    ]


def once(what: str, wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    """Each of *wanted* must be there, and nothing twice."""
    counts = Counter(there)
    lost = [key for key in wanted if key not in counts]
    twice = [key for key, count in counts.items() if count > 1]
    return [
        *([f"{what}: {len(lost)} told to be safe and not there: {lost[:5]}"] if lost else []),
        *([f"{what}: {len(twice)} there more than once: {twice[:5]}"] if twice else []),
    ]


def only(what: str, there: Iterable[str], begun: Iterable[str]) -> list[str]:
    """Nothing may be there that nobody began to write."""
    strange = sorted(set(there) - set(begun))
    return [f"{what}: there and never written: {strange[:5]}"] if strange else []

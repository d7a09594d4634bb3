"""Count the lines of logs that match a pattern set. Which ones do is in checks/patterns.toml."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from dvfd import shell
from dvfd.errors import ProbeError
from dvfd.masking import redacted
from dvfd.model import Sample, Severity, labels
from dvfd.probes import patterns
from dvfd.probes.files import raise_all
from dvfd.probes.journal import Journal
from dvfd.tail import LINE, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dvfd.config import LogSource
    from dvfd.probes.journal import Runner
    from dvfd.probes.patterns import PatternSet
    from dvfd.probes.verifier import Records

KIND = "log"
"""Kind of the records in the store; their key is the log's name."""

BUDGET = 2 << 20
"""Bytes read of each log in a pass: about 100 ms of work, and 0.4 MB/s however long it takes."""

UNREAD = 60.0
"""Seconds for which a log of which lines were lost is not said to be quiet."""

RECENT = 50
"""Matched lines kept for people to read."""

SHOWN = 200
"""Characters kept of each."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could steer a terminal or turn text around."""


@dataclass(frozen=True, slots=True)
class Match:
    """A line that counted. `note` says where an acceptance of it has run out."""

    log: str
    at: float
    severity: Severity
    pattern: str
    line: str
    note: str = ""


class Follower(Protocol):
    """Something that hands out new lines: Tail or Journal."""

    @property
    def position(self) -> dict[str, Any]:
        """What is kept, to go on from."""
        ...

    @property
    def every(self) -> float:
        """Least seconds between two looks."""
        ...

    @property
    def behind(self) -> int:
        """Bytes not read yet."""
        ...

    def blocks(self, budget: int) -> Iterator[str]:
        """New whole lines. Raises ProbeError."""
        ...


@dataclass(slots=True)
class _Log:
    """One configured log: where it comes from, what counts in it, what it came to."""

    source: LogSource
    follower: Follower
    wanted: PatternSet
    errors: int
    warnings: int
    kept: dict[str, Any]
    looked: float | None = None

    def due(self, at: float) -> bool:
        """Whether the last look is long enough ago, or lies in the future of a clock set back."""
        return self.looked is None or not 0 <= at - self.looked < self.follower.every

    @property
    def record(self) -> dict[str, Any]:
        """What goes into the store."""
        where = str(self.source.path or self.source.journal_unit)
        position = self.follower.position
        return {
            "where": where, "errors": self.errors, "warnings": self.warnings, "position": position,
        }  # fmt: skip


class Logs:
    """Probe over the configured logs. Raises ConfigError for a pattern set that does not exist.

    Offsets and counts are kept in `records`, so that a restart neither counts twice nor skips.
    `lines` is given every line of a log that has a `metrics` preset: (name of the log, line).
    """

    name = "logs"
    metrics = ("log_errors_total", "log_warnings_total")
    deadline = 10.0

    def __init__(
        self,
        sources: Iterable[LogSource],
        *,
        records: Records,
        lines: Callable[[str, str], None] | None = None,
        interval: float = 5.0,
        run: Runner = shell.run,
        directory: Path | None = None,
        budget: int = BUDGET,
    ) -> None:
        self.interval = interval
        self.gaps: dict[str, str] = {}
        self._records = records
        self._lines = lines
        self._run = run
        self._budget = budget
        self._recent: deque[Match] = deque(maxlen=RECENT)
        self._sources = {source.name: (source, _wanted(source, directory)) for source in sources}
        self._logs: dict[str, _Log] = {}
        self._lost: dict[str, tuple[float, str]] = {}  # by log: when lines were lost, and why

    def recent(self) -> tuple[Match, ...]:
        """The last lines that counted, oldest first, as they may be shown."""
        return tuple(replace(match, line=_shown(match.line)) for match in tuple(self._recent))

    def sample(self, at: float) -> Iterator[Sample]:
        """Two samples for each log that could be read to its end.

        Raises ProbeError, after the others' samples, for those that could not.
        """
        if not self._sources:
            self.gaps = dict.fromkeys(self.metrics, "no log is configured: add one under [[logs]]")
        problems: list[str] = []
        for name, (source, wanted) in self._sources.items():
            try:
                log = self._logs.get(name) or self._open(source, wanted)
                if not log.due(at):
                    continue
                self._pass(log, at)
            except ProbeError as error:
                problems.append(f"log {name}: {error}")
                continue
            except Exception as error:  # noqa: BLE001  # whatever one log holds costs no other
                self._lost[name] = at, f"lines lost: {type(error).__name__}: {error}"
            if why := self._blind(name, at):
                problems.append(f"log {name}: {why}")
                continue
            log.looked = at
            yield Sample("log_errors_total", float(log.errors), at, labels(log=name))
            yield Sample("log_warnings_total", float(log.warnings), at, labels(log=name))
        raise_all(problems)

    def _open(self, source: LogSource, wanted: PatternSet) -> _Log:
        kept = self._records.get(KIND, source.name) or {}
        where = str(source.path or source.journal_unit)
        position = kept.get("position", {}) if kept.get("where") == where else {}
        follower: Follower = (
            Tail(source.path, position)
            if source.path
            else Journal(source.journal_unit, position, run=self._run)
        )
        errors, warnings = int(kept.get("errors", 0)), int(kept.get("warnings", 0))
        log = self._logs[source.name] = _Log(source, follower, wanted, errors, warnings, kept)
        return log

    def _blind(self, name: str, at: float) -> str:
        """Why nobody says for a while what a log counts: lines of it were read and lost."""
        when, why = self._lost.get(name, (-math.inf, ""))
        return why if at - when < UNREAD else ""

    def _pass(self, log: _Log, at: float) -> None:
        try:
            self._read(log, at)
        finally:
            self._keep(log)

    def _read(self, log: _Log, at: float) -> None:
        for block in log.follower.blocks(self._budget):
            if log.source.metrics and self._lines:
                self._hand_on(log.source.name, block)
            if log.wanted.any(block):
                self._count(log, block, at)
        if (behind := log.follower.behind) > self._budget:
            raise ProbeError(f"{behind} bytes behind, reads {self._budget} in {self.interval:g} s")

    def _hand_on(self, name: str, block: str) -> None:
        assert self._lines
        for line in block.split("\n"):
            if line:
                self._lines(name, line[:LINE])

    def _count(self, log: _Log, block: str, at: float) -> None:
        for line in block.split("\n"):
            found = log.wanted.find(line[:LINE], at=at)
            if found is None:
                continue
            critical = found.pattern.severity is Severity.CRITICAL
            log.errors += critical
            log.warnings += not critical
            self._recent.append(
                Match(log.source.name, at, found.pattern.severity, found.pattern.name,
                      line[:LINE], found.note)
            )  # fmt: skip

    def _keep(self, log: _Log) -> None:
        if (record := log.record) != log.kept:
            log.kept = record
            self._records.put(KIND, log.source.name, record)


@lru_cache(RECENT)  # the same lines are shown with every snapshot
def _shown(line: str) -> str:
    """The beginning of *line* without what steers a terminal, and without the secrets in it: they
    are taken out before it is cut.
    """
    return redacted(CONTROL.sub(" ", line))[:SHOWN].strip()


def _wanted(source: LogSource, directory: Path | None) -> PatternSet:
    accepted = patterns.accept(source.name, source.allow)
    return patterns.PatternSet(patterns.load(source.patterns, directory=directory), accepted)

"""Jobs that cannot use the reporter: what they write into files, read as rows of their ranks.

Two kinds: JSON lines (`{"step": 7, "loss": 2.1, "samples": 32, "rank": 0}`), and the log lines of
known trainers. Such a rank lives as long as the process that has its file open for writing; where
that cannot be seen it is judged by its progress alone, and says so.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.errors import NotApplicable, ProbeError, WireError
from dvfd.tail import Tail
from dvfd.telemetry.feed import AGAIN, LOSSES, Feed, nonfinite
from dvfd.telemetry.trainer_log import TrainerLog
from dvfd.telemetry.writers import writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from dvfd.config import Config, Metrics
    from dvfd.model import Clock, Sample
    from dvfd.telemetry.jobs import JobBook, News

log = structlog.get_logger()

BUDGET = 1 << 20
"""Bytes read of a file in a pass: one that grows faster is read late, never unboundedly."""

LINE = 1 << 16
"""Bytes kept of a line: a JSON object cut short is none."""


UNREAD = 60.0
"""Seconds for which a file's ranks are not believed after lines of it were lost: as long as the
window of the live criteria."""


_LOST = re.compile(
    rf"[\"'](?P<name>{'|'.join(LOSSES)})[\"']\s*:\s*[\"']?[-+]?(?:nan|inf(?:inity)?)(?![a-z])",
    re.IGNORECASE,
)


class Source(Protocol):
    """A file that speaks for ranks; `where` is its name in reasons."""

    where: str

    def poll(self) -> None:
        """Take what is new. Raises ProbeError if it cannot be read; whatever else it raises, what
        it read is lost.
        """
        ...


class JsonLinesFile:
    """A file with one JSON object a step; `rank` in a line tells the ranks apart."""

    def __init__(
        self, config: Metrics, book: JobBook, clock: Clock, publish: Callable[[News], None],
        *, ranks_limit: int = 64,
    ) -> None:  # fmt: skip
        self._config, self._book, self._clock, self._publish = config, book, clock, publish
        self._limit = ranks_limit
        self.where = f"file {config.path}"
        self._tail = Tail(config.path, line=LINE)
        self._feeds: dict[int, Feed] = {}
        self.malformed = 0

    def poll(self) -> None:
        """Take the lines that are new. Raises ProbeError or WireError."""
        by_rank: dict[int, list[Mapping[str, Any]]] = {rank: [] for rank in self._feeds}
        ends: list[bool] = []  # whether each was a failure
        for line in self._tail.lines(BUDGET):
            said, rank = self._object(line), self._config.rank
            if said is None:
                self.malformed += bool(line.strip())
                said = {AGAIN: True, **_torn(line)}
            elif said.get("event") == "end" and "rank" not in said:
                ends.append(said.get("failed") is True)
                said = {**said, "event": "", AGAIN: True}
            elif (found := self._rank(said)) is not None:
                rank = found
            else:
                said = {AGAIN: True, **nonfinite(said)}  # of whatever rank
            if said.get(AGAIN) is not True or nonfinite(said):
                by_rank.setdefault(rank, []).append(said)
        uid = self._tail.owner
        for rank, values in by_rank.items():
            self._feed(rank).take(values, uid)
        for feed, failed in product(self._feeds.values(), ends):
            feed.end(uid, failed=failed)

    def _object(self, line: str) -> Mapping[str, Any] | None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return said if isinstance(said, dict) else None

    def _rank(self, said: Mapping[str, Any]) -> int | None:
        """The rank that a line is about; None, and counted, if there can be no such rank."""
        rank = said.get("rank", self._config.rank)
        possible = type(rank) is int and 0 <= rank < max(self._config.world_size, 1)
        if possible and (rank in self._feeds or len(self._feeds) < self._limit):
            return int(rank)
        self.malformed += 1
        return None

    def _feed(self, rank: int) -> Feed:
        if rank not in self._feeds:
            self._feeds[rank] = Feed(
                self._book, self._clock, self._publish, job=self._config.job,
                where=self.where, rank=rank, world_size=self._config.world_size,
                writer=partial(writer, self._config.path),
            )  # fmt: skip
        return self._feeds[rank]


def _torn(line: str) -> dict[str, float]:
    """The losses and norms that are no number in a *line* that is no JSON: it was torn, or has a
    NaN as C prints it.
    """
    return {found["name"]: math.nan for found in _LOST.finditer(line)}


class LogFile:
    """A trainer's log, read by one named set of patterns."""

    def __init__(
        self, path: Path, book: JobBook, clock: Clock, publish: Callable[[News], None],
        *, patterns: str, job: str, samples: float | None = None,
    ) -> None:  # fmt: skip
        """*samples* in each step, where the log does not say how many there are."""
        self.where = f"log {path}"
        self._tail = Tail(path)
        self._log = TrainerLog(patterns, samples)
        self._feed = Feed(
            book, clock, publish, job=job, where=self.where, writer=partial(writer, path)
        )

    def poll(self) -> None:
        """Take the lines that are new. Raises ProbeError or WireError."""
        said = self._log.read(self._tail.lines(BUDGET))
        self._feed.take(said, self._tail.owner)


class Files:
    """Every file of the configuration, polled together. A probe that yields nothing itself."""

    name = "files"
    metrics: tuple[str, ...] = ()
    interval = 1.0
    deadline = 10.0  # a file system that hangs has a thread to itself

    def __init__(
        self, config: Config, book: JobBook, clock: Clock, publish: Callable[[News], None]
    ) -> None:
        """*publish* is the receiver's: it keeps and writes what the book has to tell."""
        limit = config.jobs.ranks_limit
        self._book, self._clock = book, clock
        self._lost: dict[str, tuple[float, str]] = {}  # by path: when lines were lost, and why
        self._sources: list[tuple[Path, Source]] = [
            (each.path, JsonLinesFile(each, book, clock, publish, ranks_limit=limit))
            for each in config.jobs.files
        ]
        for each in config.logs:
            if each.path is not None and each.metrics:
                job = each.job or each.name
                file = LogFile(
                    each.path, book, clock, publish, patterns=each.metrics, job=job,
                    samples=each.samples_per_step,
                )  # fmt: skip
                self._sources.append((each.path, file))
        self.trouble: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._sources)

    def sample(self, at: float) -> Iterable[Sample]:
        """Poll. Raises NotApplicable without files, ProbeError naming each that cannot be read."""
        if not self._sources:
            raise NotApplicable("no metrics file and no log with metrics is configured")
        self.poll(at)
        if self.trouble:
            raise ProbeError("; ".join(self.trouble.values()))
        return ()

    def poll(self, at: float) -> None:
        """Take what is new everywhere; what cannot be read is named in `trouble`."""
        for path, source in self._sources:
            try:
                source.poll()
            except ProbeError as error:
                self._tell(path, str(error), at)
            except WireError as error:
                self._lose(path, source, str(error), at)
            except Exception as error:  # noqa: BLE001  # whatever one file holds costs no other
                self._lose(path, source, f"lines lost: {type(error).__name__}: {error}", at)
            else:
                self._settle(path)

    def _lose(self, path: Path, source: Source, what: str, at: float) -> None:
        """Lines were read and not understood: what they said of a loss, nobody knows."""
        self._lost[str(path)] = self._clock.boot(), what
        self._book.unread(source.where, UNREAD)
        self._tell(path, what, at)

    def _settle(self, path: Path) -> None:
        """A pass went well: whatever was the trouble is over, but for lines that are lost."""
        when, what = self._lost.get(str(path), (-math.inf, ""))
        if self._clock.boot() - when < UNREAD:
            self.trouble[str(path)] = f"{path}: {what}"
            return
        self._lost.pop(str(path), None)
        self.trouble.pop(str(path), None)

    def _tell(self, path: Path, error: str, at: float) -> None:
        what = error if str(path) in error else f"{path}: {error}"
        if self.trouble.get(str(path)) != what:
            log.warning("metrics file not read", error=what, at=at)
        self.trouble[str(path)] = what

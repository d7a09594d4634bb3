"""Read a directory of *.prom files, written by others and renamed into place.

A value is as old as its file: whoever stops writing is seen to be silent, which node_exporter's own
collector does not show. Whatever else lies there under such a name hangs nobody.
"""

from __future__ import annotations

import math
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import exposition
from dvfd.errors import ProbeError
from dvfd.model import Unseen
from dvfd.probes import files
from dvfd.probes.inputs import AHEAD, Seen, bounded, take
from dvfd.reduce import seconds
from dvfd.sandbox import hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.config import TextFile as Settings
    from dvfd.model import Labels, Metric, Sample
    from dvfd.probes.inputs import Allowance, Taken

LARGEST = 1 << 20
"""Bytes of one file: 10000 lines."""

MANY = 100
"""Files of one directory."""

QUIET = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO opens at once, a terminal does not become ours."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One file as it was at one moment."""

    stamp: tuple[int, ...]
    written: float
    samples: tuple[exposition.Exposed, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What a file has, and why that does not count. `unread`: nobody knows what it has."""

    held: tuple[Seen, ...] = ()
    problem: str = ""
    unread: bool = False


class TextFile:
    """Probe over one [[textfile]]."""

    deadline = 10.0

    def __init__(
        self,
        settings: Settings,
        metrics: Sequence[Metric],
        allowance: Allowance,
        *,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"textfile.{settings.name}"
        self.metrics = tuple(metric.name for metric in metrics)
        self.interval = settings.interval
        self.gaps: dict[str, str] = {}
        self.unseen: tuple[Unseen, ...] = ()
        self._settings = settings
        self._wanted = tuple(metrics)
        self._allowance = allowance
        self._elapsed = elapsed
        self._files: dict[str, _Read] = {}
        self._well: dict[str, float] = {}  # when it could be read last
        self._told: dict[tuple[str, Labels], float] = {}

    def sample(self, at: float) -> Iterator[Sample]:
        """What was written since the last pass. Raises ProbeError, after that, with what is wrong
        with each file.
        """
        began = self._elapsed()
        looks = list(self._looks(at))
        taken = take(self._wanted, [s for look in looks if not look.problem for s in look.held])
        self.gaps = {n: f"{why} in {self._settings.directory}" for n, why in taken.missing.items()}
        admitted = self._allowance.admit(taken.samples)
        self.unseen = bounded((*self._hidden(looks, taken), *taken.unseen, *admitted.unseen))
        yield from (sample for sample in admitted.samples if self._is_new(sample))
        if self._elapsed() - began > self.deadline:  # then the sampler throws all of it away
            self._told.clear()
        problems = (look.problem for look in looks)
        files.raise_all(filter(None, (*problems, *taken.problems, admitted.beyond)))

    def _looks(self, at: float) -> Iterator[_Look]:
        directory = self._settings.directory
        names = files.names(directory, r".*\.prom")
        if not names and not directory.is_dir():
            raise ProbeError(f"{directory}: {hidden(directory) or 'no such directory'}")
        if len(names) > MANY:
            why = f"{directory}: {len(names)} files, wanted at most {MANY}"
            yield _Look(problem=why, unread=True)
        self._files = {name: self._files[name] for name in names if name in self._files}
        self._well = {name: self._well[name] for name in names if name in self._well}
        yield from (self._look(name, at) for name in names[:MANY])

    def _look(self, name: str, at: float) -> _Look:
        """The file's samples; they count if it is neither old nor of the future."""
        try:
            read = self._read(name)
        except FileNotFoundError:  # replaced by nothing since it was listed
            return _Look()
        except OSError as error:
            return self._unread(name, at, files.explain(self._settings.directory / name, error))
        if read.problem:
            return self._unread(name, at, f"{name}: {read.problem}")
        self._well[name] = at
        held = tuple(Seen(name, read.written, found) for found in read.samples)
        return _Look(held, self._untimely(name, at - read.written))

    def _unread(self, name: str, at: float, problem: str) -> _Look:
        """What was in it a moment ago goes stale by itself."""
        since = at - self._well.get(name, -math.inf)
        return _Look(problem=problem, unread=since > self._settings.max_age)

    def _untimely(self, name: str, age: float) -> str:
        if age > self._settings.max_age:
            wanted = seconds(self._settings.max_age)
            return f"{name}: written {seconds(age)} ago, wanted every {wanted}"
        if age < -AHEAD:
            return f"{name}: written {seconds(-age)} in the future: which clock is wrong?"
        return ""

    def _hidden(self, looks: Sequence[_Look], taken: Taken) -> Iterator[Unseen]:
        """What lies in files that do not count and was never told: else it goes stale by itself."""
        told = {*self._told, *((sample.metric, sample.labels) for sample in taken.samples)}
        for look in looks:
            if look.unread:
                yield from (Unseen(name, look.problem) for name in self.metrics)
            elif look.problem:
                there = take(self._wanted, look.held)
                yield from there.unseen
                for sample in there.samples:
                    if (sample.metric, sample.labels) not in told:
                        yield Unseen(sample.metric, look.problem, sample.labels)

    def _read(self, name: str) -> _Read:
        """As it was read last time, if it is the same file still. Raises OSError."""
        path = self._settings.directory / name
        before = _stamp(path.stat())  # a device is not opened to see that it is none
        known = self._files.get(name)
        if known is None or known.stamp != before:
            known = self._files[name] = _fresh(path)
        return known

    def _is_new(self, sample: Sample) -> bool:
        series = (sample.metric, sample.labels)
        new = self._told.get(series) != sample.at
        self._told[series] = sample.at
        return new


def _fresh(path: Path) -> _Read:
    """Read *path*, whatever it is. Raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return _Read(_stamp(found), found.st_mtime, (), "is no regular file")
    descriptor = os.open(path, QUIET)
    try:
        before = os.fstat(descriptor)
        body = _bytes(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    samples, problem = _parsed(body, before, after)
    return _Read(_stamp(before), before.st_mtime, samples, problem)


def _bytes(descriptor: int) -> bytes:
    """At most one byte more than is wanted."""
    parts: list[bytes] = []
    left = LARGEST + 1
    while left > 0 and (piece := os.read(descriptor, min(left, files.CHUNK))):
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts)


def _parsed(
    body: bytes, before: os.stat_result, after: os.stat_result
) -> tuple[tuple[exposition.Exposed, ...], str]:
    """The samples, or why there are none."""
    if not stat.S_ISREG(before.st_mode):
        return (), "is no regular file"
    if len(body) > LARGEST:
        return (), f"has more than {LARGEST} bytes, wanted fewer"
    if _stamp(before) != _stamp(after):
        return (), "changed while it was read: write another, and rename it"
    try:
        samples = tuple(exposition.samples(body))
    except ProbeError as error:
        return (), str(error)
    stamped = next((s for s in samples if s.at is not None), None)
    if stamped:
        return (), f"line {stamped.line}: has a timestamp; a value here is as old as its file"
    return samples, ""


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)

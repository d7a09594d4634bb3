"""Read a directory of *.prom files, written by others and renamed into place.

A value is as old as its file: whoever stops writing is seen to be silent, which node_exporter's own
collector does not show. Whatever else lies there under such a name hangs nobody.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import exposition
from dvfd.errors import ProbeError
from dvfd.probes import files
from dvfd.probes.inputs import AHEAD, Seen, take
from dvfd.reduce import seconds
from dvfd.sandbox import hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.config import TextFile as Settings
    from dvfd.model import Labels, Metric, Sample
    from dvfd.probes.inputs import Allowance

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
        self._settings = settings
        self._wanted = tuple(metrics)
        self._allowance = allowance
        self._elapsed = elapsed
        self._files: dict[str, _Read] = {}
        self._told: dict[tuple[str, Labels], float] = {}

    def sample(self, at: float) -> Iterator[Sample]:
        """What was written since the last pass. Raises ProbeError, after that, with what is wrong
        with each file.
        """
        began = self._elapsed()
        problems: list[str] = []
        seen: list[Seen] = []
        for name in self._names(problems):
            read = self._look(name, at, problems)
            if read is not None:
                seen += [Seen(name, read.written, found) for found in read.samples]
        taken = take(self._wanted, seen)
        self.gaps = {n: f"{why} in {self._settings.directory}" for n, why in taken.missing.items()}
        admitted, beyond = self._allowance.admit(taken.samples)
        yield from (sample for sample in admitted if self._is_new(sample))
        if self._elapsed() - began > self.deadline:  # then the sampler throws all of it away
            self._told.clear()
        files.raise_all(filter(None, (*problems, *taken.problems, beyond)))

    def _names(self, problems: list[str]) -> list[str]:
        directory = self._settings.directory
        names = files.names(directory, r".*\.prom")
        if not names and not directory.is_dir():
            raise ProbeError(f"{directory}: {hidden(directory) or 'no such directory'}")
        if len(names) > MANY:
            problems.append(f"{directory}: {len(names)} files, wanted at most {MANY}")
        self._files = {name: self._files[name] for name in names if name in self._files}
        return names[:MANY]

    def _look(self, name: str, at: float, problems: list[str]) -> _Read | None:
        """The file's samples, if it can be read and is neither old nor of the future."""
        try:
            read = self._read(name)
        except FileNotFoundError:  # replaced by nothing since it was listed
            return None
        except OSError as error:
            problems.append(files.explain(self._settings.directory / name, error))
            return None
        age = at - read.written
        if read.problem:
            problems.append(f"{name}: {read.problem}")
        elif age > self._settings.max_age:
            wanted = seconds(self._settings.max_age)
            problems.append(f"{name}: written {seconds(age)} ago, wanted every {wanted}")
        elif age < -AHEAD:
            problems.append(f"{name}: written {seconds(-age)} in the future: which clock is wrong?")
        else:
            return read
        return None

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

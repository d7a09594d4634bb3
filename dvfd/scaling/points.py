"""One measured throughput of a training: on how many processes, how sure, and who says so. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.people.attestations import moment
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAY = 86_400.0

MOST = 1e12
"""Samples per second that nothing reaches: what a reporter's row may not exceed in one step."""

PROCESSES = 1 << 20

WORDS = 2000
"""Letters of one text, at most: notes have 1000, and reasons come to more."""

WINDOWS = 500
"""Throughputs kept of a measurement: blocks of these still tell how they hang together."""


class How(StrEnum):
    """Where a figure comes from, the strongest first."""

    RUN = "run"  # a stability run that a person accepted
    MEASURED = "measured"  # minutes of training, heard by dvfd
    RECORDED = "recorded"  # a figure that a person entered


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A throughput in samples/second of all processes together.

    `low` and `high` are a 95 % interval, `windows` what it was made of; `began` and `ended` are
    Unix seconds; `spite` is why it was accepted although something speaks against it.
    """

    processes: int
    throughput: float
    how: How
    configuration: str  # hash of the job: of unequal ones nothing is compared
    began: float
    ended: float
    by: str
    low: float | None = None
    high: float | None = None
    windows: tuple[float, ...] = ()
    communication: float | None = None  # exposed, over step time
    nodes: int = 1
    job: str = ""
    command: tuple[str, ...] = ()
    processor: str = ""
    name: str = ""  # of the run, or the number of the record
    check: str = ""
    submitted: str = ""
    note: str = ""
    spite: str = ""
    uncounted: str = ""  # why the run does not count, though it was accepted

    @property
    def words(self) -> str:
        """Where it comes from and when it was."""
        if self.how is How.RUN:
            spite = f" in spite of: {self.spite}" if self.spite else ""
            return f"run {self.name}, accepted by {self.by}{spite}"
        if self.how is How.MEASURED:
            took = seconds(self.ended - self.began)
            return f"measured for {took} until {moment(self.ended)} by {self.by}"
        return f"entered by {self.by} on {moment(self.ended)}, not measured by dvfd"

    @property
    def proves(self) -> str:
        """Why nothing that rests on it may pass; empty if it may. One process is measured in
        minutes (procedures, 8); more of them are what a phase's run is for.
        """
        if self.uncounted:
            return f"accepted, but of a run that does not count, {self.uncounted}"
        if self.how is How.RECORDED:
            return "entered by a person, not measured by dvfd"
        if self.how is How.MEASURED and self.processes > 1:
            return "measured for minutes, of no accepted stability run"
        return ""

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Point:
        """Of what `to_document` made. Raises DvfdError on what cannot be a measurement."""
        try:
            found = cls(
                **{
                    **document,
                    "how": How(document["how"]),
                    "windows": tuple(document.get("windows", ())),
                    "command": tuple(map(str, document.get("command", ()))),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DvfdError(f"no measurement of ours: {error!r:.200}") from None
        if wrong := found.wrong():
            raise DvfdError(f"no measurement: {wrong}")
        return found

    def wrong(self) -> str:
        """What in it cannot be, or nothing."""
        numbers = [self.throughput, *self.windows]
        times, share = (self.began, self.ended), self.communication
        texts = (
            *(self.configuration, self.by, self.job, self.processor, self.name, self.check),
            *(self.submitted, self.note, self.spite, self.uncounted, *self.command),
        )
        demands = (
            (
                _whole(self.processes, PROCESSES) and _whole(self.nodes, PROCESSES),
                f"{self.processes!r:.20} processes on {self.nodes!r:.20} nodes",
            ),
            (
                all(_number(value, MOST) for value in numbers) and self.throughput > 0,
                f"a throughput of {self.throughput!r:.20} samples/s, or windows that are none",
            ),
            (len(self.windows) <= WINDOWS, f"{len(self.windows)} windows, at most {WINDOWS}"),
            (
                all(_number(at, 1e12) for at in times) and self.began <= self.ended,
                f"it lasted from {self.began!r:.20} to {self.ended!r:.20}",
            ),
            (share is None or _number(share, 1.05), f"a share of communication of {share!r:.20}"),
            (all(map(_text, texts)) and texts[0], f"words that are none, or over {WORDS} letters"),
        )
        return next((words for holds, words in demands if not holds), "") or self._unbounded()

    def _unbounded(self) -> str:
        low, high = self.low, self.high
        if low is None and high is None:
            return ""
        inside = _number(low, MOST) and _number(high, MOST)
        if not inside or not float(low or 0) <= self.throughput <= float(high or 0):
            return f"{self.throughput!r:.20} is not within {low!r:.20} to {high!r:.20}"
        return ""


def _number(value: object, most: float) -> bool:
    """Whether *value* is a number from 0 to *most*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0.0 <= value <= most


def _text(value: object) -> bool:
    """Whether a terminal may be shown *value* as it is."""
    return isinstance(value, str) and len(value) <= WORDS and (value.isprintable() or not value)


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def doubts(points: Iterable[Point]) -> str:
    """Why nothing that rests on all of *points* may pass: each reason once, with its counts."""
    found: dict[str, list[str]] = {}
    for point in points:
        if why := point.proves:
            found.setdefault(why, []).append(str(point.processes))
    return "; ".join(f"{why}: {', '.join(n)} processes" for why, n in found.items())


def of(processes: int) -> str:
    """`1 process`, `8 processes`."""
    return f"{processes} process{'es' * (processes != 1)}"

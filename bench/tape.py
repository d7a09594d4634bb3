"""A recorded exposition that goes on: what it says of one node at one moment.

Of two scrapes 15 s apart (bench.recording) the second is played. Counters go on at the rate between
the two, clocks that moved go on with the clock, those that did not stand; gauges with a fraction
wander up to 4 % below their recorded value, each node and series in its own time. Everything else,
verdicts, flags and small counts, stays as it was recorded.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from bench.recording import PLACE, SCRAPED

WANDER = 0.04
"""Share of a gauge: well inside what rules and checklists tolerate between healthy nodes."""

PERIOD = 600.0
"""Seconds in which a gauge wanders down and back."""

GOLDEN = 0.618033988749895
"""Its multiples spread evenly over a circle: no two series wander together."""

CLOCKS = ("_timestamp_seconds", "_start_time_seconds")

HEALED = {
    "live.throughput": "needs nine minutes of a job",
    "live.cpu": "needs five minutes of a busy job",
    "live.gpu": "needs five minutes of a job",
    "live.network": "a virtual interface has no speed",
    "live.clock": "the host of a virtual machine disciplines the clock",
    "live.step_skew": "flickers on a machine with fewer processors than ranks",
}
"""Criteria of the watch that the machine of the recording cannot show to hold: played as PASS,
unless the recording says FAIL of what is wanted to fail there."""

WELL = {"dvfd_node_clock_synchronised": b"1.0", "dvfd_node_clock_error_seconds": b"0.001"}
"""Values that go with them."""

WORST_FIRST = ("FAIL", "UNKNOWN", "WAIVED", "PASS", "NOT_APPLICABLE")

VERDICT = re.compile(
    r'^(dvfd_criterion_verdict\{check="(\w+)",criterion="([\w.]+)",verdict=")(\w+)("\}.*)$'
)


class Kind(Enum):
    """How a series moves."""

    COUNTER = auto()
    CLOCK = auto()
    STANDING = auto()  # a clock that shows when something happened
    LEVEL = auto()


@dataclass(frozen=True, slots=True)
class Moving:
    """A series that moves: its name and labels, value at the second scrape, change per second."""

    name: bytes
    kind: Kind
    value: float
    rate: float
    number: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Whose exposition and when: *seed* in [0, 1) is the node's own, *since* when playing began."""

    seed: float
    since: float
    now: float


@dataclass(frozen=True, slots=True)
class Tape:
    """One recording: lines that stand, in between series that move."""

    parts: tuple[bytes | Moving, ...]
    scraped: float

    def series(self) -> list[str]:
        """Name and labels of every series, once each."""
        whole = self.play(Moment(0.0, self.scraped, self.scraped)).decode()
        return [name for name, _ in map(_sample, filter(_is_sample, whole.splitlines()))]

    def play(self, at: Moment) -> bytes:
        """The exposition."""
        return b"".join(
            part if isinstance(part, bytes) else _line(part, self.scraped, at)
            for part in self.parts
        )


def load(name: str, place: Path = PLACE) -> Tape:
    """The tape of a recording."""
    return tape(gzip.decompress((place / f"{name}.txt.gz").read_bytes()).decode())


def tape(text: str) -> Tape:
    """A tape from the text of two scrapes."""
    _, before, after = text.split(SCRAPED)
    (began, first), (ended, second) = _scrape(before), _scrape(after)
    past = dict(map(_sample, filter(_is_sample, first)))
    parts: list[bytes | Moving] = []
    kinds: dict[str, str] = {}
    for number, line in enumerate(_healed(second)):
        if line.startswith("# TYPE "):
            _, _, family, kinds[family] = line.split(" ")
        parts.append(_part(line, number, kinds, past, ended - began))
    return Tape(tuple(_joined(parts)), ended)


def _scrape(text: str) -> tuple[float, list[str]]:
    at, _, body = text.partition("\n")
    return float(at), body.splitlines()


def _is_sample(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _sample(line: str) -> tuple[str, float]:
    name, _, value = line.rpartition(" ")
    return name, float(value)


def _part(
    line: str, number: int, kinds: Mapping[str, str], past: Mapping[str, float], apart: float
) -> bytes | Moving:
    if not _is_sample(line):
        return f"{line}\n".encode()
    name, value = _sample(line)
    family = name.partition("{")[0]
    if family in WELL:
        return name.encode() + b" " + WELL[family] + b"\n"
    rate = (value - past.get(name, value)) / apart
    kind = _kind(family, kinds.get(family, ""), value, rate)
    return Moving(name.encode(), kind, value, rate, number) if kind else f"{line}\n".encode()


def _kind(family: str, declared: str, value: float, rate: float) -> Kind | None:
    """How the series moves; None if it does not."""
    if family.endswith(CLOCKS):
        return Kind.CLOCK if rate else Kind.STANDING
    if declared == "counter":
        return Kind.COUNTER if rate > 0 else None
    return None if value.is_integer() and value < 10 else Kind.LEVEL


def _joined(parts: list[bytes | Moving]) -> Iterator[bytes | Moving]:
    """The same with lines that stand put together."""
    standing: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes):
            standing.append(part)
        else:
            yield b"".join(standing)
            yield part
            standing.clear()
    yield b"".join(standing)


def _line(series: Moving, scraped: float, at: Moment) -> bytes:
    return b"%s %s\n" % (series.name, repr(_value(series, scraped, at)).encode())


def _value(series: Moving, scraped: float, at: Moment) -> float:
    match series.kind:
        case Kind.COUNTER:
            # Up to an hour older than the recording, and up to 3 % slower.
            value = series.value + series.rate * (
                3600 * at.seed + (1 - 0.03 * at.seed) * (at.now - at.since)
            )
            return math.floor(value) if series.value.is_integer() else value
        case Kind.CLOCK:
            return at.now - (scraped - series.value)
        case Kind.STANDING:
            return at.since - (scraped - series.value)
        case Kind.LEVEL:
            turn = (at.now - at.since) / PERIOD + at.seed * 1000 + series.number * GOLDEN
            value = series.value * (1 - WANDER * (1 + math.sin(2 * math.pi * turn)) / 2)
            return round(value) if series.value.is_integer() else value


def _healed(lines: list[str]) -> list[str]:
    """*lines* with the verdicts that a real node would show, and that of the watch again."""
    healed = [VERDICT.sub(_heal, line) for line in lines]
    verdicts = {
        found[4] for line in healed if (found := VERDICT.match(line)) and found[2] == "live"
    }
    worst = next((verdict for verdict in WORST_FIRST if verdict in verdicts), "UNKNOWN")
    watch = re.compile(r'^(dvfd_check_verdict\{check="live",verdict=")\w+')
    return [watch.sub(rf"\g<1>{worst}", line) for line in healed]


def _heal(found: re.Match[str]) -> str:
    applies = found[4] in {"FAIL", "UNKNOWN"} and found[3] in HEALED
    return f"{found[1]}PASS{found[5]}" if applies else found[0]

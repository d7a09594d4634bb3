"""How long a message takes between nodes and back: by ping, over TCP, by MPI; how even that is.

The median of a pair decides, each method in a criterion of its own. What the ranks do stands in
`dvfd.drills.workers.latency`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.derive import percentile
from dvfd.drills import fleet, flows
from dvfd.drills.collectives import median_interval
from dvfd.drills.drill import Fact, Ran, Remark, Trouble
from dvfd.drills.interpreter import finite
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.fleet import Answer

    Found = Sample | Remark | Trouble | Fact | Ran

TRIP = "network_round_trip_seconds"
ASYMMETRY = "network_asymmetry_ratio"
SPREAD = "network_round_trip_spread_ratio"

NAME, MODULE = "latency", "dvfd.drills.workers.latency"

METHODS: Mapping[str, str] = {"icmp": "ping", "tcp": "64 bytes over TCP", "mpi": "64 bytes by MPI"}

MANY, FEW = 1000, 200
"""Messages of a pair: as the field does it, and where the person asked for a shorter test."""

FLOOR = 10e-6
"""Seconds by which round trips may differ and count as equal: timers and interrupts do as much."""

LEAST = 6
"""Times below which a median has no bounds."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Trips:
    """Round trips of one pair by one method, in seconds, in the order of time. `why` there are
    none, or too few.
    """

    method: str
    pair: Pair
    times: tuple[float, ...]
    sent: int
    why: str = ""

    @property
    def median(self) -> float:
        """Of those that came back."""
        return statistics.median(self.times)

    @property
    def lost(self) -> int:
        """Messages that did not come back."""
        return max(0, self.sent - len(self.times))


def exercise(task: Task) -> fleet.Exercise:
    """Every ordered pair in turn. MPI only where a criterion asks for it."""
    count = fleet.nodes(task)
    pairs = count * (count - 1)
    many = FEW if task.check.duration and task.planned < task.check.duration else MANY
    asked = any(dict(c.where).get("method") == "mpi" for c in task.check.criteria)
    wanted = asked and task.config.profile.openmpi == "required"
    mpi = {"rsh": task.config.cluster.rsh, "python": task.python, "trips": many} if wanted else None
    return fleet.Exercise(
        name=NAME,
        module=MODULE,
        seconds=pairs * (many * 0.02 + 10.0) + (pairs / 2 * 90.0 if mpi else 0.0) + 60.0,
        options={"echoes": many, "trips": many, "mpi": mpi},
    )


def read(answer: Answer) -> list[Trips]:
    """What the heads said. Raises ProbeError for anything that they do not write."""
    heard = answer.of(NAME)
    found = []
    try:
        for node in answer.nodes:
            said = heard.values.get(node.ranks[0])
            if said is None:
                continue
            for method in ("icmp", "tcp"):
                rows = said[method].items()
                found += [_trips(method, (node.name, str(name)), row) for name, row in rows]
            for names, row in said["mpi"].items():
                source, destination = str(names).split()
                found.append(_trips("mpi", (source, destination), row))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"round trips of the ranks: {error!r}: wanted what they write") from None
    if not found:
        raise ProbeError(f"round trips: {heard.why or 'no node said anything'}")
    return found


def _trips(method: str, pair: Pair, row: Mapping[str, Any]) -> Trips:
    times = tuple(_micros(value) for value in row["times"])
    sent, why = int(row["sent"]), str(row["why"])
    if not why and len(times) < LEAST:
        why = f"{len(times)} of {sent} came back: too few for a median"
    return Trips(method, pair, times, sent, why)


def _micros(value: object) -> float:
    found = finite(value)
    if found is None or found <= 0:
        raise ValueError(f"{value!r} is no time")
    return found / 1e6


class _Trips:
    """What all parts share: one exercise."""

    def exercises(self, task: Task) -> Sequence[fleet.Exercise]:
        """All round trips, made once for its parts."""
        return [exercise(task)]


# --- Round trips ----------------------------------------------------------------------------------


class RoundTrips(_Trips):
    """The median of each pair, by each method."""

    name = "round trips"
    metrics = (TRIP,)

    def run(self, task: Task) -> Iterator[Found]:
        """A sample for each pair and method. Raises ProbeError, ToolError."""
        yield Ran(task.planned)
        answer = fleet.answer(task)
        found = read(answer)
        for trips in found:
            yield from _told(trips, task.clock.now())
        yield from _absent(answer, found)


def _told(trips: Trips, at: float) -> Iterator[Found]:
    source, destination = trips.pair
    where = labels(source=source, destination=destination, method=trips.method)
    who = f"{source} - {destination}, {METHODS[trips.method]}"
    if trips.why:
        yield Trouble(TRIP, f"{who}: {trips.why}", where)
        return
    low, high = median_interval(trips.times)
    yield Sample(TRIP, trips.median, at, where, low, high)
    yield Fact(who, figures(trips))
    if trips.lost:
        yield Remark(TRIP, f"{who}: {trips.lost} of {trips.sent} did not come back", where)


def figures(trips: Trips) -> str:
    """`median 35.1 us, p95 48 us, p99 71 us; 1000 times`."""
    ranked = ((name, percentile(trips.times, at)) for name, at in (("p95", 95.0), ("p99", 99.0)))
    tail = ", ".join(f"{name} {1e6 * value:.3g} us" for name, value in ranked)
    return f"median {1e6 * trips.median:.4g} us, {tail}; {len(trips.times)} times"


def _absent(answer: Answer, found: Sequence[Trips]) -> Iterator[Trouble]:
    """Pairs of which nobody said anything: who was lost before."""
    names = [node.name for node in answer.nodes]
    told = {(t.method, t.pair) for t in found}
    why = answer.of(NAME).why or "nobody said anything of it"
    for method in ("icmp", "tcp"):
        for pair in ((a, b) for a in names for b in names if a != b):
            if (method, pair) not in told:
                where = labels(source=pair[0], destination=pair[1], method=method)
                yield Trouble(TRIP, f"{pair[0]} - {pair[1]}: {why}", where)


# --- How even -------------------------------------------------------------------------------------


class Symmetry(_Trips):
    """There against back: of round trips and, where it is measured, of goodput."""

    name = "there and back"
    metrics = (ASYMMETRY,)

    def run(self, task: Task) -> Iterator[Found]:
        """A sample for each pair and figure. Raises ProbeError, ToolError."""
        yield Ran(task.planned)
        trips = read(fleet.answer(task))
        bounds = {
            t.pair: median_interval(t.times) for t in trips if t.method == "icmp" and not t.why
        }
        found = _medians(trips, "icmp")
        yield from compared(found, "round trip", FLOOR, task.clock.now(), bounds)
        if "speed" in flows.KINDS.get(task.check.id, ()):
            rates = flows.rates(flows.journal(task))
            yield from compared(rates, "goodput", 0.0, task.clock.now())


def compared(
    values: Mapping[Pair, float | None],
    figure: str,
    floor: float,
    at: float,
    bounds: Mapping[Pair, tuple[float, float]] | None = None,
) -> Iterator[Found]:
    """|there - back| over their mean; no more than *floor* apart counts as none. *bounds* of the
    values, where they have any, bound the ratio.
    """
    for a, b in (pair for pair in values if pair[0] < pair[1] or pair[::-1] not in values):
        where = labels(pair=f"{a}-{b}", figure=figure)
        there, back = values.get((a, b)), values.get((b, a))
        if there is None or back is None:
            lacks = f"{a} -> {b}" if there is None else f"{b} -> {a}"
            yield Trouble(ASYMMETRY, f"{figure} of {lacks} was not measured", where)
            continue
        apart = abs(there - back)
        mean = (there + back) / 2
        ends = _ends(bounds[a, b], bounds[b, a]) if bounds else (apart, apart)
        value, low, high = (0.0 if gap <= floor else gap / mean for gap in (apart, *ends))
        yield Sample(ASYMMETRY, value, at, where, *((low, high) if bounds else ()))
        if floor and apart <= floor:
            text = f"{a}-{b}: {1e6 * apart:.2g} us apart, which counts as none below 10 us"
            yield Remark(ASYMMETRY, text, where)


def _ends(there: tuple[float, float], back: tuple[float, float]) -> tuple[float, float]:
    """The least and the most that two values may lie apart, each within its bounds."""
    apart = (there[0] - back[1], back[0] - there[1])
    return max(0.0, *apart), max(there[1] - back[0], back[1] - there[0])


def _medians(found: Sequence[Trips], method: str) -> dict[Pair, float | None]:
    return {t.pair: None if t.why else t.median for t in found if t.method == method}


class Spread(_Trips):
    """The longest against the shortest of all pairs."""

    name = "pairs against each other"
    metrics = (SPREAD,)

    def run(self, task: Task) -> Iterator[Found]:
        """One sample. Raises ProbeError, ToolError."""
        yield Ran(task.planned)
        answer = fleet.answer(task)
        yield from spread(_medians(read(answer), "icmp"), len(answer.nodes), task.clock.now())


def spread(values: Mapping[Pair, float | None], nodes: int, at: float) -> Iterator[Found]:
    """(longest - shortest) / median over the ordered pairs of *nodes* nodes."""
    known = {pair: value for pair, value in values.items() if value is not None}
    if len(known) < nodes * (nodes - 1):
        text = f"round trips of {len(known)} of {nodes * (nodes - 1)} ordered pairs were measured"
        yield Trouble(SPREAD, text)
    if len(known) < LEAST:
        return
    longest, shortest = max(known, key=lambda p: known[p]), min(known, key=lambda p: known[p])
    apart = known[longest] - known[shortest]
    middle = statistics.median(known.values())
    yield Sample(SPREAD, 0.0 if apart <= FLOOR else apart / middle, at)
    ends = ", ".join(
        f"{word} {a}-{b} with {1e6 * known[a, b]:.3g} us"
        for word, (a, b) in (("longest", longest), ("shortest", shortest))
    )
    yield Remark(SPREAD, ends + ("; no more than 10 us apart: none" if apart <= FLOOR else ""))

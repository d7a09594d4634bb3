"""Who sends to whom at once: rounds of flows between nodes. Pure, and light: ranks plan with it.

Nodes are numbers, 0 to n - 1. In a round of pairs each node is in one pair at the most, so what one
pair gives says nothing of another's load: a round tests half as many links as there are nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

Pair = tuple[int, int]
"""A node that sends and the one that receives; or two that do both."""

STREAMS = 8
"""Streams by which a node sends at least: one TCP stream is bound to one core, and fills no
400 Gbps port."""

PROCESSES = 4
"""Processes that share the streams of a flow where iperf3 is one thread (before 3.16)."""

PORT_SETS = 3
"""How often each matching is tried, on other ports: two flows of one may hash to the same path."""

OFTEN = 2
"""How often a failing pair is tried again: the median of three counts, never the best."""

MOST_AGAIN = 12
"""Rounds of the second pass at the most: where everything fails, more of it names nobody."""

TCP, UDP = "tcp", "udp"


@dataclass(frozen=True, slots=True)
class Flow:
    """From one node to another: *processes* of *streams* each, on as many ports from *slot* on.

    *rate* in bits a second is that of all of it, 0 for as fast as it goes.
    """

    source: int
    destination: int
    slot: int = 0
    processes: int = 1
    streams: int = 1
    kind: str = TCP
    rate: float = 0.0

    @property
    def pair(self) -> Pair:
        """Who sends, who receives."""
        return self.source, self.destination

    @property
    def slots(self) -> range:
        """The places of its ports among those that tests may use."""
        return range(self.slot, self.slot + self.processes)


@dataclass(frozen=True, slots=True)
class Round:
    """Flows that run at once."""

    name: str
    flows: tuple[Flow, ...]

    @property
    def ports(self) -> int:
        """How many ports a node needs."""
        return 1 + max((flow.slots[-1] for flow in self.flows), default=-1)


# --- Pairs ----------------------------------------------------------------------------------------


def pairings(count: int) -> Iterator[tuple[Pair, ...]]:
    """Every pair of *count* nodes once, in as few rounds as there can be: n - 1, n if n is odd.

    By the circle method: one node stays, the others move on by one place each round, and who face
    each other are a pair. With an odd number the node that faces nobody rests.
    """
    size = count + count % 2
    for turn in range(size - 1):
        places = [0, *(1 + (turn + i) % (size - 1) for i in range(size - 1))]
        facing = ((places[i], places[size - 1 - i]) for i in range(size // 2))
        yield tuple((min(p), max(p)) for p in facing if max(p) < count)


def matchings(count: int) -> tuple[tuple[Pair, ...], ...]:
    """Perfect matchings that have every pair once: the three of four nodes, n - 1 of n.

    Raises ValueError for an odd number, which has none.
    """
    if count % 2:
        raise ValueError(f"{count} nodes cannot be halved into pairs")
    return tuple(pairings(count))


def ordered(count: int) -> Iterator[Pair]:
    """All ordered pairs, n (n - 1) of them."""
    return ((a, b) for a in range(count) for b in range(count) if a != b)


# --- Flows ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Width:
    """How a node's sending is split: *threads* where one process carries it."""

    threads: bool = False

    def flow(self, source: int, destination: int, *, beside: int = 1, slot: int = 0) -> Flow:
        """A flow of a node that sends to *beside* others at once, this one among them."""
        streams = max(1, math.ceil(STREAMS / beside))
        processes = 1 if self.threads else min(PROCESSES, streams)
        each = math.ceil(streams / processes)
        return Flow(source, destination, slot, processes, each)


def speed(count: int, width: Width, *, both: bool = True) -> Iterator[Round]:
    """Each pair alone in one direction, in the other, and in both at once unless a bisection, whose
    rounds are the same, does that."""
    for number, pairs in enumerate(pairings(count), 1):
        there = tuple(width.flow(a, b) for a, b in pairs)
        back = tuple(width.flow(b, a) for a, b in pairs)
        yield Round(f"speed {number} there", there)
        yield Round(f"speed {number} back", back)
        if both:
            yield Round(f"speed {number} both", there + back)


def bisection(count: int, width: Width) -> Iterator[Round]:
    """Each matching at once and in both directions, on three sets of ports."""
    for number, pairs in enumerate(matchings(count), 1):
        both = [*pairs, *((b, a) for a, b in pairs)]
        flows = [width.flow(a, b) for a, b in both]
        for ports in range(PORT_SETS):
            moved = tuple(replace(f, slot=ports * f.processes) for f in flows)
            yield Round(f"bisection {number}.{ports + 1}", moved)


def aggregate(count: int, width: Width) -> Round:
    """Every node to every other at once."""
    taken = [0] * count
    flows = []
    for a, b in ordered(count):
        flow = width.flow(a, b, beside=count - 1, slot=taken[b])
        taken[b] += flow.processes
        flows.append(flow)
    return Round("aggregate", tuple(flows))


SHARE = 0.8
"""Of the measured rate, for the flow that lasts: below what makes it drop by itself."""

DATAGRAMS = 0.01
"""Of the measured rate, for numbered datagrams: 1 Gbps of a port with 100."""

MOST_DATAGRAMS = 1e9
"""Bits a second of them at the most: a receiver with one thread still keeps up with 86,000 a
second of 1448 bytes."""


def lasting(count: int, width: Width, rates: Mapping[Pair, float]) -> Round:
    """Each node to the next at 80 % of what the pair gave, with numbered datagrams beside it.

    *rates* in bits a second; a pair without one has no flow.
    """
    flows = []
    for a in range(count):
        b = (a + 1) % count
        if (rate := rates.get((a, b), 0.0)) <= 0:
            continue
        stream = replace(width.flow(a, b), rate=SHARE * rate)
        flows.append(stream)
        slow = min(MOST_DATAGRAMS, DATAGRAMS * rate)
        flows.append(Flow(a, b, stream.slots.stop, kind=UDP, rate=slow))
    return Round("hour", tuple(flows))


# --- The second pass ------------------------------------------------------------------------------


def again(count: int, failing: Sequence[Pair], width: Width) -> list[Round]:
    """Failing pairs twice more, and both their ends with partners that did not fail.

    Each pair has the network to itself but for others that share no node with it.
    """
    few = failing[: MOST_AGAIN * max(1, count // 2)]
    tries = [pair for _ in range(OFTEN) for pair in few]
    tries += dict.fromkeys(p for pair in few for p in _others(count, pair, few))
    packed = _packed(tries)[:MOST_AGAIN]
    return [
        Round(f"again {number}", tuple(width.flow(a, b) for a, b in pairs))
        for number, pairs in enumerate(packed, 1)
    ]


def _others(count: int, pair: Pair, failing: Sequence[Pair]) -> Iterator[Pair]:
    """The sender with another receiver, the receiver with another sender; a healthy one if any."""
    source, destination = pair
    troubled = {node for each in failing for node in each}
    rest = [node for node in range(count) if node not in pair]
    other = next((node for node in rest if node not in troubled), rest[0] if rest else None)
    if other is not None:
        yield source, other
        yield other, destination


def _packed(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """*pairs* in rounds in which no node is twice, each as early as it can be."""
    found: list[list[Pair]] = []
    busy: list[set[int]] = []
    for pair in pairs:
        place = next((i for i, nodes in enumerate(busy) if not nodes & set(pair)), len(found))
        if place == len(found):
            found.append([])
            busy.append(set())
        found[place].append(pair)
        busy[place] |= set(pair)
    return found


# --- Time -----------------------------------------------------------------------------------------

STARTING = 3.0
"""Seconds of a round beside its flow, an allowance: servers started and seen to listen, clients met
and read."""


def omitted(seconds: float) -> int:
    """Whole seconds at a flow's start that do not count: 5 of a minute, until TCP is at speed."""
    return min(5, max(1, math.ceil(seconds / 12)))


def takes(rounds: int, seconds: float) -> float:
    """Seconds that so many rounds take, of flows of *seconds*."""
    return rounds * (seconds + omitted(seconds) + STARTING)


def speed_rounds(count: int) -> int:
    """Rounds of `speed`: three for each of n - 1 pairings."""
    return 3 * (count - 1 + count % 2)

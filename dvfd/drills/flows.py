"""What nodes can send to each other: pairs alone, all at once, halves to halves, and for an hour.

What the ranks do stands in `dvfd.drills.workers.flows`, who sends to whom when in `rounds`, who is
named for what is slow in `blame`. A flow is a minute, or the test's duration where that is shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.drills import fleet, rounds
from dvfd.drills.blame import blame, gbps
from dvfd.drills.drill import Fact, Ran, Remark, Trouble
from dvfd.drills.interpreter import finite
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes.ports import DROPS, ERRORS
from dvfd.reduce import seconds as words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.drills.drill import Task
    from dvfd.model import Labels

    Found = Sample | Remark | Trouble | Fact | Ran

NAME, MODULE = "flows", "dvfd.drills.workers.flows"

GOODPUT = "network_goodput_bytes_per_second"
LINK = "network_link_bytes_per_second"
AGGREGATE = "network_aggregate_bytes_per_second"
BISECTION = "network_bisection_ratio"
LOSS = "network_datagram_loss_ratio"
FAULTS = "network_flow_errors"
DROPPED = "network_flow_drops"
AGAIN = "network_flow_retransmit_ratio"

FLOW = 60.0
"""Seconds of a flow: the source's minute."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "network": ("speed", "hour"),
    "topology_3node": ("aggregate",),
    "topology_4node": ("speed", "bisection", "aggregate"),
}
"""What each check's ranks do. A triangle whose aggregate is low is tried pair by pair as well."""

APART = 0.02
"""Of each other that the two ends of a flow may be: the receiver's clock runs a little longer."""

ARRIVED = 0.9
"""Of its rate that the lasting flow must have carried: else it was no load."""

INSTALL = "apt-get install iperf3, or dnf install iperf3"

SHOWN = 64
"""Pairs of a report's table at the most: of 4096 nodes there are 8 million."""


# --- What the ranks said --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One flow of one round, in bytes a second; `failed` says why there are none."""

    round: str
    pair: tuple[str, str]
    kind: str
    target: float
    sent: float = 0.0
    server: float = 0.0
    client: float = 0.0
    again: int = 0
    lost: int = 0
    datagrams: int = 0
    failed: str = ""

    @property
    def rate(self) -> float | None:
        """What arrived by the end that says less, None if it failed."""
        return None if self.failed else min(self.server, self.client)

    @property
    def apart(self) -> bool:
        """Whether its ends say different things."""
        return abs(self.server - self.client) > APART * max(self.server, self.client)

    @property
    def alone(self) -> bool:
        """Whether it had its nodes to itself: one direction of a pair."""
        return not {"there", "back", "again"}.isdisjoint(self.round.split())


@dataclass(frozen=True, slots=True)
class Journal:
    """All that was done. `lost` says who was lost before it was all."""

    names: tuple[str, ...]
    interfaces: tuple[str, ...]
    rows: tuple[Row, ...]
    links: tuple[tuple[float | None, bool], ...] = ()  # Mbit/s, and whether a card is behind it
    counters: tuple[Mapping[str, int], ...] = ()
    missing: tuple[str, ...] = ()
    lost: str = ""
    versions: tuple[str, ...] = field(default=())

    def of(self, kind: str) -> list[Row]:
        """The rows of rounds of *kind*."""
        return [row for row in self.rows if row.round.split()[0].partition(".")[0] == kind]


def read(value: Mapping[str, Any], nodes: Sequence[fleet.Met]) -> Journal:
    """What a head left, if it may be believed. Raises ProbeError."""
    names = tuple(node.name for node in nodes)
    try:
        return Journal(
            names,
            tuple(node.interface for node in nodes),
            tuple(_row(row, names) for row in value["rows"]),
            tuple((finite(each["speed"]), bool(each["physical"])) for each in value["links"]),
            tuple({str(k): int(v) for k, v in each.items()} for each in value["counters"]),
            tuple(map(str, value["missing"])),
            str(value["lost"]),
            tuple(".".join(map(str, each)) for each in value.get("versions", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProbeError(f"flows: {error!r}: wanted what ranks write") from None


def _row(row: Mapping[str, Any], names: Sequence[str]) -> Row:
    flow, client, server = row["flow"], row["client"], row["server"]
    failed = next((str(end["failed"]) for end in (client, server) if end["failed"]), "")
    return Row(
        str(row["round"]),
        (names[flow["source"]], names[flow["destination"]]),
        str(flow["kind"]),
        _bytes(flow["rate"]),
        _bytes(client["sent"]),
        _bytes(server["received"]),
        _bytes(client["received"]),
        int(client["again"]),
        int(server["lost"]),
        int(server["datagrams"]),
        failed,
    )


def _bytes(bits: object) -> float:
    found = finite(bits)
    if found is None or found < 0:
        raise ValueError(f"{bits!r} is no rate")
    return found / 8


def journal(task: Task) -> Journal:
    """What was done, as the head that was with it longest tells. Raises ProbeError."""
    answer = fleet.answer(task)
    heard = answer.of(NAME)
    values = [value for value in heard.values.values() if value is not None]
    if not values:
        raise ProbeError(f"flows: {heard.why or 'no node said anything'}")
    found = max((read(value, answer.nodes) for value in values), key=lambda j: len(j.rows))
    if found.missing:
        raise ProbeError(f"iperf3 is missing on {', '.join(found.missing)}: {INSTALL}")
    return found


def exercise(task: Task) -> fleet.Exercise:
    """All rounds of the check."""
    count, short = fleet.nodes(task), flow_seconds(task)
    kinds = [k for k in KINDS[task.check.id] if k != "hour" or task.options.soak]
    most = 2 * rounds.speed_rounds(count) + rounds.MOST_AGAIN + 1
    most += rounds.PORT_SETS * count if "bisection" in kinds else 0
    hour = task.planned if "hour" in kinds else 0.0
    return fleet.Exercise(
        name=NAME,
        module=MODULE,
        seconds=rounds.takes(most, short) + hour + 120,
        options={
            "kinds": kinds,
            "seconds": short,
            "hour": max(1.0, hour),
            "wanted": 8 * wanted(task),
        },
    )


def flow_seconds(task: Task) -> float:
    """Of one flow: whole seconds, as iperf3 counts."""
    return float(max(1, round(min(FLOW, task.planned))))


def wanted(task: Task) -> float:
    """Bytes a second that each node is to receive: the check's own limit."""
    one = task.limit("speed")
    return one if one is not None else (task.limit("aggregate") or 0.0) / fleet.nodes(task)


class _Flows:
    """What all parts share: one exercise."""

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """All rounds of the check, done once for its parts."""
        return [exercise(task)]


# --- Speed ----------------------------------------------------------------------------------------


class Speed(_Flows):
    """Each pair in one direction at a time; in both at once as a remark."""

    name = "speed between nodes"
    metrics = (GOODPUT,)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where no node said anything."""
        yield Ran(task.planned)
        found, at = journal(task), task.clock.now()
        yield from goodput(found, wanted(task), at)
        text = f"flows of {words(flow_seconds(task))}, iperf3 {', '.join(set(found.versions))}"
        yield Fact("speed", text)


def goodput(found: Journal, least: float, at: float) -> Iterator[Found]:
    """A figure for each ordered pair, and who is named for those below *least*."""
    known: dict[tuple[str, str], float | None] = {}
    for pair, rows in _by_pair(_alone(found)).items():
        where = labels(source=pair[0], destination=pair[1])
        middle = _median(rows)
        known[pair] = middle.rate
        if middle.rate is None:
            yield Trouble(GOODPUT, f"{_arrow(pair)}: {middle.failed}", where)
            continue
        low, high = sorted((middle.server, middle.client)) if middle.apart else (None, None)
        yield Sample(GOODPUT, middle.rate, at, where, low, high)
        if len(rows) > 1:
            tries = ", ".join("none" if row.rate is None else gbps(row.rate) for row in rows)
            yield Remark(GOODPUT, f"{_arrow(pair)} was tried {len(rows)} times: {tries}", where)
    yield from _absent(found, known)
    for culprit in blame(known, least):
        yield Remark(GOODPUT, f"named: {culprit.text}")
    yield from _table(found, known)


def rates(found: Journal) -> dict[tuple[str, str], float | None]:
    """The goodput of each ordered pair that was tried, None where nothing came through."""
    return {pair: _median(rows).rate for pair, rows in _by_pair(_alone(found)).items()}


def _absent(found: Journal, rates: Mapping[tuple[str, str], float | None]) -> Iterator[Found]:
    """Pairs that nobody came to: who was lost before."""
    pairs = [(a, b) for a in found.names for b in found.names if a != b]
    if left := [pair for pair in pairs if pair not in rates]:
        few = ", ".join(map(_arrow, left[:6])) + (" and others" if len(left) > 6 else "")
        yield Trouble(GOODPUT, f"{few}: not measured: {found.lost or 'no round had them'}")


def _table(found: Journal, rates: Mapping[tuple[str, str], float | None]) -> Iterator[Fact]:
    both = {row.pair: row for row in found.rows if row.round.endswith(("both", ".1"))}
    for pair, rate in list(rates.items())[:SHOWN]:
        alone = gbps(rate) if rate is not None else "nothing"
        beside = both[pair].rate if pair in both else None
        at_once = gbps(beside) if beside is not None else "nothing"
        resent = sum(row.again for row in found.rows if row.pair == pair and row.alone)
        text = (
            f"{alone} alone, {at_once} with both directions at once, {resent} segments sent again"
        )
        yield Fact(_arrow(pair), text)


class Link(_Flows):
    """What each port says of itself."""

    name = "ports"
    metrics = (LINK,)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where no node said anything."""
        yield Ran(task.planned)
        yield from _links(journal(task), task.clock.now())


def _links(found: Journal, at: float) -> Iterator[Found]:
    """The port's own word. A virtual one's is nothing."""
    ends = zip(found.names, found.interfaces, found.links, strict=True)
    for name, interface, (speed, physical) in ends:
        where = labels(node=name, interface=interface)
        if speed is None or not physical:
            why = "is virtual" if not physical else "has a driver that does not say its speed"
            yield Trouble(LINK, f"{interface} of {name} {why}", where)
        else:
            yield Sample(LINK, speed * 1e6 / 8, at, where)


# --- All at once ----------------------------------------------------------------------------------


class Aggregate(_Flows):
    """Every ordered pair at once."""

    name = "all nodes at once"
    metrics = (AGGREGATE,)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where no node said anything."""
        yield Ran(task.planned)
        found = journal(task)
        yield from together(found, wanted(task), task.clock.now())


def together(found: Journal, least: float, at: float) -> Iterator[Found]:
    """The sum over all flows, and what each node had of it."""
    rows = found.of("aggregate")
    if why := _broken(found, rows):
        yield Trouble(AGGREGATE, why)
        return
    total = sum(row.rate or 0.0 for row in rows)
    yield Sample(AGGREGATE, total, at, labels(nodes=str(len(found.names))))
    for way, which in (("receives", 1), ("sends", 0)):
        shares = {n: sum(r.rate or 0.0 for r in rows if r.pair[which] == n) for n in found.names}
        rest = ", ".join(f"{name} {gbps(rate)}" for name, rate in list(shares.items())[:SHOWN])
        yield Fact(f"all at once, a node {way}", rest)
    for culprit in blame(rates(found), least):
        yield Remark(AGGREGATE, f"pair by pair: {culprit.text}")


class Bisection(_Flows):
    """Half of the nodes to the other half, by every matching."""

    name = "halves of the nodes"
    metrics = (BISECTION,)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where no node said anything."""
        yield Ran(task.planned)
        link = task.config.profile.link_gbps * 1e9 / 8
        yield from halves(journal(task), link, task.clock.now())


def halves(found: Journal, link: float, at: float) -> Iterator[Found]:
    """The smallest matching's best set of ports, over what its links give in both directions."""
    sets: dict[str, list[Row]] = {}
    for row in found.of("bisection"):
        sets.setdefault(row.round.split()[1], []).append(row)
    shares: dict[str, list[float]] = {}
    for name, rows in sets.items():
        if not (why := _broken(found, rows)):
            share = sum(row.rate or 0.0 for row in rows) / (len(rows) * link)
            shares.setdefault(_matching(rows), []).append(share)
        else:
            yield Trouble(BISECTION, f"{_matching(rows)}, ports {name}: {why}")
    if why := _broken(found, found.of("bisection")) if not shares or found.lost else "":
        yield Trouble(BISECTION, why)
    if not shares:
        return
    best = {name: max(each) for name, each in shares.items()}
    least = min(best, key=lambda name: best[name])
    yield Sample(BISECTION, best[least], at)
    yield Remark(BISECTION, f"smallest: {least}")
    for name, each in shares.items():
        tried = ", ".join(f"{share:.3f}" for share in each)
        yield Fact(f"bisection {name}", f"{best[name]:.3f}; by port set {tried}")


def _matching(rows: Sequence[Row]) -> str:
    """`n1-n2 | n3-n4`."""
    names = dict.fromkeys("-".join(sorted(row.pair)) for row in rows)
    few = list(names)[:SHOWN]
    return " | ".join(few) + (" | ..." if len(few) < len(names) else "")


# --- An hour --------------------------------------------------------------------------------------


class Hour(_Flows):
    """A flow at 80 % of what was measured, with numbered datagrams and all counters beside it."""

    name = "transfer that lasts"
    metrics = (LOSS, FAULTS, DROPPED, AGAIN)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where it was not done."""
        yield Ran(task.planned)
        if not task.options.soak:
            raise ProbeError("left out: --no-soak")
        found = journal(task)
        if not found.of("hour"):
            raise ProbeError(found.lost or "no pair gave a rate of which 80 % could flow")
        yield from lasted(found, task.clock.now())
        yield Fact("transfer that lasted", f"{words(round(task.planned))} of it")


def lasted(found: Journal, at: float) -> Iterator[Found]:
    """What was lost, dropped, wrong or sent again while it flowed."""
    rows = found.of("hour")
    for row in rows:
        yield from _datagrams(found, row, at) if row.kind == rounds.UDP else _carried(row)
    wanted = [(a, found.names[(i + 1) % len(found.names)]) for i, a in enumerate(found.names)]
    for pair in wanted:
        if pair not in {row.pair for row in rows}:
            where = labels(source=pair[0], destination=pair[1])
            yield Trouble(LOSS, f"{_arrow(pair)} gave no rate of which 80 % could flow", where)
            yield from (Trouble(m, f"no flow {_arrow(pair)}") for m in (FAULTS, DROPPED, AGAIN))
    if not found.counters:
        why = found.lost or "no node told its counters"
        yield from (Trouble(metric, why) for metric in (FAULTS, DROPPED, AGAIN))
        return
    for name, interface, grown in zip(found.names, found.interfaces, found.counters, strict=True):
        yield from counted(name, interface, grown, at)


def _carried(row: Row) -> Iterator[Found]:
    """Whether the flow was the load that it was to be."""
    if row.failed:
        why = f"{_arrow(row.pair)}: {row.failed}"
        yield from (Trouble(metric, why) for metric in (FAULTS, DROPPED, AGAIN))
        return
    text = f"{_arrow(row.pair)} carried {gbps(row.rate or 0.0)} of {gbps(row.target)}"
    yield Fact("load", text)
    if (row.rate or 0.0) < ARRIVED * row.target:
        yield from (Trouble(metric, f"too little load: {text}") for metric in (FAULTS, DROPPED))
        yield Trouble(AGAIN, f"too little load: {text}")


def _datagrams(found: Journal, row: Row, at: float) -> Iterator[Found]:
    """Those that left a gap. The receiver's own full socket may be the cause: then who knows."""
    where = labels(source=row.pair[0], destination=row.pair[1])
    if row.failed or not row.datagrams:
        yield Trouble(LOSS, f"{_arrow(row.pair)}: {row.failed or 'no datagram came'}", where)
        return
    ratio = row.lost / row.datagrams
    due = ARRIVED * row.target * (1 - ratio)
    if row.server < due:  # those after the last that came leave no gap, either
        text = f"{gbps(row.server)} of {gbps(row.target)} came, in {row.datagrams} datagrams"
        yield Trouble(LOSS, f"too little load: {_arrow(row.pair)}: {text}", where)
        if not row.lost:
            return
    counters = dict(zip(found.names, found.counters, strict=False)).get(row.pair[1], {})
    full = min(row.lost, max(0, counters.get("udp/RcvbufErrors", 0)))
    low = (row.lost - full) / row.datagrams if full else None
    yield Sample(LOSS, ratio, at, where, low)
    yield Remark(LOSS, f"{_arrow(row.pair)}: {resolution(row.lost, row.datagrams)}", where)
    if full:
        text = f"{full} of the lost found the receiver's socket full: raise net.core.rmem_max there"
        yield Remark(LOSS, text, where)


def resolution(lost: int, count: int) -> str:
    """What so many lost of so many say: `0 of 4.1e+09 datagrams, 95 % upper bound 7.3e-10`."""
    text = f"{lost} of {count:.2g} datagrams" if count >= 1e5 else f"{lost} of {count} datagrams"
    return text if lost else f"{text}, 95 % upper bound {3 / count:.1e}"


def counted(name: str, interface: str, grown: Mapping[str, int], at: float) -> Iterator[Found]:
    """A node's counters over the time of the flow."""
    where = labels(node=name, interface=interface)
    faults, dropped = ([f"interface/{n}" for n in names] for names in (ERRORS, DROPS))
    flaps = [n for n in grown if n == "interface/carrier_changes"]
    discards = [n for n in grown if n.startswith("card/") and "discard" in n]
    for metric, wanted, more in ((FAULTS, faults, flaps), (DROPPED, dropped, discards)):
        sums = _grown(grown, [*wanted, *more])
        yield from _figure(metric, sums, [n for n in wanted if n not in grown], where, at)
    sent, again = grown.get("tcp/OutSegs", 0), grown.get("tcp/RetransSegs", -1)
    if sent <= 0 or again < 0:
        yield Trouble(AGAIN, f"{name}: /proc/net/snmp did not count", labels(node=name))
    else:
        yield from _again(name, again, sent, grown, at)
    moved = {k: v for k, v in grown.items() if v and _telling(k)}
    told = ", ".join(f"{k} +{v}" for k, v in moved.items())
    yield Fact(f"counters of {name}", told or "none of errors, drops or pauses moved")


def _again(
    name: str, again: int, sent: int, grown: Mapping[str, int], at: float
) -> Iterator[Found]:
    """Of the segments sent again those bound it from below that were not there twice in the end: of
    the others the receiver said that the first had come, too (D-SACK, RFC 2883). A node whose
    processors are late makes such, by the probe for a lost tail (RFC 8985), and no link does.
    """
    where = labels(node=name)
    needless = grown.get("tcpext/TCPDSACKRecvSegs", grown.get("tcpext/TCPDSACKRecv", 0))
    needless = min(again, max(0, needless))
    low = (again - needless) / sent if needless else None
    yield Sample(AGAIN, again / sent, at, where, low)
    timeouts = grown.get("tcpext/TCPTimeouts", 0)
    text = f"{name}: {again} of {sent:.3g} segments sent again, {timeouts} timeouts"
    if needless:
        text += f"; {needless} had come, too: acknowledged late by a busy node, not lost"
    yield Remark(AGAIN, text, where)


def _telling(counter: str) -> bool:
    kind = counter.partition("/")[0]
    parts = ("error", "drop", "missed", "carrier_changes", "fifo")
    listed = kind == "interface" and any(part in counter for part in parts)
    return kind in {"card", "softnet"} or listed


def _grown(grown: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    return {name: grown[name] for name in names if name in grown}


def _figure(
    metric: str, sums: Mapping[str, int], missing: Sequence[str], where: Labels, at: float
) -> Iterator[Found]:
    """The sum of a node's counters; where some are *missing*, only if others moved."""
    name = dict(where)["node"]
    if min(sums.values(), default=0) < 0:
        yield Trouble(metric, f"{name}: its counters were set back", where)
        return
    if missing and not any(sums.values()):
        yield Trouble(metric, f"{name}: its interface does not count {', '.join(missing)}", where)
        return
    yield Sample(metric, float(sum(sums.values())), at, where)
    if any(sums.values()):
        told = ", ".join(f"{key} +{value}" for key, value in sums.items() if value)
        yield Remark(metric, f"{name}: {told}", where)


# --- Shared ---------------------------------------------------------------------------------------


def _alone(found: Journal) -> Iterator[Row]:
    return (row for row in found.rows if row.alone)


def _by_pair(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault(row.pair, []).append(row)
    return found


def _median(rows: Sequence[Row]) -> Row:
    """The middle one, the lower of two: never the best."""
    ranked = sorted(rows, key=lambda row: -1.0 if row.rate is None else row.rate)
    return ranked[(len(ranked) - 1) // 2]


def _broken(found: Journal, rows: Sequence[Row]) -> str:
    """Why *rows* are no figure of all nodes, or an empty string."""
    if failed := [f"{_arrow(row.pair)}: {row.failed}" for row in rows if row.failed]:
        return "; ".join(dict.fromkeys(failed[:6]))
    return "" if rows else found.lost or "not done"


def _arrow(pair: tuple[str, str]) -> str:
    return f"{pair[0]} -> {pair[1]}"

"""Flows between nodes by iperf3: each node's head starts its servers and its clients, in rounds.

All heads know all figures after each round, so each plans the next alike: pairs that were slow are
tried again, and the hour's rate follows from what pairs gave. Options: `kinds` (of `KINDS`),
`seconds` of a flow, `hour` in seconds of the one that lasts, `wanted` bits a second below which a
pair fails. Every flow is one row of the answer; what was done before somebody was lost stays.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from dvfd.drills import rounds
from dvfd.drills.rounds import TCP, Flow, Pair, Round, Width
from dvfd.drills.workers import iperf, traffic
from dvfd.drills.workers.fleet import Crew
from dvfd.drills.workers.iperf import Course, Said, Serving
from dvfd.drills.workers.line import Missing

SPEED, BISECTION, AGGREGATE, HOUR = KINDS = ("speed", "bisection", "aggregate", "hour")

ONE_CORE = 10e9
"""Bits a second that one process surely carries. Several need a second more, see TAIL."""

TAIL = 1
"""Whole seconds at the end of flows that are summed, which do not count: processes start less than
that apart."""

PARTING = 2.0
"""Seconds for a server to end once its client has: one that still waits then had none."""

Row = dict[str, Any]


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same in every node's head, None in other ranks."""
    if not crew.head:
        return None
    found: dict[str, Any] = {"rows": [], "links": [], "counters": [], "missing": [], "lost": ""}
    try:
        width = _meet(crew, found, float(options["wanted"]))
        if not found["missing"]:
            Flows(crew, options, width, found).all()
    except Missing as error:
        found["lost"] = str(error)
    return found


def _meet(crew: Crew, found: dict[str, Any], wanted: float) -> Width:
    """Who has which iperf3, and which ports; the older decides for all."""
    mine = {
        "version": iperf.version(),
        "speed": traffic.speed(crew.interface),
        "physical": traffic.physical(crew.interface),
    }
    said = list(crew.gather("iperf3", mine, heads=True).values())
    found["links"] = [{k: each[k] for k in ("speed", "physical")} for each in said]
    found["versions"] = [each["version"] for each in said]
    named = zip(crew.nodes, said, strict=True)
    found["missing"] = [node.name for node, each in named if not each["version"]]
    threads = all(tuple(each["version"]) >= iperf.THREADS for each in said)
    return Width(threads=threads or wanted <= ONE_CORE)


class Flows:
    """The rounds of one test, as one head does them."""

    def __init__(
        self, crew: Crew, options: Mapping[str, Any], width: Width, found: dict[str, Any]
    ) -> None:
        self._crew, self._width, self._found = crew, width, found
        self._count, self._kinds = len(crew.nodes), tuple(options["kinds"])
        seconds = float(options["seconds"])
        self._short = Course(seconds=seconds, omit=rounds.omitted(seconds))
        self._summed = replace(self._short, tail=TAIL)
        self._hour = Course(seconds=float(options["hour"]), omit=0)
        self._wanted = float(options["wanted"])

    def all(self) -> None:
        """Every kind that was asked for. Raises Missing."""
        if SPEED in self._kinds:
            self._speeds()
        if BISECTION in self._kinds:
            for each in rounds.bisection(self._count, self._width):
                self._do(each, self._summed)
        if AGGREGATE in self._kinds:
            self._do(rounds.aggregate(self._count, self._width), self._summed)
            if SPEED not in self._kinds and self._uneven():
                self._speeds()
        if HOUR in self._kinds:
            self._last()

    def _speeds(self) -> None:
        """Every pair, and again what was slow."""
        both = BISECTION not in self._kinds
        for each in rounds.speed(self._count, self._width, both=both):
            self._do(each, self._short)
        rates = alone(self._found["rows"])
        failing = [p for p in rounds.ordered(self._count) if rates.get(p, 0.0) < self._wanted]
        for each in rounds.again(self._count, failing, self._width):
            self._do(each, self._short)

    def _uneven(self) -> bool:
        """Whether all together received less than was wanted of each."""
        rows = [row for row in self._found["rows"] if row["round"] == "aggregate"]
        return sum(map(received, rows)) < self._wanted * self._count

    def _last(self) -> None:
        """The flow that lasts, with all counters before and after it."""
        rates = lowest(self._found["rows"])
        if not (plan := rounds.lasting(self._count, self._width, rates)).flows:
            return
        before = traffic.counters(self._crew.interface)
        self._do(plan, self._hour)
        mine = traffic.grown(before, traffic.counters(self._crew.interface))
        said = self._crew.gather("counters", mine, heads=True)
        self._found["counters"] = list(said.values())

    def _do(self, plan: Round, course: Course) -> None:
        """One round: servers, then clients of those that listen, then what both ends say."""
        crew = self._crew
        if any(flow.processes > 1 for flow in plan.flows) and course is self._short:
            course = self._summed
        crew.say(f"{plan.name}: {_told(crew, plan)}")
        if plan.ports > len(crew.ports):
            raise ValueError(
                f"{plan.name} needs {plan.ports} ports on a node, cluster.ports has "
                f"{len(crew.ports)}: widen it on every node"
            )
        servers = {
            i: iperf.serve(flow, crew.me.address, self._ports(flow), course)
            for i, flow in enumerate(plan.flows)
            if flow.destination == crew.node
        }
        try:
            self._found["rows"] += self._play(plan, course, servers)
        finally:
            for server in servers.values():
                server.stop()

    def _play(self, plan: Round, course: Course, servers: Mapping[int, Serving]) -> Iterator[Row]:
        """The clients of this node's flows; then what all nodes' ends say."""
        crew = self._crew
        heard = crew.gather("listen", {i: s.failed for i, s in servers.items()}, heads=True)
        silent = {int(i): why for each in heard.values() for i, why in each.items()}
        until = time.monotonic() + course.longest
        clients = {
            i: iperf.send(flow, course, self._ends(flow), self._ports(flow))
            for i, flow in enumerate(plan.flows)
            if flow.source == crew.node and not silent[i]
        }
        sent = {i: iperf.together([t.end(until) for t in tools]) for i, tools in clients.items()}
        done = crew.gather("sent", _rows(sent), heads=True, timeout=course.longest + 60)
        soon = time.monotonic() + PARTING
        arrived = {i: server.end(soon) for i, server in servers.items()}
        ended = crew.gather("arrived", _rows(arrived), heads=True)
        return _merged(plan, silent, done.values(), ended.values())

    def _ports(self, flow: Flow) -> list[int]:
        return [self._crew.ports[slot] for slot in flow.slots]

    def _ends(self, flow: Flow) -> tuple[str, str]:
        nodes = self._crew.nodes
        return nodes[flow.source].address, nodes[flow.destination].address


def _told(crew: Crew, plan: Round) -> str:
    """A round in words, as far as they fit a line."""
    names = [f"{crew.nodes[f.source].name} > {crew.nodes[f.destination].name}" for f in plan.flows]
    few = list(dict.fromkeys(names))[:6]
    return ", ".join(few) + (" ..." if len(few) < len(set(names)) else "")


def _rows(said: Mapping[int, Said]) -> dict[int, Row]:
    return {i: asdict(each) for i, each in said.items()}


def _merged(
    plan: Round,
    silent: Mapping[int, str],
    sent: Iterable[Mapping[str, Row]],
    arrived: Iterable[Mapping[str, Row]],
) -> Iterator[Row]:
    """One row for each flow: what its two ends say."""
    senders = {int(i): row for each in sent for i, row in each.items()}
    receivers = {int(i): row for each in arrived for i, row in each.items()}
    for i, flow in enumerate(plan.flows):
        none = asdict(Said(failed=silent.get(i) or "nothing was said"))
        yield {
            "round": plan.name,
            "flow": asdict(flow),
            "client": senders.get(i, none),
            "server": receivers.get(i, none),
        }


# --- Figures that the next rounds are planned on --------------------------------------------------


def received(row: Mapping[str, Any]) -> float:
    """Bits a second that arrived, 0 if an end failed."""
    if row["client"]["failed"] or row["server"]["failed"]:
        return 0.0
    return min(float(row["server"]["received"]), float(row["client"]["received"]))


def by_pair(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[Pair, list[float]]:
    """What each pair gave by TCP in rounds whose name has one of *names* in it."""
    found: dict[Pair, list[float]] = {}
    for row in rows:
        flow = row["flow"]
        if flow["kind"] == TCP and any(name in row["round"].split() for name in names):
            found.setdefault((flow["source"], flow["destination"]), []).append(received(row))
    return found


def alone(rows: Iterable[Mapping[str, Any]]) -> dict[Pair, float]:
    """The median of what each pair gave in one direction at a time, the second pass included."""
    tried = by_pair(rows, ("there", "back", "again"))
    return {pair: statistics.median_low(each) for pair, each in tried.items()}


def lowest(rows: Iterable[Mapping[str, Any]]) -> dict[Pair, float]:
    """The least of what each pair gave alone and in both directions at once."""
    tried = by_pair(rows, ("there", "back", "both"))
    return {pair: min(each) for pair, each in tried.items()}

"""Connectivity: which nodes, and which ranks, reach each other on the job's ports as themselves.

A call that failed is a measured no; a rank that could not call at all is not known. What the ranks
do stands in `dvfd.drills.workers.reach`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd import cluster
from dvfd.drills import fleet
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.errors import DvfdError, ProbeError
from dvfd.knocking import knock
from dvfd.model import Sample
from dvfd.preflight import Knock

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.fleet import Answer

    Found = Sample | Remark | Trouble | Fact

RATIO = "network_connected_ratio"
PAIRS = "network_connected_rank_pairs"

EXERCISE = "connectivity"

MODULE = "dvfd.drills.workers.reach"

SECONDS = 180.0
"""For the exercise at the most; 0.1 where all answer, 80 between 16 nodes of which none does."""

NAMED = 5
"""Pairs that are named; the others are counted."""

WORDS: Mapping[str, str] = {
    "proven": "answers",
    "refused": "refuses: the host is there and the port is closed, by a firewall that says so",
    "silent": "is silent: a firewall that drops, or a link that loses what goes one way",
    "unreachable": "cannot be reached",
    "wrong": "answers and is not the one",
    "broken": "breaks off",
}
"""How a call ended, in the words of who called."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """Of one rank to a door of another."""

    source: int
    destination: int
    address: str
    port: int
    outcome: str
    detail: str

    @property
    def proven(self) -> bool:
        """Whether both ends showed who they are."""
        return self.outcome == "proven"


@dataclass(frozen=True, slots=True)
class Reached:
    """All calls, in order of ranks, and from which heads each head had datagrams."""

    calls: tuple[Call, ...]
    heard: Mapping[int, frozenset[int]]

    def of(self, pair: Pair) -> list[Call]:
        """Those from the first rank to the second."""
        return [call for call in self.calls if (call.source, call.destination) == pair]


def read(values: Mapping[int, Any]) -> Reached:
    """What the ranks said. Raises ProbeError for anything that they do not write."""
    calls: list[Call] = []
    heard = {}
    try:
        for rank, said in sorted(values.items()):
            calls += [_call(rank, row) for row in said["calls"]]
            heard[rank] = frozenset(int(each) for each in said["heard"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"calls of the ranks: {error!r}: wanted what they write") from None
    return Reached(tuple(calls), heard)


def _call(rank: int, row: Sequence[Any]) -> Call:
    destination, address, port, outcome, detail = row
    if outcome not in WORDS:
        raise ValueError(f"a call ended {outcome!r}")
    return Call(rank, int(destination), str(address), int(port), outcome, str(detail)[:200])


# --- Which pairs --------------------------------------------------------------------------------


def ordered(members: Sequence[int]) -> list[Pair]:
    """Every ordered pair of them: 240 of 16."""
    return [(a, b) for a in members for b in members if a != b]


def split(found: Reached, pairs: Iterable[Pair], *, first: bool) -> tuple[list[Pair], list[Pair]]:
    """Of *pairs* those that failed, and those that nobody tried. Of a node every door has to
    answer; with *first*, of a rank, its first.
    """
    failed, untried = [], []
    for pair in pairs:
        calls = found.of(pair)[: 1 if first else None]
        if not calls:
            untried.append(pair)
        elif not all(call.proven for call in calls):
            failed.append(pair)
    return failed, untried


def told(found: Reached, pair: Pair, names: Mapping[int, str]) -> str:
    """How a pair failed: who, in which direction, where, and what of it that means."""
    source, destination = pair
    who = f"{names[source]} -> {names[destination]}"
    ends: dict[tuple[str, str, str], list[int]] = {}
    for call in found.of(pair):
        if not call.proven:
            ends.setdefault((call.address, call.outcome, call.detail), []).append(call.port)
    parts = [
        f"{address} {WORDS[outcome]}{f' ({detail})' if detail else ''}, port "
        f"{', '.join(map(str, ports))}"
        for (address, outcome, detail), ports in ends.items()
    ]
    return f"{who}: {'; '.join([*parts, *_one_way(found, pair, names)])}"


def _one_way(found: Reached, pair: Pair, names: Mapping[int, str]) -> Iterator[str]:
    """What datagrams say of the link, where both ends were listening for them."""
    source, destination = pair
    if source not in found.heard or destination not in found.heard:
        return
    if all(call.outcome in {"proven", "wrong", "refused"} for call in found.of(pair)):
        return  # something came back, so the link carries both ways
    there = source in found.heard[destination]
    back = destination in found.heard[source]
    if there == back:
        how = "both ways" if there else "neither way"
        yield f"datagrams get through {how}"
    else:
        lost, arrives = (pair, pair[::-1]) if back else (pair[::-1], pair)
        yield (
            f"one way only: what {names[lost[0]]} sends does not reach {names[lost[1]]}, what "
            f"{names[arrives[0]]} sends reaches {names[arrives[1]]}"
        )


# --- The part -----------------------------------------------------------------------------------


EXERCISES = (fleet.Exercise(name=EXERCISE, module=MODULE, seconds=SECONDS),)
"""Every rank calls every other: once for both parts."""


class Connected:
    """The share of ordered pairs of nodes that reach each other."""

    name = "connectivity"
    metrics = (RATIO,)

    def exercises(self, _task: Task) -> Sequence[fleet.Exercise]:
        """The calls."""
        return EXERCISES

    def run(self, task: Task) -> Iterator[Found]:
        """One sample, and where the nodes were called. Raises ProbeError, ToolError."""
        try:
            answer = fleet.answer(task)
        except fleet.NotMet as error:
            yield from from_here(task, error)
            return
        heard = answer.of(EXERCISE)
        found = read(heard.values)
        yield from _nodes(answer, found, heard.why, task.clock.now())
        yield from _facts(answer, found)


class ConnectedRanks:
    """The number of ordered pairs of ranks that reach each other."""

    name = "connectivity of ranks"
    metrics = (PAIRS,)

    def exercises(self, _task: Task) -> Sequence[fleet.Exercise]:
        """The same calls."""
        return EXERCISES

    def run(self, task: Task) -> Iterator[Found]:
        """One sample. Raises ProbeError, ToolError."""
        answer = fleet.answer(task)
        heard = answer.of(EXERCISE)
        yield from _ranks(answer, read(heard.values), heard.why, task.clock.now())


def from_here(task: Task, error: fleet.NotMet) -> Iterator[Found]:
    """Where the nodes did not meet: which of them this one cannot reach, which is a measured no.

    Where all of them answer, somebody did not start the test: raises *error*.
    """
    config = task.config.cluster
    others = [node for node in config.nodes if node.name != task.config.node.name]
    if fleet.nodes(task) < len(config.nodes):
        raise error  # who was to come is not known
    away = {node.name: why for node in others if (why := _away(node.address, config.port))}
    if not away:
        raise error
    yield Sample(RATIO, 1 - len(away) / len(others), task.clock.now())
    told = ", ".join(f"{name} {why}" for name, why in away.items())
    yield Remark(RATIO, f"the nodes did not meet; seen from {task.config.node.name}: {told}")


def _away(address: str, port: int) -> str:
    """Why the host at *address* cannot be reached, or nothing if it says anything at all."""
    try:
        found = knock(cluster.resolved(address)[0], [port])[port]
    except (OSError, DvfdError) as error:
        return f"cannot be called: {error}"
    return {Knock.SILENT: "is silent", Knock.UNREACHABLE: "is unreachable"}.get(found, "")


def _nodes(answer: Answer, found: Reached, why: str, at: float) -> Iterator[Found]:
    heads = {node.ranks[0]: node.name for node in answer.nodes}
    pairs = ordered(list(heads))
    failed, untried = split(found, pairs, first=False)
    if failed or not untried:
        good = len(pairs) - len(failed) - len(untried)
        yield Sample(RATIO, good / len(pairs), at)
    yield from _words(RATIO, [told(found, pair, heads) for pair in failed])
    yield from _untried(RATIO, untried, heads, why)


def _ranks(answer: Answer, found: Reached, why: str, at: float) -> Iterator[Found]:
    names = {r: f"rank {r} ({n.name})" for n in answer.nodes for r in n.ranks}
    pairs = ordered(list(names))
    failed, untried = split(found, pairs, first=True)
    if failed or not untried:
        yield Sample(PAIRS, len(pairs) - len(failed) - len(untried), at)
    yield from _words(PAIRS, [told(found, pair, names) for pair in failed])
    yield from _untried(PAIRS, untried, names, why)


def _words(metric: str, lines: Sequence[str]) -> Iterator[Remark]:
    for line in lines[:NAMED]:
        yield Remark(metric, line)
    if len(lines) > NAMED:
        yield Remark(metric, f"and {len(lines) - NAMED} more")


def _untried(
    metric: str, pairs: Sequence[Pair], names: Mapping[int, str], why: str
) -> Iterator[Trouble]:
    if pairs:
        first = ", ".join(f"{names[a]} -> {names[b]}" for a, b in pairs[:NAMED])
        more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
        yield Trouble(metric, f"not tried: {first}{more}: {why or 'nothing was said of it'}")


def _facts(answer: Answer, found: Reached) -> Iterator[Fact]:
    for node in answer.nodes:
        doors = sorted({(c.address, c.port) for c in found.calls if c.destination == node.ranks[0]})
        where: dict[str, list[str]] = {}
        for address, port in doors:
            where.setdefault(address, []).append(str(port))
        text = "; ".join(f"{address}: {', '.join(ports)}" for address, ports in where.items())
        yield Fact(f"{node.name} was called at", text or "nothing")

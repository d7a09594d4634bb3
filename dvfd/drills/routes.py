"""The ways between nodes: hops and the largest packet, compared with the way back and the others.

Which paths a library finds cannot be seen from a host (reading 25); that one pair's way is unlike
the others can. What the ranks do stands in `dvfd.drills.workers.routes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dvfd.drills import fleet
from dvfd.drills.drill import Fact, Ran, Remark, Trouble
from dvfd.errors import ProbeError
from dvfd.model import Sample

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.fleet import Answer

    Found = Sample | Remark | Trouble | Fact | Ran

DIFFERENCES = "network_route_differences"

NAME, MODULE = "routes", "dvfd.drills.workers.routes"

A_PAIR = 45.0
"""Seconds of a pair at the most: a halving of 65,535 bytes, each packet lost twice."""

Pair = tuple[str, str]


class Way(NamedTuple):
    """Hops, 1 on one network, and bytes of the largest packet that is not cut."""

    hops: int
    mtu: int

    def __str__(self) -> str:
        return f"{self.hops} hop{'s' if self.hops != 1 else ''}, {self.mtu} bytes"


class Routes:
    """The number of ordered pairs whose way is unlike."""

    name = "ways between nodes"
    metrics = (DIFFERENCES,)

    def exercises(self, task: Task) -> Sequence[fleet.Exercise]:
        """A few packets of every node to every other."""
        limit = 30.0 + A_PAIR * (fleet.nodes(task) - 1)
        return [fleet.Exercise(name=NAME, module=MODULE, seconds=limit)]

    def run(self, task: Task) -> Iterator[Found]:
        """One sample, and which pairs. Raises ProbeError, ToolError."""
        yield Ran(task.planned)
        answer = fleet.answer(task)
        ways, why = read(answer)
        yield from judged(ways, [n.name for n in answer.nodes], why, task.clock.now())


def read(answer: Answer) -> tuple[dict[Pair, Way], dict[Pair, str]]:
    """The ways that are known, and why the others are not. Raises ProbeError."""
    heard = answer.of(NAME)
    ways: dict[Pair, Way] = {}
    why: dict[Pair, str] = {}
    for node in answer.nodes:
        said = heard.values.get(node.ranks[0]) or {}
        for other in answer.nodes:
            if other.name != node.name:
                _take(ways, why, (node.name, other.name), said.get(other.name), heard.why)
    return ways, why


def _take(
    ways: dict[Pair, Way], why: dict[Pair, str], pair: Pair, row: Any, otherwise: str
) -> None:
    if row is None:
        why[pair] = otherwise or "nobody said anything of it"
        return
    try:
        if row["why"]:
            why[pair] = str(row["why"])
        elif row["hops"] is None:
            why[pair] = "no echo within 30 hops"
        else:
            ways[pair] = Way(int(row["hops"]), int(row["mtu"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"ways of the ranks: {error!r}: wanted what they write") from None


def judged(
    ways: Mapping[Pair, Way], names: Sequence[str], why: Mapping[Pair, str], at: float
) -> Iterator[Found]:
    """How many differ from the way back or from what most have."""
    odd = unlike(ways)
    if odd or not why:
        yield Sample(DIFFERENCES, float(len(odd)), at)
    for text in odd.values():
        yield Remark(DIFFERENCES, text)
    for (a, b), text in why.items():
        yield Trouble(DIFFERENCES, f"{a} -> {b}: {text}")
    usual = Counter(ways.values()).most_common(1)
    if usual:
        way, count = usual[0]
        yield Fact("ways between nodes", f"{way} between {count} of {len(ways)} ordered pairs")
    if len(names) < 3 and not odd:
        yield Remark(DIFFERENCES, "with two nodes only there and back are compared")


def unlike(ways: Mapping[Pair, Way]) -> dict[Pair, str]:
    """The ordered pairs whose way is not that of the way back or of most pairs, in words."""
    most, count = Counter(ways.values()).most_common(1)[0] if ways else (None, 0)
    decided = count > len(ways) / 2
    found = {}
    for (a, b), way in ways.items():
        back = ways.get((b, a))
        if back is not None and way != back:
            found[a, b] = f"{a} -> {b}: {way}; back {back}"
        elif decided and way != most:
            found[a, b] = f"{a} -> {b}: {way}; most have {most}"
    return found

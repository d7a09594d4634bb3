"""A rank of a test between nodes: `torchrun ... bare.py dvfd.drills.workers.fleet PLAN`.

They keep step through the store of torchrun's rendezvous and not through collectives, so that two
nodes which cannot reach each other do not end the test of the others. First every rank says who it
is and what speaks against the test; then come the exercises of the plan, one after the other, each
run by all ranks; at the end every node gets the same answer.

The plan is a JSON object, one file for each node: `check`, `answer` (a path), `node`, `nodes` (all
of the cluster, in its order), `lead` (one of their names), `ports`, `interface`, `facts` (what must
be the same everywhere), `objection`, `count` (of nodes), `kept` (a directory of this node that
outlasts the test), `processors` (of its ranks), `carried` (what it tells the others), and
`exercises`: each `name`, `module`, `options`, `seconds`. The exit code is always 0: with another
torchrun would stop the ranks that still have to tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from dvfd.drills import stopping
from dvfd.drills.workers.answer import write
from dvfd.drills.workers.line import Cut, Line, Lost, Missing

FINISHED = "dvfd-fleet: finished"
"""The line by which a rank says that this node's answer is written."""

JOINING = 120.0
"""Seconds for the ranks of all nodes to load torch once torchrun has started them."""

ENDING = 20.0
"""Seconds that the host of the store waits for the others to fetch the answer."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the test and its ranks, the first of which is its head."""

    name: str
    address: str
    interface: str
    ranks: tuple[int, ...]

    @property
    def head(self) -> int:
        """The rank that acts for the node."""
        return self.ranks[0]


@dataclass(frozen=True, slots=True)
class Place:
    """This rank among all, as torchrun numbers them."""

    rank: int
    size: int
    local: int

    @classmethod
    def given(cls) -> Place:
        """By the environment."""
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


class Crew:
    """All ranks of the test, as one of them sees them. One thread."""

    def __init__(self, line: Line, place: Place, plan: Mapping[str, Any]) -> None:
        self._line = line
        self._at = "start"
        self._met: dict[str, int] = {}
        self.rank, self.size, self.local = place.rank, place.size, place.local
        self.leads = place.rank == 0
        self.check = str(plan["check"])
        self.interface = str(plan["interface"])
        first, last = plan["ports"]
        self.ports = range(first, last + 1)
        self.kept = Path(plan["kept"])
        self.processors: list[int] = [int(cpu) for cpu in plan["processors"]]
        self.nodes: tuple[Node, ...] = ()
        self.carried = plan["carried"]
        self._lead = str(plan["lead"])
        self.node = -1
        self.head = place.local == 0

    @property
    def me(self) -> Node:
        """This rank's node."""
        return self.nodes[self.node]

    @property
    def heads(self) -> tuple[int, ...]:
        """The first rank of each node, in the order of nodes."""
        return tuple(node.head for node in self.nodes)

    @property
    def first(self) -> int:
        """The lead's first rank, which keeps what outlasts the test. Raises ValueError."""
        found = next((node.head for node in self.nodes if node.name == self._lead), None)
        if found is None:
            raise ValueError(f"{self._lead}, the lead of the cluster, did not come")
        return found

    def settle(self, nodes: Sequence[Node]) -> None:
        """Know all nodes, once their ranks have said where they are."""
        self.nodes = tuple(nodes)
        self.node = next(i for i, node in enumerate(nodes) if self.rank in node.ranks)

    def enter(self, exercise: str) -> None:
        """Begin *exercise*: what all meet at from now on is its own."""
        self._at, self._met = exercise, {}

    def say(self, text: str) -> None:
        """One line of progress, told by the first rank only."""
        if self.leads:
            say(text)

    def gather(
        self, key: str, value: Any = None, *, heads: bool = False, timeout: float = 60.0
    ) -> dict[int, Any]:
        """What every rank, or with *heads* every node's head, said at *key*, in each that calls.

        Each rank that is meant calls it, in the same order. Raises Missing, naming who did not come
        within *timeout* seconds, died, or gave the exercise up.
        """
        number = self._met[key] = self._met.get(key, 0) + 1
        place = f"{self._at}/{key}/{number}"
        who = self.heads if heads else range(self.size)
        self._line.put(f"{place}/{self.rank}", json.dumps(value))
        said = self._line.get(
            {rank: f"{place}/{rank}" for rank in who}, timeout, unless=f"{self._at}/gave up"
        )
        if isinstance(said, Lost):
            raise Missing(self._lost(said, key))
        return {rank: json.loads(text) for rank, text in said.items()}

    def step(self, key: str, *, heads: bool = False, timeout: float = 60.0) -> None:
        """Wait until all are here. Raises Missing."""
        self.gather(key, heads=heads, timeout=timeout)

    def whose(self, rank: int) -> str:
        """A rank and its node in words: `rank 5 (n2)`."""
        name = next((node.name for node in self.nodes if rank in node.ranks), "")
        return f"rank {rank} ({name})" if name else f"rank {rank}"

    def _lost(self, lost: Lost, key: str) -> str:
        if lost.gave_up is not None:
            rank, why = lost.gave_up
            return f"{self.whose(rank)} gave up: {why}"
        who = ", ".join(map(self.whose, lost.ranks))
        return f"{who} {lost.how} at {key!r}"

    def give_up(self, why: str) -> None:
        """Tell those who wait for this rank in the exercise that it does not come."""
        self._line.put(f"{self._at}/gave up", json.dumps([self.rank, why]), first=True)

    def outcomes(self, mine: Any, patience: float) -> dict[str, Any]:
        """Every rank's outcome of the exercise, which may last *patience* seconds more; of one that
        left none, why.
        """
        place = f"{self._at}/outcome"
        with contextlib.suppress(Cut):  # said of everybody below
            self._line.put(f"{place}/{self.rank}", json.dumps(mine))
        names = {rank: f"{place}/{rank}" for rank in range(self.size) if rank != self.rank}
        said, lost = self._line.collect(names, patience)
        found = {rank: json.loads(text) for rank, text in said.items()} | {self.rank: mine}
        found |= {rank: {"failed": f"{self.whose(rank)} {how}"} for rank, how in lost.items()}
        return {str(rank): found[rank] for rank in sorted(found)}


# --- The test -------------------------------------------------------------------------------------


def introduce(crew: Crew, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Know who is who: every node's own words, by name. Raises Missing, ValueError."""
    mine = {"local": crew.local, "node": plan["node"]}
    if crew.head:
        mine |= {k: plan[k] for k in ("facts", "objection", "interface")}
        mine |= {"torch": torch.__version__, "time": time.time(), "host": socket.gethostname()}
    said = crew.gather("who", mine, timeout=JOINING)
    ranks: dict[str, list[int]] = {}
    for rank, words in sorted(said.items()):
        ranks.setdefault(words["node"], []).append(rank)
    known = {node["name"]: node["address"] for node in plan["nodes"]}
    heads = {name: said[min(rows, key=lambda r: said[r]["local"])] for name, rows in ranks.items()}
    crew.settle(
        [
            Node(name, known[name], heads[name]["interface"], tuple(ranks[name]))
            for name in known
            if name in ranks
        ]
    )
    return heads


def objections(heads: Mapping[str, Mapping[str, Any]], count: int) -> list[str]:
    """Why the test is not made, in words that name the node."""
    found = [f"{name}: {words['objection']}" for name, words in heads.items() if words["objection"]]
    if len(heads) != count:
        found.append(f"{len(heads)} nodes came, {', '.join(sorted(heads))}; wanted {count}")
    names = sorted({key for words in heads.values() for key in words["facts"]})
    for key in [*names, "torch"]:
        values: dict[str, list[str]] = {}
        for name, words in heads.items():
            value = words["torch"] if key == "torch" else words["facts"].get(key, "not told")
            values.setdefault(str(value), []).append(name)
        if len(values) > 1:
            each = "; ".join(f"{', '.join(who)}: {value}" for value, who in values.items())
            found.append(f"{key} differs between the nodes: {each}")
    return found


def lease(line: Line, crew: Crew) -> str:
    """Why another test of this cluster keeps us from ours, or an empty string.

    It lies in the store that the cluster's lead hosts; who hosts it ends it.
    """
    place = os.environ.get("PET_RDZV_ENDPOINT", "")
    if not crew.leads or not place:
        return ""
    host, _, port = place.rpartition(":")
    mine = f"{crew.check}, rank 0 on {socket.gethostname()}, pid {os.getpid()}"
    try:
        store = distributed.TCPStore(  # type: ignore[attr-defined]  # it is there
            host.strip("[]"), int(port), is_master=False, timeout=timedelta(seconds=10)
        )
        holder = store.compare_set("dvfd/lease", "", mine).decode()
    except Exception as error:  # noqa: BLE001  # torch raises what it likes
        return f"the rendezvous at {place} cannot be asked for the lease: {words(error)}"
    line.keep(store)
    return "" if holder == mine else f"another test of this cluster is on: {holder}"


def perform(crew: Crew, exercise: Mapping[str, Any]) -> dict[str, Any]:
    """Do one exercise; what this rank found, or why it could not."""
    crew.enter(str(exercise["name"]))
    crew.say(f"{exercise['name']}, on {len(crew.nodes)} nodes")
    try:
        found = import_module(str(exercise["module"])).run(crew, exercise["options"])
        return {"value": json.loads(json.dumps(found, allow_nan=False))}
    except Missing as error:
        return {"failed": str(error)}
    except Exception as error:  # noqa: BLE001  # of one rank, told to all
        traceback.print_exc()
        with contextlib.suppress(Exception):  # who cannot tell is missed
            crew.give_up(words(error))
        return {"failed": words(error)}


def words(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip().partition("\n")[0][:500]
    return text if type(error).__module__.startswith("dvfd") else f"{type(error).__name__}: {text}"


def run(crew: Crew, line: Line, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The whole test: the answer, as this rank has it."""
    answer: dict[str, Any] = {"check": crew.check, "objections": [], "exercises": {}}
    try:
        heads = introduce(crew, plan)
        held = lease(line, crew)
        against = crew.gather("lease", held)
    except (Missing, KeyError, ValueError) as error:
        return answer | {"nodes": [], "objections": [words(error)]}
    found = [*objections(heads, plan["count"]), *filter(None, against.values())]
    nodes = [
        {"name": n.name, "address": n.address, "interface": n.interface, "ranks": list(n.ranks)}
        | {k: heads[n.name][k] for k in ("torch", "host", "facts")}
        for n in crew.nodes
    ]
    answer |= {"nodes": nodes, "objections": found}
    for exercise in () if found else plan["exercises"]:
        mine = perform(crew, exercise)
        answer["exercises"][exercise["name"]] = crew.outcomes(mine, exercise["seconds"])
    return answer


def say(text: str) -> None:
    """One line of progress on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(path: str) -> None:
    """Take part in the plan at *path*; the head of a node leaves the answer."""
    plan = json.loads(Path(path).read_text(encoding="utf-8"))
    place = Place.given()
    line = Line.of_torchrun(place.rank, place.size, patience=JOINING)
    crew = Crew(line, place, plan)
    answer = run(crew, line, plan)
    if crew.head:
        write(Path(plan["answer"]), answer)
        say(f"{FINISHED} {os.getppid()}")
    line.part(ENDING)


if __name__ == "__main__":
    main(sys.argv[1])
    stopping.leave(0)

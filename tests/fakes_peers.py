"""Nodes of a run without daemons: files, clocks, and a wire between them that may be cut. What goes
over it is what /api/v1/runs answers, as bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fakes import FakeClock
from fakes_sinks import snapshot

from dvfd.catalogue import load
from dvfd.config import Member, parse
from dvfd.errors import DvfdError
from dvfd.model import labels
from dvfd.remote import OPEN, Answer, data_in
from dvfd.runs.rows import Event, Minute, Row, What, Window
from dvfd.runs.run import Axis, Plan, Run
from dvfd.runs.served import Served
from dvfd.sinks import api
from dvfd.sinks.http import Request
from dvfd.state import NoPast
from dvfd.store.run_file import RunFile

PHASE2A = load(parse("[profile]\nnodes = 2\n")).checks["stability_phase2a"]


class Node:
    """One node with a run of its own: its file, its clock, what its daemon answers."""

    def __init__(self, directory: Path, name: str, *, boot: float = 1000.0, **run: Any) -> None:
        self.name = name
        self.clock = FakeClock(boot=boot)
        plan = Plan.of(PHASE2A, job="gpt", **run.pop("plan", {}))
        self.run = Run(
            id=f"run-of-{name}", plan=plan, node=name, armed_at=self.clock.now(),
            axis=Axis(boot_id="b", offset=-boot), **run,
        )  # fmt: skip
        self.file = RunFile.create(directory / name / f"{self.run.id}.db", {"id": self.run.id})
        self.done = self.stuck = False
        self.known = [self.run.id]
        self._served = Served(Conducts(self), self.file.path.parent, self.clock)  # type: ignore[arg-type]

    def t(self) -> float:
        return self.run.axis.t(self.clock.boot())

    def answer(self, url: str) -> Any:
        parts = urlsplit(url)
        request = Request("GET", parts.path, parts.query)
        made = api.response(request, snapshot, NoPast(), runs=self._served)
        at = self.clock.now()
        return data_in(Answer(made.status.value, made.body, at, at), url, OPEN)

    # What it records.
    def write(self, *rows: Row) -> None:
        events = [row for row in rows if not isinstance(row, Window)]
        windows = [row for row in rows if isinstance(row, Window)]
        self.file.add(events)
        assert self.file.receive("itself", windows, {})
        assert self.file.flush()

    def window(self, number: int = 0, rank: int = 4, **more: Any) -> Window:
        return Window(
            node=self.name, rank=rank, window=number, session="s", first_step=50 * number + 1,
            last_step=50 * number + 50, steps=50, began=self.t() - 25.0, ended=self.t(), **more,
        )  # fmt: skip

    def minute(self, number: int) -> Minute:
        return Minute(
            node=self.name, metric="node_memory_used_ratio", labels=labels(numa_node=0),
            minute=number, count=12, sum=6.0, low=0.5, high=0.5, last=0.5, covered=60.0,
        )  # fmt: skip

    def event(self, what: What = What.UP, **more: Any) -> Event:
        return Event(node=self.name, t=self.t(), at=self.clock.now(), what=what, **more)


class Conducts:
    """What a node's conductor answers; `stuck`: it no longer looks."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def runs(self) -> list[Run]:
        return [self._node.run] if self._node.known else []

    def run(self, run_id: str) -> Run:
        if run_id not in self._node.known:
            raise DvfdError(f"no run {run_id!r} is known here")
        return self._node.run

    def standing(self, run: Run) -> tuple[Run, float | None, bool]:
        node = self._node
        if not node.stuck:
            node.run = replace(node.run, seen_t=node.t())
        return node.run, node.t(), node.done


class Wire:
    """Between nodes: answers at once, after *delay* seconds of the asker's clock, or not at all."""

    def __init__(self, asker: Node, *nodes: Node) -> None:
        self._asker = asker
        self._nodes = {f"{node.name}:9109": node for node in nodes}
        self.cut: set[str] = set()
        self.delay = 0.0
        self.asked: list[str] = []
        self.spoil: Any = None

    def connect(self) -> Any:
        return self.get

    def get(self, url: str) -> Any:
        self.asked.append(url)
        node = self._nodes[urlsplit(url).netloc]
        if node.name in self.cut:
            raise DvfdError("[Errno 111] Connection refused")
        self.pass_time(self.delay / 2)
        found = node.answer(url)
        self.pass_time(self.delay / 2)
        return self.spoil(found) if self.spoil else found

    def pass_time(self, seconds: float) -> None:
        for node in (self._asker, *self._nodes.values()):
            node.clock.advance(seconds)


def member(node: Node) -> Member:
    return Member(name=node.name, address=node.name, url=f"http://{node.name}:9109")

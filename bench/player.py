"""Play recordings as many nodes: one process, one port of loopback, a path for each node.

`python -m bench.player --nodes 1000 --seconds 900 --targets FILE` writes the targets for
Prometheus' file_sd, with an `instance` of its own for each node, and ends by itself. A declared few
nodes are ill, each in its own way; see Condition.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.tape import Moment, Tape, load

PORT = 9109
"""In the names of instances only: all nodes share one real port."""

NODES_PER_JOB = 16

RECORDED_VERSION, OLDER = b'version="', b'version="0.0.9-older-than-'


class Condition(StrEnum):
    """How a node is."""

    WELL = "well"
    FAILING = "failing"  # a rank was killed: a recording of that
    BLIND = "blind"  # sources that should be there cannot be read: a recording of that
    STALE = "stale"  # answers, but with what was true an hour ago: its probes stand still
    SILENT = "silent"  # takes the connection and never answers
    BEHIND = "behind"  # runs an older version than the others


ILL = tuple(condition for condition in Condition if condition is not Condition.WELL)

STALE_FOR = 3600.0


@dataclass(frozen=True, slots=True)
class Node:
    """One simulated node."""

    name: str
    job: str
    scene: str
    seed: float
    condition: Condition

    @property
    def instance(self) -> str:
        """As Prometheus would call it."""
        return f"{self.name}:{PORT}"


def fleet(count: int, ill: int) -> list[Node]:
    """*count* nodes of which *ill* are ill in each way; half of the healthy ones have GPUs."""
    conditions = [condition for condition in ILL for _ in range(ill)]
    every = count // len(conditions) if conditions else count
    return [
        _node(index, conditions[index // every])
        if conditions and index % every == every // 2 and index // every < len(conditions)
        else _node(index, Condition.WELL)
        for index in range(count)
    ]


def _node(index: int, condition: Condition) -> Node:
    recorded = {Condition.FAILING: "failing", Condition.BLIND: "blind"}
    usual = "gpu-8" if index // NODES_PER_JOB % 2 else "cpu-4"
    name = f"node-{index + 1:04}"
    return Node(
        name=name,
        job=f"job-{index // NODES_PER_JOB:03}",
        scene=recorded.get(condition, usual),
        seed=random.Random(name).random(),
        condition=condition,
    )


def targets(nodes: Sequence[Node], port: int) -> list[dict[str, Any]]:
    """For Prometheus' file_sd."""
    return [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"instance": node.instance, "__metrics_path__": f"/{node.name}/metrics"},
        }
        for node in nodes
    ]


class Stage:
    """All nodes and the time at which playing began."""

    def __init__(self, nodes: Sequence[Node], since: float) -> None:
        self.nodes = {f"/{node.name}/metrics": node for node in nodes}
        self._tapes: dict[str, Tape] = {scene: load(scene) for scene in {n.scene for n in nodes}}
        self._since = since

    def exposition(self, node: Node, now: float) -> bytes:
        """What *node* says at *now*."""
        since = self._since
        if node.condition is Condition.STALE:
            since = now = self._since - STALE_FOR
        body = self._tapes[node.scene].play(Moment(node.seed, since, now))
        body = body.replace(b'training_job="train"', f'training_job="{node.job}"'.encode())
        if node.condition is Condition.BEHIND:
            body = body.replace(RECORDED_VERSION, OLDER)
        return body


class Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections: as much of it as a scrape needs."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pending = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connected."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request; a silent node's is never answered."""
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            head, _, self._pending = self._pending.partition(b"\r\n\r\n")
            answer = self._answer(head)
            if answer and self._transport:
                self._transport.write(answer)

    def _answer(self, head: bytes) -> bytes:
        node = self._stage.nodes.get(head.split(b" ", 2)[1].decode())
        if node is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if node.condition is Condition.SILENT:
            return b""
        body, packed = self._stage.exposition(node, time.time()), b""
        if b"gzip" in head:
            body, packed = gzip.compress(body, 1, mtime=0), b"Content-Encoding: gzip\r\n"
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            b"%sContent-Length: %d\r\n\r\n%s" % (packed, len(body), body)
        )


async def play(nodes: Sequence[Node], seconds: float, path: Path) -> None:
    """Listen on a free port, write the targets to *path*, and end after *seconds* or SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.call_later(seconds, ended.set)
    stage = Stage(nodes, time.time())
    server = await loop.create_server(lambda: Connection(stage), "127.0.0.1", 0, backlog=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        whole = path.with_suffix(".part")
        whole.write_text(json.dumps(targets(nodes, port)), encoding="utf-8")
        whole.replace(path)
        await ended.wait()


def main() -> None:
    """Play until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--ill", type=int, default=3, help="nodes that are ill, of each kind")
    parser.add_argument("--seconds", type=float, default=900.0, help="ends by itself after these")
    parser.add_argument("--targets", type=Path, required=True, help="file_sd file to write")
    options = parser.parse_args()
    nodes = fleet(options.nodes, options.ill)
    asyncio.run(play(nodes, options.seconds, options.targets))


if __name__ == "__main__":
    main()

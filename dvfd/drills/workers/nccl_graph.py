"""What NCCL says of the graphs that it chose: channels, what they go over, rings and trees.

It writes them to a file and to its log where the environment asks for it before the first
communicator is made.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

GRAPHS, LOG = "NCCL_GRAPH_DUMP_FILE", "NCCL_DEBUG_FILE"

PATTERNS = {"1": "balanced tree", "2": "split tree", "3": "tree", "4": "ring", "5": "NVLS"}
"""NCCL_TOPO_PATTERN_* of its src/include/graph.h."""

LINES = re.compile(r"NCCL INFO (Channel \d+/\d+ *:.*|Trees .*|\d+ coll channels.*|Using network.*)")

MOST = 12
"""Lines that are kept: the first channels show what all do."""


def ask(environment: MutableMapping[str, str]) -> None:
    """Have NCCL write what it chooses, unless somebody had it write elsewhere."""
    place = Path(tempfile.mkdtemp(prefix="dvfd-nccl-"))
    environment.setdefault(GRAPHS, str(place / "graphs.xml"))
    if "NCCL_DEBUG" not in environment:
        environment["NCCL_DEBUG"] = "INFO"
        environment.setdefault("NCCL_DEBUG_SUBSYS", "INIT,GRAPH,NET")
        environment.setdefault(LOG, str(place / "log.%p"))


def found() -> list[str]:
    """One line for each graph, and the rings and trees of the log; none if there is none."""
    lines = [*graphs(_text(os.environ.get(GRAPHS, "")))]
    log = os.environ.get(LOG, "").replace("%p", str(os.getpid()))
    lines += dict.fromkeys(match[1].strip() for match in LINES.finditer(_text(log)))
    return lines[:MOST]


def graphs(text: str) -> Iterator[str]:
    """The graphs of NCCL's file, in words: `ring: 2 channels, 40 GB/s by SYS, 12 GB/s by PIX`."""
    for match in re.finditer(r"<graph\s([^>]*)>", text):
        said = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
        if said.get("nchannels") == "0":  # looked for, and not there
            continue
        name = PATTERNS.get(said.get("pattern", ""), f"pattern {said.get('pattern', '?')}")
        inside, between = (
            f"{said.get(f'speed{where}', '?')} GB/s by {said.get(f'type{where}', '?')}"
            for where in ("intra", "inter")
        )
        count = said.get("nchannels", "?")
        yield f"{name}: {count} channels, {inside} on a node, {between} between nodes"


def _text(place: str) -> str:
    try:
        return Path(place).read_text(encoding="utf-8", errors="replace") if place else ""
    except OSError:
        return ""

"""The way to each other node: how many hops, and the largest packet that gets through whole.

`run` is an exercise of a crew; only the first rank of each node acts, all at once: a few packets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dvfd import shell
from dvfd.drills.workers.fleet import Crew
from dvfd.errors import ToolError

HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP before the payload of an echo, by version of IP."""

LEAST = {4: 576, 6: 1280}
"""Bytes that every link carries: RFC 791 and 8200."""

MOST = 65535

HOPS = 30

WAIT = "0.5"
"""Seconds for an echo: five thousand times what a round trip may take."""

TRIES = 2
"""A packet may be lost once."""


def run(crew: Crew, _options: Mapping[str, Any]) -> Any:
    """`hops` and `mtu` by the other node's name, or `why` there are none."""
    if not crew.head:
        return None
    others = [node for node in crew.nodes if node is not crew.me]
    return {node.name: route(node.address, _own(crew.interface)) for node in others}


def route(address: str, mtu: int) -> dict[str, Any]:
    """The way to *address* from an interface of *mtu* bytes."""
    try:
        if not _echo(address, []):
            return {"why": f"{address} does not answer an echo"}
        hops = next((n for n in range(1, HOPS + 1) if _echo(address, ["-t", str(n)])), None)
        return {"hops": hops, "mtu": largest(address, mtu), "why": ""}
    except ToolError as error:
        return {"why": str(error)}


def largest(address: str, mtu: int) -> int:
    """Bytes of the largest packet that arrives without being cut, *mtu* at the most."""
    version = 6 if ":" in address else 4

    def passes(size: int) -> bool:
        return _echo(address, ["-M", "do", "-s", str(size - HEADERS[version])])

    return widest(passes, LEAST[version], mtu)


def widest(passes: Callable[[int], bool], low: int, high: int) -> int:
    """The largest size up to *high* that *passes*, which *low* is taken to do."""
    if passes(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def _echo(address: str, options: list[str]) -> bool:
    """Whether an echo came from *address* itself, and not word of a router on the way."""
    for _ in range(TRIES):
        argv = ["ping", "-n", "-c", "1", "-W", WAIT, *options, address]
        output = shell.run(argv, timeout=10)
        if re.search(r"^\d+ bytes from .*time=", output.stdout, re.MULTILINE):
            return True
        if "message too long" in output.stderr.lower() + output.stdout.lower():
            return False
    return False


def _own(interface: str) -> int:
    with open(f"/sys/class/net/{interface}/mtu", encoding="ascii") as file:  # noqa: PTH123
        return min(MOST, int(file.read()))

"""Two hosts on this machine for the length of a scenario: network namespaces and one cable.

Nothing outside of them is touched; what a run that was killed left of them is removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "dvfd-part"

ADDRESSES = ("198.18.0.1", "198.18.0.2")
"""Of RFC 2544's network for benchmarks: on no route of anybody's."""

DEVICE = "eth0"

TOOL = 10.0


@dataclass(frozen=True, slots=True)
class Host:
    """One of them."""

    namespace: str
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        """What a command to run here stands behind."""
        return ("ip", "netns", "exec", self.namespace)


def missing(tools: tuple[str, ...] = ("ip", "nft")) -> str:
    """What is missing to make them and to cut them off, or nothing."""
    if os.geteuid() != 0:
        return "not root"
    lacking = [name for name in tools if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def pair() -> Iterator[tuple[Host, Host]]:
    """Two of them, which reach each other. Raises ToolError."""
    _sweep()
    base = f"{PREFIX}-{os.getpid()}"
    one, other = (Host(f"{base}-{i}", address) for i, address in enumerate(ADDRESSES, 1))
    try:
        for host in (one, other):
            _ip("netns", "add", host.namespace)
        cable = ["link", "add", DEVICE, "netns", one.namespace, "type", "veth"]
        _ip(*cable, "peer", "name", DEVICE, "netns", other.namespace)
        for host in (one, other):
            _ip("-n", host.namespace, "address", "add", f"{host.address}/30", "dev", DEVICE)
            for device in (DEVICE, "lo"):
                _ip("-n", host.namespace, "link", "set", device, "up")
        yield one, other
    finally:
        for host in (one, other):
            _remove(host.namespace)


def _sweep() -> None:
    for path in Path("/run/netns").glob(f"{PREFIX}-*"):
        owner = path.name.split("-")[2]
        if not Path("/proc", owner).exists():
            _remove(path.name)


def _remove(name: str) -> None:
    with contextlib.suppress(ToolError):
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(
            ["ip", *words], capture_output=True, text=True, timeout=TOOL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"ip {' '.join(words)}: {error}") from None
    if done.returncode:
        raise ToolError(f"ip {' '.join(words)}: {done.stderr.strip()[:200]}")

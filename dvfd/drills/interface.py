"""Which network interface Gloo takes on this node, and whether it can carry the ranks."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dvfd.drills.drill import Fact, Remark
from dvfd.drills.interpreter import BARE, last_words, read_answer
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dvfd.drills.drill import Task, Trouble

VARIABLE = "GLOO_SOCKET_IFNAME"

RESOLVING = 30.0
"""Seconds for the node to find its own name: a resolver asks three servers for 5 s each, twice."""

PHYSICAL = "device"
"""The link in /sys/class/net/NAME that virtual interfaces (docker0, veth, bridges) lack."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One of this node's."""

    name: str
    up: bool
    addresses: tuple[str, ...]

    @property
    def loopback(self) -> bool:
        """Whether nothing leaves the node by it."""
        return self.name == "lo" or (bool(self.addresses) and all(map(is_loopback, self.addresses)))


@dataclass(frozen=True, slots=True)
class Choice:
    """What Gloo takes: the interfaces by name, and how it came to them, in words."""

    names: tuple[str, ...]
    named: bool  # by a person
    how: str


def interfaces() -> dict[str, Interface]:
    """This node's interfaces by name, with their IPv4 and IPv6 addresses."""
    states = psutil.net_if_stats()
    found = {}
    for name, entries in psutil.net_if_addrs().items():
        inet = [e.address for e in entries if e.family in (socket.AF_INET, socket.AF_INET6)]
        up = name in states and states[name].isup
        found[name] = Interface(name, up, tuple(a.partition("%")[0] for a in inet))
    return found


def is_loopback(address: str) -> bool:
    """Whether *address* is one that never leaves its node."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def chosen(
    task: Task, there: Mapping[str, Interface], environ: Mapping[str, str] | None = None
) -> Choice:
    """The interfaces that Gloo takes in our own environment. Raises ProbeError, ToolError."""
    said = (os.environ if environ is None else environ).get(VARIABLE, "")
    if said:
        return Choice(tuple(said.split(",")), True, f"{VARIABLE}={said}")
    answer = task.memo.get(("address",), lambda: _ask(task), task.clock)
    address = answer["address"]
    name = next((i.name for i in there.values() if address in i.addresses), "")
    if not name and is_loopback(address):  # Debian's 127.0.1.1 is on no interface, and binds
        name = next((i.name for i in there.values() if i.loopback), "")
    if not name:
        raise ProbeError(f"{address}, the address of {answer['host']}, is on no interface")
    why = f"{VARIABLE} is not set, so by the node's own name: {answer['host']} is {address}"
    if answer["why"]:
        why = f"{VARIABLE} is not set and {answer['host']} has no usable address ({answer['why']})"
    return Choice((name,), False, why)


def _ask(task: Task) -> dict[str, str]:
    answer = Path(tempfile.mkdtemp(dir=task.scratch)) / "address.json"
    command = [sys.executable, str(BARE), "dvfd.drills.workers.address", str(answer)]
    output = task.run(command, timeout=RESOLVING)
    if output.code:
        raise ProbeError(f"the node's own name: {last_words(output)}")
    said = read_answer(answer)
    if not {"host", "address", "why"} <= said.keys():
        raise ProbeError(f"the node's own name: the answer lacks something: {said}")
    return {name: str(value) for name, value in said.items()}


def faults(choice: Choice, there: Mapping[str, Interface], *, nodes: int) -> list[str]:
    """Why the ranks cannot talk by what was chosen; empty if they can."""
    found = []
    for name in choice.names:
        interface = there.get(name)
        if interface is None:
            hint = ", and Gloo takes plain names, no patterns" if name.strip("^ =") != name else ""
            found.append(f"no interface {name!r}{hint}; there are {', '.join(sorted(there))}")
        elif not interface.up:
            found.append(f"{name} is down: ip link set {name} up")
        elif not interface.addresses:
            found.append(f"{name} has no address: ip address add ADDRESS/PREFIX dev {name}")
        elif nodes > 1 and interface.loopback:
            found.append(
                f"{name} reaches no other of the {nodes} nodes: export {VARIABLE}=NAME, or give "
                "this node's name its real address in /etc/hosts"
            )
    return found


def virtual(choice: Choice, task: Task) -> list[str]:
    """Those of *choice* that are no port of this node, loopback apart: a bridge, a tunnel."""
    net = task.sys / "class/net"
    return [n for n in choice.names if n != "lo" and not (net / n / PHYSICAL).exists()]


class GlooInterface:
    """Exists, is up, has an address, and one that the other nodes reach if there are any."""

    name = "interface"
    metrics = ("environment_correct",)

    def __init__(
        self,
        *,
        there: Callable[[], Mapping[str, Interface]] = interfaces,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._there = there
        self._environ = environ

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """One sample, and which interface it is. Raises ProbeError, ToolError."""
        there = self._there()
        where = labels(part="interface")
        choice = chosen(task, there, self._environ)
        yield Fact("Gloo's interface", f"{', '.join(choice.names)}: {choice.how}")
        wrong = faults(choice, there, nodes=task.config.profile.nodes)
        yield Sample("environment_correct", float(not wrong), task.clock.now(), where)
        if wrong:
            yield Remark("environment_correct", f"{choice.how}: {'; '.join(wrong)}", where)
        elif task.config.profile.nodes > 1 and (odd := virtual(choice, task)):
            text = f"{choice.how}: {', '.join(odd)} is no port of this node: is it the right one?"
            yield Remark("environment_correct", text, where)

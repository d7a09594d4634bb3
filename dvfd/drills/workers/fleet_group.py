"""The ranks of a crew as a process group of the profile's backend: made once for all exercises.

Before a rank enters, all tell each other what keeps them out: who waits for others in a group that
cannot come to be waits for minutes.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import MutableMapping
from datetime import timedelta
from functools import cache
from typing import Any

from torch import distributed

from dvfd.drills import world
from dvfd.drills.workers import nccl_graph
from dvfd.drills.workers.fleet import Crew
from dvfd.drills.workers.line import Missing
from dvfd.drills.world import World

VARIABLES = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}

LOOPBACK = 0x8  # IFF_LOOPBACK, include/uapi/linux/if.h
SIOCGIFFLAGS = 0x8913

ENTERING = 30.0
"""Seconds to find each other, once all are there, and of a collective that has no limit of its own:
torchrun gives the ranks of a node that lost one as long."""

LATER = 2.0
"""Seconds after its timeout in which a rank may notice a broken collective."""

_broken: list[str] = []


class NoGroup(Exception):
    """The ranks cannot be a process group; the message says why, by node."""


def join(crew: Crew, backend: str, *, timeout: float = ENTERING, led: bool = False) -> World:
    """Enter the group, over the crew's interface unless the environment names another.

    *timeout*: of its collectives, in seconds. Where it is *led* the ranks count from the lead's
    first one. Raises NoGroup, Missing, ValueError without a lead, and RuntimeError, torch's own.
    """
    rank = (crew.rank - crew.first) % crew.size if led else crew.rank
    name = over(os.environ, VARIABLES[backend], crew.interface)
    why = "; ".join(_broken) or (unfit(name, len(crew.nodes)) if backend == "gloo" else "")
    said = crew.gather("a group", f"{crew.me.name}: {why}" if why else "")
    if reasons := dict.fromkeys(filter(None, said.values())):
        raise NoGroup("; ".join(reasons))
    return _enter(backend, timeout, rank)


@cache
def _enter(backend: str, timeout: float, rank: int) -> World:
    if backend == "nccl":
        nccl_graph.ask(os.environ)
    return world.join(backend, timeout=timeout, rank=rank)


def over(environment: MutableMapping[str, str], variable: str, interface: str) -> str:
    """The interface that the backend takes, set in *environment* if nobody did."""
    if interface and not environment.get(variable):
        environment[variable] = interface
    return environment.get(variable, "")


def unfit(names: str, nodes: int) -> str:
    """Why Gloo cannot reach other nodes over the interfaces *names*, or an empty string."""
    for name in filter(None, names.split(",")):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                found = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("256s", name.encode()))
            except OSError:
                known = ", ".join(known for _, known in socket.if_nameindex())
                return f"GLOO_SOCKET_IFNAME={names}: there is no {name}, wanted one of {known}"
        if nodes > 1 and struct.unpack_from("16xH", found)[0] & LOOPBACK:
            return f"GLOO_SOCKET_IFNAME={names}: {name} never leaves this node"
    return ""


# --- When it breaks ---------------------------------------------------------------------------


def witness() -> Any:
    """A group of all ranks in reserve: the one that broke can tell nothing more."""
    return distributed.new_group(backend="gloo", timeout=timedelta(seconds=ENTERING))


def broke(crew: Crew, group: Any, error: BaseException, at: str, *, patience: float) -> str:
    """What is known of a collective that broke *at* something: its own words, and who is missing,
    of those that stand still by torch's `monitored_barrier`, which tells rank 0 alone.

    Nobody enters the group again. *patience*: the timeout of the collective, by which the others
    notice too.
    """
    why = f"{at}: {brief(error)}"
    _broken.append(f"the group broke before, {why}")
    try:
        distributed.monitored_barrier(
            group, timedelta(seconds=patience + LATER), wait_all_ranks=True
        )
    except RuntimeError as missed:
        if "failed to pass" in str(missed):
            why = f"{why}; {brief(missed)}"
    try:
        crew.step("after it broke", timeout=3 * (patience + LATER))  # they noticed, and looked too
    except Missing as lost:
        why = f"{lost}; {why}"
    return why


def brief(error: BaseException) -> str:
    """What Gloo says, without the place in its sources and its good wishes."""
    said = str(error).partition("\n")[0].partition(". This is typically")[0]
    return re.sub(r"^\[/\S+\] ", "", said)

"""The ranks of a crew as a process group of the profile's backend: made once for all exercises.

Before a rank enters, all tell each other what keeps them out: who waits for others in a group that
cannot come to be waits for minutes.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import MutableMapping
from datetime import timedelta
from functools import cache
from typing import Any

from torch import distributed

from dvfd.drills import world
from dvfd.drills.workers import nccl_graph
from dvfd.drills.workers.collective import JOINING
from dvfd.drills.workers.fleet import Crew
from dvfd.drills.world import World

VARIABLES = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}

LOOPBACK = 0x8  # IFF_LOOPBACK, include/uapi/linux/if.h
SIOCGIFFLAGS = 0x8913

LATER = 2.0
"""Seconds after its timeout in which a rank may notice a broken collective."""

_broken: list[str] = []


class NoGroup(Exception):
    """The ranks cannot be a process group; the message says why, by node."""


def join(crew: Crew, backend: str) -> World:
    """Enter the group, over the crew's interface unless the environment names another.

    Raises NoGroup, Missing, and RuntimeError, torch's own.
    """
    name = over(os.environ, VARIABLES[backend], crew.interface)
    why = "; ".join(_broken) or (unfit(name, len(crew.nodes)) if backend == "gloo" else "")
    said = crew.gather("a group", f"{crew.me.name}: {why}" if why else "")
    if reasons := dict.fromkeys(filter(None, said.values())):
        raise NoGroup("; ".join(reasons))
    return _enter(backend)


@cache
def _enter(backend: str) -> World:
    if backend == "nccl":
        nccl_graph.ask(os.environ)
    return world.join(backend, timeout=JOINING)


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
    return distributed.new_group(backend="gloo", timeout=timedelta(seconds=JOINING))


def broke(group: Any, why: str, *, patience: float) -> str:
    """*why* with the ranks that `monitored_barrier` finds missing, if it finds any and this is rank
    0. Nobody enters the group again. *patience*: the timeout of the collective, by which the others
    notice too.
    """
    _broken.append(f"the group broke before, {why}")
    try:
        distributed.monitored_barrier(
            group, timedelta(seconds=patience + LATER), wait_all_ranks=True
        )
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        if "failed to pass" in said:
            return f"{why}; {said}"
    return why

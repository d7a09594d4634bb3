"""The nodes that train together: which of them this is, and what torchrun is told of them.

torchrun reads its options from PET_* variables: they let the framework's bare `torchrun --nnodes=2`
lines find the other nodes. Without them such a line waits and says nothing.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from dvfd.errors import ConfigError, DvfdError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dvfd.config import Cluster, Config, Member
    from dvfd.drills.interface import Interface

EXAMPLE = '[cluster] lead = "n1" and a [[cluster.nodes]] with name and address for each node'

VARIABLES = (
    "PET_RDZV_BACKEND", "PET_RDZV_ENDPOINT", "PET_RDZV_ID", "PET_RDZV_CONF", "PET_LOCAL_ADDR",
    "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME",
)  # fmt: skip
"""Every name that `environment` may set."""

RESOLVING = 15.0
"""Seconds for a name to become an address: a resolver asks three servers for 5 s each."""


def here(config: Config) -> Member:
    """This node's own entry. Raises ConfigError where there is none."""
    name, cluster = config.node.name, config.cluster
    if not cluster.nodes:
        raise ConfigError([f"{config.origin}: [cluster] has no nodes: wanted {EXAMPLE}"])
    if (found := cluster.named(name)) is None:
        known = ", ".join(node.name for node in cluster.nodes)
        raise ConfigError(
            [f"{config.origin}: node.name is {name!r}: wanted a node of the cluster, {known}"]
        )
    return found


def lead(cluster: Cluster) -> Member:
    """The node that judges what is of all nodes; wanted where there are nodes."""
    found = cluster.named(cluster.lead)
    assert found is not None, "a configuration has its lead among its nodes"
    return found


def interface(cluster: Cluster, addresses: Iterable[str], there: Mapping[str, Interface]) -> str:
    """The name of the interface to train over: the configured one, else the one that carries one
    of *addresses*, ours; empty if none of *there* does.
    """
    if cluster.interface:
        return cluster.interface
    wanted = set(addresses)
    return next((i.name for i in there.values() if wanted.intersection(i.addresses)), "")


def unfit(
    over: str, me: Member, addresses: Collection[str], there: Mapping[str, Interface]
) -> list[str]:
    """Why the interface *over* does not lead to the other nodes from *me*; empty if it may."""
    known = ", ".join(sorted(there))
    if not over:
        text = f"no interface here carries {me.address}, and Gloo takes one by itself"
        return [f"{text}: wanted [cluster] interface, one of {known}"] if addresses else []
    if over not in there:
        return [f"there is no interface {over!r} here: wanted one of {known}"]
    found = there[over]
    if not found.up:
        return [f"{over} is down: ip link set {over} up"]
    if found.loopback:
        wanted = "wanted an address on the training network, not 127.0.1.1 in /etc/hosts"
        return [f"{me.address} is on {over} and never leaves this node: {wanted}"]
    if addresses and not set(addresses) & set(found.addresses):
        carried = ", ".join(found.addresses) or "none"
        return [f"{over} carries {carried}, and {me.name} is {', '.join(addresses)}"]
    return []


def environment(cluster: Cluster, me: Member, *, run: str, over: str) -> dict[str, str]:
    """What makes a torchrun of *me* meet those of the other nodes, all of the same name *run*.

    *over* is the interface to train over, or empty. Without `is_host` a lead whose address is not
    its host's own name does not know itself, and everybody waits.
    """
    led = lead(cluster)
    wait = round(cluster.wait)
    conf = {"is_host": int(me == led), "join_timeout": wait, "read_timeout": wait}
    return {
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": endpoint(led.address, cluster.port),
        "PET_RDZV_ID": run,
        "PET_RDZV_CONF": ",".join(f"{key}={value}" for key, value in conf.items()),
        "PET_LOCAL_ADDR": me.address,
        **({"GLOO_SOCKET_IFNAME": over, "NCCL_SOCKET_IFNAME": f"={over}"} if over else {}),
    }


def endpoint(address: str, port: int) -> str:
    """`address:port`, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def resolved(name: str, *, within: float = RESOLVING) -> list[str]:
    """The addresses of *name*, or the address that it is.

    Raises DvfdError if it has none, or if nobody says so *within* seconds.
    """
    found: list[str] = []
    why = [f"nobody says what {name} is within {within:g} s"]

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why[0] = f"{name} does not resolve: {getattr(error, 'strerror', '') or error}"
            return
        found.extend(dict.fromkeys(str(place[0]) for *_, place in answers))

    thread = threading.Thread(target=ask, daemon=True)  # a resolver can be neither asked nor ended
    thread.start()
    thread.join(within)
    if not found:
        raise DvfdError(why[0])
    return list(found)

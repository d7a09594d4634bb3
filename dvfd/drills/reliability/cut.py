"""A partition as nftables does it: the job's packets between this host and others are dropped.

Only TCP between two ports that are handed out to programs (ip_local_port_range) is: that is what
ranks have to each other. A rendezvous, a login and a scrape have a fixed port at one end and stay.
The kernel itself forgets whom to drop after a time, though everybody who could tell it be killed.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.drills.reliability.harm import Harm

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "dvfd_partition"

MARGIN = 5
"""Seconds after the fuse's own deadline at which the kernel heals."""


SERVED = 32768
"""Ports below are for services: there Linux, and each new network namespace, hands none out."""


def mixed(proc: Path = Path("/proc")) -> str:
    """Why a cut on this host would drop more than the job's packets, or not all of them; nothing
    where it would not.
    """
    low, high = _handed_out(proc)
    if low >= SERVED:
        return ""
    return f"ip_local_port_range is {low} {high}, where services listen: wanted from {SERVED} on"


def _handed_out(proc: Path) -> tuple[int, int]:
    low, high = (proc / "sys/net/ipv4/ip_local_port_range").read_text("utf-8").split()
    return int(low), int(high)


def cut(
    peers: Iterable[str],
    seconds: float,
    *,
    within: tuple[str, ...] = (),
    proc: Path = Path("/proc"),
) -> Harm:
    """The harm that nothing of the job's goes to and from *peers*, addresses, for so long.

    *within* is put before commands, to run them on another host of this machine.
    """
    low, high = _handed_out(proc)
    low = max(low, SERVED)
    wanted = sorted({ip_address(peer) for peer in peers}, key=str)
    rules = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}"]
    ports = f"tcp sport {low}-{high} tcp dport {low}-{high} drop"
    for hook in ("input", "output"):
        chain = f"{{ type filter hook {hook} priority -10 ; }}"
        rules.append(f"add chain inet {TABLE} {hook} {chain}")
    for version in sorted({each.version for each in wanted}):
        kind, family = ("ipv4_addr", "ip") if version == 4 else ("ipv6_addr", "ip6")
        name = f"peers{version}"
        rules.append(f"add set inet {TABLE} {name} {{ type {kind} ; flags timeout ; }}")
        mine = ", ".join(
            f"{each} timeout {int(seconds) + MARGIN}s" for each in wanted if each.version == version
        )
        rules.append(f"add element inet {TABLE} {name} {{ {mine} }}")
        rules.append(f"add rule inet {TABLE} input {family} saddr @{name} {ports}")
        rules.append(f"add rule inet {TABLE} output {family} daddr @{name} {ports}")
    return Harm(
        words=f"packets of the job to and from {', '.join(map(str, wanted))} dropped",
        seconds=seconds,
        harm=((*within, "nft", " ; ".join(rules)),),
        heal=((*within, "nft", f"delete table inet {TABLE}"),),
    )

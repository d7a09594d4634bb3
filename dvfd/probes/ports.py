"""The counters of network ports, as sysfs shows them: Ethernet interfaces, InfiniBand ports.

Which ports are looked at: those that the profile names; without such a list, the physical ones
that are switched on (an interface up, an InfiniBand port active) or were, since the daemon
started; where none is, the interfaces that carry a default route.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Collection

IFF_UP = 0x1
"""Switched on by the administrator: netdevice(7)."""

MEGA = 1e6
"""`speed` is in Mbit/s: Documentation/ABI/testing/sysfs-class-net."""

GIGA = 1e9
"""`rate` of an InfiniBand port is in Gbit/s."""

WORD = 4
"""InfiniBand counts its data in words of 4 octets: ABI/stable/sysfs-class-infiniband."""

ERRORS = ("rx_errors", "tx_errors", "rx_crc_errors", "rx_fifo_errors", "tx_fifo_errors")
"""Drivers count one event under several of these: their sum is exact at zero only."""

DROPS = ("rx_dropped", "tx_dropped", "rx_missed_errors")

IB_ERRORS = (
    # Without symbol_error: a healthy link has some, within its bit error rate.
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "port_rcv_constraint_errors",
    "port_xmit_constraint_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "link_error_recovery",
    "link_downed",
)

IB_DROPS = ("port_xmit_discards", "VL15_dropped")


@dataclass(frozen=True, slots=True)
class Port:
    """A port's counters now. `speed` is in bits per second, None if the driver does not know."""

    name: str
    up: bool
    received: int
    sent: int
    errors: int
    drops: int
    speed: float | None


class Ports:
    """Finds the ports to look at, and remembers those that were switched on once."""

    def __init__(self, named: Collection[str], *, proc: Path, sys: Path) -> None:
        self._named = tuple(named)
        self._proc = proc
        self._net = sys / "class/net"
        self._infiniband = sys / "class/infiniband"
        self._seen: dict[str, None] = {}
        self._virtual: set[str] = set()

    def read(self, problems: list[str]) -> list[Port]:
        """Every port's counters; what cannot be read goes to *problems*."""
        found = [self._read(name, problems) for name in self._choose(problems)]
        return [port for port in found if port]

    def _choose(self, problems: list[str]) -> list[str]:
        there = [*files.names(self._net), *infiniband_names(self._infiniband)]
        if self._named:
            chosen, missing = named(self._named, there)
            problems += [f"{name} of the profile is not there, found {there}" for name in missing]
            return chosen
        self._virtual.intersection_update(there)
        self._seen |= dict.fromkeys(name for name in there if self._is_on(name))
        chosen = list(self._seen) or self._routed()
        if not chosen:
            problems.append(
                f"no physical interface is up under {self._net} and none has a default route: "
                f"found {there}: name the links in profile.interfaces"
            )
        return chosen

    def _is_on(self, name: str) -> bool:
        if ":" in name:
            return infiniband_state(self._infiniband, name) == "ACTIVE"
        if name in self._virtual:
            return False
        place = self._net / name
        if not (place / "device").exists():
            self._virtual.add(name)  # containers bring hundreds of these
            return False
        return bool(_flags(place) & IFF_UP)

    def _routed(self) -> list[str]:
        """Interfaces with a default route, IPv4 or IPv6."""
        v4 = [line.split() for line in files.text_or(self._proc / "net/route").splitlines()]
        v6 = [line.split() for line in files.text_or(self._proc / "net/ipv6_route").splitlines()]
        default = [f[0] for f in v4 if len(f) > 7 and f[1] == f[7] == "00000000"]
        default += [f[9] for f in v6 if len(f) > 9 and f[0] == "0" * 32 and f[1] == "00"]
        return [name for name in dict.fromkeys(default) if name != "lo"]

    def _read(self, name: str, problems: list[str]) -> Port | None:
        try:
            if ":" in name:
                return read_infiniband(self._infiniband, name)
            return read_interface(self._net, name)
        except ProbeError as error:
            problems.append(str(error))
            return None


def named(wanted: Collection[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """(chosen, missing): an adapter's name (`mlx5_0`) stands for each of its ports."""
    chosen = [n for n in there if n in wanted or (":" in n and n.partition(":")[0] in wanted)]
    covered = {*chosen, *(n.partition(":")[0] for n in chosen)}
    return chosen, [n for n in wanted if n not in covered]


def read_interface(net: Path, name: str) -> Port:
    """An Ethernet or IP interface. Raises ProbeError."""
    place = net / name
    counters = f"{place}/statistics/"
    return Port(
        name,
        # `carrier` cannot be read while the interface is switched off.
        up=bool(_flags(place) & IFF_UP) and files.text_or(f"{place}/carrier", "0") == "1",
        received=files.number(counters + "rx_bytes"),
        sent=files.number(counters + "tx_bytes"),
        errors=sum(files.number(counters + counter) for counter in ERRORS),
        drops=sum(files.number(counters + counter) for counter in DROPS),
        speed=_speed(files.text_or(f"{place}/speed")),
    )


def _flags(place: Path) -> int:
    with contextlib.suppress(ValueError):
        return int(files.text_or(f"{place}/flags", "0"), 16)
    return 0


def _speed(text: str) -> float | None:
    """Bits per second; None for -1, 0 and what a driver refuses to say."""
    with contextlib.suppress(ValueError):
        return float(text) * MEGA if float(text) > 0 else None
    return None


def infiniband_names(infiniband: Path) -> list[str]:
    """`ADAPTER:PORT` for every port."""
    return [
        f"{adapter}:{port}"
        for adapter in files.names(infiniband)
        for port in files.names(infiniband / adapter / "ports", r"\d+")
    ]


def infiniband_state(infiniband: Path, name: str) -> str:
    """ACTIVE, DOWN, ...: the file says `4: ACTIVE`."""
    return files.text_or(_port(infiniband, name) / "state").rpartition(" ")[2]


def read_infiniband(infiniband: Path, name: str) -> Port:
    """A port of an InfiniBand or RoCE adapter: RDMA passes by the interface's own counters.

    Raises ProbeError. Adapters differ in the error counters they have; absent ones count as 0.
    """
    place = _port(infiniband, name)
    counters = place / "counters"
    there = set(files.names(counters))
    return Port(
        name,
        up=infiniband_state(infiniband, name) == "ACTIVE",
        received=files.number(counters / "port_rcv_data") * WORD,
        sent=files.number(counters / "port_xmit_data") * WORD,
        errors=sum(files.number(counters / c) for c in IB_ERRORS if c in there),
        drops=sum(files.number(counters / c) for c in IB_DROPS if c in there),
        speed=_rate(files.text_or(place / "rate")),
    )


def _port(infiniband: Path, name: str) -> Path:
    adapter, _, port = name.partition(":")
    return infiniband / adapter / "ports" / port


def _rate(text: str) -> float | None:
    """Bits per second from `400 Gb/sec (4X NDR)`."""
    value = text.partition(" ")[0]
    with contextlib.suppress(ValueError):
        return float(value) * GIGA if float(value) > 0 else None
    return None

"""What a node's kernel and card count of its traffic, and how much that grew. Judges nothing.

Every counter has one name: `interface/rx_dropped`, `card/rx_discards_phy`, `tcp/RetransSegs`,
`softnet/dropped`. What this machine does not count is not there.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ETHTOOL = ("discard", "drop", "error", "pause", "crc", "timeout", "out_of_buffer")
"""Parts of the names of a card's counters that are of interest: drivers have hundreds."""


def counters(
    interface: str, *, proc: Path = Path("/proc/self"), sys: Path = Path("/sys")
) -> dict[str, int]:
    """All of now."""
    net = sys / "class/net" / interface
    return {
        **dict(_files(net / "statistics", "interface")),
        **dict(_carrier(net)),
        **dict(_card(interface)),
        **dict(_tables(proc / "net/snmp")),
        **dict(_tables(proc / "net/netstat")),
        **dict(_softnet(proc / "net/softnet_stat")),
    }


def speed(interface: str, sys: Path = Path("/sys")) -> int | None:
    """Mbit/s of the port as its driver says, None if it does not know: it says -1 or nothing."""
    try:
        found = int((sys / "class/net" / interface / "speed").read_text())
    except (OSError, ValueError):
        return None
    return found if found > 0 else None


def physical(interface: str, sys: Path = Path("/sys")) -> bool:
    """Whether there is a card behind it, or behind what it lies on, as a bond or a VLAN does.

    veth has none, and says 10 Gbit/s whatever it gives.
    """
    net = sys / "class/net" / interface
    return (net / "device").exists() or any(net.glob("lower_*/device"))


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """How much each counter that both have grew; one that fell was reset, and stays negative."""
    return {name: after[name] - count for name, count in before.items() if name in after}


def _files(directory: Path, kind: str) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            with contextlib.suppress(OSError, ValueError):
                yield f"{kind}/{path.name}", int(path.read_text())


def _carrier(net: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError, ValueError):
        yield "interface/carrier_changes", int((net / "carrier_changes").read_text())


def _card(interface: str) -> Iterator[tuple[str, int]]:
    """`ethtool -S`, whose lines are `     name: number`."""
    if not (tool := shutil.which("ethtool", path="/usr/sbin:/sbin:/usr/bin:/bin")):
        return
    done = subprocess.run(
        [tool, "-S", interface], capture_output=True, text=True, check=False, timeout=20
    )
    for line in done.stdout.splitlines():
        name, _, value = line.strip().rpartition(":")
        if any(part in name for part in ETHTOOL) and value.strip().isdigit():
            yield f"card/{name}", int(value)


def _tables(path: Path) -> Iterator[tuple[str, int]]:
    """/proc/net/snmp and netstat: a line of names, then one of values, both with the protocol."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        kind, *keys = names.split()
        for key, value in zip(keys, values.split()[1:], strict=False):
            with contextlib.suppress(ValueError):
                yield f"{kind.removesuffix(':').lower()}/{key}", int(value)


def _softnet(path: Path) -> Iterator[tuple[str, int]]:
    """The second column, hexadecimal, of all processors: packets for which a queue had no room."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = [line.split() for line in path.read_text().splitlines()]
        yield "softnet/dropped", sum(int(row[1], 16) for row in rows)

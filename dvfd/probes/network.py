"""Traffic, faults and saturation of the node's links, and TCP's retransmissions.

Saturation is traffic over the speed that the link negotiated, so that a 400 Gbit/s port that came
up at 10 shows as full when it is. The profile's link_gbps never fills in for a speed that the
driver does not know (virtual interfaces): there is then no saturation, and `gaps` says why.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.model import Labels, Sample, labels
from dvfd.probes import files
from dvfd.probes.ports import Port, Ports

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dvfd.model import Clock

WINDOW = 60.0
"""Seconds that tcp_retransmit_ratio looks back: by its definition in checks/metrics.toml."""

FEWEST = 1000
"""Segments below which the ratio is not formed: by its definition; one retransmission in a few
hundred says nothing of a limit of 1e-6."""

BITS = 8
"""In a byte: counters are in bytes, link speeds in bits per second."""


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP's counters at boot time `boot`."""

    boot: float
    sent: int
    again: int


class Network:
    """Link counters by interface, and TCP's for the node."""

    name = "network"
    metrics = (
        "network_receive_bytes_total",
        "network_transmit_bytes_total",
        "network_saturation_ratio",
        "network_up",
        "network_errors_total",
        "network_drops_total",
        "tcp_segments_sent_total",
        "tcp_segments_retransmitted_total",
        "tcp_retransmit_ratio",
    )
    deadline = 0.0

    def __init__(
        self,
        *,
        clock: Clock,
        interfaces: Collection[str] = (),
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        interval: float = 5.0,
    ) -> None:
        self.interval = interval
        self.gaps: dict[str, str] = {}
        self._clock = clock
        self._proc = proc
        self._ports = Ports(interfaces, proc=proc, sys=sys)
        self._before: dict[str, tuple[float, Port]] = {}
        self._segments: deque[Segments] = deque()

    def sample(self, at: float) -> Iterator[Sample]:
        """All that can be read; then ProbeError for the rest."""
        problems: list[str] = []
        ports = self._ports.read(problems)
        boot = self._clock.boot()
        for port in ports:
            where = labels(interface=port.name)
            yield from counters(port, at, where)
            before = self._before.get(port.name)
            if before and (ratio := saturation(before[1], port, boot - before[0])) is not None:
                yield Sample("network_saturation_ratio", ratio, at, where)
            self._before[port.name] = (boot, port)
        self.gaps = speedless(ports)
        try:
            yield from self._tcp(at)
        except ProbeError as error:
            problems.append(str(error))
        files.raise_all(problems)

    def _tcp(self, at: float) -> Iterator[Sample]:
        now = segments(files.text(self._proc / "net/snmp"), self._clock.boot())
        yield Sample("tcp_segments_sent_total", now.sent, at)
        yield Sample("tcp_segments_retransmitted_total", now.again, at)
        ratio = self._retransmitted(now)
        if ratio is not None:
            yield Sample("tcp_retransmit_ratio", ratio, at)

    def _retransmitted(self, now: Segments) -> float | None:
        """Share of segments sent again over the window; None until the window is full."""
        past = self._segments
        past.append(now)
        while len(past) > 1 and now.boot - past[1].boot >= WINDOW:
            past.popleft()
        first = past[0]
        age, sent = now.boot - first.boot, now.sent - first.sent
        if not WINDOW <= age <= WINDOW + 2 * self.interval or sent < FEWEST:
            return None
        return max(0, now.again - first.again) / sent


def counters(port: Port, at: float, where: Labels) -> Iterator[Sample]:
    """A port's own numbers."""
    yield Sample("network_receive_bytes_total", port.received, at, where)
    yield Sample("network_transmit_bytes_total", port.sent, at, where)
    yield Sample("network_up", float(port.up), at, where)
    yield Sample("network_errors_total", port.errors, at, where)
    yield Sample("network_drops_total", port.drops, at, where)


def saturation(before: Port, now: Port, elapsed: float) -> float | None:
    """The busier direction over the link's speed; None if either is not known."""
    received, sent = now.received - before.received, now.sent - before.sent
    if not now.speed or elapsed <= 0 or min(received, sent) < 0:  # the driver was reset
        return None
    return max(received, sent) * BITS / elapsed / now.speed


def speedless(ports: Collection[Port]) -> dict[str, str]:
    """The gap that ports which are up, but of unknown speed, leave."""
    names = [port.name for port in ports if port.up and not port.speed]
    why = f"the driver of {', '.join(names)} does not say its link speed"
    return {"network_saturation_ratio": why} if names else {}


def segments(snmp: str, boot: float) -> Segments:
    """OutSegs and RetransSegs from /proc/net/snmp: a line of names, then a line of values."""
    lines = [line.split() for line in snmp.splitlines() if line.startswith("Tcp:")]
    try:
        found = dict(zip(*lines, strict=True))
        return Segments(boot, int(found["OutSegs"]), int(found["RetransSegs"]))
    except (ValueError, KeyError, TypeError):
        raise ProbeError("/proc/net/snmp: no Tcp line with OutSegs and RetransSegs") from None

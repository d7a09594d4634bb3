"""Tell systemd what the daemon is doing: sd_notify(3), whose protocol is one datagram."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> bool:
    """Send *message* (`READY=1`, `WATCHDOG=1`, `STATUS=...`); False where no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(1.0)
        try:
            channel.sendto(message.encode(), name)
        except OSError:
            return False
    return True


def beat(longest: float) -> float:
    """Seconds between signs of life: *longest*, or fewer where systemd wants them."""
    return min(longest, watchdog_interval() or longest)


def watchdog_interval() -> float | None:
    """Seconds between signs of life that systemd wants (half of WatchdogSec), or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None

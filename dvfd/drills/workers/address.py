"""Say which address Gloo takes where nobody named an interface: `... workers.address FILE`.

As torch does it (ProcessGroupGloo::createDefaultDevice): the first address of this machine's own
name that can be bound, else 127.0.0.1. In a process of its own, since a resolver may hang.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from dvfd.drills.workers.answer import write

FALLBACK = "127.0.0.1"


def choose(name: str) -> dict[str, str]:
    """The address for host *name*, and if it is the fallback, why."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except OSError as error:
        return {"host": name, "address": FALLBACK, "why": str(error.strerror or error)}
    why = "no address"
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.bind(place)
        except OSError as error:
            why = f"{place[0]}: {error.strerror or error}"
            continue
        return {"host": name, "address": str(place[0]), "why": ""}
    return {"host": name, "address": FALLBACK, "why": why}


if __name__ == "__main__":
    write(Path(sys.argv[1]), choose(socket.gethostname()))

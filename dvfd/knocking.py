"""Knock on TCP ports of another host, all at once, and say how each answers. Sends no data."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Mapping, Sequence

from dvfd.preflight import Knock

PATIENCE = 3.5
"""Seconds for an answer: the kernel tries again after 1 and after 3, so that loss is no silence."""

NOBODY = {errno.ECONNREFUSED, errno.ECONNRESET}


def knock(
    address: str, ports: Sequence[int], sources: Sequence[str] = (), *, within: float = PATIENCE
) -> Mapping[int, Knock]:
    """How each of *ports* of *address* answers, from the one of *sources* that is of its family.

    Raises OSError if a knock cannot be sent at all, as from an address that is not ours.
    """
    family = _family(address)
    source = next((each for each in sources if _family(each) == family), "")
    found: dict[int, Knock] = {}
    end = time.monotonic() + within
    with contextlib.ExitStack() as doors, selectors.DefaultSelector() as selector:
        for port in ports:
            sock = doors.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)
            if source:
                sock.bind((source, 0))
            code = sock.connect_ex((address, port))
            if code == errno.EINPROGRESS:
                selector.register(sock, selectors.EVENT_WRITE, port)
            else:
                found[port] = _heard(code)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                found[key.data] = _heard(code)
                selector.unregister(key.fileobj)
    return {port: found.get(port, Knock.SILENT) for port in ports}


def _heard(code: int) -> Knock:
    """By connect's error: a firewall that rejects with a reset cannot be told from nobody."""
    if code == 0:
        return Knock.OPEN
    if code in NOBODY:
        return Knock.CLOSED
    return Knock.SILENT if code == errno.ETIMEDOUT else Knock.UNREACHABLE


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET

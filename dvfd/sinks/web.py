"""The web configuration in force: looked at again when its files change, and who may come in.

A broken new one is refused and said; the old one stays. An ended certificate is said, and served
on: whether to trust it is the client's business, and a watch that stops is worse.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dvfd.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from dvfd.model import Clock
    from dvfd.sinks.web_config import WebConfig

log = structlog.get_logger(__name__)

LOOK = 1.0
"""Seconds between looks at the files: a renewal is in force for the next visitor after that."""

SOON = 14 * 86_400.0
"""Seconds before its end from which a certificate is told of: a renewal is then overdue."""

KNOWN = 64
"""Good credentials remembered, so that bcrypt (50 ms) is paid once for each and not each scrape."""

WAITING = 2.0
"""Seconds that a visitor waits for its turn at bcrypt: one at a time, or guesses cost the job's
processors."""

NOBODY = "$2b$10$CwTycUXWue0Thq9StjUM0uJ8rA0KqjV5q7qZ9x0eDk4bq0eCwQq7e"
"""A hash that no password has: an unknown name takes as long as a known one."""


class Web:
    """TLS context, headers and users, current. Any thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read *path*. Raises ConfigError with every mistake."""
        # Imported where there is a web configuration: YAML costs 1 MiB that others need not.
        from dvfd.sinks import web_config  # noqa: PLC0415

        self._load: Callable[[Path], WebConfig] = web_config.load
        self._path = path
        self._clock = clock
        self._config = self._load(path)
        self._seen = self._stamps()
        self._looked = clock.boot()
        self._problem = ""
        self._good: dict[bytes, None] = {}
        self._turn = threading.BoundedSemaphore()
        self._lock = threading.Lock()

    @property
    def headers(self) -> dict[str, str]:
        """What every answer carries besides."""
        return self._config.headers

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the certificate ends, or None."""
        return self._config.expires_at

    @property
    def notice(self) -> str:
        """What a person must read, or an empty string."""
        if self._problem:
            return f"the new web configuration was refused, the old one stays: {self._problem}"
        end = self._config.expires_at
        left = SOON if end is None else end - self._clock.now()
        if left <= 0:
            return "the TLS certificate has ended: whoever checks it sees nothing of this node"
        return f"the TLS certificate ends in {left / 86_400:.1f} days" if left < SOON else ""

    def context(self) -> ssl.SSLContext | None:
        """TLS for a new visitor, or None without it. Looks at the files once a second."""
        self._look()
        return self._config.context

    def admits(self, authorization: str) -> bool | None:
        """Whether the Authorization header lets in; None if too many wait to be asked."""
        users = self._config.users
        if not users:
            return True
        name, password = credentials(authorization)
        stored = users.get(name, NOBODY)
        seal = hashlib.sha256(f"{stored}\0{name}\0".encode() + password).digest()
        if seal in self._good:
            return True
        if not self._turn.acquire(timeout=WAITING):
            return None
        try:
            right = _matches(password, stored) and name in users
        finally:
            self._turn.release()
        if right:
            self._remember(seal)
        return right

    def _remember(self, seal: bytes) -> None:
        with self._lock:
            self._good[seal] = None
            while len(self._good) > KNOWN:
                del self._good[next(iter(self._good))]

    def _look(self) -> None:
        now = self._clock.boot()
        if now - self._looked < LOOK:
            return
        self._looked = now
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._config = self._load(self._path)
        except ConfigError as error:
            self._problem = "; ".join(error.problems)
            log.error("web configuration refused, the old one stays", problem=self._problem)  # noqa: TRY400  # the mistakes, not our stack
            return
        self._problem = ""
        self._seen = self._stamps()
        log.info("web configuration taken anew", path=str(self._path))

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._config.files)


def credentials(header: str) -> tuple[str, bytes]:
    """Name and password of a Basic Authorization header; empty ones if it is none."""
    scheme, _, packed = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        name, _, password = base64.b64decode(packed, validate=True).partition(b":")
        return name.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        return "", b""


def _matches(password: bytes, stored: str) -> bool:
    import bcrypt  # noqa: PLC0415  # where there are users

    try:
        # bcrypt reads 72 bytes; the library refuses more, htpasswd and Go do as this does.
        return bcrypt.checkpw(password[:72], stored.encode())
    except ValueError:  # a NUL in it, or a hash of no use
        return False


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return str(error)
    return (found.st_mtime_ns, found.st_size, found.st_ino)

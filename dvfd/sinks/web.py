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

NOBODY = "$2b${cost:02d}$CwTycUXWue0Thq9StjUM0uJ8rA0KqjV5q7qZ9x0eDk4bq0eCwQq7e"
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
        self._loading = False
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
        if end is None and self._config.context is not None:
            return "when the TLS certificate ends cannot be told: openssl is missing or refuses it"
        left = SOON if end is None else end - self._clock.now()
        if left <= 0:
            return "the TLS certificate has ended: whoever checks it sees nothing of this node"
        return f"the TLS certificate ends in {left / 86_400:.1f} days" if left < SOON else ""

    def context(self) -> ssl.SSLContext | None:
        """TLS for a new visitor, or None without it. Looks at the files once a second."""
        self._look()
        return self._config.context

    def knows(self, authorization: str) -> bool | None:
        """Whether the Authorization header lets in, or None if that must be worked out. Quick."""
        users = self._config.users
        if not users:
            return True
        name, password = credentials(authorization)
        if not name:
            return False
        return True if self._seal(name, password) in self._good else None

    def admits(self, authorization: str) -> bool:
        """The same, worked out: as long as bcrypt takes, so never in the listener's loop."""
        if (known := self.knows(authorization)) is not None:
            return known
        name, password = credentials(authorization)
        right = _matches(password, self._stored(name)) and name in self._config.users
        if right:
            self._remember(self._seal(name, password))
        return right

    def _stored(self, name: str) -> str:
        users = self._config.users
        dearest = max((int(stored.split("$")[2]) for stored in users.values()), default=10)
        return users.get(name, NOBODY.format(cost=dearest))

    def _seal(self, name: str, password: bytes) -> bytes:
        """What is remembered of good credentials; a changed hash makes it another."""
        return hashlib.sha256(f"{self._stored(name)}\0{name}\0".encode() + password).digest()

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
        if stamps == self._seen or self._loading:
            return
        self._seen = stamps
        self._loading = True  # in a thread of its own: openssl and slow disks hold nobody up
        threading.Thread(target=self._load_again, name="web-config", daemon=True).start()

    def _load_again(self) -> None:
        try:
            found = self._load(self._path)
        except ConfigError as error:
            self._problem = "; ".join(error.problems)
            told = "web configuration refused, the old one stays"
            log.error(told, problem=self._problem)  # noqa: TRY400  # the mistakes, not our stack
        else:
            if found.files != self._config.files:
                self._seen = ()  # looked at once more: nobody knows since when the new ones are so
            self._config, self._problem = found, ""
            log.info("web configuration taken anew", path=str(self._path))
        finally:
            self._loading = False

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

"""Ask another node's dvfd, or a Prometheus, by HTTP: bounded in time and in size, by no proxy."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from dvfd.cluster import resolved
from dvfd.config import credential
from dvfd.errors import DvfdError
from dvfd.masking import STARS, masked, redacted

if TYPE_CHECKING:
    from dvfd.config import Cluster

WITHIN = 8.0
"""Seconds for one answer, from the name to the last byte: a daemon has 15 before it is late."""

MOST = 16 << 20
"""Bytes of one answer: /metrics of the fullest node has 100 KB, a Prometheus of 1000 nodes 8 MB."""

CONNECTING = 3.5
"""Seconds of these for a connection: the kernel tries again after 1 and after 3."""

PIECE = 1 << 16

ASCII = "".join(map(chr, range(0x21, 0x7F)))
"""What an address is sent with as it is; the rest of it goes as %C3%A9."""

GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls a gzip member."""


class Absent(DvfdError):
    """A dvfd answers there, and does not know what it was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and between which two moments of our own clock, in Unix seconds."""

    status: int
    body: bytes
    asked: float
    answered: float


@dataclass(frozen=True, slots=True)
class Access:
    """What the listeners want: a name with its password, and whom their certificates are from.
    *anybody* takes any certificate: for what listens on this node alone.
    """

    login: str = field(default="", repr=False)  # NAME:PASSWORD
    ca_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # a token, a tenant
    anybody: bool = False

    @classmethod
    def of(cls, nodes: Cluster) -> Access:
        """As [cluster] says. Raises DvfdError where the password cannot be read."""
        name = nodes.password_credential
        try:
            path = credential(name) if name else nodes.password_file
            password = path.read_text(encoding="utf-8").rstrip("\n") if path else ""
        except (OSError, UnicodeDecodeError) as error:
            raise DvfdError(f"the password of [cluster] cannot be read: {error}") from None
        if nodes.ca_file and not nodes.ca_file.is_file():
            raise DvfdError(f"[cluster] ca_file {nodes.ca_file} is no file")
        return cls(f"{nodes.username}:{password}" if nodes.username else "", nodes.ca_file)


OPEN = Access()


def hidden(text: str, url: str, access: Access = OPEN) -> str:
    """*text* that whoever was asked wrote, for people: without secrets, first of all those that it
    was shown in *url* and *access*, plain or as they were sent.
    """
    login = _login(url) or access.login
    sent = [access.headers.get("Authorization", "").rpartition(" ")[2], _packed(login)]
    plain = [login.partition(":")[2], *sent]
    written = {form for each in plain if each for form in (each, quote(each), quote(each, ""))}
    for secret in sorted(written, key=len, reverse=True):
        text = text.replace(secret, STARS)
    return redacted(text)


def get(
    url: str,
    access: Access = OPEN,
    *,
    within: float = WITHIN,
    most: int = MOST,
    form: str | None = None,
) -> Answer:
    """The answer of *url*, whatever its status; no redirect is followed. A user and a password in
    *url* go before those of *access*. A *form* is posted.

    Raises DvfdError, without the password that *url* may hold, if none came in time or it is larger
    than *most* bytes.
    """
    try:
        return _got(url, access, within, most, form)
    except DvfdError as error:
        raise DvfdError(f"{masked(url)}: {error}") from None


def data(url: str, access: Access = OPEN) -> tuple[Any, Answer]:
    """What a path of /api/v1 answers, and the answer that it stood in. Raises Absent, DvfdError."""
    answer = get(url, access)
    try:
        return data_in(answer, url, access), answer
    except DvfdError as error:
        raise type(error)(f"{masked(url)}: {error}") from None


def fetcher(nodes: Cluster) -> Callable[[str], Any]:
    """Who gets the `data` of a path of /api/v1 as [cluster] says, its password read anew each time.

    What it gives raises Absent, and DvfdError with the cause alone: whoever asks again and again
    knows whom, and tells a change by the words.
    """

    def ask(url: str) -> Any:
        access = Access.of(nodes)
        return data_in(_got(url, access, WITHIN, MOST), url, access)

    return ask


def _got(url: str, access: Access, within: float, most: int, form: str | None = None) -> Answer:
    """The answer of *url*. Raises DvfdError with the cause alone."""
    end = time.monotonic() + within
    over = threading.Event()
    try:
        connection = _connected(url, access, end)
    except OSError as error:
        raise DvfdError(_why(error)) from None
    timer = threading.Timer(max(0.0, end - time.monotonic()), _cut, (connection, over))
    timer.daemon = True
    timer.start()
    try:
        return _asked(connection, url, access, most, form)
    except (OSError, http.client.HTTPException) as error:
        why = f"no whole answer within {within:g} s" if over.is_set() else _why(error)
        raise DvfdError(hidden(why, url, access)) from None
    except ValueError:  # its words repeat what should have been sent
        raise DvfdError(
            "a token or header for it holds characters that HTTP does not send"
        ) from None
    finally:
        timer.cancel()
        connection.close()


def data_in(answer: Answer, url: str, access: Access) -> Any:
    """What stands in an answer of /api/v1. Raises Absent, DvfdError."""
    status = answer.status
    try:
        document, wrong = json.loads(answer.body), ""
    except (ValueError, RecursionError) as error:
        document, wrong = None, f"answers no JSON: {error}"
    known = document if isinstance(document, dict) and document.get("schema") == SCHEMA else {}
    refusal = known.get("error")
    message = str(refusal.get("message", "")) if isinstance(refusal, dict) else ""
    said = hidden(message, url, access)[:SAID]
    if status == http.HTTPStatus.NOT_FOUND and said:
        raise Absent(said)
    if status != http.HTTPStatus.OK:
        raise DvfdError(f"answers {status}{HINTS.get(status, f': {said}' if said else '')}")
    if "data" not in known:
        start = hidden(answer.body[:START].decode("utf-8", "replace"), url, access).strip()
        raise DvfdError(f"{wrong or 'what answers there is no dvfd'}: {start[:80]!r:.120}")
    return known["data"]


SCHEMA = 1
"""The version of /api/v1 that is understood."""

SAID = 300
"""Characters of a refusal that are repeated."""

START = 1 << 12
"""Bytes of a body of which the first are repeated, once the secrets are out of them."""

HINTS: Mapping[int, str] = {
    401: ": it wants another password than [cluster] username and password_file say",
    404: ": what listens there is another version, or no dvfd",
    503: ": it is busy, ask again",
}
"""What to do about an answer that is none."""


def _connected(url: str, access: Access, end: float) -> http.client.HTTPConnection:
    """A connection to *url*'s host. Raises OSError, DvfdError."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    errors: list[OSError] = []
    for address in resolved(host, within=_left(end)):
        try:
            sock = socket.create_connection((address, port), min(CONNECTING, _left(end)))
        except OSError as error:
            errors.append(error)
            continue
        sock.settimeout(_left(end))
        if secure:
            context = _context(access)
            sock = context.wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        return connection
    raise errors[0]


def _context(access: Access) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=access.ca_file)
    if access.anybody:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _left(end: float) -> float:
    """Seconds until *end*. Raises TimeoutError once it has passed."""
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError("timed out")
    return left


def _asked(
    connection: http.client.HTTPConnection, url: str, access: Access, most: int, form: str | None
) -> Answer:
    parts = urlsplit(url)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), ASCII)
    asked = time.time()
    asks = {"User-Agent": "dvfd", "Accept-Encoding": "gzip", "Connection": "close"}
    asks |= access.headers
    if login := _login(url) or access.login:
        asks["Authorization"] = f"Basic {_packed(login)}"
    if form is None:
        connection.request("GET", path, headers=asks)
    else:
        asks["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST", path, form.encode(), asks)
    response = connection.getresponse()
    answered = time.time()
    if response.length is None and not response.chunked:  # a head that was cut off looks so
        raise http.client.HTTPException("an answer without a length")
    body = _body(response, most)
    if response.headers.get("Content-Encoding") == "gzip":
        body = _unpacked(body, most)
    return Answer(response.status, body, asked, answered)


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    """All of it. Raises HTTPException if that is too much, or less than was announced."""
    body = bytearray()
    while piece := response.read1(PIECE):
        body += piece
        if len(body) > most:
            raise http.client.HTTPException(f"more than {most} bytes, wanted fewer")
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _unpacked(packed: bytes, most: int) -> bytes:
    """What was packed, never more than *most* bytes of it: a few may hold gigabytes. Raises
    HTTPException.
    """
    unpacking = zlib.decompressobj(GZIP)
    try:
        body = unpacking.decompress(packed, most + 1)
    except zlib.error as error:
        raise http.client.HTTPException(f"what it packed is broken: {error}") from None
    if len(body) > most:
        raise http.client.HTTPException(f"more than {most} bytes once unpacked, wanted fewer")
    if not unpacking.eof:
        raise http.client.HTTPException("the end of what it packed is missing")
    return body


def _login(url: str) -> str:
    """NAME:PASSWORD as *url* has it, or an empty string."""
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"


def _packed(login: str) -> str:
    return base64.b64encode(login.encode()).decode()


def _cut(connection: http.client.HTTPConnection, over: threading.Event) -> None:
    """Time is up: whoever reads here reads the end."""
    over.set()
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)

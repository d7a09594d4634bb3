"""Listen for HTTP without ever being held up by a client.

One thread does all reading and writing and never blocks; a few workers only compute answers. A
client that says nothing, reads nothing or trickles costs one socket and at most TIMEOUT, never a
thread; when sockets run out, the oldest client that has sent nothing goes first.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from dvfd.errors import ConfigError
from dvfd.sinks.http import HEAD_LIMIT, BadRequest, Request, Response, encode, parse, plain

if TYPE_CHECKING:
    from dvfd.config import Http
    from dvfd.model import Clock
    from dvfd.sinks.web import Web

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
"""Seconds for the whole request to arrive, and again for the whole answer to be taken."""

LINGER = 1.0
"""Seconds to wait for the client's end after the answer: closing at once on unread bytes would
reset the connection and could destroy the answer on its way."""

BEAT = 5.0
"""Most seconds that the loop sleeps: /healthz must see it alive while nobody asks anything."""

LOOK = 0.5
"""The same while there are clients, whose deadlines are to be kept."""

CONNECTIONS = 128
"""Sockets held at a time: far above any scraper's need, far below the usual limit of 1024."""

BACKLOG = 32
"""Requests that may wait for a worker; beyond it the answer is 503 at once."""

WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket says that has nothing yet, or no room."""

RECORD = 1 << 15
"""Bytes read at once: more than a TLS record, so that none stays decrypted and unread."""

LOCKED = plain(HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Basic realm="dvfd", charset="UTF-8"')

GUESSES = 4
"""Passwords that may wait to be worked out, one at a time; a known one never waits behind them."""

BUSY = plain(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="1")

Handler = Callable[[Request], Response]


@dataclass(slots=True, eq=False)
class Connection:
    """A client: what came from it, what is still to go to it, and until when."""

    sock: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    pending: memoryview = field(default_factory=lambda: memoryview(b""))
    request: Request | None = None
    answered: bool = False
    working: bool = False


class HttpServer:
    """The listener. Answers come from *handler*, which runs in a worker thread."""

    def __init__(
        self, handler: Handler, settings: Http, *, clock: Clock, web: Web | None = None
    ) -> None:
        self._handler = handler
        self._web = web
        self._settings = settings
        self._clock = clock
        self._selector: selectors.BaseSelector
        self._bell: socket.socket
        self._ear: socket.socket
        self._listener: socket.socket | None = None
        self._connections: dict[Connection, None] = {}  # in the order of arrival
        self._working: dict[Connection, float] = {}
        self._done: deque[tuple[Connection, HTTPStatus, bytes]] = deque()
        self._counts: Counter[str] = Counter()
        self._beat = clock.boot()
        self._stop = threading.Event()
        self._workers = ThreadPoolExecutor(settings.workers, "http")
        self._gate = ThreadPoolExecutor(1, "http-gate")
        self._guessing: set[Connection] = set()
        self._thread = threading.Thread(target=self._loop, name="http", daemon=True)

    def start(self) -> None:
        """Bind and listen. Raises ConfigError if the address cannot be had."""
        self._listener = listen(self._settings.host, self._settings.port)
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        for sock in (self._listener, self._ear, self._bell):
            sock.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._ear, selectors.EVENT_READ, self._answer)
        self._beat = self._clock.boot()
        self._thread.start()

    def stop(self) -> None:
        """Close everything; answers on their way are cut off."""
        if self._listener is None or self._stop.is_set():
            return
        self._stop.set()
        self._ring()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT)
        for pool in (self._workers, self._gate):
            pool.shutdown(wait=False, cancel_futures=True)
        for connection in tuple(self._connections):
            self._close(connection)
        for sock in (self._listener, self._ear, self._bell):
            sock.close()
        self._selector.close()

    @property
    def port(self) -> int:
        """The port that it listens on; the chosen one if 0 was configured."""
        if self._listener is None:
            return self._settings.port
        return int(self._listener.getsockname()[1])

    def beat(self) -> float:
        """Boot time of the last progress: of the loop, or of the answer that takes longest."""
        return min((self._beat, *tuple(self._working.values())))

    def counters(self) -> dict[str, int]:
        """Requests by outcome: the status, `evicted`, `timeout`, `reset`, `tls`."""
        return dict(self._counts)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._beat = self._clock.boot()
            for key, _ in self._selector.select(LOOK if self._connections else BEAT):
                key.data()
            self._expire(self._clock.boot())

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # the client left already, or no file descriptor is left
            log.debug("accept failed", error=str(error))
            self._evict()
            return
        sock.setblocking(False)
        context = self._web.context() if self._web else None
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        connection = Connection(sock, self._clock.boot() + TIMEOUT)
        self._connections[connection] = None
        if len(self._connections) > CONNECTIONS and not self._evict():
            self._turn_away(connection)
            return
        greet = self._shake_hands if context is not None else self._read
        self._selector.register(sock, selectors.EVENT_READ, lambda: greet(connection))

    def _shake_hands(self, connection: Connection) -> None:
        """One more step of the TLS handshake, as far as the client let it come."""
        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, selectors.EVENT_READ, lambda: self._shake_hands(connection))
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE, lambda: self._shake_hands(connection))
        except OSError as error:  # no TLS, no certificate that counts, or gone
            self._counts["tls"] += 1
            log.debug("no TLS", error=str(error))
            self._close(connection)
        else:
            self._watch(connection, selectors.EVENT_READ, lambda: self._read(connection))
            self._read(connection)  # what came with the last step is already decrypted

    def _turn_away(self, connection: Connection) -> None:
        """Close at once with 503: every socket is at work for somebody."""
        self._counts["503"] += 1
        with contextlib.suppress(OSError):
            if not isinstance(connection.sock, ssl.SSLSocket):  # before the handshake, no words
                connection.sock.send(encode(None, BUSY))
        self._close(connection)

    def _evict(self) -> bool:
        """Close the oldest client that keeps a socket for nothing; whether there was one."""
        idle = [c for c in self._connections if not c.working and not c.pending][:-1]
        victim = next((c for c in idle if not c.received), idle[0] if idle else None)
        if victim is None:
            return False
        self._counts["evicted"] += 1
        self._close(victim)
        return True

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(RECORD)
        except WAIT:
            return
        except OSError:
            data = b""
        if not data or connection.answered:
            if not data:
                self._close(connection)
            return
        connection.received += data
        head, end, _ = connection.received.partition(b"\r\n\r\n")
        if end and len(head) <= HEAD_LIMIT:
            self._take(connection, bytes(head))
        elif len(connection.received) > HEAD_LIMIT:
            self._reply(connection, plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def _take(self, connection: Connection, head: bytes) -> None:
        """Hand a whole request to a worker, unless the answer is known."""
        try:
            request = connection.request = parse(head)
        except BadRequest as bad:
            self._reply(connection, bad.response)
            return
        if request.method not in {"GET", "HEAD"}:
            self._reply(connection, plain(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD"))
        elif len(self._working) >= self._settings.workers + BACKLOG:
            self._reply(connection, BUSY)
        else:
            self._hand_over(connection, request)

    def _hand_over(self, connection: Connection, request: Request) -> None:
        """To a worker; to the one that works out passwords if it is not known whether it may."""
        known = self._web.knows(request.authorization) if self._web else True
        if known is False:
            self._reply(connection, LOCKED)
            return
        if known is None and len(self._guessing) >= GUESSES:
            self._reply(connection, BUSY)
            return
        self._selector.unregister(connection.sock)
        connection.working = True
        if known is None:
            self._guessing.add(connection)
            future = self._gate.submit(self._guess, request)
        else:
            self._working[connection] = self._clock.boot()
            future = self._workers.submit(self._work, request)
        future.add_done_callback(lambda done: self._finished(connection, done))

    def _guess(self, request: Request) -> tuple[HTTPStatus, bytes]:
        """Called at the gate: answer whoever has the password."""
        assert self._web is not None
        if self._web.admits(request.authorization):
            return self._work(request)
        return LOCKED.status, encode(request, self._with_headers(LOCKED))

    def _work(self, request: Request) -> tuple[HTTPStatus, bytes]:
        """Called in a worker: compute and pack the answer."""
        response = self._with_headers(self._handler(request))
        return response.status, encode(request, response)

    def _with_headers(self, response: Response) -> Response:
        """*response* with what the web configuration adds to every answer."""
        if self._web is None:
            return response
        return replace(response, headers={**self._web.headers, **response.headers})

    def _finished(self, connection: Connection, future: Future[tuple[HTTPStatus, bytes]]) -> None:
        """Called in a worker: the loop's thread does the rest."""
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            log.error("answer failed", request=str(connection.request), exc_info=error)
            failure = plain(HTTPStatus.INTERNAL_SERVER_ERROR)
            status, data = failure.status, encode(connection.request, failure)
        else:
            status, data = future.result()
        self._done.append((connection, status, data))
        self._ring()

    def _ring(self) -> None:
        # A full bell rings already; a closed one has nobody left to hear it.
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def _answer(self) -> None:
        self._ear.recv(4096)
        while self._done:
            connection, status, data = self._done.popleft()
            connection.working = False
            self._working.pop(connection, None)
            self._guessing.discard(connection)
            self._send(connection, status, data)

    def _reply(self, connection: Connection, response: Response) -> None:
        data = encode(connection.request, self._with_headers(response))
        self._send(connection, response.status, data)

    def _send(self, connection: Connection, status: HTTPStatus, data: bytes) -> None:
        self._counts[str(status.value)] += 1
        connection.answered = True
        connection.received.clear()
        connection.pending = memoryview(data)
        connection.deadline = self._clock.boot() + TIMEOUT
        self._write(connection)

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.pending)
        except WAIT:
            sent = 0
        except OSError:
            self._counts["reset"] += 1
            self._close(connection)
            return
        connection.pending = connection.pending[sent:]
        if connection.pending:
            self._watch(connection, selectors.EVENT_WRITE, lambda: self._write(connection))
        else:
            self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        connection.deadline = self._clock.boot() + LINGER
        with contextlib.suppress(OSError):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.unwrap()  # says goodbye; its answer is not waited for
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        self._watch(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def _watch(self, connection: Connection, event: int, call: Callable[[], None]) -> None:
        try:
            self._selector.modify(connection.sock, event, call)
        except KeyError:
            self._selector.register(connection.sock, event, call)

    def _expire(self, now: float) -> None:
        for connection in tuple(self._connections):
            if now >= connection.deadline and not connection.working:
                if connection.pending or not connection.answered:
                    self._counts["timeout"] += 1
                self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError that names the address and the cause."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            [f"http: cannot listen on {host} port {port}: {reason}; change http.host or http.port"]
        ) from None

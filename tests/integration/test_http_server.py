"""The listener: never held up, never leaking, read-only."""

import contextlib
import gzip
import json
import socket
import threading
import time
from http import HTTPStatus
from http.client import HTTPConnection

import pytest
from fakes_sinks import Health, snapshot, sources
from structlog.testing import capture_logs

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.errors import ConfigError
from dvfd.sinks import server as server_module
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.state import Loop

PROMPT = server_module.TIMEOUT - 1
"""Seconds: who waits for another client takes longer."""


@contextlib.contextmanager
def serving(handler=None, **settings):
    taken = snapshot()
    server = HttpServer(
        handler or Site(lambda: taken), Http(port=0, **settings), clock=SystemClock()
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def ask(server, path="/metrics", method="GET", **headers):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=3)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/", "text/html; charset=utf-8"),
        ("/?check=live", "text/html; charset=utf-8"),
    ],
)
def test_what_is_served(server, path, kind):
    answer, body = ask(server, path)

    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert body


@pytest.mark.parametrize("path", ["/favicon.ico", "/metrics/", "/../etc/passwd", "//"])
def test_everything_else_is_not_found(server, path):
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_the_listener_is_read_only(server, method):
    answer, _ = ask(server, "/", method)

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_body(server):
    answer, body = ask(server, "/healthz", "HEAD")

    assert body == b""
    assert int(answer.headers["Content-Length"]) == len(ask(server, "/healthz")[1])


def test_metrics_are_packed_for_those_who_ask(server):
    answer, body = ask(server, "/metrics", **{"Accept-Encoding": "deflate, gzip;q=0.5"})

    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"dvfd_criterion_verdict" in gzip.decompress(body)


@pytest.mark.parametrize("accepts", ["gzip;q=0", "identity", "br"])
def test_metrics_are_plain_for_the_others(server, accepts):
    answer, _ = ask(server, "/metrics", **{"Accept-Encoding": accepts})

    assert answer.headers["Content-Encoding"] is None


def test_answers_carry_security_headers_and_do_not_name_the_software(server):
    answer, body = ask(server, "/")

    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] is None
    assert b"<script" not in body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000, b"431"),
    ],
)
def test_nonsense_is_answered_in_its_own_terms(server, data, status):
    assert raw(server, data).split(b" ")[1] == status


def test_a_post_with_a_large_body_still_gets_its_answer(server):
    head = b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"

    assert raw(server, head + b"x" * 100_000).startswith(b"HTTP/1.1 405")


def test_health_is_503_with_the_reason_when_a_loop_is_late():
    late = snapshot(of=sources(loops=lambda: {"sampler": Loop(age=31, limit=20)}))
    with serving(Site(lambda: late)) as server:
        answer, body = ask(server, "/healthz")

    assert answer.status == 503
    assert json.loads(body)["reasons"] == ["loop sampler: no progress for 31 s, wanted every 20 s"]


def test_health_is_503_when_the_store_is_broken():
    broken = snapshot(of=sources(store=lambda: Health(ok=False, reason="disk full")))
    with serving(Site(lambda: broken)) as server:
        answer, body = ask(server, "/healthz")

    assert (answer.status, json.loads(body)["reasons"]) == (503, ["store: disk full"])


def test_two_hundred_silent_clients_do_not_delay_metrics():
    with serving() as server, contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(connect(server))
        began = time.monotonic()
        answer, _ = ask(server)

    assert answer.status == 200
    assert time.monotonic() - began < PROMPT
    assert server.counters()["evicted"] >= 200 - server_module.CONNECTIONS


def test_two_hundred_clients_that_trickle_do_not_delay_metrics():
    with serving() as server, contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(connect(server)).sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        began = time.monotonic()
        answer, _ = ask(server)

    assert answer.status == 200
    assert time.monotonic() - began < PROMPT


def test_clients_that_do_not_read_hold_no_worker():
    body = b"x" * 20_000_000  # more than any socket buffer takes
    huge = server_module.Response(HTTPStatus.OK, body)
    with (
        serving(lambda request: huge if request.path == "/" else Site(snapshot)(request)) as server,
        contextlib.ExitStack() as clients,
    ):
        for _ in range(12):
            clients.enter_context(connect(server)).sendall(b"GET / HTTP/1.1\r\n\r\n")
        began = time.monotonic()
        answer, _ = ask(server)

    assert answer.status == 200
    assert time.monotonic() - began < PROMPT


def test_a_silent_client_is_let_go_in_time(monkeypatch):
    monkeypatch.setattr(server_module, "TIMEOUT", 0.3)
    with serving() as server, connect(server) as client:
        assert client.recv(1) == b""
        assert server.counters() == {"timeout": 1}


def test_when_all_sockets_work_the_next_client_is_turned_away_at_once(monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTIONS", 1)
    go = threading.Event()

    def slow(_request):
        go.wait(5)
        return server_module.plain(HTTPStatus.OK)

    with serving(slow) as server, connect(server) as first:
        first.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while not server._working:
            time.sleep(0.01)
        assert raw(server, b"").startswith(b"HTTP/1.1 503")
        go.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert server.counters()["503"] == 1


def test_requests_beyond_the_queue_are_answered_503_at_once(monkeypatch):
    monkeypatch.setattr(server_module, "BACKLOG", 0)
    go = threading.Event()
    with serving(lambda _: go.wait(5), workers=1) as server, connect(server) as first:
        first.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while not server._working:
            time.sleep(0.01)
        assert ask(server)[0].status == 503
        with capture_logs():
            go.set()
            first.recv(100)


def test_an_answer_that_crashes_is_500_and_logged_and_the_next_one_works():
    def crash(request):
        if request.path == "/":
            raise ZeroDivisionError
        return server_module.plain(HTTPStatus.OK)

    with serving(crash) as server, capture_logs() as logs:
        assert ask(server, "/")[0].status == 500
        assert ask(server, "/healthz")[0].status == 200

    assert [line["event"] for line in logs] == ["answer failed"]


def test_the_beat_stops_when_an_answer_hangs():
    go = threading.Event()
    with serving(lambda _: go.wait(5)) as server, connect(server) as client, capture_logs():
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.7)
        age = SystemClock().boot() - server.beat()
        go.set()
        client.recv(100)

    assert age >= 0.6


def test_a_port_that_is_taken_is_a_configuration_error_that_names_it(server):
    second = HttpServer(Site(snapshot), Http(port=server.port), clock=SystemClock())

    with pytest.raises(ConfigError, match=f"127.0.0.1 port {server.port}: Address already in use"):
        second.start()
    second.stop()

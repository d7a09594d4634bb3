"""Another node's daemon is asked within bounds: over TLS, with a password, and never for long."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme
import yaml
from fakes_sinks import snapshot
from testbed import free_port

from dvfd import remote
from dvfd.clock import SystemClock
from dvfd.config import Cluster, Http
from dvfd.errors import DvfdError
from dvfd.remote import Absent, fetcher
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.sinks.web import Web

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def saying(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """A listener that answers everybody with *parts*, a pause between them; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, contextlib.suppress(OSError):
                        client.recv(65536)
                        for part in parts:
                            client.sendall(part)
                            time.sleep(pause)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/runs"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[str]:
    """A listener of dvfd's own with a certificate and a password."""
    ca, now = trustme.CA(), dt.datetime.now(dt.UTC)
    issued = ca.issue_cert("127.0.0.1", not_after=now + dt.timedelta(days=30))
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "password").write_text("secret\n")
    path = tmp_path / "web.yml"
    path.write_text(yaml.safe_dump({
        "tls_server_config": {"cert_file": "cert.pem", "key_file": "key.pem"},
        "basic_auth_users": {"dvfd": bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()},
    }))  # fmt: skip
    taken, clock = snapshot(), SystemClock()
    server = HttpServer(Site(lambda: taken), Http(port=0), clock=clock, web=Web(path, clock))
    server.start()
    yield f"https://127.0.0.1:{server.port}/api/v1"
    server.stop()


def cluster(directory: Path, **changes: Any) -> Cluster:
    given = {
        "username": "dvfd", "password_file": directory / "password", "ca_file": directory / "ca.pem"
    }  # fmt: skip
    return Cluster(**{**given, **changes})


def test_a_node_is_asked_over_tls_with_the_password_of_the_cluster(
    secured: str, tmp_path: Path
) -> None:
    assert fetcher(cluster(tmp_path))(f"{secured}/runs") == []


def test_what_is_not_there_is_told_apart_from_what_went_wrong(secured: str, tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no run 'r7' is known here"):
        fetcher(cluster(tmp_path))(f"{secured}/runs/r7/rows")


def test_a_certificate_of_another_authority_is_not_trusted(secured: str, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="certificate verify failed"):
        fetcher(cluster(tmp_path, ca_file=None))(f"{secured}/runs")


def test_without_the_password_it_says_401(secured: str, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="answers 401: it wants another password"):
        fetcher(cluster(tmp_path, username="", password_file=None))(f"{secured}/runs")


def test_a_password_file_that_is_not_there_is_named(secured: str, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="gone"):
        fetcher(cluster(tmp_path, password_file=tmp_path / "gone"))(f"{secured}/runs")


def test_a_port_where_nobody_listens_is_refused_in_plain_words() -> None:
    with pytest.raises(DvfdError, match="Connection refused"):
        fetcher(Cluster())(f"http://127.0.0.1:{free_port()}/api/v1/runs")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (b"200 OK", b"<html>a proxy</html>", "answers no JSON: .*<html>a proxy"),
        (b"200 OK", b'{"schema": 2, "data": []}', "no dvfd: .*schema"),
        (b"200 OK", b'{"data": []}', "no dvfd"),
        (b"200 OK", b"[[[[", "answers no JSON"),
        (b"302 Found\r\nLocation: http://127.0.0.1:1/", b"", "answers 302"),
        (b"404 Not Found", b"not found", "answers 404: what listens there is another version"),
        (b"503 Busy", b'{"schema": 1, "error": {"message": "later"}}', "answers 503: it is busy"),
        (b"410 Gone", b'{"schema": 1, "error": {"message": "so old"}}', "answers 410: so old"),
    ],
)
def test_what_is_no_answer_of_a_dvfd_is_refused(status: bytes, body: bytes, words: str) -> None:
    answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    with saying(answer) as url, pytest.raises(DvfdError, match=words) as caught:
        fetcher(Cluster())(url)
    assert url not in str(caught.value)  # the same words each time that it is asked


@pytest.mark.parametrize(("answer", "words"), [(b"SSH-2.0\r\n", "SSH-2.0"), (b"", "closed")])
def test_what_speaks_no_http_is_refused(answer: bytes, words: str) -> None:
    with saying(answer) as url, pytest.raises(DvfdError, match=words):
        fetcher(Cluster())(url)


def packed(body: bytes) -> bytes:
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    return HEAD + head + body


def test_what_it_packs_is_unpacked() -> None:
    body = gzip.compress(json.dumps({"schema": 1, "data": [7] * 2000}).encode())
    with saying(packed(body)) as url:
        assert fetcher(Cluster())(url) == [7] * 2000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (gzip.compress(bytes(2**22), mtime=0), "more than 1048576 bytes once unpacked"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "the end of what it packed is missing"),
        (b"{}", "what it packed is broken"),
    ],
)
def test_what_it_packs_has_bounds_and_an_end(
    monkeypatch: pytest.MonkeyPatch, body: bytes, words: str
) -> None:
    monkeypatch.setattr(remote, "MOST", 2**20)
    with saying(packed(body)) as url, pytest.raises(DvfdError, match=words):
        fetcher(Cluster())(url)


def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST", 2**20)
    endless = HEAD + b"Content-Length: 9999999999\r\n\r\n"
    with (
        saying(endless, *[bytes(2**16)] * 40) as url,
        pytest.raises(DvfdError, match="more than 1048576 bytes"),
    ):
        fetcher(Cluster())(url)


def test_an_answer_that_trickles_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WITHIN", 0.5)
    slow = HEAD + b"Content-Length: 1000\r\n\r\n"
    with (
        saying(slow, *[b"x"] * 1000, pause=0.1) as url,
        pytest.raises(DvfdError, match=r"no whole answer within 0\.5 s"),
    ):
        fetcher(Cluster())(url)  # who waited for its end would wait 100 s

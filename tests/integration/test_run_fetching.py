"""Another node's daemon is asked within bounds: over TLS, with a password, and never for long."""

from __future__ import annotations

import contextlib
import datetime as dt
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

from dvfd.clock import SystemClock
from dvfd.config import Cluster, Http
from dvfd.errors import DvfdError
from dvfd.runs import fetching
from dvfd.runs.fetching import Absent, fetcher
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
    with pytest.raises(DvfdError, match="CERTIFICATE_VERIFY_FAILED"):
        fetcher(cluster(tmp_path, ca_file=None))(f"{secured}/runs")


def test_without_the_password_it_says_401(secured: str, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="HTTP 401"):
        fetcher(cluster(tmp_path, username="", password_file=None))(f"{secured}/runs")


def test_a_password_file_that_is_not_there_is_named(secured: str, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="gone"):
        fetcher(cluster(tmp_path, password_file=tmp_path / "gone"))(f"{secured}/runs")


def test_a_port_where_nobody_listens_is_refused_in_plain_words() -> None:
    with pytest.raises(DvfdError, match="Connection refused"):
        fetcher(Cluster())(f"http://127.0.0.1:{free_port()}/api/v1/runs")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HEAD + b"\r\n<html>a proxy</html>", "HTTP 200, and no answer of a dvfd: '<html>a proxy"),
        (HEAD + b'\r\n{"schema": 2, "data": []}', "no answer of a dvfd"),
        (HEAD + b"\r\n[[[[", "no answer of a dvfd"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nnot found", "HTTP 404, and no answer of a dvfd"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
        (b"", "RemoteDisconnected|closed|aborted"),
    ],
)
def test_what_is_no_answer_of_a_dvfd_is_refused(answer: bytes, words: str) -> None:
    with saying(answer) as url, pytest.raises(DvfdError, match=words):
        fetcher(Cluster())(url)


def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST", 2**20)
    piece = json.dumps(["x" * 2**16]).encode()
    with (
        saying(HEAD + b"\r\n", *[piece] * 40) as url,
        pytest.raises(DvfdError, match="longer than 1 MiB"),
    ):
        fetcher(Cluster())(url)


def test_an_answer_that_trickles_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WHOLE", 0.5)
    with (
        saying(HEAD + b"\r\n", *[b"x"] * 1000, pause=0.1) as url,
        pytest.raises(DvfdError, match="takes longer than"),
    ):
        fetcher(Cluster())(url)  # who waited for its end would wait 100 s

"""TLS and passwords, against a real listener: who comes in, who does not, and what a renewal is."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import os
import socket
import ssl
import subprocess
import threading
import time
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import bcrypt
import pytest
import trustme
import yaml
from fakes_sinks import snapshot
from testbed import eventually, prometheus, promtool, query

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.errors import ConfigError
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.sinks.web import Web, credentials
from dvfd.sinks.web_config import load

CA = trustme.CA()
SALT = b"$2b$04$abcdefghijklmnopqrstuu"  # fixed: in every process the tests have the same names
HASH = bcrypt.hashpw(b"secret", SALT).decode()
PAIR = "tls_server_config: {cert_file: cert.pem, key_file: key.pem"
TLS = {"cert_file": "cert.pem", "key_file": "key.pem"}


def certify(directory: Path, *, days: float = 30) -> None:
    """A certificate for 127.0.0.1 that ends in *days*."""
    now = dt.datetime.now(dt.UTC)
    issued = CA.issue_cert(
        "127.0.0.1",
        not_before=now - dt.timedelta(days=365),
        not_after=now + dt.timedelta(days=days),
    )
    issued.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "cert.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
    CA.cert_pem.write_to_path(directory / "ca.pem")


def configure(directory: Path, **sections) -> Path:
    certify(directory)
    path = directory / "web.yml"
    path.write_text(yaml.safe_dump(sections))
    return path


@contextlib.contextmanager
def serving(path: Path):
    taken = snapshot()
    web = Web(path, SystemClock())
    server = HttpServer(Site(lambda: taken), Http(port=0), clock=SystemClock(), web=web)
    server.start()
    try:
        yield server, web
    finally:
        server.stop()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def ask(server, path="/healthz", *, context=None, **headers):
    connection = HTTPSConnection(
        "127.0.0.1", server.port, timeout=10, context=context or trusting()
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_what_promtool_accepts_is_served_over_tls(tmp_path: Path):
    path = configure(tmp_path, tls_server_config=TLS, basic_auth_users={"prometheus": HASH})

    assert promtool("check", "web-config", str(path)).returncode == 0
    with serving(path) as (server, _):
        answer, body = ask(server, "/metrics", **basic("prometheus", "secret"))
    assert (answer.status, b"dvfd_build_info" in body) == (200, True)


def test_a_real_prometheus_scrapes_over_tls_with_a_password(tmp_path: Path):
    path = configure(tmp_path, tls_server_config=TLS, basic_auth_users={"prometheus": HASH})
    how = {
        "scheme": "https",
        "tls_config": {"ca_file": str(tmp_path / "ca.pem")},
        "basic_auth": {"username": "prometheus", "password": "secret"},
    }
    with (
        serving(path) as (server, _),
        prometheus(tmp_path, f"127.0.0.1:{server.port}", scrape=how) as engine,
    ):
        found = eventually(lambda: query(engine, "dvfd_build_info"), 60)
        assert query(engine, "up")[0]["value"][1] == "1"
    assert found[0]["metric"]["job"] == "dvfd"


def test_a_large_answer_arrives_whole(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, _):
        answer, body = ask(server, "/")

    assert len(body) == int(answer.headers["Content-Length"])
    assert body.rstrip().endswith(b"</html>")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("prometheus", "wrong"),
        basic("nobody", "secret"),
        basic("", ""),
        basic("prometheus", "sec\0ret"),
        basic("prometheus", "x" * 5000),
        {"Authorization": "Bearer secret"},
        {"Authorization": "Basic ???"},
        {"Authorization": "Basic"},
    ],
)
def test_nobody_else_comes_in(tmp_path: Path, headers):
    path = configure(tmp_path, tls_server_config=TLS, basic_auth_users={"prometheus": HASH})
    with serving(path) as (server, _):
        answers = [ask(server, place, **headers)[0] for place in ("/", "/metrics", "/healthz")]

    assert {a.status for a in answers} == {401}
    assert "Basic" in answers[0].headers["WWW-Authenticate"]


def test_a_password_is_worked_out_once(tmp_path: Path):
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(12)).decode()
    path = configure(tmp_path, basic_auth_users={"prometheus": slow})
    web = Web(path, SystemClock())
    header = basic("prometheus", "secret")["Authorization"]

    began = time.thread_time()
    assert web.admits(header)
    first = time.thread_time() - began
    assert web.admits(header)

    assert time.thread_time() - began - first < first / 5


def test_a_changed_hash_ends_what_was_remembered(tmp_path: Path):
    path = configure(tmp_path, basic_auth_users={"prometheus": HASH})
    web = Web(path, SystemClock())
    header = basic("prometheus", "secret")["Authorization"]
    assert web.admits(header)
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    path.write_text(yaml.safe_dump({"basic_auth_users": {"prometheus": other}}))

    eventually(lambda: web.context() is None and not web.admits(header), 60)


def test_guessers_hold_up_nobody_whose_password_is_known(tmp_path: Path):
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(12)).decode()
    path = configure(tmp_path, basic_auth_users={"prometheus": slow})
    path.write_text(yaml.safe_dump({"basic_auth_users": {"prometheus": slow}}))
    stop = threading.Event()

    def get(server, password: str) -> int:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers=basic("prometheus", password))
            return connection.getresponse().status

    def guess(server, number: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                get(server, f"guess {number}")

    with serving(path) as (server, _):
        assert get(server, "secret") == 200
        guessers = [threading.Thread(target=guess, args=(server, n)) for n in range(16)]
        for guesser in guessers:
            guesser.start()
        try:
            eventually(lambda: server.counters().get("503"), 60)
            assert [get(server, "secret") for _ in range(10)] == [200] * 10
        finally:
            stop.set()
            for guesser in guessers:
                guesser.join()


def test_a_key_with_a_passphrase_is_a_mistake_not_a_question(tmp_path: Path):
    path = configure(tmp_path, tls_server_config=TLS)
    key = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", f"{key}.2"],
        check=True, timeout=20,
    )  # fmt: skip
    Path(f"{key}.2").replace(key)

    with pytest.raises(ConfigError, match=r"key\.pem"):
        load(path)


def test_headers_go_with_every_answer(tmp_path: Path):
    http = {"headers": {"Strict-Transport-Security": "max-age=60"}}
    with serving(configure(tmp_path, tls_server_config=TLS, http_server_config=http)) as (up, _):
        assert ask(up)[0].headers["Strict-Transport-Security"] == "max-age=60"


def test_a_client_without_a_certificate_is_turned_away_where_one_is_wanted(tmp_path: Path):
    wanted = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    known = trusting()
    CA.issue_cert("prometheus.example").configure_cert(known)
    with serving(configure(tmp_path, tls_server_config=TLS | wanted)) as (server, _):
        assert ask(server, context=known)[0].status == 200
        with pytest.raises(OSError):  # SSLError, or a reset: the client's timing
            ask(server)
        eventually(lambda: server.counters().get("tls"), 5)


def test_plain_text_is_no_handshake(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, _):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.settimeout(5)
            with contextlib.suppress(OSError):
                while client.recv(4096):
                    pass
        assert ask(server)[0].status == 200
        assert server.counters()["tls"] == 1


def hello() -> bytes:
    """What a client says first, as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


GARBAGE = {
    "noise": lambda: os.urandom(4096),
    "zeros": lambda: bytes(4096),
    "half a hello": lambda: hello()[:100],
    "a hello and noise": lambda: hello() + os.urandom(4096),
    "a hello twice": lambda: hello() * 2,
    "a damaged hello": lambda: hello()[:60] + os.urandom(20) + hello()[80:],
    "a record that claims 64 KiB": lambda: b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "a thousand alerts": lambda: b"\x15\x03\x01\x00\x02\x01\x00" * 1000,
    "SSL 2": lambda: b"\x80\x2e\x01\x00\x02" + os.urandom(44),
}


def test_no_garbage_in_a_handshake_ends_the_listener_or_is_answered(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, _):
        for said in GARBAGE.values():
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                with contextlib.suppress(OSError):  # the listener may have closed it by now
                    client.sendall(said())
                    client.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    answer = b"".join(iter(lambda client=client: client.recv(65536), b""))
                    assert b"HTTP/" not in answer
        assert ask(server)[0].status == 200
        assert "500" not in server.counters()


def test_garbage_after_a_handshake_ends_that_line_only(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, _):
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with plain, trusting().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\n")
            os.write(client.fileno(), b"\x17\x03\x03\x00\x40" + os.urandom(64))  # no such record
            with contextlib.suppress(OSError):
                assert client.recv(65536) == b""
        assert ask(server)[0].status == 200
        assert "500" not in server.counters()


def test_five_hundred_idle_handshakes_hold_no_thread_and_nobody_up(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, _):
        ask(server)
        threads = threading.active_count()
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
        try:
            began = time.monotonic()
            assert ask(server)[0].status == 200
            assert time.monotonic() - began < 4  # less than the time after which idle ones go
            assert threading.active_count() <= threads + 8  # the workers, none for a client
        finally:
            for client in idle:
                client.close()


def test_a_renewed_certificate_is_in_force_without_a_restart(tmp_path: Path):
    def serial(server) -> bytes:
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        with trusting().wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            return tls.getpeercert(binary_form=True) or b""

    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, web):
        before = serial(server)
        certify(tmp_path, days=60)

        eventually(lambda: serial(server) != before, 10, every=0.2)
        assert web.expires_at == pytest.approx(time.time() + 60 * 86_400, abs=60)
        assert web.notice == ""


def test_a_broken_renewal_is_said_and_the_old_one_stays(tmp_path: Path):
    with serving(configure(tmp_path, tls_server_config=TLS)) as (server, web):
        (tmp_path / "cert.pem").write_text("no certificate")

        eventually(lambda: ask(server)[0].status == 200 and web.notice, 10, every=0.2)
        assert "the old one stays" in web.notice
        certify(tmp_path)
        eventually(lambda: ask(server)[0].status == 200 and not web.notice, 10, every=0.2)


@pytest.mark.parametrize(("days", "said"), [(-1, "has ended"), (3, "ends in"), (90, "")])
def test_a_certificate_at_its_end_is_said_and_served_on(tmp_path: Path, days: float, said: str):
    path = configure(tmp_path, tls_server_config=TLS)
    certify(tmp_path, days=days)
    anyway = ssl.create_default_context()
    anyway.check_hostname, anyway.verify_mode = False, ssl.CERT_NONE
    with serving(path) as (server, web):
        assert ask(server, context=anyway)[0].status == 200
        assert said in web.notice
        assert bool(said) == bool(web.notice)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "not YAML"),
        ("- 1", "whole file"),
        ("tls: {}", "tls: no such key"),
        ("tls_server_config: {cert_file: cert.pem}", "key_file: missing"),
        ("tls_server_config: {cert_file: no.pem, key_file: key.pem}", "no.pem"),
        ("tls_server_config: {cert_file: key.pem, key_file: cert.pem}", "used together"),
        ("tls_server_config: {cert_file: cert.pem, key_file: key.pem, cipher_suites: [X]}",
         "cipher_suites: dvfd cannot honour it"),
        ("tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS10}",
         "min_version"),
        (f"{PAIR}, client_auth_type: RequireAnyClientCert}}", "client_auth_type"),
        (f"{PAIR}, client_auth_type: RequireAndVerifyClientCert}}", "needs client_ca_file"),
        ("tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem}",
         "verifies nobody"),
        ("basic_auth_users: {prometheus: secret}", "wanted a bcrypt hash"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb: c"}}', "X-Frame-Options"),
        ("http_server_config: {headers: {Server: me}}", "Server"),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}", "'deny' or 'sameorigin'"),
        (f"basic_auth_users: {{prometheus: {HASH.replace('$04$', '$31$')}}}", "cost 4 to 14"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_and_no_secret(tmp_path: Path, text: str, named: str):
    certify(tmp_path)
    path = tmp_path / "web.yml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(path)

    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_mistake_is_told_at_once(tmp_path: Path):
    path = tmp_path / "web.yml"
    path.write_text("one: 1\ntwo: 2\nbasic_auth_users: {a: b}\n")

    with pytest.raises(ConfigError) as caught:
        load(path)

    assert len(caught.value.problems) == 3


def test_a_file_that_nobody_may_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("Basic YTpi", ("a", b"b")),
        ("basic YTpiOmM=", ("a", b"b:c")),
        ("Basic /w==", ("", b"")),
        ("", ("", b"")),
        ("Digest YTpi", ("", b"")),
    ],
)
def test_credentials_are_read_as_the_standard_has_them(header, wanted):
    assert credentials(header) == wanted


def test_where_openssl_is_not_to_be_had_the_end_is_not_known(tmp_path: Path, monkeypatch):
    path = configure(tmp_path, tls_server_config=TLS)
    monkeypatch.setenv("PATH", os.devnull)

    assert load(path).expires_at is None
    assert "cannot be told" in Web(path, SystemClock()).notice

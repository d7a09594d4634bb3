"""Another node is asked by HTTP in a bounded time, whatever listens there."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dvfd import remote
from dvfd.config import Cluster
from dvfd.errors import DvfdError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def listening(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """The address of something that takes one request and then does what *answer* does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                head = peer.recv(65536)
                try:
                    answer(peer, head)
                except OSError:
                    return  # it was cut off

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


def whole(document: object) -> Callable[[socket.socket, bytes], None]:
    body = json.dumps(document).encode()
    return lambda peer, _head: peer.sendall(HEAD % len(body) + body)


def test_what_an_api_answers_is_its_data_and_when_it_came():
    before = time.time()
    with listening(whole({"schema": 1, "data": {"node": "n1"}})) as url:
        found, answer = remote.data(url)

    assert found == {"node": "n1"}
    assert before <= answer.asked <= answer.answered <= time.time()


def test_a_password_goes_with_the_request_and_never_into_words():
    heads = []

    def refuse(peer: socket.socket, head: bytes) -> None:
        heads.append(head)
        peer.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    with listening(refuse) as url, pytest.raises(DvfdError) as caught:
        remote.data(url.replace("//", "//ann:s%20crt@"))

    assert b"Authorization: Basic YW5uOnMgY3J0" in heads[0]
    assert "it wants another password" in str(caught.value)
    assert "crt" not in str(caught.value)


def test_the_clusters_password_and_authority_are_those_of_its_configuration(tmp_path):
    (tmp_path / "password").write_text("s crt\n")
    (tmp_path / "ca").touch()
    nodes = Cluster(username="ann", password_file=tmp_path / "password", ca_file=tmp_path / "ca")
    access = remote.Access.of(nodes)
    heads = []

    def note(peer: socket.socket, head: bytes) -> None:
        heads.append(head)
        whole({"schema": 1, "data": 7})(peer, head)

    with listening(note) as url:
        assert remote.data(url, access)[0] == 7
    assert b"Authorization: Basic YW5uOnMgY3J0" in heads[0]
    assert "crt" not in repr(access)
    assert access.ca_file == tmp_path / "ca"


def test_a_password_that_cannot_be_read_is_said_before_anybody_is_asked(tmp_path):
    with pytest.raises(DvfdError, match=r"password of .cluster. cannot be read"):
        remote.Access.of(Cluster(username="ann", password_file=tmp_path / "none"))
    with pytest.raises(DvfdError, match=r"ca_file .* is no file"):
        remote.Access.of(Cluster(ca_file=tmp_path / "none"))


def test_a_certificate_counts_only_from_the_authority_that_is_named(tmp_path):
    trustme = pytest.importorskip("trustme")
    ours, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    for authority, name in ((ours, "ours"), (other, "other")):
        authority.cert_pem.write_to_path(tmp_path / name)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                with contextlib.suppress(OSError), context.wrap_socket(peer, True) as secure:
                    whole({"schema": 1, "data": 7})(secure, secure.recv(4096))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DvfdError, match="certificate verify failed"):
            remote.data(url, remote.Access(ca_file=tmp_path / "other"))
        assert remote.data(url, remote.Access(ca_file=tmp_path / "ours"))[0] == 7
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            lambda p, _: p.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            "404: wha",
        ),
        (lambda p, _: p.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), "302"),
        (lambda p, _: p.sendall(HEAD % 9 + b"{}"), "2 bytes read"),
        (lambda p, _: p.sendall(HEAD % 2 + b"{]"), "answers no JSON"),
        (lambda p, _: p.sendall(HEAD % 2 + b"[]"), r"no dvfd: '\[\]'"),
        (lambda p, _: p.sendall(HEAD % 40000 + b"[" * 40000), "answers no JSON"),
        (lambda p, _: p.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH-2.0"),
        (lambda p, _: p.sendall(b""), "closed connection"),
        (lambda p, _: p.sendall((HEAD % 2)[:20]), "without a length"),
    ],
)
def test_what_is_no_answer_of_a_dvfd_is_told_in_its_words(answer, said):
    with listening(answer) as url, pytest.raises(DvfdError, match=said):
        remote.data(url)


def drip(peer: socket.socket, _head: bytes) -> None:
    """A byte now and then: each one in time, all of them never."""
    for byte in HEAD % 100_000 + b"x" * 100_000:
        peer.sendall(bytes([byte]))
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [drip, lambda peer, _: peer.recv(1)])
def test_who_drips_or_says_nothing_is_cut_off_in_time(answer):
    began = time.monotonic()
    with listening(answer) as url, pytest.raises(DvfdError, match=r"no whole answer within 0\.3 s"):
        remote.get(url, within=0.3)

    assert time.monotonic() - began < 5


def test_more_than_was_wanted_is_not_read():
    def endless(peer: socket.socket, _head: bytes) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            peer.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    with listening(endless) as url, pytest.raises(DvfdError, match="more than 100000 bytes"):
        remote.get(url, most=100_000)


@pytest.mark.parametrize("token", ["tok\u20acn-s3cret", "s3cret\r\nX: y"])
def test_what_no_header_can_carry_is_told_without_it(token):
    access = remote.Access(headers={"Authorization": f"Bearer {token}"})
    with (
        listening(whole({})) as url,
        pytest.raises(DvfdError, match="HTTP does not send") as caught,
    ):
        remote.get(url, access)
    assert "cret" not in str(caught.value)


def test_a_name_that_none_can_be_is_told():
    with pytest.raises(DvfdError, match="does not resolve"):
        remote.get(f"http://{'a' * 70}.example")


@pytest.mark.parametrize("status", [b"403 No", b"404 No", b"200 OK"])
def test_a_node_that_repeats_the_password_does_not_get_it_printed(status):
    def answer(peer, head):
        sent = next(line for line in head.decode().split("\r\n") if "Basic" in line)
        body = json.dumps({"schema": 1, "error": {"message": f"hm {sent} s3cret"}}).encode()
        peer.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    access = remote.Access("u:s3cret")
    with listening(answer) as url, pytest.raises(DvfdError, match="hm") as caught:
        remote.data(url, access)
    assert "s3cret" not in str(caught.value)
    assert "dTpzM2NyZXQ" not in str(caught.value)


def test_no_proxy_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    with listening(whole({"schema": 1, "data": 7})) as url:
        assert remote.data(url)[0] == 7


def test_a_closed_port_and_a_name_that_is_none_are_told():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(DvfdError, match="Connection refused"):
            remote.get(f"http://127.0.0.1:{held.getsockname()[1]}")
    with pytest.raises(DvfdError, match=r"nobody\.invalid does not resolve"):
        remote.get("http://nobody.invalid:9109/")

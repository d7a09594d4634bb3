"""The control socket over a real Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import eventually, reachable

from dvfd.asking import ask
from dvfd.control import REQUEST_LIMIT, ControlServer, Operation
from dvfd.errors import DvfdError


def refuse(request: object, peer: object) -> object:
    raise DvfdError("no such check: dialy; did you mean daily?")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    server = ControlServer(
        tmp_path / "control.sock",
        {
            "ping": Operation(lambda request, peer: "pong"),
            "who": Operation(lambda request, peer: [peer.pid, peer.uid]),
            "refuse": Operation(refuse),
            "broken": Operation(lambda request, peer: object()),
            "change": Operation(lambda request, peer: "changed", changes=True),
        },
    )
    server.start()
    yield tmp_path / "control.sock"
    server.stop()


def test_a_question_is_answered(path: Path) -> None:
    assert ask(path, "ping") == "pong"


def test_the_kernel_says_who_asks(path: Path) -> None:
    assert ask(path, "who") == [os.getpid(), os.getuid()]


def test_a_refusal_carries_the_reason(path: Path) -> None:
    with pytest.raises(DvfdError, match="did you mean daily"):
        ask(path, "refuse")


def test_nobody_there_is_none(tmp_path: Path) -> None:
    assert ask(tmp_path / "nobody.sock", "ping") is None


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"[1]\n", b'{"op": []}\n', b"\xff\n", b"[" * 60000 + b"\n"]
)
def test_nonsense_is_answered_with_what_was_wanted(path: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        channel.sendall(line)
        channel.shutdown(socket.SHUT_WR)
        assert b"not understood" in channel.recv(4096)
    assert ask(path, "ping") == "pong"


def test_a_huge_request_is_cut_off(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        with pytest.raises(OSError):
            channel.sendall(b"x" * REQUEST_LIMIT * 100)
    assert ask(path, "ping") == "pong"


def test_idle_peers_do_not_keep_others_out_for_good(path: Path) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for channel in idle:
        channel.connect(str(path))
    for channel in idle:
        channel.close()
    eventually(lambda: _pong(path), 5)


def _pong(path: Path) -> bool:
    try:
        return bool(ask(path, "ping") == "pong")
    except DvfdError:
        return False


def test_a_daemon_that_hangs_is_not_the_same_as_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "hung.sock"))
        listener.listen()
        with pytest.raises(DvfdError, match="does not answer"):
            ask(tmp_path / "hung.sock", "ping", timeout=0.2)


@pytest.mark.parametrize("answer", [b"{}", b"[1]", b"null", b'{"error": {"a": 1}}'])
def test_what_answers_like_no_daemon_is_told_in_words(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)

        def serve() -> None:
            channel, _ = listener.accept()
            with channel:
                channel.recv(4096)
                channel.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(DvfdError, match="answers like no daemon"):
            ask(tmp_path / "socket", "ping")
        server.join()


def test_a_daemon_of_another_version_is_called_that(path: Path) -> None:
    with pytest.raises(DvfdError, match="does not know 'levitate', so its version is another"):
        ask(path, "levitate")


def test_an_answer_that_is_no_json_does_not_end_the_server(path: Path) -> None:
    with pytest.raises(DvfdError, match="does not answer"):
        ask(path, "broken")
    assert ask(path, "ping") == "pong"


def test_a_second_daemon_does_not_take_the_socket(path: Path) -> None:
    with pytest.raises(FileExistsError, match="another dvfd"):
        ControlServer(path, {}).start()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_a_stranger_may_read_but_not_change(path: Path) -> None:
    reachable(path.parent)
    script = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "from pathlib import Path; from dvfd.asking import ask\n"
        "print(ask(Path(sys.argv[1]), 'ping'))\n"
        "try: ask(Path(sys.argv[1]), 'change')\n"
        "except Exception as error: print(error)\n"
    )
    code = [sys.executable, "-c", "import dvfd.control\n" + script, str(path)]
    said = subprocess.run(code, capture_output=True, text=True, timeout=30, check=True).stdout
    assert said.startswith("pong\nuser nobody may not change")

"""The control socket under attack: crowds, leavers, tricklers, no descriptors left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from testbed import eventually, reachable

from dvfd.asking import ask
from dvfd.cli import dvfd
from dvfd.control import CONNECTIONS, ControlServer, Operation
from dvfd.errors import DvfdError, NoAnswer


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    server = ControlServer(
        tmp_path / "control.sock", {"ping": Operation(lambda request, peer: "pong")}
    )
    server.start()
    yield tmp_path / "control.sock"
    server.stop()


@contextlib.contextmanager
def crowd(path: Path, size: int) -> Iterator[list[socket.socket]]:
    """Peers that connect and say nothing."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(size)]
        for peer in peers:
            peer.connect(str(path))
        yield peers


def test_peers_that_leave_before_they_are_turned_away_do_not_end_the_service(path: Path) -> None:
    with crowd(path, CONNECTIONS + 8):
        for _ in range(50):
            with crowd(path, 1):
                pass
    assert eventually(lambda: pinged(path), 60) == "pong"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_strangers_cannot_lock_the_owner_out(path: Path) -> None:
    reachable(path.parent)
    code = (
        "import os, socket, sys, time\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "peers = [socket.socket(socket.AF_UNIX) for _ in range(40)]\n"
        "[peer.connect(sys.argv[1]) for peer in peers]\n"
        "print('here', flush=True); time.sleep(3)\n"
    )
    stranger = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    with stranger:
        assert stranger.stdout
        assert stranger.stdout.readline() == b"here\n"
        assert ask(path, "ping") == "pong"
        stranger.kill()


@pytest.mark.slow
def test_one_who_trickles_loses_the_line(path: Path) -> None:
    with crowd(path, 1) as [peer]:
        peer.settimeout(10)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 8:
                peer.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - began < 7


def test_the_service_outlives_a_time_without_descriptors(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    with crowd(path, 1), socket.socket(socket.AF_UNIX) as late:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
        try:
            late.connect(str(path))
            time.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert eventually(lambda: pinged(path), 5) == "pong"


def pinged(path: Path) -> object:
    try:
        return ask(path, "ping", timeout=1)
    except DvfdError:
        return None


def test_a_full_queue_is_waited_for_and_never_taken_for_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(DvfdError, match="at once"):
            ask(path, "ping", timeout=0.2)


STRANGER = 65534

LIAR = """
import json, os, socket, sys
os.umask(0); os.setgid(65534); os.setuid(65534)
directory, answer = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"{directory}/control.sock"); listener.listen()
print("here", flush=True)
while True:
    channel, _ = listener.accept()
    with channel:
        channel.recv(65536); channel.sendall(answer.encode())
"""

PASS = {"schema": 1, "check": "ready", "node": "n1", "verdict": "PASS", "asked": ["live"],
        "left_out": [], "troubles": [], "results": [{
            "criterion": "live.memory", "verdict": "PASS", "severity": "critical", "reason": "ok",
        }]}  # fmt: skip

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@contextlib.contextmanager
def liar(directory: Path) -> Iterator[Path]:
    """Another user, who listens where a daemon would and says that all is well."""
    answer = json.dumps({"answer": {**PASS, "at": time.time()}})
    argv = [sys.executable, "-c", LIAR, str(directory), answer]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"here\n"
            yield directory / "control.sock"
        finally:
            process.kill()


@pytest.fixture
def anybodys(tmp_path: Path) -> Path:
    """A directory in which anybody may make one, as /tmp is."""
    reachable(tmp_path)
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    return place


@as_root
def test_nobody_is_ready_because_another_user_says_so(
    anybodys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is first to make the directory that root would use must not speak for the node."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(anybodys / "dvfd-0"))
    with liar(anybodys / "dvfd-0"):
        found = CliRunner().invoke(dvfd, ["ready"])

    assert found.exit_code == 3
    assert found.output.startswith("UNKNOWN: dvfd.itself: ")
    assert f"user {STRANGER} made that directory where anybody can" in found.output


@as_root
def test_another_user_who_listens_in_ones_own_directory_is_not_asked(anybodys: Path) -> None:
    with liar(anybodys) as path, pytest.raises(NoAnswer, match=r"65534 listens .*, wanted 0$"):
        ask(path, "ready")


@as_root
def test_the_daemons_user_is_believed_in_the_directory_that_root_gave_it() -> None:
    with tempfile.TemporaryDirectory(dir="/run", prefix="dvfd-test-") as given:
        os.chown(given, STRANGER, STRANGER)
        with liar(Path(given)) as path:
            assert ask(path, "ready")["verdict"] == "PASS"


def test_who_answers_a_byte_at_a_time_has_no_longer_than_others(tmp_path: Path) -> None:
    gone = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "slow.sock"))
        listener.listen()

        def drip() -> None:
            channel, _ = listener.accept()
            with channel, contextlib.suppress(OSError):
                while not gone.wait(0.1):
                    channel.sendall(b" ")

        server = threading.Thread(target=drip)
        server.start()
        end = threading.Timer(30, gone.set)
        end.start()
        try:
            with pytest.raises(NoAnswer, match="timed out"):
                ask(tmp_path / "slow.sock", "ready", timeout=0.5)
        finally:
            ended = gone.is_set()
            gone.set()
            end.cancel()
            server.join()
    assert not ended, "it waited for the last byte"

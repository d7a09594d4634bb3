"""The control socket under attack: crowds, leavers, tricklers, no descriptors left."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import eventually

from dvfd.asking import ask
from dvfd.control import CONNECTIONS, ControlServer, Operation
from dvfd.errors import DvfdError


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
    assert eventually(lambda: pinged(path), 10) == "pong"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_strangers_cannot_lock_the_owner_out(path: Path) -> None:
    for folder in path.parents[:3]:
        folder.chmod(0o755)
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

"""scripts/apart: a command has processes, a network and mounts of its own; they end with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from testbed import eventually, outside

APART = Path(__file__).resolve().parents[2] / "scripts/apart"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def apart(words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [APART, "sh", "-c", words], capture_output=True, text=True, timeout=120, check=False
    )


def test_it_sees_no_process_of_ours() -> None:
    pids = [int(pid) for pid in apart("cd /proc && echo [0-9]*").stdout.split()]
    assert 1 in pids
    assert len(pids) <= 4  # the first, the shell, what the network was made by


def test_its_network_has_a_card_and_ours_is_reached_where_a_registry_is_asked() -> None:
    network = Path("/proc/self/ns/net").readlink()
    done = apart(
        "ls /sys/class/net; readlink /proc/self/ns/net;"
        'nsenter --net="$DVFD_TEST_OUTSIDE" readlink /proc/self/ns/net'
    )
    *cards, its, there = done.stdout.split()
    assert {"lo", "eth0"} <= set(cards)
    assert its != str(network)
    assert there == str(network)


def test_a_command_that_asks_a_registry_begins_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DVFD_TEST_OUTSIDE", raising=False)
    assert outside() == []
    monkeypatch.setenv("DVFD_TEST_OUTSIDE", "/run/x")
    assert outside() == ["nsenter", "--net=/run/x"]


def test_its_exit_code_is_the_commands() -> None:
    assert apart("exit 7").returncode == 7


def test_what_it_leaves_running_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    done = apart(f"setsid tail -f {mark} >/dev/null 2>&1 & until pgrep -x tail; do sleep 0.1; done")
    assert done.stdout
    eventually(lambda: not running(mark), 60)


def running(mark: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(mark).encode() in words and entry.name != str(os.getpid()):
            found.append(entry.name)
    return found

"""The ledger under SIGKILL, a full disk and several processes at once: what was told is there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dvfd import log
from dvfd.clock import SystemClock
from dvfd.errors import StoreError
from dvfd.evidence.ledger import FILE, TORN, Evidence

BODY = {"results": ["x" * 200] * 20}


def appends(place: Path, count: int, *, torn: int = 0, room: int = 0) -> None:
    """Append *count* records and say the number of each; with *torn* die in the middle of that one,
    with *room* have no more than so many bytes of disk.
    """
    log.setup("critical")
    written = os.pwrite
    left = [torn]

    def half(descriptor: int, data: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] == 0:
            written(descriptor, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return written(descriptor, data, offset)

    os.pwrite = half
    if room:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    ledger = Evidence(place, SystemClock(), node=str(os.getpid()))
    for _ in range(count):
        try:
            print(ledger.append("run", "hardware", BODY, submitted="root").number, flush=True)
        except StoreError as error:
            print(error, file=sys.stderr, flush=True)
            return


def child(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(place), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def numbers(said: str) -> list[int]:
    return [int(line) for line in said.splitlines()]


def test_a_process_killed_at_any_moment_loses_nothing_that_it_was_told_is_safe(
    tmp_path: Path,
) -> None:
    told: list[int] = []
    for lines in (1, 3, 9):
        writer = child(tmp_path, "100000")
        assert writer.stdout
        told += [int(writer.stdout.readline()) for _ in range(lines)]
        writer.kill()
        told += numbers(writer.communicate(timeout=30)[0])

    ledger = Evidence(tmp_path, SystemClock())
    assert ledger.verify() == []
    assert {record.number for record in ledger.records("run")} >= set(told)
    assert len(told) == len(set(told)) > 12


def test_a_record_that_a_kill_cut_in_half_was_told_to_nobody_and_is_set_aside(
    tmp_path: Path,
) -> None:
    told, _ = child(tmp_path, "5", "--torn=4").communicate(timeout=30)  # the founding is the first
    assert numbers(told) == [2, 3]

    told, _ = child(tmp_path, "2").communicate(timeout=30)

    ledger = Evidence(tmp_path, SystemClock())
    assert numbers(told) == [4, 5]
    assert ledger.verify() == []
    assert (tmp_path / TORN).stat().st_size > 1000


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    writers = [child(tmp_path, "15") for _ in range(3)]
    told = [numbers(writer.communicate(timeout=60)[0]) for writer in writers]

    ledger = Evidence(tmp_path, SystemClock())
    assert ledger.verify() == []
    assert sorted(n for each in told for n in each) == list(range(2, 47))
    assert len({record.node for record in ledger.records("run")}) == 3


def test_a_disk_without_room_leaves_whole_records_and_says_what_to_do(tmp_path: Path) -> None:
    writer = child(tmp_path, "100", "--room=20000")
    told, said = writer.communicate(timeout=30)

    assert "nothing was recorded: File too large: make room" in said
    assert numbers(told) == [2, 3, 4, 5]
    assert (tmp_path / FILE).read_bytes().endswith(b"}\n")
    again, _ = child(tmp_path, "1").communicate(timeout=30)
    assert numbers(again) == [6]
    assert Evidence(tmp_path, SystemClock()).verify() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_of_somebody_else_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="Permission denied: make room or give"):
        Evidence(tmp_path / "evidence", SystemClock()).append("run", "x", {}, submitted="me")


if __name__ == "__main__":
    options = dict(word.removeprefix("--").split("=") for word in sys.argv[3:])
    appends(Path(sys.argv[1]), int(sys.argv[2]), **{k: int(v) for k, v in options.items()})

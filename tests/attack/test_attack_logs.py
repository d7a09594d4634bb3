"""Log files that nobody can read: a followed log costs bounded memory, and what is lost is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.harness import status
from dvfd.errors import ProbeError
from dvfd.tail import Tail

GIB = 1 << 30
BUDGET = 1 << 20
GROWTH = 16 * 1024  # KiB: a pass reads 1 MiB; a line that was kept whole would be a thousand


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "job.log"
    path.write_text("old\n")
    return path


def follow(path: Path) -> Tail:
    """A tail that has read all that was there."""
    tail = Tail(path)
    tail.lines(BUDGET)
    return tail


def rest(tail: Tail, passes: int = 3000) -> list[str]:
    """What comes until nothing is left to read."""
    found: list[str] = []
    for _ in range(passes):
        found += [line for line in tail.lines(BUDGET) if line]
        if not tail.behind:
            break
    return found


@contextmanager
def in_bounds() -> Iterator[None]:
    """What is done inside keeps no more memory than a few passes."""
    before = status(os.getpid(), "VmHWM")
    yield
    assert status(os.getpid(), "VmHWM") - before < GROWTH


@pytest.mark.slow
def test_a_line_of_a_gigabyte_costs_its_first_bytes_and_the_next_line_counts(log: Path) -> None:
    tail = follow(log)
    with log.open("ab") as file:
        file.write(b"loss is nan ")
        file.truncate(GIB)  # sparse: a gigabyte of zeros, without an end of line
        file.seek(0, os.SEEK_END)
        file.write(b"\nERROR after it\n")
    with in_bounds():
        found = rest(tail)

    assert [line[:12] for line in found] == ["loss is nan ", "ERROR after "]
    assert len(found[0]) <= 70_000
    assert tail.behind == 0


def test_a_megabyte_of_binary_is_lines_of_text_and_the_next_line_counts(log: Path) -> None:
    tail = follow(log)
    with log.open("ab") as file:
        file.write(os.urandom(1 << 22) + b"\nERROR after it\n")
    with in_bounds():
        found = rest(tail)

    assert found[-1] == "ERROR after it"
    assert all(isinstance(line.encode("utf-8"), bytes) for line in found)


@pytest.mark.parametrize("kind", ["a directory", "a FIFO", "a device", "a loop", "nothing"])
def test_what_cannot_be_followed_is_said_at_once_and_never_waited_for(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "job.log"
    make = {
        "a directory": path.mkdir,
        "a FIFO": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a loop": lambda: path.symlink_to(path),
        "nothing": lambda: None,
    }
    make[kind]()

    with pytest.raises(ProbeError, match=r"job\.log: .{5,}"):
        Tail(path).lines(BUDGET)


def test_a_log_that_becomes_something_else_under_the_reader_is_said(log: Path) -> None:
    tail = follow(log)
    log.rename(log.with_suffix(".1"))
    os.mkfifo(log)
    with pytest.raises(ProbeError, match="no plain file"):
        tail.lines(BUDGET)

"""Following a file: every line once, through rotation, truncation and restarts."""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from pathlib import Path

import pytest

from dvfd.errors import ProbeError
from dvfd.tail import LINE, Tail

BUDGET = 1 << 20


class Followed:
    """A log file and somebody who follows it from its beginning."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "train.log"
        self.path.touch()
        self.tail = Tail(self.path)
        self.read()

    def write(self, text: str | bytes, *, to: Path | None = None) -> None:
        with (to or self.path).open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def read(self, budget: int = BUDGET) -> list[str]:
        blocks = list(self.tail.blocks(budget))
        return [line for block in blocks for line in block.split("\n") if line]

    def restart(self) -> None:
        position = json.loads(json.dumps(self.tail.position))
        self.tail.close()
        self.tail = Tail(self.path, position)


@pytest.fixture
def log(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def test_what_was_there_before_the_first_look_is_old(tmp_path: Path) -> None:
    (tmp_path / "old.log").write_text("Traceback\n")
    assert list(Tail(tmp_path / "old.log").blocks(BUDGET)) == []


def test_new_lines_come_once(log: Followed) -> None:
    log.write("a\nb\n")
    assert log.read() == ["a", "b"]
    assert log.read() == []


def test_a_line_waits_for_its_end(log: Followed) -> None:
    log.write("Trace")
    assert log.read() == []
    log.write("back\n")
    assert log.read() == ["Traceback"]


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "late.log")
    with pytest.raises(ProbeError, match=r"late\.log: no such file"):
        list(tail.blocks(BUDGET))
    (tmp_path / "late.log").write_text("first\n")
    assert list(tail.blocks(BUDGET)) == ["first"]


def test_the_rest_of_a_renamed_file_is_read_before_its_successor(log: Followed) -> None:
    log.write("a\n")
    log.read()
    log.write("b\nlast words")
    log.path.rename(log.path.with_suffix(".log.1"))
    log.write("c\n")
    assert log.read() == ["b", "last words", "c"]


def test_between_rename_and_successor_the_rest_is_read_and_the_gap_is_said(log: Followed) -> None:
    log.write("a\n")
    log.path.rename(log.path.with_suffix(".log.1"))
    seen: list[str] = []
    with pytest.raises(ProbeError):
        seen.extend(log.tail.blocks(BUDGET))
    log.write("b\n")
    assert (seen, log.read()) == (["a"], ["b"])


def test_copytruncate_starts_over(log: Followed) -> None:
    log.write("10:00 a long first line\n")
    log.read()
    os.truncate(log.path, 0)
    log.write("10:01 b\n")
    assert log.read() == ["10:01 b"]


def test_copytruncate_is_noticed_even_if_the_file_grew_past_the_old_offset(log: Followed) -> None:
    log.write("10:00 a\n")
    log.read()
    os.truncate(log.path, 0)
    log.write("10:01 b\n10:01 c\n10:01 d\n")
    assert log.read() == ["10:01 b", "10:01 c", "10:01 d"]


BANNER = "number of parameters: 10.65M, tokens per iteration will be: 16,384, compiling\n"


@pytest.mark.parametrize("restart", [False, True])
def test_a_log_that_begins_as_the_one_before_it_is_read_from_its_beginning(
    log: Followed, *, restart: bool
) -> None:
    log.write(BANNER + "iter 0: loss 4.2664, time 33821.77ms\n")
    log.read()
    position = log.tail.position
    log.path.write_text(
        BANNER + "iter 0: loss nan, time 33799.02ms\niter 10: loss nan, time 402ms\n"
    )
    if restart:
        log.tail.close()
        log.tail = Tail(log.path, json.loads(json.dumps(position)))
    assert log.read()[1:] == ["iter 0: loss nan, time 33799.02ms", "iter 10: loss nan, time 402ms"]


def test_a_file_that_grows_is_the_same_file_at_every_length(log: Followed) -> None:
    for number in range(200):
        log.write(line := "x" * number + "\n")
        assert log.read() == [line.strip()] * bool(number)


def test_a_position_that_an_older_dvfd_kept_is_gone_on_from(log: Followed) -> None:
    log.write("a\n")
    log.read()
    position = {k: v for k, v in log.tail.position.items() if k not in {"read", "last"}}
    log.tail.close()
    log.tail = Tail(log.path, position)
    log.write("b\n")
    assert log.read() == ["b"]


def test_a_file_that_was_written_before_anybody_looked_is_old_though_it_comes_late(
    tmp_path: Path,
) -> None:
    tail = Tail(path := tmp_path / "late.log")
    with pytest.raises(ProbeError):
        tail.lines(BUDGET)
    path.write_text("Traceback of yesterday\n")
    yesterday = time.time() - 86400
    os.utime(path, (yesterday, yesterday))
    assert tail.lines(BUDGET) == []
    with path.open("a") as file:
        file.write("now\n")
    assert tail.lines(BUDGET) == ["now"]


def test_a_file_server_whose_clock_is_behind_hides_nothing(tmp_path: Path) -> None:
    tail = Tail(path := tmp_path / "late.log")
    with pytest.raises(ProbeError):
        tail.lines(BUDGET)
    path.write_text("first\n")
    os.utime(path, (behind := time.time() - 300, behind))
    assert tail.lines(BUDGET) == ["first"]


def test_a_restart_neither_repeats_nor_skips(log: Followed) -> None:
    log.write("a\nhalf ")
    assert log.read() == ["a"]
    log.restart()
    log.write("done\n")
    assert log.read() == ["half done"]


def test_a_rotation_while_nobody_looked_loses_nothing(log: Followed) -> None:
    log.write("a\n")
    log.read()
    log.write("b\n")
    log.path.rename(log.path.with_suffix(".log.1"))
    log.write("c\n")
    log.restart()
    assert log.read() == ["b", "c"]


def test_a_compressed_predecessor_is_left_alone(log: Followed) -> None:
    log.write("a\n")
    log.read()
    log.path.unlink()
    with gzip.open(log.path.with_suffix(".log.1.gz"), "wb") as file:
        file.write(b"a\n")
    log.write("b\n")
    log.restart()
    assert log.read() == ["b"]


def test_a_new_file_with_the_inode_of_the_old_one_is_new(log: Followed) -> None:
    log.write("10:00 a\n")
    log.read()
    position = log.tail.position
    log.tail.close()
    log.path.write_text("10:02 b\n10:02 c\n")  # in place: the inode stays
    log.tail = Tail(log.path, position)
    assert log.read() == ["10:02 b", "10:02 c"]


def test_a_gigantic_line_is_cut_and_the_next_one_is_whole(log: Followed) -> None:
    log.write("x" * (5 * 65536) + "\nnext\n")
    lines = log.read()
    assert len(lines[0]) <= LINE + 65536
    assert lines[-1] == "next"


def test_a_line_without_end_costs_no_memory(log: Followed) -> None:
    log.write("x" * 1_000_000)
    log.read()
    log.write("y" * 1_000_000)
    log.read()
    assert len(log.tail._partial) == 0


def test_the_middle_of_a_gigantic_line_is_no_line_after_a_restart(log: Followed) -> None:
    log.write("x" * 100_000)
    log.read()
    log.restart()
    log.write("Traceback\nnext\n")
    assert log.read() == ["next"]


def test_progress_bars_end_their_lines_with_a_carriage_return(log: Followed) -> None:
    log.write("10%\r20%\rTraceback\r\n")
    assert log.read() == ["10%", "20%", "Traceback"]


def test_bytes_that_are_no_text_do_no_harm(log: Followed) -> None:
    log.write(random.Random(1).randbytes(10_000) + b"\n\xff\xfeTraceback\x00\n")
    assert "Traceback" in log.read()[-1]


def test_a_backlog_is_read_over_several_passes(log: Followed) -> None:
    log.write("0123456\n" * 1000)
    assert 0 < len(log.read(budget=800)) < 1000
    assert log.tail.behind == 8000 - 800
    assert sum(len(log.read(budget=800)) for _ in range(9)) > 0
    assert log.tail.behind == 0


def test_a_fifo_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProbeError, match="no plain file"):
        list(Tail(tmp_path / "pipe").blocks(BUDGET))


def test_random_writes_rotations_and_restarts_lose_and_repeat_nothing(tmp_path: Path) -> None:
    log, chance = Followed(tmp_path), random.Random(7)
    written, seen = [], []
    for number in range(2000):
        log.write(line := f"line {number}\n")
        written.append(line.strip())
        act = chance.random()
        if act < 0.05:
            seen += log.read()
            log.path.rename(tmp_path / f"train.log.{number}")
            log.path.touch()
        elif act < 0.1:
            log.restart()
        elif act < 0.4:
            seen += log.read()
    assert seen + log.read() == written

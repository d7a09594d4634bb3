"""A configuration that is none, is endless or huge: refused at once, in words, with exit 78."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.harness import status
from dvfd.config import MISTAKE, MISTAKES, load
from dvfd.errors import ConfigError
from dvfd.sinks import web_config

WITHIN = 10.0
"""Seconds of the processor: what is refused by its size or kind takes none, a megabyte a few."""

GROWTH = 128 * 1024
"""KiB that refusing may take: 100 MB of TOML would be a gigabyte of tables."""


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    line = b'[[logs]]\nname = "a"\npath = "/x"\n'
    path.write_bytes(line * (100_000_000 // len(line)))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


CASES = {
    "a directory": (Path.mkdir, "no plain file"),
    "a FIFO": (_fifo, "no plain file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "no plain file"),
    "a loop of links": (lambda path: path.symlink_to(path), "symbolic links"),
    "a link to a disk": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
    "100 MB": (_huge, "more than 1048576 bytes"),
    "16 GiB of nothing": (_sparse, "more than 1048576 bytes"),
    "binary": (lambda path: path.write_bytes(os.urandom(1 << 16)), "cannot be read"),
    "zeros": (lambda path: path.write_bytes(b"\0" * 1000), "not TOML"),
    "lists in lists": (lambda path: path.write_text("a = " + "[" * 100_000), "nest too deep"),
    "tables in tables": (
        lambda path: path.write_text(f"[{'.'.join(['a'] * 50_000)}]\n"), "nest too deep",
    ),
    "10^4 tables": (
        lambda path: path.write_text("".join(f"[t{n}]\na = 1\n" for n in range(10_000))),
        "no such key",
    ),
    "a key of 1 MB": (lambda path: path.write_text(f"{'k' * 1_000_000} = 1\n"), "kkkk"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_at_once_in_few_words(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    path = tmp_path / "dvfd.toml"
    make(path)
    before, began = status(os.getpid(), "VmHWM"), time.thread_time()
    with pytest.raises(ConfigError) as refused:
        load(path)

    assert time.thread_time() - began < WITHIN
    assert status(os.getpid(), "VmHWM") - before < GROWTH
    assert words in str(refused.value)
    assert all(line.startswith((str(path), "and ")) for line in refused.value.problems)
    assert len(refused.value.problems) <= MISTAKES + 1
    assert len(str(refused.value)) <= (MISTAKES + 1) * (MISTAKE + 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a FIFO", "tables in tables"])
def test_a_daemon_ends_with_78_and_one_line(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    path = tmp_path / "dvfd.toml"
    make(path)
    environment = {**os.environ, "DVFD_CONFIG": str(path), "RUNTIME_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "run"], env=environment, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == 78, done.stderr[-2000:]
    assert words in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize("case", ["a directory", "a FIFO", "an endless device", "100 MB"])
def test_a_web_configuration_is_refused_likewise(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    path = tmp_path / "web.yml"
    make(path)
    with pytest.raises(ConfigError, match=words):
        web_config.load(path)


def test_a_web_configuration_that_nests_for_ever_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("a: " + "[" * 50_000)
    with pytest.raises(ConfigError, match="nests too deep"):
        web_config.load(path)

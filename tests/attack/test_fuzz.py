"""Nothing that others write crashes who reads it: the short form of `python -m bench.fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fuzz_guided import INSTRUMENTED, guided
from bench.fuzz_packets import SLOW, parsed, received
from bench.fuzz_plain import SLOW as SLOW_INPUT
from bench.fuzz_plain import plain
from bench.fuzz_targets import TARGETS

KEPT = Path(__file__).parents[1] / "fixtures/fuzz"
"""Inputs that once crashed their reader, by target."""

CASES = [(path.parent.name, path) for path in sorted(KEPT.glob("*/*"))]


def test_packets_are_records_or_refused_quickly_and_nothing_is_kept_of_them() -> None:
    found = parsed(30_000, processes=1)

    assert found.crashes == []
    assert found.packets == 30_000
    assert 0.1 < found.accepted / found.packets < 0.9, "too few, or too many, of them are damaged"
    assert found.slowest < 10 * SLOW  # the machine that tests run on is busy
    assert found.grown_kib < 16 * 1024


@pytest.mark.slow
def test_the_receiver_outlives_packets_over_real_lines_and_counts_what_it_refused() -> None:
    found = received(12_000)

    assert found.troubles == []
    assert found.sent >= 12_000
    assert found.refused_at_least > 6_000
    assert found.counters["rows"] > 1_000, "some must come through, or nothing behind is tried"


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_or_refuses_whatever_is_damaged(name: str) -> None:
    found = plain(TARGETS[name], 150)

    assert found.crashes == []
    assert found.slowest < SLOW_INPUT


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda each: str(getattr(each, "name", each)))
def test_what_once_crashed_a_reader_does_so_no_more(name: str, path: Path) -> None:
    TARGETS[name].take(path.read_bytes())


def test_every_reader_is_instrumented() -> None:
    assert list(INSTRUMENTED) == list(TARGETS)


@pytest.mark.slow
def test_a_guided_fuzzer_finds_no_crash_in_the_wire(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    [found] = guided(tmp_path, ["packets"], seconds=5, runs=1_000_000)

    assert found.crash == ""
    assert found.runs > 1_000
    assert found.edges > 50

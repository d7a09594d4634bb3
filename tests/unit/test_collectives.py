"""Collectives of this node: what the ranks wrote is held to be about what was asked."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from fakes_collectives import MS, Ranks, spread
from fakes_drills import said, task

from dvfd.drills.collectives import Measured, measure, median_interval, size
from dvfd.errors import DvfdError, ProbeError, ToolTimeout


def measured(directory: Path, ranks: Ranks, *messages: str) -> list[Measured]:
    chosen = task("openmpi_gloo", directory, run=ranks)
    return measure(chosen, ranks=4, messages=messages or ("64KiB",))


# --- Figures --------------------------------------------------------------------------------------


def test_bandwidths_are_bytes_over_the_median_and_what_a_link_carries_of_them(
    tmp_path: Path,
) -> None:
    [found] = measured(tmp_path, Ranks({65536: 2 * MS}))
    assert found.median == pytest.approx(0.002)
    assert found.algbw == pytest.approx(65536 / 0.002)
    assert found.busbw == pytest.approx(found.algbw * 2 * 3 / 4)


def test_every_message_has_figures_of_its_own_in_the_order_asked(tmp_path: Path) -> None:
    found = measured(tmp_path, Ranks({25 * 1024 * 1024: 90 * MS}), "bucket", "1KiB")
    assert [(m.message, m.bytes) for m in found] == [("bucket", 26_214_400), ("1KiB", 1024)]
    assert [round(m.median, 3) for m in found] == [0.090, 0.001]


@pytest.mark.parametrize(("message", "least"), [("64KiB", 100), ("1MiB", 100), ("bucket", 20)])
def test_small_messages_are_timed_100_times_and_large_ones_20_times(
    tmp_path: Path, message: str, least: int
) -> None:
    assert measured(tmp_path, Ranks(), message)[0].iterations == least


def test_quantiles_and_spread_are_those_of_the_times(tmp_path: Path) -> None:
    [found] = measured(tmp_path, Ranks(rows={"slowest": [n * MS for n in range(1, 101)]}))
    assert found.median == pytest.approx(0.0505)
    assert found.mad == pytest.approx(0.025)
    assert found.p95 == pytest.approx(0.09505)
    assert found.p99 == pytest.approx(0.09901)


@pytest.mark.parametrize("name", ["64kB", "0KiB", "", "64", "KiB", "-1MiB"])
def test_a_message_that_is_no_size_is_refused(name: str) -> None:
    with pytest.raises(ProbeError, match="wanted a size like 64KiB"):
        size(name)


@pytest.mark.parametrize(
    ("count", "k"), [(6, 1), (9, 2), (20, 6), (30, 10), (50, 18), (100, 40), (400, 180)]
)
def test_independent_times_bound_the_median_as_the_sign_test_does(count: int, k: int) -> None:
    """k from the tables of the sign test, such as Conover's (1999), A3: 95 %, two-sided. Ours is
    that of large samples: the same or the next wider."""
    half = range(1, count // 2 + 1)
    alternating = [n for low in half for n in (low, low + count // 2)]
    low, high = median_interval([*alternating, *range(2 * len(half) + 1, count + 1)])
    assert low in (k, max(1, k - 1))
    assert high == count + 1 - low


def test_times_that_resemble_their_neighbours_say_less() -> None:
    dice = random.Random(7)
    mixed = [float(n // 10) + n / 1e3 for n in range(100)]
    dice.shuffle(mixed)
    blocks = [float(n) for n in dice.sample(range(10), 10) for _ in range(10)]
    (low, high), (wide_low, wide_high) = median_interval(mixed), median_interval(blocks)
    assert wide_high - wide_low > 1.5 * (high - low)


@pytest.mark.parametrize("memory", [0.0, 0.3, 0.6])
def test_the_interval_covers_the_median_about_as_often_as_it_says(memory: float) -> None:
    dice, inside = random.Random(7), 0
    for _ in range(400):
        low, high = median_interval(noise(dice, memory, 100))
        inside += low <= 1.0 <= high
    assert 0.925 <= inside / 400 <= 0.985


def noise(dice: random.Random, memory: float, count: int) -> list[float]:
    """Times with a median of 1, log-normal, each like the one before to the degree of *memory*."""
    state, found = dice.gauss(), []
    for _ in range(count):
        state = memory * state + dice.gauss(0.0, math.sqrt(1 - memory**2))
        found.append(math.exp(state))
    return found


# --- Distrust -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"bytes": 1024}, "it is about"),
        ({"operation": "broadcast"}, "it is about"),
        ({"slowest": spread(MS, 99)}, "99 times of 64KiB, wanted 100"),
        ({"slowest": [0] * 100}, "100 times"),
        ({"slowest": [-5] * 100}, "-5 is no count"),
        ({"slowest": [0.5] * 100}, "0.5 is no count"),
        ({"slowest": None}, "NoneType"),
        ({"verified": 99}, "99 results of 64KiB verified"),
        ({"wrong": 200}, "200 wrong"),
        ({"verified": True}, "True is no count"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_is_none(
    tmp_path: Path, rows: dict[str, Any], words: str
) -> None:
    with pytest.raises(ProbeError, match=words):
        measured(tmp_path, Ranks(rows=rows))


@pytest.mark.parametrize(
    "answer", [{"world": 3}, {"world": None}, {"exercises": []}, {"exercises": 3}]
)
def test_an_answer_of_other_ranks_or_without_exercises_is_none(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    with pytest.raises(ProbeError, match="answer of the ranks"):
        measured(tmp_path, Ranks(answer=answer))


def test_wrong_sums_leave_no_time_to_build_on(tmp_path: Path) -> None:
    ranks = Ranks(rows={"wrong": 1, "example": "rank 2: 5 elements"})
    with pytest.raises(ProbeError, match=r"1 of 116 results are wrong; rank 2: 5 elements"):
        measured(tmp_path, ranks)


def test_a_rank_that_fails_is_told_in_torchs_words(tmp_path: Path) -> None:
    notes = {
        1: {"time": 2.0, "rank": 1, "at": "all_reduce of 1024 bytes", "error": "late"},
        3: {"time": 1.0, "rank": 3, "at": "all_reduce of 1024 bytes", "error": "reset\nby peer"},
    }
    with pytest.raises(ProbeError, match=r"rank 3, all_reduce of 1024 bytes: reset$"):
        measured(tmp_path, Ranks(notes=notes, left=said(code=1)))


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (said(code=1, stderr="ImportError: no gloo\n"), "ImportError: no gloo"),
        (ToolTimeout("python: still running after 540 s; killed"), "still running"),
        (said(code=3), "exit code 3"),
    ],
)
def test_ranks_that_leave_no_answer_are_told_by_what_was_said(
    tmp_path: Path, left: Any, words: str
) -> None:
    with pytest.raises(DvfdError, match=words):
        measured(tmp_path, Ranks(left=left))

"""What a rank sees of its own collectives: one wrong element, a stale sum, a rank counted twice."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dvfd.drills.workers.collective import AllReduce, Patterns, Series  # noqa: E402  # needs torch
from dvfd.drills.world import World  # noqa: E402

pytestmark = pytest.mark.torch


def reduced(size: int = 4096, ranks: int = 4) -> Any:
    """An all-reduce in which the sum of all ranks was put in place without any ranks."""

    class Summed(AllReduce):
        buffer: Any = None

        def call(self) -> None:
            self._buffer.copy_(self._total + self._salt * self._ranks)
            self.buffer = self._buffer

    place = World(1, ranks, torch.device("cpu"))
    return Summed(Patterns(place, size // 4), size, None)


def test_a_right_sum_has_no_wrong_element() -> None:
    summed = reduced()
    for salt in (0, 1, 255):
        summed.fill(salt)
        summed.call()
        assert summed.wrong() == 0


@pytest.mark.parametrize("error", [1.0, -1.0, 2.0**-11, float("nan"), float("inf")])
def test_one_element_that_is_off_is_seen(error: float) -> None:
    summed = reduced()
    summed.fill(3)
    summed.call()
    summed.buffer[17] += error
    assert summed.wrong() == 1


def test_a_sum_that_never_came_is_seen() -> None:
    summed = reduced()
    summed.fill(3)
    assert summed.wrong() > 1000  # of 1024: what is there is the rank's own


def test_the_sum_of_the_iteration_before_is_seen() -> None:
    summed = reduced()
    summed.fill(3)
    summed.call()
    kept = summed.buffer.clone()
    summed.fill(4)
    summed.buffer.copy_(kept)
    assert summed.wrong() == 1024


def test_a_rank_counted_twice_in_the_place_of_another_is_seen() -> None:
    summed = reduced()
    summed.fill(3)
    summed.call()
    summed.buffer += Patterns._of(0, 1024) - Patterns._of(3, 1024)
    assert summed.wrong() > 1000


def test_wrong_elements_of_any_rank_count_the_collective_as_wrong() -> None:
    series = Series()
    rows = torch.tensor([[[5, 7, 9], [0, 0, 0]], [[6, 2, 3], [0, 4, 1]]])
    series.take(rows, warm_up=1)
    assert series.slowest == [7, 9]
    assert (series.verified, series.wrong, series.example) == (3, 2, "rank 1: 4 elements")

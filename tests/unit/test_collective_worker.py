"""What a rank sees of its own collectives: one wrong element, a stale sum, a rank counted twice."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dvfd.drills.workers.algorithms import Team  # noqa: E402  # needs torch
from dvfd.drills.workers.collective import Series  # noqa: E402
from dvfd.drills.workers.operations import AllGather, AllReduce, Patterns  # noqa: E402

pytestmark = pytest.mark.torch


def reduced(size: int = 4096, ranks: int = 4) -> Any:
    """An all-reduce in which the sum of all ranks was put in place without any ranks."""

    class Summed(AllReduce):
        buffer: Any = None

        def call(self) -> None:
            self._buffer.copy_(self._total + self._salt * self._team.size)
            self.buffer = self._buffer

    return Summed(patterns(size, ranks), size)


def patterns(size: int, ranks: int = 4) -> Patterns:
    """Those of rank 1, without a group."""
    team = Team(None, tuple(range(ranks)), 1, (tuple(range(ranks)),))
    return Patterns(team, size // 4, torch.device("cpu"))


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
    series.take(rows, warm_up=1, ranks=[0, 4])
    assert series.slowest == [7, 9]
    assert (series.verified, series.wrong, series.example) == (3, 2, "rank 4: 4 elements")


# --- All-gather -----------------------------------------------------------------------------------


class Gathered(AllGather):
    """An all-gather to which every share came, without any ranks; *change* may spoil them."""

    change: Any = staticmethod(lambda shares: shares)

    def call(self) -> None:
        shares = self.change([wanted ^ self._salt for wanted in self._wanted])
        for found, share in zip(self._found, shares, strict=True):
            found.copy_(share)


def flip(shares: list[Any]) -> list[Any]:
    shares[2][5] ^= 1 << 22
    return shares


def swap(shares: list[Any]) -> list[Any]:
    return [shares[1], shares[0], *shares[2:]]


def test_shares_that_came_as_they_were_sent_are_right() -> None:
    gathered = Gathered(patterns(4096), 4096)
    for salt in (0, 1, 255):
        gathered.fill(salt)
        gathered.call()
        assert gathered.wrong() == 0
    assert gathered.whole == 4


@pytest.mark.parametrize(("change", "wrong", "whole"), [(flip, 1, 3), (swap, 512, 2)])
def test_a_flipped_bit_and_shares_in_each_others_place_are_seen(
    change: Any, wrong: int, whole: int
) -> None:
    gathered = Gathered(patterns(4096), 4096)
    gathered.change = change
    gathered.fill(3)
    gathered.call()
    assert (gathered.wrong(), gathered.whole) == (wrong, whole)


def test_shares_of_the_iteration_before_are_wrong() -> None:
    gathered = Gathered(patterns(4096), 4096)
    gathered.fill(3)
    gathered.call()
    gathered.fill(4)
    assert gathered.wrong() == 1024
    assert gathered.whole == 0

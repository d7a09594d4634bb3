"""The collectives that are timed, each with an input known beforehand and a result that is checked.

What is compared is exact: sums of floats that hold integers come out the same in any order, and an
all-gather copies bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import distributed

from dvfd.drills.workers.algorithms import ALGORITHMS, Algorithm, Team

VALUES = 1024
SALTS = 256
"""Elements are below VALUES and get the iteration's number modulo SALTS added, so that a result
which stayed from before is wrong. float32 holds whole numbers up to 2^24: 13,000 ranks."""


class Collective(Protocol):
    """An operation on an array of one size."""

    def fill(self, salt: int) -> None:
        """Make the input of one iteration."""
        ...

    def call(self) -> None:
        """Do it: all that is timed. Raises RuntimeError, torch's own."""
        ...

    def wrong(self) -> int:
        """Elements of the result that are not what they must be."""
        ...


class Patterns:
    """Whole numbers that look like noise, each rank's own; any rank can make those of all."""

    def __init__(self, team: Team, elements: int, device: torch.device) -> None:
        self.team = team
        total = torch.zeros(elements)
        for rank in team.ranks:
            one = self._of(rank, elements)
            total += one
            if rank == team.me:
                self.mine = one.to(device)
        self.total = total.to(device)
        self.buffer = torch.empty_like(self.mine)
        self.spare = torch.empty_like(self.mine)

    @staticmethod
    def _of(rank: int, elements: int) -> torch.Tensor:
        dice = torch.Generator().manual_seed(rank)
        return torch.randint(VALUES, (elements,), generator=dice, dtype=torch.float32)


class AllReduce:
    """The sum over all ranks, in place, by the backend's own algorithm."""

    def __init__(self, patterns: Patterns, size: int) -> None:
        elements = size // patterns.mine.element_size()
        self._mine, self._total = patterns.mine[:elements], patterns.total[:elements]
        self._buffer, self._spare = patterns.buffer[:elements], patterns.spare[:elements]
        self._team, self._salt = patterns.team, 0

    def fill(self, salt: int) -> None:
        """The rank's own pattern plus *salt*."""
        self._salt = salt
        torch.add(self._mine, salt, out=self._buffer)

    def call(self) -> None:
        """One call of torch."""
        distributed.all_reduce(self._buffer, group=self._team.group)

    def wrong(self) -> int:
        """Exact: every number on the way is whole and small."""
        self._buffer.sub_(self._salt * self._team.size)
        if torch.equal(self._buffer, self._total):
            return 0
        return int((self._buffer != self._total).sum())


class ByHand(AllReduce):
    """The same by an algorithm of ours, through the ranks in their own order or *across* nodes."""

    def __init__(
        self, algorithm: Algorithm, patterns: Patterns, size: int, *, across: bool = False
    ) -> None:
        super().__init__(patterns, size)
        self._algorithm = algorithm
        if across:
            self._team = self._team.across()

    def call(self) -> None:
        """All of the algorithm's messages."""
        self._algorithm(self._team, self._buffer, self._spare)


class AllGather:
    """Every rank's share of an array, in every rank, in the order of ranks.

    The shares are any bits, NaNs among them. `whole` is how many shares were right and in their
    place when that were fewest.
    """

    def __init__(self, patterns: Patterns, size: int) -> None:
        self._team, device = patterns.team, patterns.mine.device
        share = size // torch.int32.itemsize // self._team.size
        self._wanted = [self._of(rank, share).to(device) for rank in self._team.ranks]
        self._mine = torch.empty_like(self._wanted[0])
        self._found = [torch.empty_like(self._mine) for _ in self._wanted]
        self._salt, self.whole = 0, self._team.size

    @staticmethod
    def _of(rank: int, share: int) -> torch.Tensor:
        digest = hashlib.blake2b(f"rank {rank}".encode(), digest_size=7).digest()
        dice = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        return torch.randint(-(2**31), 2**31, (share,), generator=dice, dtype=torch.int32)

    def fill(self, salt: int) -> None:
        """The rank's own bits, some of them turned by *salt*."""
        self._salt = salt
        torch.bitwise_xor(self._wanted[self._team.place], salt, out=self._mine)

    def call(self) -> None:
        """As the floats that gradients are."""
        found = [each.view(torch.float32) for each in self._found]
        distributed.all_gather(found, self._mine.view(torch.float32), group=self._team.group)

    def wrong(self) -> int:
        """Exact: a copy has no rounding."""
        pairs = zip(self._found, self._wanted, strict=True)
        wrong = [int((each ^ self._salt != wanted).sum()) for each, wanted in pairs]
        self.whole = min(self.whole, wrong.count(0))
        return sum(wrong)


ACROSS = " across"
"""What is added to the name of an algorithm that changes the node at every hop."""

COLLECTIVES: Mapping[tuple[str, str], Callable[[Patterns, int], Collective]] = {
    ("all_reduce", "builtin"): AllReduce,
    ("all_gather", "builtin"): AllGather,
    **{("all_reduce", name): partial(ByHand, way) for name, way in ALGORITHMS.items()},
    **{
        ("all_reduce", name + ACROSS): partial(ByHand, way, across=True)
        for name, way in ALGORITHMS.items()
    },
}
"""By operation and algorithm."""

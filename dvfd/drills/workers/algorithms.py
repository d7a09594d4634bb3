"""All-reduce from point-to-point messages: ring, tree, recursive doubling, hierarchical.

What a backend does by itself is compared with these. They are the textbook's, for any number of
ranks: Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
MPICH" (2005). Gloo matches messages by their tags, NCCL by their order; both agree here. They raise
RuntimeError, torch's own, where a peer is gone or too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import distributed

REDUCE, SPREAD, FOLD, UNFOLD = 1, 2, 3, 4
"""Tags: one for each phase of an algorithm."""


@dataclass(frozen=True, slots=True)
class Team:
    """Ranks in the order in which a message goes through them, as one of them sees it.

    `ranks` and `me` count in the whole world; a *place* is a position in the team. `nodes` are the
    same ranks, those of one node together.
    """

    group: Any
    ranks: tuple[int, ...]
    me: int
    nodes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.ranks)

    @property
    def place(self) -> int:
        """Our own."""
        return self.ranks.index(self.me)

    def part(self, ranks: Sequence[int]) -> Team:
        """Some of them, in the order of *ranks*."""
        return replace(self, ranks=tuple(ranks))

    def across(self) -> Team:
        """The same ranks in the order that changes the node at every hop, as long as it can."""
        turns = range(max(map(len, self.nodes)))
        return self.part([node[n] for n in turns for node in self.nodes if n < len(node)])

    def send(self, place: int, data: torch.Tensor, tag: int) -> None:
        """Hand *data* to *place*."""
        self.exchange([self._op(distributed.isend, data, place, tag)])

    def receive(self, place: int, data: torch.Tensor, tag: int) -> None:
        """Fill *data* with what *place* sends."""
        self.exchange([self._op(distributed.irecv, data, place, tag)])

    def swap(self, to: int, sent: torch.Tensor, by: int, received: torch.Tensor, tag: int) -> None:
        """Send and receive at the same time: two that wait for each other would wait for ever."""
        self.exchange(
            [
                self._op(distributed.irecv, received, by, tag),
                self._op(distributed.isend, sent, to, tag),
            ]
        )

    def _op(self, op: Any, data: torch.Tensor, place: int, tag: int) -> Any:
        return distributed.P2POp(op, data, self.ranks[place], self.group, tag)

    @staticmethod
    def exchange(ops: Sequence[Any]) -> None:
        """Do all of *ops*; a message of nothing is none, and both sides know that."""
        if full := [op for op in ops if op.tensor.numel()]:
            for work in distributed.batch_isend_irecv(full):
                work.wait()


Algorithm = Callable[[Team, torch.Tensor, torch.Tensor], None]
"""Sums *data*, in place, over all ranks of the team; the second tensor, as large, is to work in."""


def ring(team: Team, data: torch.Tensor, spare: torch.Tensor) -> None:
    """Chunks go round, first to be summed and then to be known: 2 (n - 1) hops of 1/n each."""
    size, me = team.size, team.place
    chunks, spares = data.tensor_split(size), spare.tensor_split(size)
    after, before = (me + 1) % size, (me - 1) % size
    for step in range(size - 1):
        give, take = (me - step) % size, (me - step - 1) % size
        team.swap(after, chunks[give], before, spares[take], REDUCE)
        chunks[take].add_(spares[take])
    for step in range(size - 1):
        give, take = (me + 1 - step) % size, (me - step) % size
        team.swap(after, chunks[give], before, chunks[take], SPREAD)


def tree(team: Team, data: torch.Tensor, spare: torch.Tensor) -> None:
    """Up a binomial tree and down again: 2 log2(n) hops of everything."""
    reduce(team, data, spare)
    broadcast(team, data)


def reduce(team: Team, data: torch.Tensor, spare: torch.Tensor) -> None:
    """The sum in place 0: in each round half of those that are left hand theirs to the others."""
    me = team.place
    for bit in _bits(team.size):
        if me & bit:
            team.send(me - bit, data, REDUCE)
            return
        if me + bit < team.size:
            team.receive(me + bit, spare, REDUCE)
            data.add_(spare)


def broadcast(team: Team, data: torch.Tensor) -> None:
    """What is in place 0, everywhere: in each round those that have it double."""
    me = team.place
    for bit in reversed(list(_bits(team.size))):
        if me % (2 * bit) == bit:
            team.receive(me - bit, data, SPREAD)
        elif me % (2 * bit) == 0 and me + bit < team.size:
            team.send(me + bit, data, SPREAD)


def doubling(team: Team, data: torch.Tensor, spare: torch.Tensor) -> None:
    """Recursive doubling: log2(n) exchanges of everything between ranks ever further apart.

    Where n is no power of two, as many pairs as there are too many ranks act as one.
    """
    me, pairs = team.place, team.size - (1 << team.size.bit_length() - 1)
    paired = me < 2 * pairs
    if paired and me % 2 == 0:
        team.send(me + 1, data, FOLD)
        team.receive(me + 1, data, UNFOLD)
        return
    if paired:
        team.receive(me - 1, spare, FOLD)
        data.add_(spare)
    seat = me // 2 if paired else me - pairs
    for bit in _bits(team.size - pairs):
        other = seat ^ bit
        peer = 2 * other + 1 if other < pairs else other + pairs
        team.swap(peer, data, peer, spare, REDUCE)
        data.add_(spare)
    if paired:
        team.send(me - 1, data, UNFOLD)


def hierarchical(team: Team, data: torch.Tensor, spare: torch.Tensor) -> None:
    """Summed on each node, then between one rank of each, then told on each: the network carries
    a node's sum once, however many ranks it has."""
    mine = next(node for node in team.nodes if team.me in node)
    inside = team.part(mine)
    reduce(inside, data, spare)
    if team.me == mine[0]:
        ring(team.part([node[0] for node in team.nodes]), data, spare)
    broadcast(inside, data)


ALGORITHMS: Mapping[str, Algorithm] = {
    "ring": ring,
    "tree": tree,
    "doubling": doubling,
    "hierarchical": hierarchical,
}


def _bits(size: int) -> Iterator[int]:
    """1, 2, 4, ... below *size*."""
    bit = 1
    while bit < size:
        yield bit
        bit *= 2

"""All-reduce by hand: every algorithm sums over any number of ranks, however they lie on nodes."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dvfd.drills.workers.algorithms import ALGORITHMS, Team  # noqa: E402  # needs torch

pytestmark = pytest.mark.torch

PATIENCE = 20.0
"""Seconds after which a message that nobody sends is missed: they come at once."""


class Post:
    """Letters between threads in the place of ranks, by sender, receiver and tag; counts bytes."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, int, int], queue.Queue[Any]] = {}
        self._lock = threading.Lock()
        self.sent: dict[tuple[int, int], int] = defaultdict(int)

    def box(self, sender: int, receiver: int, tag: int) -> queue.Queue[Any]:
        """The one box of the three, whichever of the two threads comes first."""
        with self._lock:
            return self._boxes.setdefault((sender, receiver, tag), queue.Queue())


class Letters(Team):
    """A team whose group is a `Post`."""

    def _op(self, op: Any, data: Any, place: int, tag: int) -> Any:
        return (op.__name__, data, self.ranks[place], tag, self.group, self.me)

    @staticmethod
    def exchange(ops: Sequence[Any]) -> None:
        for name, data, peer, tag, post, me in ops:
            if name == "isend" and data.numel():
                post.box(me, peer, tag).put(data.clone())
                post.sent[me, peer] += data.numel()
        for name, data, peer, tag, post, me in ops:
            if name == "irecv" and data.numel():
                data.copy_(post.box(peer, me, tag).get(timeout=PATIENCE))


def summed(
    name: str, nodes: Sequence[Sequence[int]], elements: int = 60, *, across: bool = False
) -> tuple[list[list[float]], list[float], Post]:
    """What every rank holds afterwards, what it should, and the letters."""
    ranks = tuple(rank for node in nodes for rank in node)
    post, data = Post(), {r: torch.arange(float(elements)) * (r + 1) + r * r for r in ranks}
    wanted = sum(data.values()).tolist()

    def be(rank: int) -> list[float]:
        team = Letters(post, ranks, rank, tuple(map(tuple, nodes)))
        team = team.across() if across else team
        ALGORITHMS[name](team, data[rank], torch.full((elements,), float("nan")))
        return data[rank].tolist()

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(be, ranks)), wanted, post


def split(size: int, nodes: int) -> list[list[int]]:
    """*size* ranks on *nodes* nodes, as even as it goes."""
    return [list(map(int, part)) for part in torch.arange(size).tensor_split(nodes) if len(part)]


@pytest.mark.parametrize("size", range(1, 17))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_rank_holds_the_sum_of_all(name: str, size: int) -> None:
    for nodes in (1, 2, 3):
        for across in (False, True):
            found, wanted, _ = summed(name, split(size, nodes), across=across)
            assert found == [wanted] * size, (nodes, across)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("elements", [0, 1, 3, 7])
def test_a_message_of_fewer_elements_than_ranks_is_summed_too(name: str, elements: int) -> None:
    found, wanted, _ = summed(name, split(8, 2), elements)
    assert found == [wanted] * 8


def test_ranks_of_a_team_keep_the_numbers_that_they_have_in_the_world() -> None:
    found, wanted, post = summed("doubling", [[0, 1], [4, 5]])
    assert found == [wanted] * 4
    assert {rank for pair in post.sent for rank in pair} == {0, 1, 4, 5}


def test_a_ring_sends_each_rank_twice_all_but_one_share() -> None:
    _, _, post = summed("ring", split(4, 2), 80)
    assert post.sent == {(r, (r + 1) % 4): 2 * 3 * 20 for r in range(4)}


def test_a_ring_across_changes_the_node_at_every_hop() -> None:
    _, _, post = summed("ring", [[0, 1], [2, 3]], across=True)
    assert set(post.sent) == {(0, 2), (2, 1), (1, 3), (3, 0)}


def test_a_tree_sends_everything_once_up_and_once_down_each_branch() -> None:
    _, _, post = summed("tree", split(8, 1), 10)
    assert set(post.sent.values()) == {10}
    assert len(post.sent) == 2 * 7
    assert {pair for pair in post.sent if 0 in pair and pair[0] == 0} == {(0, 4), (0, 2), (0, 1)}


def test_the_hierarchical_one_carries_each_nodes_sum_over_the_network_once() -> None:
    _, _, post = summed("hierarchical", [[0, 1, 2, 3], [4, 5, 6, 7]], 80)
    crossing = {pair: n for pair, n in post.sent.items() if (pair[0] < 4) != (pair[1] < 4)}
    assert crossing == {(0, 4): 80, (4, 0): 80}

"""What ranks of a crew do beside collectives: barriers that hold or not, groups that cannot be."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dvfd.drills import choice, collectives, gloo_multi_node  # needs torch, as all below
from dvfd.drills.workers import collective, fleet_barriers, nccl_graph
from dvfd.drills.workers.algorithms import ALGORITHMS
from dvfd.drills.workers.collective import WARM_UP
from dvfd.drills.workers.fleet_barriers import back_to_back, left_early
from dvfd.drills.workers.fleet_collectives import half
from dvfd.drills.workers.fleet_group import brief, over, unfit
from dvfd.drills.workers.operations import COLLECTIVES

pytestmark = pytest.mark.torch


# --- Barriers -------------------------------------------------------------------------------------


class Store:
    """Counters that threads share."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, key: str, amount: int) -> int:
        with self._lock:
            self._counts[key] += amount
            return self._counts[key]


def early(barriers: Sequence[Callable[[], object]], rounds: int) -> int:
    """How often all ranks together left the barriers, one for each of them, too early."""
    store, ranks = Store(), len(barriers)

    def be(rank: int) -> int:
        return left_early(barriers[rank], store, size=ranks, rank=rank, rounds=rounds)

    with ThreadPoolExecutor(ranks) as pool:
        return sum(pool.map(be, range(ranks)))


def test_a_barrier_that_holds_lets_nobody_leave_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_barriers, "LONGEST", 0.002)
    assert early([threading.Barrier(4).wait] * 4, 20) == 0


def test_a_barrier_that_waits_for_nobody_is_seen_in_every_round() -> None:
    assert early([lambda: None] * 4, 5) >= 5


def test_a_barrier_that_forgets_one_rank_is_seen() -> None:
    assert early([*[threading.Barrier(3).wait] * 3, lambda: None], 5) >= 5


def test_barriers_back_to_back_last_from_one_exit_to_the_next() -> None:
    now = iter([0, 5, 7, 20])
    entered: list[int] = []
    assert back_to_back(lambda: entered.append(1), 3, lambda: next(now)) == [5, 2, 13]
    assert len(entered) == WARM_UP + 3


# --- Groups ---------------------------------------------------------------------------------------


def test_the_half_of_a_cluster_is_half_of_each_node() -> None:
    assert half([(0, 1, 2, 3), (4, 5, 6, 7)]) == [0, 1, 4, 5]
    assert half([(0, 1, 2), (3, 4, 5)]) == [0, 3]


def test_the_interface_is_the_crews_unless_somebody_named_one() -> None:
    environment = {"NCCL_SOCKET_IFNAME": "ib0"}
    assert over(environment, "GLOO_SOCKET_IFNAME", "eth0") == "eth0"
    assert over(environment, "NCCL_SOCKET_IFNAME", "eth0") == "ib0"
    assert environment == {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "ib0"}


def test_an_interface_that_is_not_there_or_never_leaves_the_node_is_told_before_anybody_waits() -> (
    None
):
    assert "there is no none7" in unfit("none7", 2)
    assert "lo never leaves this node" in unfit("lo", 2)
    assert unfit("lo", 1) == unfit("", 2) == ""


def test_of_gloos_words_what_happened_is_kept() -> None:
    said = "[/__w/gloo/pair.cc:537] Read error [10.0.0.2]:18567: Connection reset by peer"
    error = RuntimeError(f"{said}. This is typically caused by a remote worker hanging. GLHF!")
    assert brief(error) == "Read error [10.0.0.2]:18567: Connection reset by peer"
    ranks = "[Rank 0]: Ranks 2 failed to pass monitoredBarrier in 8000 ms"
    assert brief(RuntimeError(f"{ranks}\nException raised from")) == ranks


# --- What the nodes ask for, the ranks can do -----------------------------------------------------


def test_every_algorithm_that_is_asked_for_is_one_that_a_rank_knows() -> None:
    assert set(gloo_multi_node.ALGORITHMS) == {"builtin", *ALGORITHMS}
    assert {("all_reduce", name) for name in choice.TRIED} <= COLLECTIVES.keys()


def test_a_message_has_as_many_turns_as_its_figures_are_taken_from() -> None:
    assert collective.TURNS == collectives.TURNS


# --- NCCL -----------------------------------------------------------------------------------------

GRAPHS = """<graphs version="1">
  <graph id="0" pattern="4" crossnic="0" nchannels="2" speedintra="40" speedinter="12"
    latencyinter="0" typeintra="SYS" typeinter="PIX" samechannels="1"><channel/></graph>
  <graph id="1" pattern="3" nchannels="4" speedintra="20" speedinter="12" typeintra="NVL"
    typeinter="PIX"/></graphs>"""

SAID = """h:7:9 [0] NCCL INFO Channel 00/02 :    0   1
h:7:9 [0] NCCL INFO Trees [0] 1/-1/-1->0->-1
h:7:9 [0] NCCL INFO Trees [0] 1/-1/-1->0->-1
h:7:9 [0] NCCL INFO something else
"""


def test_nccls_graphs_are_read_where_it_was_asked_to_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "graphs.xml").write_text(GRAPHS)
    (tmp_path / "log").write_text(SAID)
    monkeypatch.setenv("NCCL_GRAPH_DUMP_FILE", str(tmp_path / "graphs.xml"))
    monkeypatch.setenv("NCCL_DEBUG_FILE", str(tmp_path / "log"))
    assert nccl_graph.found() == [
        "ring: 2 channels, 40 GB/s by SYS on a node, 12 GB/s by PIX between nodes",
        "tree: 4 channels, 20 GB/s by NVL on a node, 12 GB/s by PIX between nodes",
        "Channel 00/02 :    0   1",
        "Trees [0] 1/-1/-1->0->-1",
    ]


def test_without_nccls_files_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_GRAPH_DUMP_FILE", "/nowhere")
    monkeypatch.delenv("NCCL_DEBUG_FILE", raising=False)
    assert nccl_graph.found() == []


def test_where_nccl_writes_already_is_left_alone() -> None:
    environment = {"NCCL_DEBUG": "WARN", "NCCL_GRAPH_DUMP_FILE": "/mine"}
    nccl_graph.ask(environment)
    assert environment == {"NCCL_DEBUG": "WARN", "NCCL_GRAPH_DUMP_FILE": "/mine"}

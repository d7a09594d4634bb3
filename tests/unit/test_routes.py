"""Ways between nodes: the largest packet by halving, and which pair's way is unlike the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_drills import judged, task
from hypothesis import given
from hypothesis import strategies as st

from dvfd.drills import routes
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.routes import Way, unlike
from dvfd.drills.workers.routes import widest
from dvfd.errors import ProbeError

NODES = tuple(Met(f"n{i}", f"10.0.0.{i}", "eth0", (i - 1,)) for i in (1, 2, 3))

PAIRS = [(a, b) for a in ("n1", "n2", "n3") for b in ("n1", "n2", "n3") if a != b]


@given(st.integers(576, 9000), st.integers(576, 9000))
def test_the_largest_packet_is_found_whatever_it_is(path: int, own: int) -> None:
    assert widest(lambda size: size <= path, 576, own) == min(path, own)


def ways(**odd: Way) -> dict[tuple[str, str], Way]:
    """One hop of 1500 bytes everywhere, but for those given as n1_n2."""
    found = dict.fromkeys(PAIRS, Way(1, 1500))
    return found | {(name[:2], name[3:]): way for name, way in odd.items()}


def test_ways_that_are_alike_are_none() -> None:
    assert unlike(ways()) == {}


def test_a_way_that_is_not_the_way_back_is_told_from_both_ends() -> None:
    found = unlike(ways(n1_n3=Way(3, 1500)))
    assert found == {
        ("n1", "n3"): "n1 -> n3: 3 hops, 1500 bytes; back 1 hop, 1500 bytes",
        ("n3", "n1"): "n3 -> n1: 1 hop, 1500 bytes; back 3 hops, 1500 bytes",
    }


def test_a_link_with_smaller_packets_both_ways_is_held_against_the_others() -> None:
    small = Way(1, 1400)
    found = unlike(ways(n2_n3=small, n3_n2=small))
    assert list(found) == [("n2", "n3"), ("n3", "n2")]
    assert found["n2", "n3"].endswith("1 hop, 1400 bytes; most have 1 hop, 1500 bytes")


def test_a_node_with_smaller_packets_is_odd_in_none_of_its_pairs_where_there_is_no_majority() -> (
    None
):
    """Four of six ordered pairs go through it: then they are what most have."""
    small = Way(1, 1400)
    found = unlike(ways(n1_n3=small, n3_n1=small, n2_n3=small, n3_n2=small))
    assert list(found) == [("n1", "n2"), ("n2", "n1")]


def answer(*values: object, failures: dict[int, str] | None = None) -> Answer:
    heard = Heard({i: v for i, v in enumerate(values) if v is not None}, failures or {})
    return Answer(NODES, {"routes": heard}, "2.13.0")


def said(name: str, **odd: object) -> dict[str, object]:
    others = [n.name for n in NODES if n.name != name]
    return {other: {"hops": 1, "mtu": 1500, "why": ""} for other in others} | odd


def judge(directory: Path, found: Answer):
    chosen = task("topology_3node", directory)
    chosen.memo.once(("fleet", "topology_3node"), lambda: found)
    return judged(chosen, routes.Routes().run(chosen))["routes"]


def test_three_nodes_with_like_ways_pass(tmp_path: Path) -> None:
    result = judge(tmp_path, answer(said("n1"), said("n2"), said("n3")))
    assert (result.verdict, result.observed) == ("PASS", 0.0)


def test_a_pair_that_answers_no_echo_is_unknown(tmp_path: Path) -> None:
    silent = {"why": "10.0.0.3 does not answer an echo"}
    result = judge(tmp_path, answer(said("n1", n3=silent), said("n2"), said("n3")))
    assert result.verdict == "UNKNOWN"
    assert "n1 -> n3: 10.0.0.3 does not answer an echo" in result.reason


def test_what_differs_fails_though_another_pair_is_not_known(tmp_path: Path) -> None:
    odd = {"hops": 4, "mtu": 1500, "why": ""}
    found = answer(said("n1", n2=odd), said("n2"), None, failures={2: "rank 2 (n3) is lost"})
    result = judge(tmp_path, found)
    assert (result.verdict, result.observed) == ("FAIL", 2.0)


def test_what_no_rank_writes_is_refused() -> None:
    with pytest.raises(ProbeError, match="wanted what they write"):
        routes.read(answer(said("n1", n2={"hops": "x"}), said("n2"), said("n3")))

"""What tests between nodes say of two, three and four real hosts: all well, and one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from between_shown import ask, failing, network, results, spoilt

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

RATE = 100
PARTS = ("Speed", "Connected", "Symmetry", "Hour")

MEASURED = {"speed", "connected", "datagrams", "errors", "drops", "retransmits"}
"""What a busy machine leaves as it is: of round trips it does not."""


@pytest.fixture(scope="module")
def two() -> Iterator[dict[str, Any]]:
    """Reports of two hosts by what is wrong with the network between them."""
    with network(2, 2 * RATE) as lan:
        found = {}
        for how, seconds in (("healthy", 1), ("lossy", 4)):  # some 1400 datagrams
            with spoilt(lan, how, 2 * RATE):
                found[how] = ask(lan, "network", seconds, parts=PARTS)
        yield found


@pytest.fixture(scope="module")
def three() -> Iterator[dict[str, Any]]:
    """The same of three."""
    with network(3, RATE) as lan:
        found = {}
        for how in ("halved", "parted"):
            with spoilt(lan, how, RATE):
                found[how] = ask(lan, "network", 1, parts=PARTS)
        yield found


def test_a_healthy_network_fails_nothing_and_a_short_test_passes_nothing(
    two: dict[str, Any],
) -> None:
    for report in two["healthy"].values():
        found = results(report)
        assert {name: found[name] for name in MEASURED & failing(report)} == {}
        assert {found[name]["verdict"] for name in MEASURED} == {"UNKNOWN"}
        assert "passes so far" in found["speed"]["reason"]


def test_one_packet_of_a_hundred_lost_fails_what_lasts(two: dict[str, Any]) -> None:
    for report in two["lossy"].values():
        assert failing(report) >= {"datagrams", "retransmits"}
        assert 0.001 < results(report)["datagrams"]["observed"] < 0.05


def test_a_node_that_sends_at_half_the_rate_fails_speed_and_symmetry_and_is_named(
    three: dict[str, Any],
) -> None:
    for report in three["halved"].values():
        found = results(report)
        assert failing(report) >= {"speed", "symmetric"}
        assert found["speed"]["labels"]["source"] == "n3"
        assert "named: node n3 sends slowly to all 2 others" in found["speed"]["note"]
        assert found["symmetric"]["labels"]["figure"] == "goodput"
        assert found["symmetric"]["labels"]["pair"] in {"n1-n3", "n2-n3"}
        assert found["symmetric"]["observed"] == pytest.approx(2 / 3, abs=0.15)


def test_two_nodes_that_do_not_reach_each_other_are_named_and_nothing_passes(
    three: dict[str, Any],
) -> None:
    for report in three["parted"].values():
        found = results(report)
        assert found["connected"]["verdict"] == "FAIL"
        assert found["connected"]["observed"] == pytest.approx(4 / 6)
        for way in ("n2 -> n3", "n3 -> n2"):
            assert way in found["connected"]["note"]
        assert {row["verdict"] for name, row in found.items() if name != "connected"} == {"UNKNOWN"}
        assert "n2 -> n3" in found["speed"]["reason"] or "n3 -> n2" in found["speed"]["reason"]


def test_four_healthy_hosts_are_even_and_do_not_block() -> None:
    parts = ("Bisection", "Aggregate", "ConnectedRanks", "Routes")
    with network(4, RATE) as lan:
        reports = ask(lan, "topology_4node", 1, parts=parts)
    for report in reports.values():
        found = results(report)
        assert not failing(report) & {"bisection", "aggregate", "routes"}, found
        assert found["bisection"]["observed"] > 0.9
        assert found["aggregate"]["observed"] > 3.6 * RATE * 1e6 / 8
        assert found["connected_ranks"]["observed"] == 12  # ranks here; 240 of 16 are wanted

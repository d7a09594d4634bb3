"""What tests between nodes say of two, three and four real hosts: all well, and one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from between_shown import ask, failing, network, results, spoilt

pytest.importorskip("torch")
# What a neighbour takes from the processors, the flows lack.
pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.torch]

RATE = 200

MEASURED = {"speed", "connected", "datagrams", "errors", "drops", "retransmits"}
"""What a busy machine leaves as it is: of round trips it does not."""


@pytest.fixture(scope="module")
def two() -> Iterator[dict[str, Any]]:
    """Reports of two hosts by what is wrong with the network between them."""
    lasting = ("Speed", "Connected", "Hour")
    cases = {
        "healthy": (1, lasting),
        "lossy": (3, lasting),  # some 1000 datagrams
        "halved": (1, ("Speed", "Symmetry")),
    }
    with network(2, RATE) as lan:
        found = {}
        for how, (seconds, parts) in cases.items():
            with spoilt(lan, how, RATE):
                found[how] = ask(lan, "network", seconds, parts=parts)
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


def test_a_way_with_half_of_the_rate_fails_speed_and_symmetry_and_is_named(
    two: dict[str, Any],
) -> None:
    for report in two["halved"].values():
        found = results(report)
        assert failing(report) >= {"speed", "symmetric"}
        assert found["speed"]["labels"] == {"source": "n2", "destination": "n1"}
        assert "named: direction n2 -> n1: n2 as a sender" in found["speed"]["note"]
        assert found["symmetric"]["labels"] == {"pair": "n1-n2", "figure": "goodput"}
        assert found["symmetric"]["observed"] == pytest.approx(2 / 3, abs=0.15)


def test_two_nodes_that_do_not_reach_each_other_are_named_and_nothing_passes() -> None:
    with network(3, RATE) as lan, spoilt(lan, "parted", RATE):
        reports = ask(lan, "network", 1, parts=("Connected", "RoundTrips"))
    for report in reports.values():
        found = results(report)
        assert failing(report) - {"latency", "latency_tcp"} == {"connected"}  # of the others
        assert found["connected"]["observed"] == pytest.approx(4 / 6)
        assert "n2 -> n3" in found["connected"]["note"]
        assert "n3 -> n2" in found["connected"]["note"]
        assert {"PASS"}.isdisjoint(row["verdict"] for row in found.values())
        for name in ("latency", "latency_tcp"):
            assert found[name]["verdict"] == "FAIL" or "n2 - n3" in found[name]["reason"]


@pytest.mark.long
def test_four_healthy_hosts_are_even_and_do_not_block() -> None:
    parts = ("Bisection", "Aggregate", "ConnectedRanks", "Routes")
    with network(4, RATE // 2) as lan:
        reports = ask(lan, "topology_4node", 3, parts=parts)
    for report in reports.values():
        found = results(report)
        assert not failing(report) & {"bisection", "aggregate", "routes"}, found
        assert found["bisection"]["observed"] > 0.9
        assert found["aggregate"]["observed"] > 1.8 * RATE * 1e6 / 8
        assert found["connected_ranks"]["observed"] == 12  # ranks here; 240 of 16 are wanted

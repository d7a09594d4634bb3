"""What is made of what nodes say of their flows: figures, who is named, and what stays unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd import drills
from dvfd.drills import rounds
from dvfd.drills.drill import Options
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.flows import resolution
from dvfd.drills.rounds import UDP, Round, Width
from dvfd.drills.supervise import supervise
from dvfd.drills.workers.flows import alone, lowest
from dvfd.model import Result
from dvfd.probes.ports import DROPS, ERRORS

LINK = 400e9  # bits a second

Rates = Mapping[tuple[int, int], float]


def end(rate: float, **more: Any) -> dict[str, Any]:
    row = {"sent": rate, "received": rate, "again": 0, "lost": 0, "datagrams": 0, "failed": ""}
    return row | more


def played(plan: Round, rate: float, slow: Rates, **server: Any) -> list[dict[str, Any]]:
    """Rows of a round in which every flow has its share of *rate*, but those of *slow* pairs."""
    out = max(1, *(sum(f.source == g.source for g in plan.flows) for f in plan.flows))
    rows = []
    for flow in plan.flows:
        got = slow.get(flow.pair, rate) / (out if plan.name == "aggregate" else 1)
        got = min(got, flow.rate or got)
        more = server | {"datagrams": 4_100_000_000} if flow.kind == UDP else {}
        both = {"client": end(got), "server": end(got, **more)}
        rows.append({"round": plan.name, "flow": asdict(flow), **both})
    return rows


class Played:
    """Nodes whose pairs give *rate* bits a second, *slow* ones another; *more* of the answer."""

    def __init__(self, count: int, rate: float = 0.95 * LINK, **more: Any) -> None:
        self.count, self.rate = count, rate
        self.slow: Rates = more.pop("slow", {})
        self.grown: dict[str, int] = more.pop("grown", {})
        self.blind: tuple[str, ...] = more.pop("blind", ())
        self.server: dict[str, Any] = more.pop("server", {})
        self.pause: Any = more.pop("change", lambda rows: rows)
        self.more = more

    def journal(self) -> dict[str, Any]:
        width, rows = Width(), list[dict[str, Any]]()
        for each in rounds.speed(self.count, width, both=self.count % 2 == 1 or self.count == 2):
            rows += played(each, self.rate, self.slow)
        for each in rounds.bisection(self.count, width) if self.count % 2 == 0 else ():
            rows += played(each, self.rate, self.slow)
        rows += played(rounds.aggregate(self.count, width), self.rate, self.slow)
        last = rounds.lasting(self.count, width, lowest(rows))
        rows += played(last, self.rate, {}, **self.server) if last.flows else []
        counters = {f"interface/{name}": 0 for name in (*ERRORS, *DROPS) if name not in self.blind}
        counters |= {"tcp/OutSegs": 10**9, "tcp/RetransSegs": 0} | self.grown
        return {
            "rows": self.pause(rows),
            "links": [{"speed": 400_000, "physical": True}] * self.count,
            "counters": [counters] * self.count,
            "missing": [],
            "lost": "",
            "versions": [[3, 12]] * self.count,
        } | self.more

    def results(self, check: str, directory: Path, **options: Any) -> dict[str, Result]:
        nodes = tuple(Met(f"n{i + 1}", f"10.0.0.{i + 1}", "eth0", (i,)) for i in range(self.count))
        heard = Heard({0: self.journal(), **dict.fromkeys(range(1, self.count))}, {})
        chosen = task(check, directory, options=Options(nodes=self.count, **options))
        parts = [p for p in drills.build(check) if type(p).__module__ == "dvfd.drills.flows"]
        answer = Answer(nodes, {"flows": heard}, "2.13.0")
        chosen.memo.once(("fleet", check), lambda: answer)
        return judged(chosen, supervise(chosen, parts))


NETWORK = ("speed", "speed_verified", "link", "datagrams", "errors", "drops", "retransmits")


def test_two_healthy_nodes_pass_and_the_resolution_is_told(tmp_path: Path) -> None:
    found = Played(2).results("network", tmp_path)
    assert {name: found[name].verdict for name in NETWORK} == dict.fromkeys(NETWORK, "PASS")
    assert found["speed"].observed == pytest.approx(0.95 * LINK / 8)
    text = "0 of 4.1e+09 datagrams, 95 % upper bound 7.3e-10"
    assert text == resolution(0, 4_100_000_000)
    assert text in found["datagrams"].note


def test_a_shortened_test_does_not_pass(tmp_path: Path) -> None:
    found = Played(2).results("network", tmp_path, duration=5.0)
    assert {found[name].verdict for name in NETWORK} == {"UNKNOWN"}
    assert "shortened, 5 s of 60 min" in found["speed"].reason


def test_a_slow_direction_fails_and_is_named(tmp_path: Path) -> None:
    found = Played(2, slow={(0, 1): LINK / 2}).results("network", tmp_path)
    assert found["speed"].verdict == "FAIL"
    assert "named: direction n1 -> n2: n1 as a sender, n2 as a receiver" in found["speed"].note


@pytest.mark.parametrize(
    ("criterion", "grown"),
    [
        ("errors", {"interface/rx_errors": 1}),
        ("errors", {"interface/carrier_changes": 2}),
        ("drops", {"interface/rx_dropped": 1}),
        ("drops", {"card/rx_discards_phy": 1}),
        ("retransmits", {"tcp/RetransSegs": 2000}),
    ],
)
def test_a_counter_that_moved_fails(tmp_path: Path, criterion: str, grown: dict[str, int]) -> None:
    assert Played(2, grown=grown).results("network", tmp_path)[criterion].verdict == "FAIL"


def test_segments_of_which_the_first_had_come_too_are_no_loss_and_no_pass(tmp_path: Path) -> None:
    grown = {"tcp/RetransSegs": 2000, "tcpext/TCPDSACKRecvSegs": 1990}
    found = Played(2, grown=grown).results("network", tmp_path)["retransmits"]
    assert (found.verdict, found.observed) == ("UNKNOWN", 2e-6)
    assert "1990 had come, too: acknowledged late by a busy node, not lost" in found.note


def test_segments_that_were_lost_fail_beside_any_that_were_not(tmp_path: Path) -> None:
    grown = {"tcp/RetransSegs": 4000, "tcpext/TCPDSACKRecvSegs": 1990}
    assert Played(2, grown=grown).results("network", tmp_path)["retransmits"].verdict == "FAIL"


def test_a_counter_that_was_set_back_says_nothing(tmp_path: Path) -> None:
    found = Played(2, grown={"interface/rx_errors": -5}).results("network", tmp_path)
    assert found["errors"].verdict == "UNKNOWN"
    assert "were set back" in found["errors"].reason


@pytest.mark.parametrize(
    ("criterion", "blind", "moved"),
    [
        ("errors", "rx_crc_errors", {"interface/rx_errors": 1}),
        ("drops", "rx_missed_errors", {"card/rx_discards_phy": 1}),
    ],
)
def test_a_counter_that_is_not_there_is_no_zero_but_hides_no_other(
    tmp_path: Path, criterion: str, blind: str, moved: dict[str, int]
) -> None:
    still = Played(2, blind=(blind,)).results("network", tmp_path)[criterion]
    assert still.verdict == "UNKNOWN"
    assert f"does not count interface/{blind}" in still.reason
    found = Played(2, blind=(blind,), grown=moved).results("network", tmp_path)[criterion]
    assert found.verdict == "FAIL"


@pytest.mark.parametrize(("lost", "verdict"), [(0, "UNKNOWN"), (1, "FAIL")])
def test_a_few_datagrams_of_which_none_was_lost_say_nothing(
    tmp_path: Path, lost: int, verdict: str
) -> None:
    def few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        server = end(24, datagrams=3, lost=lost)
        return [row | {"server": server} if row["flow"]["kind"] == UDP else row for row in rows]

    found = Played(2, change=few).results("network", tmp_path)["datagrams"]
    assert found.verdict == verdict
    if not lost:
        assert "too little load" in found.reason


def test_a_lost_datagram_fails_but_one_that_a_full_socket_may_have_lost_is_unknown(
    tmp_path: Path,
) -> None:
    lost = {"lost": 3}
    assert Played(2, server=lost).results("network", tmp_path)["datagrams"].verdict == "FAIL"
    full = Played(2, server=lost, grown={"udp/RcvbufErrors": 3})
    found = full.results("network", tmp_path)["datagrams"]
    assert (found.verdict, "raise net.core.rmem_max" in found.note) == ("UNKNOWN", True)


def test_the_hour_counts_only_where_the_load_arrived(tmp_path: Path) -> None:
    def slack(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            row | {"server": end(1e9, datagrams=5), "client": end(1e9)}
            if row["round"] == "hour"
            else row
            for row in rows
        ]

    found = Played(2, change=slack).results("network", tmp_path)
    assert found["errors"].verdict == found["retransmits"].verdict == "UNKNOWN"
    assert "too little load: n1 -> n2 carried 1 Gbps of 304 Gbps" in found["errors"].reason


def test_a_pair_that_let_nothing_through_is_unknown_and_named(tmp_path: Path) -> None:
    def cut(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        gone = {"client": end(0, failed="unable to connect to server: timed out")}
        pair = {0, 1}
        return [
            row | gone if {row["flow"]["source"], row["flow"]["destination"]} == pair else row
            for row in rows
        ]

    found = Played(4, change=cut).results("topology_4node", tmp_path)
    assert {found[name].verdict for name in ("speed", "aggregate", "bisection")} == {"UNKNOWN"}
    assert "named: the link n1-n2 (nothing came through)" in found["speed"].note
    assert "n1 -> n2: unable to connect" in found["aggregate"].reason


def test_who_has_no_iperf3_is_named_with_the_line_to_install_it(tmp_path: Path) -> None:
    found = Played(2, missing=["n2"], rows=[]).results("network", tmp_path)
    assert found["speed"].verdict == "UNKNOWN"
    assert "iperf3 is missing on n2: apt-get install iperf3" in found["speed"].reason


def test_what_was_done_before_a_node_was_lost_does_not_pass(tmp_path: Path) -> None:
    lost = Played(2, lost="rank 1 (n2) gave no sign of life", change=lambda rows: rows[:1])
    found = lost.results("network", tmp_path)
    assert {found[name].verdict for name in ("speed", "datagrams", "errors")} == {"UNKNOWN"}
    assert "n2 -> n1: not measured: rank 1 (n2) gave no sign of life" in found["speed"].reason


def test_a_virtual_port_s_speed_is_nothing(tmp_path: Path) -> None:
    links = [{"speed": 10_000, "physical": False}, {"speed": None, "physical": True}]
    found = Played(2, links=links).results("network", tmp_path)["link"]
    assert found.verdict == "UNKNOWN"
    assert "eth0 of n1 is virtual" in found.reason
    assert "eth0 of n2 has a driver that does not say its speed" in found.reason


def test_ends_that_say_different_things_leave_the_speed_between_them(tmp_path: Path) -> None:
    def half(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"client": end(0.85 * LINK)} for row in rows]

    assert Played(2, change=half).results("network", tmp_path)["speed"].verdict == "UNKNOWN"


def test_three_healthy_nodes_reach_three_times_the_link(tmp_path: Path) -> None:
    found = Played(3).results("topology_3node", tmp_path)["aggregate"]
    assert (found.verdict, found.observed) == ("PASS", pytest.approx(3 * 0.95 * LINK / 8))


def test_a_node_at_half_its_rate_lowers_the_aggregate_and_is_named(tmp_path: Path) -> None:
    half = {pair: LINK / 2 for pair in rounds.ordered(3) if 2 in pair}
    found = Played(3, slow=half).results("topology_3node", tmp_path)["aggregate"]
    assert found.verdict == "FAIL"
    assert "pair by pair: node n3: slow with all 2 others" in found.note


def test_the_smallest_of_the_matchings_is_the_bisection_and_is_named(tmp_path: Path) -> None:
    healthy = Played(4).results("topology_4node", tmp_path / "a")["bisection"]
    assert (healthy.verdict, healthy.observed) == ("PASS", pytest.approx(0.95))
    slow = {(0, 2): LINK / 2, (2, 0): LINK / 2}
    found = Played(4, slow=slow).results("topology_4node", tmp_path / "b")["bisection"]
    assert (found.verdict, found.observed) == ("FAIL", pytest.approx((0.95 + 0.5) / 2))
    assert "smallest: n1-n3 | n2-n4" in found.note


def test_a_pair_tried_again_counts_by_its_median_and_never_by_its_best() -> None:
    plan = next(rounds.speed(2, Width()))
    first, second, third = (
        played(Round(name, plan.flows), rate, {})
        for name, rate in (("speed 1 there", 1.0), ("again 1", 9.0), ("again 2", 2.0))
    )
    assert alone([*first, *second, *third]) == {(0, 1): 2.0}
    assert alone([*first, *second]) == {(0, 1): 1.0}


def test_an_answer_of_something_else_is_refused(tmp_path: Path) -> None:
    found = Played(2, rows=[{"round": "speed 1 there"}]).results("network", tmp_path)
    assert found["speed"].verdict == "UNKNOWN"
    assert "wanted what ranks write" in found["speed"].reason

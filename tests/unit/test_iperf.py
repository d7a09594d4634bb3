"""What iperf3 3.12 said on real links, what it says when it fails, and what a node counts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvfd.drills.rounds import TCP, UDP, Flow
from dvfd.drills.workers import traffic
from dvfd.drills.workers.iperf import Course, Said, client, read, together

SAID = Path(__file__).parents[1] / "fixtures/iperf3"


def said(name: str) -> Said:
    return read((SAID / f"{name}.json").read_text(), name.partition("-")[0])


def test_both_ends_of_a_stream_tell_what_arrived() -> None:
    client, server = said("tcp-client"), said("tcp-server")
    assert client.received == server.received == pytest.approx(190.97e6, rel=1e-4)
    assert client.sent == pytest.approx(191.49e6, rel=1e-4)
    assert (client.again, client.failed, server.failed) == (0, "", "")


def test_datagrams_that_left_a_gap_are_counted_by_the_receiver() -> None:
    server = said("udp-server")
    assert (server.lost, server.datagrams) == (66, 2589)


def test_a_client_that_reached_nobody_says_why() -> None:
    assert said("refused").failed == "unable to connect to server: Connection refused"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"end": {}}', "iperf3: error - no memory"])
def test_half_an_answer_is_none(text: str) -> None:
    assert "nothing that can be read" in read(text, TCP).failed


def test_processes_of_one_flow_are_one_and_fail_as_one() -> None:
    both = together([Said(1.0, 2.0, 3), Said(10.0, 20.0, 30, failed="gone")])
    assert (both.sent, both.received, both.again, both.failed) == (11.0, 22.0, 33, "gone")


SUMMED = Course(seconds=3.0, omit=1, tail=1)


def summed(name: str, change: Callable[[list[Any]], object] = lambda rows: rows) -> Said:
    document = json.loads((SAID / f"tcp-summed-{name}.json").read_text())
    change(document["intervals"])
    return read(json.dumps(document), TCP, SUMMED)


@pytest.mark.parametrize("end", ["client", "server"])
def test_of_flows_that_are_summed_the_last_second_does_not_count(end: str) -> None:
    def alone_at_the_end(rows: list[Any]) -> None:
        rows[-1]["sum"]["bytes"] *= 2

    assert summed(end).received == pytest.approx(39.845e6, rel=1e-3)
    assert summed(end, alone_at_the_end).received == summed(end).received


def test_too_few_intervals_are_no_rate() -> None:
    def late(rows: list[Any]) -> None:
        del rows[1:4]

    assert "nothing that can be read" in summed("server", late).failed


def test_flows_that_are_summed_run_a_second_longer_and_report_each() -> None:
    given = dict(itertools.pairwise(client(Flow(0, 1), SUMMED, ("a", "b"), 29600)))
    assert (given["-t"], given["-i"]) == ("4", "1")


def test_a_rate_is_shared_by_processes_and_streams() -> None:
    course = Course(seconds=60.0, omit=5)
    argv = client(Flow(0, 1, 0, 4, 2, TCP, 8e9), course, ("10.0.0.1", "10.0.0.2"), 29600)
    given = dict(itertools.pairwise(argv))
    assert (given["-b"], given["--fq-rate"]) == ("1000000000", "1000000000")
    assert (given["-P"], given["-t"], given["-O"], given["-B"]) == ("2", "60", "5", "10.0.0.1")
    datagrams = client(Flow(0, 1, kind=UDP, rate=1e6), course, ("a", "b"), 29600)
    assert "-u" in datagrams
    assert "-O" not in datagrams


def test_counters_of_a_node_have_one_name_each(tmp_path: Path) -> None:
    net = tmp_path / "class/net/dvfd0/statistics"
    net.mkdir(parents=True)
    (net / "rx_dropped").write_text("7\n")
    (net.parent / "carrier_changes").write_text("2\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/snmp").write_text("Tcp: OutSegs RetransSegs\nTcp: 1000 3\n")
    (tmp_path / "net/netstat").write_text("TcpExt: TCPTimeouts\nTcpExt: 4\n")
    (tmp_path / "net/softnet_stat").write_text("00ff 00000010 0\n00ff 00000001 0\n")
    found = traffic.counters("dvfd0", proc=tmp_path, sys=tmp_path)
    assert found == {
        "interface/rx_dropped": 7,
        "interface/carrier_changes": 2,
        "tcp/OutSegs": 1000,
        "tcp/RetransSegs": 3,
        "tcpext/TCPTimeouts": 4,
        "softnet/dropped": 17,
    }
    assert traffic.grown(found, {"softnet/dropped": 20, "new": 1}) == {"softnet/dropped": 3}


@pytest.mark.parametrize(("text", "speed"), [("400000\n", 400000), ("-1\n", None), ("", None)])
def test_a_driver_that_does_not_know_its_speed_has_none(
    tmp_path: Path, text: str, speed: int | None
) -> None:
    net = tmp_path / "class/net/eth0"
    net.mkdir(parents=True)
    (net / "speed").write_text(text)
    assert traffic.speed("eth0", tmp_path) == speed
    assert not traffic.physical("eth0", tmp_path)
    (net / "device").mkdir()
    assert traffic.physical("eth0", tmp_path)

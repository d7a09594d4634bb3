"""Flows between two real hosts: what iperf3 by hand gives, who is named, a port that is taken."""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

import pytest
from hosts import DEVICE, Host, Lan, hosts, together
from testbed import need

from dvfd.drills.rounds import Flow
from dvfd.drills.workers import iperf

SHAPED = """
[profile]
link_gbps = 0.2
link_gbps_reason = "a shaped cable"
"""


def check(lan: Lan, seconds: int) -> list[dict[str, Any]]:
    """Each host's report of `dvfd check network`, the same command on both."""
    command = [sys.executable, "-m", "dvfd", "check", "network", "--nodes", "2", "-o", "json"]
    command += ["--duration", seconds]
    done = together({h.name: h.popen(command) for h in lan}, 200)
    return [json.loads(ended.out) for ended in done.values()]


def by_hand(sender: Host, receiver: Host) -> float:
    """Bytes a second of a plain iperf3."""
    listen = ["iperf3", "-s", "-1", "--forceflush"]
    with receiver.popen(listen) as server:
        said = ""
        while "listening" not in said.lower():
            said = server.stdout.readline()
        told = sender.tool("iperf3", "-J", "-c", receiver.address, "-t", 3, "-O", 1, "-P", 8)
        server.communicate(timeout=10)
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"]) / 8


def found(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in document["results"] if r["criterion"] == f"network.{name}")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.long
@pytest.mark.machine
def test_a_slow_direction_is_measured_as_by_hand_and_named_by_both_nodes() -> None:
    with hosts(2, SHAPED) as lan:
        a, b = lan
        lan.shape("200mbit")
        half = ["root", "tbf", "rate", "100mbit", "burst", "256kb", "latency", "50ms"]
        b.tool("tc", "qdisc", "replace", "dev", DEVICE, *half)
        there, back = by_hand(a, b), by_hand(b, a)
        one, other = check(lan, 3)

    speed = found(one, "speed")
    assert speed["verdict"] == "FAIL"
    assert speed["labels"] == {"source": "n2", "destination": "n1"}
    assert speed["observed"] == pytest.approx(back, rel=0.05)
    assert speed["observed"] == found(other, "speed")["observed"]
    assert "named: direction n2 -> n1: n2 as a sender, n1 as a receiver" in speed["note"]
    fact = next(f["text"] for f in one["drill"]["facts"] if f["name"] == "n1 -> n2")
    assert float(fact.split()[0]) * 1e9 / 8 == pytest.approx(there, rel=0.05)
    assert "eth0 of n1 is virtual" in found(one, "link")["reason"]
    for name in ("errors", "drops"):
        assert "shortened, 3 s of 60 min" in found(one, name)["reason"]
    assert "95 % upper bound" in found(one, "datagrams")["note"]


def test_a_port_that_is_taken_is_said_and_leaves_no_server() -> None:
    need("iperf3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = iperf.serve(Flow(0, 0), "127.0.0.1", [port])
    assert serving.tools == ()
    assert f"port {port}: somebody listens on {port} already" in serving.failed


def test_an_address_that_is_not_ours_is_said() -> None:
    need("iperf3")
    serving = iperf.serve(Flow(0, 0), "192.0.2.1", [29655])
    assert "Cannot assign requested address" in serving.failed


def test_a_client_without_a_server_says_that_nobody_listened() -> None:
    need("iperf3")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ends = ("127.0.0.1", "127.0.0.1")
    (client,) = iperf.send(Flow(0, 0), iperf.Course(seconds=1, omit=0), ends, [port])
    assert "Connection refused" in client.end(time.monotonic() + 20).failed

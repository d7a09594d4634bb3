"""A test between real hosts meets what goes wrong there, says what by name, and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts import IPV6, Ended, Host, Lan, hosts, inside, together
from testbed import eventually

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
PART = """
import sys
from dvfd import cli, drills
from dvfd.cli import checks
checks.say_on_a_terminal = lambda line: print(line, file=sys.stderr, flush=True)
drills.PARTS = {{"network": {parts!r}}}
cli.main()
"""
"""`dvfd` whose network check has only these parts, and tells on stderr how far it is."""

SPEED, CONNECTED = "dvfd.drills.flows:Speed", "dvfd.drills.reach:Connected"
ROUND_TRIPS = "dvfd.drills.latency:RoundTrips"


def begun(lan: Lan, *parts: str, seconds: int) -> dict[str, subprocess.Popen[str]]:
    """The command on each host, under way; what it says goes to a file in the host's directory."""
    how = ["--nodes", len(lan.hosts), "--duration", seconds, "--force", "-o", "json"]
    node = [sys.executable, "-c", PART.format(parts=parts), "check", "network", *how]
    commands = {}
    for host in lan:
        with said(host).open("w") as told:
            commands[host.name] = host.popen(node, env={"PYTHONPATH": str(ROOT)}, stderr=told)
    return commands


def said(host: Host) -> Path:
    return host.directory / "said"


def results(ended: Ended) -> dict[str, Any]:
    rows = json.loads(ended.out)["results"]
    return {row["criterion"].partition(".")[2]: row for row in rows}


# --- Somebody is lost in the middle ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bereft() -> Iterator[tuple[Mapping[str, Ended], float, list[int]]]:
    """Reports of n1 and n3, whose n2 was killed in the middle of a flow; how many seconds it took
    them, and what is left running at n2.
    """
    with hosts(3) as lan:
        one, two, _ = lan
        lan.shape("100mbit")
        commands = begun(lan, SPEED, seconds=12)
        eventually(lambda: " > " in said(one).read_text(), 90, every=0.1)
        victim = commands.pop("n2")
        victim.kill()
        killed = time.monotonic()
        found = together(commands, 120)
        took = time.monotonic() - killed
        victim.communicate(timeout=10)
        yield found, took, inside(two.namespace)


def test_who_is_lost_in_the_middle_of_a_flow_is_named_by_all_others(bereft: Any) -> None:
    found, _, _ = bereft
    for ended in found.values():
        speed = results(ended)["speed"]
        assert speed["verdict"] == "UNKNOWN"
        assert "(n2) gave no sign of life for 20 s" in speed["reason"]


def test_the_others_end_soon_after(bereft: Any) -> None:
    _, took, _ = bereft
    assert took < 100  # 29 s where little else runs; torchrun alone would wait for 300


def test_with_its_command_all_that_it_started_is_gone(bereft: Any) -> None:
    _, _, left = bereft
    assert left == []


# --- Another host at that address -----------------------------------------------------------------


@pytest.fixture(scope="module")
def impersonated() -> Iterator[Mapping[str, Ended]]:
    """Reports of three, where what n2 sends to the address of n3 comes to n1, which takes it."""
    with hosts(3) as lan:
        one, two, three = lan
        wrong = json.loads(one.tool("ip", "-j", "link", "show", "eth0"))[0]["address"]
        fixed = ["lladdr", wrong, "dev", "eth0", "nud", "permanent"]
        two.tool("ip", "neighbour", "replace", three.address, *fixed)
        hook = "{ type nat hook prerouting priority -100; }"
        one.tool("nft", "add table ip taken")
        one.tool("nft", f"add chain ip taken calls {hook}")
        one.tool("nft", f"add rule ip taken calls ip daddr {three.address} dnat to {one.address}")
        yield together(begun(lan, CONNECTED, seconds=1), 200)


def test_another_host_at_that_address_is_not_taken_for_the_right_one(impersonated: Any) -> None:
    found = results(impersonated["n1"])["connected"]
    assert found["verdict"] == "FAIL"
    assert found["observed"] == pytest.approx(4 / 6)
    wrong = "n2 -> n3: 10.77.0.3 answers and is not the one (its proof is not that of n3)"
    assert wrong in found["note"]


# --- Nothing but IPv6 -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modern() -> Iterator[Mapping[str, dict[str, Any]]]:
    """What two hosts found that have no IPv4 address."""
    with hosts(2, network=IPV6) as lan:
        lan.shape("200mbit")
        ended = together(begun(lan, CONNECTED, ROUND_TRIPS, SPEED, seconds=1), 200)
        yield {name: results(each) for name, each in ended.items()}


def test_nodes_with_nothing_but_ipv6_are_tested_like_others(modern: Any) -> None:
    for found in modern.values():
        assert found["connected"]["observed"] == 1
        assert found["latency"]["observed"] > 0
        assert found["latency_tcp"]["observed"] > 0
        assert found["speed"]["observed"], found["speed"]["reason"]
        assert 0.5 < found["speed"]["observed"] * 8 / 200e6 < 1.1


def test_that_mpirun_takes_no_ipv6_address_is_said(modern: Any) -> None:
    found = modern["n2"]["latency_mpi"]
    assert found["verdict"] == "UNKNOWN"
    assert "mpirun takes no IPv6 address, fd77:77::" in found["reason"]

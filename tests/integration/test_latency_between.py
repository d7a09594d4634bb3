"""Round trips and ways between real hosts: as ping says by hand, MPI too, a smaller MTU told."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts import Ended, Lan, hosts, together

from dvfd.drills.workers.latency import parsed

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.machine, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
ALONE = """
from dvfd import cli, drills
drills.PARTS = {
    "network": ("dvfd.drills.latency:RoundTrips",),
    "topology_3node": ("dvfd.drills.latency:Spread", "dvfd.drills.routes:Routes"),
}
cli.main()
"""
"""`dvfd`, with no flows beside them."""


def agent(lan: Lan, place: Path) -> Path:
    """What takes ssh's place for mpirun: `AGENT ADDRESS COMMAND...`."""
    cases = "\n".join(f"{host.address}) to={host.namespace};;" for host in lan)
    path = place / "agent"
    path.write_text(
        f'#!/bin/sh\ncase $1 in\n{cases}\nesac\nshift\nexec ip netns exec "$to" sh -c "$*"\n'
    )
    path.chmod(0o755)
    return path


def reports(lan: Lan, check: str) -> Mapping[str, Ended]:
    how = ["--nodes", "3", "--duration", "5", "--force", "-o", "json"]
    node = [sys.executable, "-c", ALONE, "check", check, *how]
    env = {"PYTHONPATH": str(ROOT)}
    return together({host.name: host.popen(node, env=env) for host in lan}, 250)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, list[float]]]:
    """The reports of both checks, the second with a smaller MTU at n3; ping by hand, sorted."""
    with hosts(3, "[profile]\nprocesses_per_node = 1\n") as lan:
        one, two, three = lan
        script = agent(lan, tmp_path_factory.mktemp("agent"))
        for host in lan:
            text = host.config.read_text().replace("wait = 60", f"wait = 60\nrsh = '{script}'")
            host.config.write_text(text)

        def by_hand() -> float:
            ping = one.tool("ping", "-n", "-i", "0.01", "-c", "201", two.address)
            return statistics.median(parsed(ping))

        before, latency, after = by_hand(), reports(lan, "network"), by_hand()
        three.tool("ip", "link", "set", "eth0", "mtu", "1400")
        yield latency, reports(lan, "topology_3node"), sorted([before, after])


def results(ended: Ended) -> dict[str, Any]:
    assert ended.out, ended.err
    rows = json.loads(ended.out)["results"]
    return {row["criterion"].partition(".")[2]: row for row in rows}


def facts(ended: Ended) -> dict[str, str]:
    return {f["name"]: f["text"] for f in json.loads(ended.out)["drill"]["facts"]}


def micros(text: str) -> float:
    return float(text.removeprefix("median ").partition(" us")[0])


def test_echoes_take_what_ping_says_by_hand(seen: tuple[Any, Any, list[float]]) -> None:
    latency, _, (least, most) = seen
    assert least - 20 < micros(facts(latency["n1"])["n1 - n2, ping"]) < most + 20


def test_every_method_has_a_figure_and_all_nodes_the_same(
    seen: tuple[Any, Any, list[float]],
) -> None:
    latency, _, _ = seen
    for name in ("latency", "latency_tcp", "latency_mpi"):
        found = {json.dumps(results(e)[name]["observed"]) for e in latency.values()}
        assert len(found) == 1, found
        assert 0 < float(found.pop()) < 0.05
    told = facts(latency["n3"])
    assert {"n3 - n1, ping", "n2 - n3, 64 bytes over TCP", "n2 - n3, 64 bytes by MPI"} <= set(told)


def test_a_node_with_smaller_packets_is_told_by_the_pairs_that_have_them(
    seen: tuple[Any, Any, list[float]],
) -> None:
    _, topology, _ = seen
    found = results(topology["n2"])["routes"]
    assert found["verdict"] == "FAIL"
    assert "1400 bytes" in found["note"]


def test_pairs_that_differ_by_less_than_ten_microseconds_are_even(
    seen: tuple[Any, Any, list[float]],
) -> None:
    _, topology, _ = seen
    spread = results(topology["n1"])["even"]
    assert spread["observed"] is not None
    assert "longest" in spread["note"]


def test_nothing_is_left_running(seen: tuple[Any, Any, list[float]]) -> None:
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "mpi_pingpong" not in said

"""`dvfd cluster` between real hosts: each fault is named at the node that has it, only there."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import Ended, Host, Lan, hosts, together
from testbed import eventually

pytestmark = pytest.mark.slow

DVFD = [sys.executable, "-m", "dvfd"]
LISTENER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 29511))
print("ready", flush=True)
sys.stdin.read()
"""
RANK = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
mine = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(mine)
print("sum", int(mine.item()), "of", dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""


@contextmanager
def watched(host: Host) -> Iterator[None]:
    """A daemon on *host*, that answers."""
    with (host.directory / "daemon.log").open("ab") as log:
        daemon = host.popen([*DVFD, "run"], stdout=log, stderr=log)
    try:
        ping = "import urllib.request as u; u.urlopen('http://%s:9109/api/v1/node', timeout=5)"
        eventually(
            lambda: host.run([sys.executable, "-c", ping % host.address]).code == 0, 60, every=0.2
        )
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with hosts(3, '[http]\nhost = "0.0.0.0"\n') as made:
        n1, n2, n3 = made
        with watched(n1), watched(n2), watched(n3):
            yield made


CHECK = [*DVFD, "cluster", "check", "-o", "json"]


def check(host: Host, config: Path | None = None) -> tuple[int, dict[tuple[str, str], dict]]:
    """The exit code and each finding by node and subject."""
    more = {"env": {"DVFD_CONFIG": str(config)}} if config else {}
    return read(host, host.run(CHECK, timeout=120, **more))


def read(host: Host, ended: Ended) -> tuple[int, dict[tuple[str, str], dict]]:
    """All hosts of a test share their processes: what trains on this machine, trains on each."""
    assert ended.out, ended.err
    found = {
        (node["node"], finding["subject"]): finding
        for node in json.loads(ended.out)["nodes"]
        for finding in node["findings"]
    }
    del found[host.name, "idle"]
    return ended.code, found


def amiss(found: dict[tuple[str, str], dict]) -> dict[tuple[str, str], str]:
    return {key: finding["mark"] for key, finding in found.items() if finding["mark"] != "ok"}


def test_three_nodes_that_are_well_are_ok_and_one_clock_is_known_to_be_one(lan):
    n1, *_ = lan
    _, found = check(n1)
    ahead, known = found["n2", "clock"]["text"].split(" s against ours, known to ")

    assert not amiss(found), found
    assert abs(float(ahead)) <= float(known.removesuffix(" s")) + 0.001


def test_a_node_that_is_cut_off_is_unreachable_and_what_it_would_say_unknown(lan):
    n1, _, n3 = lan
    lan.cut(n3)
    code, found = check(n1)
    lan.mend(n3)

    assert code == 2
    assert {node for node, _ in amiss(found)} == {"n3"}
    assert found["n3", "reach"]["mark"] == found["n3", "dvfd"]["mark"] == "broken"
    assert found["n3", "clock"]["mark"] == found["n3", "ports"]["mark"] == "unknown"


def test_a_firewall_on_some_of_the_ports_names_them(lan):
    n1, n2, _ = lan
    n2.drop("tcp dport 29700-29799")
    code, found = check(n1)
    n2.heal()

    assert (code, amiss(found)) == (2, {("n2", "ports"): "broken"})
    assert "no answer on 29749, 29799" in found["n2", "ports"]["text"]


def test_a_way_that_is_open_in_one_direction_only_is_none(lan):
    n1, n2, _ = lan
    lan.silence(n1, n2)
    ended = together({h.name: h.popen(CHECK) for h in (n1, n2)}, timeout=120)
    lan.mend(n2)
    there, back = (read(h, ended[h.name])[1] for h in (n1, n2))

    assert there["n2", "reach"]["mark"] == back["n1", "reach"]["mark"] == "broken"
    assert there["n3", "reach"]["mark"] == back["n3", "reach"]["mark"] == "ok"


def test_a_port_of_the_rendezvous_that_is_taken_says_by_whom(lan):
    n1, n2, _ = lan
    with n1.popen([sys.executable, "-c", LISTENER], stdin=-1) as listener:
        assert listener.stdout.readline() == "ready\n"
        ended = together({h.name: h.popen(CHECK) for h in (n1, n2)}, timeout=120)
        here, there = (read(h, ended[h.name])[1] for h in (n1, n2))
        listener.stdin.close()

    assert here["n1", "ports"]["mark"] == there["n1", "ports"]["mark"] == "broken"
    assert f"pid {listener.pid}" in here["n1", "ports"]["text"]
    assert "somebody listens on 29511" in there["n1", "ports"]["text"]


def back(found):
    """*found*, once the third node answers again: it starts anew."""
    return {} if ("n3", "dvfd") in found else found


def test_a_node_that_is_configured_otherwise_is_told_apart_in_each_way(lan, tmp_path):
    n1, _, n3 = lan
    bare = tmp_path / "python"  # one that has no torch
    bare.write_text("#!/bin/sh\necho\n")
    bare.chmod(0o755)
    before = n3.config.read_text()
    other = before.replace("wait = 60", "wait = 60\nport = 29512")
    n3.config.write_text(
        f"{other}[drills]\npython = '{bare}'\n[profile]\nexpected_throughput = 1\n"
    )
    daemon = int((n3.directory / "state/dvfd.db.lock").read_text())
    try:
        os.kill(daemon, signal.SIGHUP)
        told = eventually(lambda: back(amiss(check(n1)[1])), 60, every=0.5)
    finally:
        n3.config.write_text(before)
        os.kill(daemon, signal.SIGHUP)

    assert told == {
        ("n3", "cluster"): "broken", ("n3", "torch"): "broken", ("n3", "profile"): "improve",
    }  # fmt: skip


def test_what_this_node_says_wrong_of_the_others_and_itself_is_found(lan, tmp_path):
    n1, *_ = lan
    wrong = n1.config.read_text().replace("'10.77.0.2'", "'nobody.invalid'")
    wrong = wrong.replace("wait = 60", "wait = 60\ninterface = 'lo'")
    (tmp_path / "wrong.toml").write_text(wrong.replace("10.77.0.3:9109", "10.77.0.2:9109"))
    code, found = check(n1, tmp_path / "wrong.toml")

    assert code == 2
    assert "nobody.invalid does not resolve" in found["n2", "name"]["text"]
    assert "never leaves this node" in found["n1", "interface"]["text"]
    assert "is the dvfd of 'n2', wanted 'n3'" in found["n3", "dvfd"]["text"]


@pytest.mark.torch
def test_the_frameworks_bare_line_typed_on_two_nodes_meets(lan, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    line = f"torchrun --nnodes=2 --nproc_per_node=2 {script}"
    typed = f'eval "$({sys.executable} -m dvfd cluster env)" && {line}'
    n1, n2, _ = lan
    ran = together({h.name: h.popen(["sh", "-c", typed]) for h in (n1, n2)}, timeout=180)

    for ended in ran.values():
        assert ended.code == 0, ended.err[-2000:]
        assert ended.out.count("sum 10 of 4") == 2  # 1 + 2 + 3 + 4, of the ranks of both

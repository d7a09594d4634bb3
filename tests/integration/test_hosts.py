"""The testbed's own hosts: they reach each other until parted or cut, and leave nothing."""

from __future__ import annotations

import json
import subprocess

from hosts import PREFIX, hosts

QUICK = ["ping", "-c1", "-W1"]


def test_hosts_reach_each_other_until_they_are_parted_or_cut() -> None:
    with hosts(3) as lan:
        a, b, c = lan
        assert a.run([*QUICK, b.address]).code == 0
        lan.silence(b, a)
        assert a.run([*QUICK, b.address]).code == 1
        assert a.run([*QUICK, c.address]).code == 0
        a.heal()
        assert a.run([*QUICK, b.address]).code == 0
        lan.cut(c)
        assert a.run([*QUICK, c.address]).code == 1
        lan.mend(c)
        assert a.run([*QUICK, c.address]).code == 0
        names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        assert all(host.namespace in names for host in lan)
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not any(host.namespace in names for host in lan)
    assert PREFIX in a.namespace


def test_a_cable_has_the_rate_that_it_was_given() -> None:
    with hosts(2) as lan:
        a, b = lan
        lan.shape("100mbit")
        with b.popen(["iperf3", "-s", "-1", "--forceflush"]) as server:
            said = ""
            while "listening" not in said.lower():
                said = server.stdout.readline()
            answer = a.tool("iperf3", "-J", "-c", b.address, "-t", "2", "-O", "1")
            server.communicate(timeout=10)
        rate = json.loads(answer)["end"]["sum_received"]["bits_per_second"]
        assert 85e6 < rate < 101e6

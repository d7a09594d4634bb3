"""Which node of the cluster we are, and what torchrun is told of the others."""

from __future__ import annotations

import pytest

from dvfd import cluster
from dvfd.config import Config, parse
from dvfd.drills.interface import Interface
from dvfd.errors import ConfigError

TWO = """
node.name = "{name}"
[cluster]
lead = "n1"
[[cluster.nodes]]
name = "n1"
address = "10.77.0.1"
[[cluster.nodes]]
name = "n2"
address = "fd00::2"
"""


def node(name: str, more: str = "") -> Config:
    return parse(TWO.format(name=name) + more)


def test_the_lead_is_told_that_it_is_the_host_and_the_others_that_they_are_not() -> None:
    told = {
        name: cluster.environment(config.cluster, cluster.here(config), run="x", over="")
        for name in ("n1", "n2")
        for config in [node(name)]
    }
    assert told["n1"]["PET_RDZV_CONF"].startswith("is_host=1,")
    assert told["n2"]["PET_RDZV_CONF"].startswith("is_host=0,")
    assert {each["PET_RDZV_ENDPOINT"] for each in told.values()} == {"10.77.0.1:29511"}
    assert told["n2"]["PET_LOCAL_ADDR"] == "fd00::2"


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert cluster.endpoint("fd00::2", 1) == "[fd00::2]:1"


def test_the_interface_is_the_one_that_carries_our_address_unless_one_is_named() -> None:
    there = {
        "eth0": Interface("eth0", True, ("192.0.2.1",)),
        "ib0": Interface("ib0", True, ("10.77.0.1",)),
    }
    named = parse(TWO.format(name="n1").replace("lead =", 'interface = "eth0"\nlead ='))
    assert cluster.interface(node("n1").cluster, ["10.77.0.1"], there) == "ib0"
    assert cluster.interface(named.cluster, ["10.77.0.1"], there) == "eth0"
    assert cluster.interface(node("n1").cluster, ["10.9.9.9"], there) == ""


def test_a_node_that_is_none_of_the_cluster_is_told_which_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"node.name is 'n9': wanted a node of the cluster, n1, n2"
    ):
        cluster.here(node("n9"))


def test_no_cluster_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"no nodes: wanted .cluster. lead"):
        cluster.here(Config())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cluster]\nlead = 'n1'\n", "lead 'n1' is no node of the cluster"),
        ("[cluster]\n[[cluster.nodes]]\nname = 'a'\naddress = 'b'\n", "lead '' is no node"),
        (TWO.format(name="n1").replace('"n2"', '"n1"'), "two nodes have the name n1"),
        (TWO.format(name="n1").replace("fd00::2", "10.77.0.1"), "two nodes have the address"),
        ("[cluster]\nports = [29600, 29610]\n", "wanted the first and the last of at least 64"),
        ("[cluster]\nports = [29799, 29600]\n", "wanted the first and the last"),
        ("[cluster]\nport = 29650\n", "lies within ports 29600 to 29799"),
        ("[cluster]\nport = 0\n", "cluster.port"),
        (TWO.format(name="n1").replace("10.77.0.1", "a b"), "cluster.nodes.0.address"),
        (TWO.format(name="n1") + "url = 'ftp://x'\n", "no http:// or https:// address"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_with_its_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert any(said in line for line in caught.value.problems), caught.value.problems


THERE = {
    "eth0": Interface("eth0", True, ("192.0.2.1",)),
    "ib0": Interface("ib0", False, ("10.77.0.1",)),
    "lo": Interface("lo", True, ("127.0.0.1", "127.0.1.1")),
}


@pytest.mark.parametrize(
    ("over", "addresses", "said"),
    [
        ("eth0", ["192.0.2.1"], []),
        ("", [], []),  # that its name does not resolve was said before
        ("", ["10.9.9.9"], ["no interface here carries 10.77.0.1"]),
        ("eth9", ["192.0.2.1"], ["no interface 'eth9' here: wanted one of eth0, ib0, lo"]),
        ("ib0", ["10.77.0.1"], ["ib0 is down: ip link set ib0 up"]),
        ("lo", ["127.0.1.1"], ["never leaves this node"]),
        ("eth0", ["10.77.0.1"], ["eth0 carries 192.0.2.1, and n1 is 10.77.0.1"]),
    ],
)
def test_an_interface_that_leads_nowhere_is_told_with_what_to_do(
    over: str, addresses: list[str], said: list[str]
) -> None:
    me = cluster.here(node("n1"))
    found = cluster.unfit(over, me, addresses, THERE)

    assert len(found) == len(said)
    assert all(wanted in text for wanted, text in zip(said, found, strict=True)), found

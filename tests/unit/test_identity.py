"""What a node tells the others of itself: looked for without loading it, and seldom."""

from __future__ import annotations

import sys

import pytest

from dvfd.config import Config, parse
from dvfd.drills.interface import Interface
from dvfd.errors import ToolError
from dvfd.identity import STANDS, Identity
from dvfd.shell import Output

TWO = """
node.name = "n2"
[cluster]
lead = "n1"
[[cluster.nodes]]
name = "n1"
address = "192.0.2.1"
[[cluster.nodes]]
name = "n2"
address = "192.0.2.2"
"""


class World:
    """An interpreter that says *said*, a clock, and one interface."""

    def __init__(self, *said: Output | Exception) -> None:
        self.said = list(said) or [Output(0, "2.13.0\n", "", 0.1)]
        self.asked: list[list[str]] = []
        self.now = 0.0
        self.there = {"ib0": Interface("ib0", True, ("192.0.2.2",))}

    def run(self, argv):
        self.asked.append(argv)
        said = self.said[min(len(self.asked), len(self.said)) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    def identity(self, text: str = TWO) -> Identity:
        return Identity(
            parse(text), interfaces=lambda: self.there, run=self.run, boot=lambda: self.now
        )


def test_a_node_tells_its_torch_its_interface_and_its_cluster():
    told = World().identity()()

    assert (told["torch"], told["torch_missing"]) == ("2.13.0", "")
    assert told["interface"] == {"name": "ib0", "up": True, "carries": True, "loopback": False}
    assert told["cluster"] == {
        "lead": "n1", "nodes": ["n1", "n2"], "port": 29511, "ports": [29600, 29799],
    }  # fmt: skip


def test_torch_is_looked_for_again_only_after_a_while():
    world = World(Output(0, "2.1\n", "", 0.1), Output(0, "2.2\n", "", 0.1))
    identity = world.identity()

    assert [identity()["torch"] for _ in range(3)] == ["2.1"] * 3
    world.now += STANDS + 1
    assert identity()["torch"] == "2.2"
    assert len(world.asked) == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Output(1, "", "SyntaxError: no", 0.1), "exit code 1: SyntaxError: no"),
        (ToolError("/no/python: cannot be started"), "cannot be started"),
    ],
)
def test_an_interpreter_that_cannot_be_asked_is_no_word_on_torch(said, why):
    told = World(said).identity()()

    assert told["torch"] is None
    assert why in told["torch_missing"]


def test_an_interpreter_without_torch_says_so():
    told = World(Output(0, "\n", "", 0.1)).identity()()

    assert told["torch"] == ""
    assert "has no torch" in told["torch_missing"]


@pytest.mark.parametrize(
    ("there", "text"),
    [({}, TWO), ({"ib0": Interface("ib0", True, ())}, TWO), ({}, "node.name = 'n2'")],
)
def test_no_interface_carries_the_address_is_none(there, text):
    world = World()
    world.there = there

    assert world.identity(text)()["interface"] is None


def test_an_interface_that_is_named_is_told_with_what_is_wrong_with_it():
    world = World()
    world.there = {"eth0": Interface("eth0", False, ("203.0.113.1",))}
    named = TWO.replace("[cluster]", "[cluster]\ninterface = 'eth0'")

    assert world.identity(named)()["interface"] == {
        "name": "eth0", "up": False, "carries": False, "loopback": False,
    }  # fmt: skip


def test_this_interpreter_is_asked_for_real():
    import importlib.metadata

    told = Identity(Config())()
    try:
        wanted = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        wanted = ""
    assert (told["python"], told["torch"]) == (sys.executable, wanted)

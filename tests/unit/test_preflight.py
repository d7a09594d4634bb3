"""What would stop a test between nodes is said before, and what was not looked at is never ok."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from fakes_output import valid

from dvfd import preflight
from dvfd.config import Cluster, Member
from dvfd.doctor import Mark, exit_code
from dvfd.drills.interface import Interface
from dvfd.errors import DvfdError
from dvfd.knocking import knock
from dvfd.preflight import SUBJECTS, Heard, Knock, Own, World

N1 = Member(name="n1", address="10.77.0.1", url="http://10.77.0.1:9109")
N2 = Member(name="n2", address="10.77.0.2", url="http://10.77.0.2:9109")
OWN = Own(
    version="1.0", catalogue="c0ffee", profile="decaf", torch="2.13.0", torch_missing="",
    training="", listening={},
)  # fmt: skip
TOLD = {
    "node": "n2", "version": "1.0", "catalogue": "c0ffee", "profile": "decaf", "jobs": [],
    "python": "/usr/bin/python3", "torch": "2.13.0", "torch_missing": "",
    "cluster": {"lead": "n1", "nodes": ["n1", "n2"], "port": 29511, "ports": [29600, 29799]},
    "interface": {"name": "eth0", "up": True, "carries": True, "loopback": False},
}  # fmt: skip


class Peers:
    """Both nodes as they answer; a test breaks one thing."""

    def __init__(self) -> None:
        self.knocks: dict[int, Knock] = {}
        self.otherwise = Knock.CLOSED
        self.told = {"n1": {**TOLD, "node": "n1"}, "n2": dict(TOLD)}
        self.ahead = 0.001
        self.give = 0.0005
        self.names: dict[str, str] = {}

    def resolve(self, name: str) -> list[str]:
        if name in self.names:
            raise DvfdError(self.names[name])
        return [name]

    def knock(self, address, ports, sources):
        assert sources == ["10.77.0.1"]
        return {port: self.knocks.get(port, self.otherwise) for port in ports}

    def ask(self, url):
        found = self.told["n1" if url == N1.url else "n2"]
        if isinstance(found, str):
            raise DvfdError(found)
        return Heard(found, self.ahead, self.give)


@pytest.fixture
def peers():
    return Peers()


def world(peers, **more) -> World:
    keys = {
        "cluster": Cluster(lead="n1", nodes=(N1, N2)),
        "me": N1,
        "own": OWN,
        "there": {"eth0": Interface("eth0", True, ("10.77.0.1",))},
    } | more
    return World(resolve=peers.resolve, knock=peers.knock, ask=peers.ask, **keys)


def found(of: World) -> dict[tuple[str, str], preflight.Finding]:
    rows = preflight.examine(of)
    assert len(rows) == len(of.cluster.nodes) * len(SUBJECTS)
    return {(row.section, row.subject): row for row in rows}


def test_two_nodes_that_could_be_tested_are_all_ok(peers):
    rows = found(world(peers))

    assert {row.mark for row in rows.values()} == {Mark.OK}, rows
    assert exit_code(rows.values()) == 0


def test_the_ports_that_are_knocked_on_are_the_ends_of_the_range_and_some_between():
    assert preflight.sampled((29600, 29799)) == [29600, 29649, 29699, 29749, 29799]


BROKEN = [
    ({"version": "2.0"}, "version", "2.0, wanted 1.0 as here"),
    ({"catalogue": "beef"}, "catalogue", "beef, wanted c0ffee as here"),
    ({"torch": "2.1.0"}, "torch", "torch 2.1.0 in /usr/bin/python3, wanted 2.13.0"),
    ({"torch": "", "torch_missing": "python has none"}, "torch", "python has none"),
    ({"cluster": TOLD["cluster"] | {"lead": "n2"}}, "cluster", "lead is n2, here n1"),
    ({"cluster": TOLD["cluster"] | {"nodes": ["n2"]}}, "cluster", "nodes is ['n2']"),
    ({"cluster": TOLD["cluster"] | {"ports": [1, 99]}}, "cluster", "ports is [1, 99]"),
    ({"interface": None}, "interface", "none there carries its address"),
    ({"interface": TOLD["interface"] | {"up": False}}, "interface", "eth0 is down"),
    ({"interface": TOLD["interface"] | {"carries": False}}, "interface", "does not carry"),
    ({"interface": TOLD["interface"] | {"loopback": True}}, "interface", "never leaves the node"),
    ({"jobs": ["gpt", "bert"]}, "idle", "job gpt, bert"),
    ({"node": "n7"}, "dvfd", "is the dvfd of 'n7', wanted 'n2'"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "subject", "said"), BROKEN, ids=lambda v: str(v)[:30])
def test_what_a_peer_has_otherwise_is_broken_and_says_both(told, subject, said, peers):
    peers.told["n2"] |= told
    rows = found(world(peers))

    assert rows["n2", subject].mark is Mark.BROKEN
    assert said in rows["n2", subject].text
    assert rows["n2", subject].do
    assert all(row.mark is Mark.OK for (node, _), row in rows.items() if node == "n1")
    assert exit_code(rows.values()) == 2


def test_a_torch_that_could_not_be_looked_for_is_unknown(peers):
    peers.told["n2"] |= {"torch": None, "torch_missing": "python: Permission denied"}
    row = found(world(peers))["n2", "torch"]

    assert (row.mark, row.text) == (Mark.UNKNOWN, "python: Permission denied")


def test_a_peers_words_move_no_cursor_and_fill_no_page(peers):
    peers.told["n2"] |= {"version": "\x1b[2J9.9", "jobs": ["x" * 9000]}
    made = preflight.document(world(peers), preflight.examine(world(peers)))
    texts = [finding["text"] for node in made["nodes"] for finding in node["findings"]]

    assert not [text for text in texts if "\x1b" in text or len(text) > 500]


def test_another_profile_may_be_meant(peers):
    peers.told["n2"]["profile"] = "mocha"

    assert found(world(peers))["n2", "profile"].mark is Mark.IMPROVE


@pytest.mark.parametrize("key", [key for key in TOLD if key not in {"node", "torch_missing"}])
def test_what_a_peer_does_not_tell_is_unknown(key, peers):
    del peers.told["n2"][key]
    rows = found(world(peers))

    unknown = [row for row in rows.values() if row.mark is not Mark.OK]
    assert [row.mark for row in unknown] == [Mark.UNKNOWN]
    assert exit_code(rows.values()) == 3


def test_of_a_dvfd_that_does_not_answer_nothing_else_is_known(peers):
    peers.told["n2"] = "http://10.77.0.2:9109: Connection refused"
    rows = found(world(peers))

    assert rows["n2", "dvfd"].mark is Mark.BROKEN
    assert {rows["n2", subject].mark for subject in preflight.ASKING} == {Mark.UNKNOWN}
    assert rows["n2", "ports"].mark is Mark.OK


def test_without_a_url_nobody_was_asked(peers):
    quiet = Cluster(lead="n1", nodes=(N1, N2.model_copy(update={"url": ""})))
    rows = found(world(peers, cluster=quiet))

    assert rows["n2", "dvfd"].mark is Mark.UNKNOWN
    assert "url" in rows["n2", "dvfd"].do
    assert rows["n2", "clock"].mark is Mark.UNKNOWN


def test_a_name_that_does_not_resolve_is_broken_and_its_ports_unknown(peers):
    peers.names["10.77.0.2"] = "n2 does not resolve: Name or service not known"
    rows = found(world(peers))

    assert rows["n2", "name"].mark is Mark.BROKEN
    assert {rows["n2", subject].mark for subject in ("reach", "ports")} == {Mark.UNKNOWN}


@pytest.mark.parametrize(
    ("knocks", "otherwise", "marks", "said"),
    [
        ({}, Knock.CLOSED, (Mark.OK, Mark.OK), "closed and reachable"),
        ({}, Knock.SILENT, (Mark.BROKEN, Mark.UNKNOWN), "nothing of it answers"),
        ({}, Knock.UNREACHABLE, (Mark.BROKEN, Mark.UNKNOWN), "nothing of it answers"),
        ({29699: Knock.SILENT}, Knock.CLOSED, (Mark.OK, Mark.BROKEN), "no answer on 29699"),
        ({29600: Knock.CLOSED}, Knock.SILENT, (Mark.OK, Mark.BROKEN), "while 29600 do"),
        ({29699: Knock.UNREACHABLE}, Knock.CLOSED, (Mark.OK, Mark.BROKEN), "no answer on 29699"),
        ({29600: Knock.OPEN}, Knock.CLOSED, (Mark.OK, Mark.IMPROVE), "somebody listens on 29600"),
    ],
)
def test_silence_is_a_firewall_and_a_reset_is_a_free_way(knocks, otherwise, marks, said, peers):
    peers.knocks, peers.otherwise = knocks, otherwise
    rows = found(world(peers))

    assert (rows["n2", "reach"].mark, rows["n2", "ports"].mark) == marks
    assert said in rows["n2", "ports"].text


def test_the_port_of_the_rendezvous_is_tried_at_the_lead_only(peers):
    peers.knocks = {29511: Knock.OPEN}
    assert found(world(peers))["n2", "ports"].mark is Mark.OK

    led = Cluster(lead="n2", nodes=(N1, N2))
    peers.told["n2"]["cluster"] = TOLD["cluster"] | {"lead": "n2"}
    row = found(world(peers, cluster=led))["n2", "ports"]
    assert row.mark is Mark.BROKEN
    assert "somebody listens on 29511" in row.text


@pytest.mark.parametrize(
    ("listening", "mark", "said"),
    [
        ({22: "sshd"}, Mark.OK, "29600 to 29799 are free"),
        ({29511: "python3, pid 7"}, Mark.BROKEN, "taken by python3, pid 7"),
        ({29601: "nc, pid 8", 29799: "x"}, Mark.IMPROVE, "2 of 200 ports are taken: 29601 by nc"),
    ],
)
def test_a_taken_port_of_this_node_says_who_has_it(listening, mark, said, peers):
    row = found(world(peers, own=replace(OWN, listening=listening)))["n1", "ports"]

    assert row.mark is mark
    assert said in row.text


@pytest.mark.parametrize(
    ("own", "subject", "said"),
    [
        ({"torch": None, "torch_missing": "no torch"}, "torch", "no torch"),
        ({"training": "job gpt"}, "idle", "trains: job gpt"),
    ],
)
def test_what_this_node_lacks_is_broken_here(own, subject, said, peers):
    row = found(world(peers, own=replace(OWN, **own)))["n1", subject]

    assert row.mark is Mark.BROKEN
    assert said in row.text


def test_jobs_that_nobody_tells_of_are_unknown_and_not_none(peers):
    assert found(world(peers, own=replace(OWN, training=None)))["n1", "idle"].mark is Mark.UNKNOWN


def test_without_torch_here_the_peers_cannot_be_compared(peers):
    own = replace(OWN, torch=None, torch_missing="none")

    assert found(world(peers, own=own))["n2", "torch"].mark is Mark.UNKNOWN


@pytest.mark.parametrize(
    ("there", "subject", "mark"),
    [
        ({"eth0": Interface("eth0", True, ("10.1.1.1",))}, "reach", Mark.BROKEN),
        ({"eth0": Interface("eth0", False, ("10.77.0.1",))}, "interface", Mark.BROKEN),
        ({"lo": Interface("lo", True, ("10.77.0.1", "127.0.0.1"))}, "interface", Mark.BROKEN),
    ],
)
def test_this_nodes_own_interface_is_looked_at(there, subject, mark, peers):
    assert found(world(peers, there=there))["n1", subject].mark is mark


@pytest.mark.parametrize(
    ("ahead", "give", "mark"),
    [
        (0.0, 0.001, Mark.OK),
        (-1.5, 0.2, Mark.OK),
        (2.5, 0.1, Mark.BROKEN),
        (-2.5, 0.1, Mark.BROKEN),
        (1.9, 0.5, Mark.UNKNOWN),
        (0.0, 3.0, Mark.UNKNOWN),
        (float("nan"), 0.1, Mark.UNKNOWN),
    ],
)
def test_clocks_are_apart_only_beyond_what_the_exchange_can_tell(ahead, give, mark, peers):
    peers.ahead, peers.give = ahead, give

    assert found(world(peers))["n2", "clock"].mark is mark


def test_a_source_that_is_not_ours_makes_reach_unknown_and_not_ok(peers):
    def cannot(address, ports, sources):
        raise OSError(99, "Cannot assign requested address")

    peers.knock = cannot
    rows = found(world(peers))

    assert {rows["n2", subject].mark for subject in ("reach", "ports")} == {Mark.UNKNOWN}


def test_the_document_has_every_node_with_every_subject(peers):
    made = preflight.document(world(peers), preflight.examine(world(peers)))

    valid(made, "cluster_check")
    assert [node["node"] for node in made["nodes"]] == ["n1", "n2"]
    for node in made["nodes"]:
        assert [finding["subject"] for finding in node["findings"]] == list(SUBJECTS)


# --- Knocking -------------------------------------------------------------------------------------


def test_an_open_and_a_closed_port_are_told_apart():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, and nobody listens
        opened, closed = server.getsockname()[1], held.getsockname()[1]

        assert knock("127.0.0.1", [opened, closed], ["127.0.0.1", "::1"]) == {
            opened: Knock.OPEN,
            closed: Knock.CLOSED,
        }


def test_a_queue_that_is_full_is_silence_and_is_waited_for_no_longer_than_told():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        place = server.getsockname()
        with socket.create_connection(place):  # fills the queue: further ones get no answer
            assert knock("127.0.0.1", [place[1]], within=0.3) == {place[1]: Knock.SILENT}


def test_an_address_to_which_there_is_no_way_is_unreachable_and_not_silent():
    assert knock("255.255.255.255", [9], within=1) == {9: Knock.UNREACHABLE}


def test_a_knock_from_an_address_that_is_not_ours_is_refused():
    with pytest.raises(OSError, match="Cannot assign requested address"):
        knock("127.0.0.1", [9], ["192.0.2.1"])

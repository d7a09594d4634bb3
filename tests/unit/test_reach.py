"""Who reaches whom: proofs between real sockets, and what failed calls are made into words."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd.drills import fleet, reach
from dvfd.drills.drill import Ran
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.supervise import supervise
from dvfd.drills.workers import reach as worker
from dvfd.errors import ProbeError
from dvfd.preflight import Knock

MINE, THEIRS = ("n1", "aa" * 32), ("n2", "bb" * 32)


@contextmanager
def door(name: str = "n2", key: str = THEIRS[1]) -> Iterator[worker.Door]:
    """One of *name*, which knows the caller of rank 0 as MINE."""
    with worker.Listener(("127.0.0.1", 0), name, key) as listener:
        listener.callers = {0: MINE}
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield listener.door
        listener.shutdown()
        thread.join()


def call(where: worker.Door, me: tuple[str, str] = MINE) -> tuple[str, str]:
    return worker.call(where, rank=0, me=me, other=THEIRS)


def test_both_ends_prove_who_they_are() -> None:
    with door() as where:
        assert call(where) == ("proven", "")


def test_another_node_at_the_address_is_not_taken_for_the_right_one() -> None:
    with door(name="n9") as where:
        assert call(where) == ("wrong", "its proof is not that of n2")


def test_a_key_that_was_not_told_proves_nothing() -> None:
    with door(key="cc" * 32) as where:
        assert call(where)[0] == "wrong"


def test_a_caller_with_a_wrong_proof_is_turned_away() -> None:
    with door() as where:
        assert call(where, me=("n1", "dd" * 32)) == ("wrong", "n2 does not take our proof")


def test_a_closed_port_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    assert call(where) == ("refused", "")


def test_another_service_that_closes_is_not_the_right_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_at_once() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        assert call(server.getsockname())[0] in {"wrong", "broken"}
        thread.join()


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()[1]
        with worker.listen("127.0.0.1", [taken, free], *THEIRS) as found:
            assert found.door == ("127.0.0.1", free)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        worker.listen("192.0.2.1", [29600], *THEIRS)


def test_ports_are_spread_over_the_whole_range() -> None:
    assert worker.spread(range(29600, 29800), 5) == [29600, 29649, 29699, 29749, 29799]
    assert worker.spread(range(7, 9), 5) == [7, 8]


def test_a_nonce_of_the_caller_changes_the_proof() -> None:
    one, other = (worker.proof("aa", struct.pack("!I", n)) for n in (1, 2))
    assert one != other


def test_only_a_lasting_global_address_of_the_interface_is_taken(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "fd910000000000000000000000000009 02 40 00 01     eth0\n"
        "fd910000000000000000000000000001 02 40 00 80     eth0\n"
    )
    assert worker._six("eth0", table) == "fd91::1"
    assert worker._six("eth1", table) == ""


# --- Into words -----------------------------------------------------------------------------------

NODES = tuple(Met(f"n{i}", f"10.0.0.{i}", "eth0", (i - 1,)) for i in (1, 2, 3))


def values(*bad: tuple[int, int, str], heard: Any = None) -> dict[int, Any]:
    """Of three ranks: every call is proven but *bad*, every datagram came unless told."""
    ends = {(a, b): how for a, b, how in bad}
    return {
        a: {
            "calls": [
                [b, f"10.0.0.{b + 1}", 29600, ends.get((a, b), "proven"), ""]
                for b in range(3)
                if b != a
            ],
            "heard": (heard or {}).get(a, [b for b in range(3) if b != a]),
        }
        for a in range(3)
    }


def connected(directory: Path, said: dict[int, Any], failures: dict[int, str] | None = None) -> Any:
    chosen = task("network", directory)
    answer = Answer(NODES, {reach.EXERCISE: Heard(said, failures or {})}, "2.13.0")
    chosen.memo.once(("fleet", "network"), lambda: answer)
    whole = Ran(chosen.planned)  # beside an hour's flow
    return judged(chosen, [*reach.Connected().run(chosen), whole])["connected"]


def test_nodes_that_all_reach_each_other_pass(tmp_path: Path) -> None:
    assert connected(tmp_path, values()).verdict == "PASS"


def test_a_refused_call_fails_and_names_the_pair_and_its_direction(tmp_path: Path) -> None:
    found = connected(tmp_path, values((0, 2, "refused")))
    assert (found.verdict, found.observed) == ("FAIL", pytest.approx(5 / 6))
    assert found.note.startswith("n1 -> n3: 10.0.0.3 refuses")
    assert "n3 -> n1" not in found.note


def test_a_link_that_loses_one_way_is_told_from_one_that_is_cut(tmp_path: Path) -> None:
    silent = ((0, 1, "silent"), (1, 0, "silent"))
    one = connected(tmp_path, values(*silent, heard={1: [2]})).note
    assert "what n1 sends does not reach n2, what n2 sends reaches n1" in one
    cut = connected(tmp_path, values(*silent, heard={0: [2], 1: [2]})).note
    assert "datagrams get through neither way" in cut


def test_a_rank_that_could_not_call_is_unknown_and_never_a_pass(tmp_path: Path) -> None:
    said = values()
    del said[2]
    found = connected(tmp_path, said, {2: "rank 2 (n3) died"})
    assert found.verdict == "UNKNOWN"
    assert "not tried: n3 -> n1, n3 -> n2: rank 2 (n3) died" in found.reason


def test_a_measured_no_stands_though_others_are_not_known(tmp_path: Path) -> None:
    said = values((0, 1, "silent"))
    del said[2]
    assert connected(tmp_path, said, {2: "died"}).verdict == "FAIL"


def test_sixteen_ranks_are_240_ordered_pairs() -> None:
    assert len(reach.ordered(range(16))) == 240
    assert len(reach.ordered(range(12))) == 132


def test_no_more_than_a_few_pairs_are_named() -> None:
    lines = [remark.text for remark in reach._words(reach.RATIO, [str(n) for n in range(9)])]
    assert lines == ["0", "1", "2", "3", "4", "and 4 more"]


def test_what_no_rank_writes_is_not_believed() -> None:
    with pytest.raises(ProbeError, match="a call ended 'fine'"):
        reach.read({0: {"calls": [[1, "a", 1, "fine", ""]], "heard": []}})


# --- Nodes that did not meet ----------------------------------------------------------------------

TWO = """
node.name = "n1"
[cluster]
lead = "n1"
nodes = [{name = "n1", address = "10.0.0.1"}, {name = "n2", address = "10.0.0.2"}]
"""


def apart(directory: Path, monkeypatch: pytest.MonkeyPatch, heard: Knock) -> Any:
    """What n1 says where the ranks did not meet and n2 answers a knock like this."""

    def never() -> Any:
        raise fleet.NotMet("2 nodes did not meet")

    monkeypatch.setattr(reach, "knock", lambda address, ports: dict.fromkeys(ports, heard))
    chosen = task("network", directory, toml=TWO)
    with pytest.raises(fleet.NotMet):
        chosen.memo.once(("fleet", "network"), never)
    return judged(chosen, supervise(chosen, [reach.Connected()]))["connected"]


@pytest.mark.parametrize("heard", [Knock.SILENT, Knock.UNREACHABLE])
def test_a_node_that_never_came_and_cannot_be_reached_is_a_measured_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Knock
) -> None:
    found = apart(tmp_path, monkeypatch, heard)
    assert (found.verdict, found.observed) == ("FAIL", 0.0)
    assert f"seen from n1: n2 is {heard.value}" in found.note


@pytest.mark.parametrize("heard", [Knock.OPEN, Knock.CLOSED])
def test_a_node_that_never_came_though_it_can_be_reached_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Knock
) -> None:
    found = apart(tmp_path, monkeypatch, heard)
    assert found.verdict == "UNKNOWN"
    assert "2 nodes did not meet" in found.reason

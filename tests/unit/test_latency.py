"""Round trips: what ping prints and TCP returns, medians with their bounds, how even pairs are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd.drills import latency
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.workers import iperf
from dvfd.drills.workers import latency as worker
from dvfd.errors import ProbeError
from dvfd.model import Sample

NODES = tuple(Met(f"n{i}", f"10.0.0.{i}", "eth0", (i - 1,)) for i in (1, 2, 3))

PING = """PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.
64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.451 ms
64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=0.035 ms
64 bytes from 10.77.0.2: icmp_seq=4 ttl=64 time=0.041 ms

--- 10.77.0.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 30ms
rtt min/avg/max/mdev = 0.035/0.175/0.451/0.195 ms
"""


def row(micros: float, *, count: int = 100, sent: int = 100, why: str = "") -> dict[str, Any]:
    return {"times": [micros + 0.01 * (i % 7) for i in range(count)], "sent": sent, "why": why}


def said(icmp: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"icmp": icmp, "tcp": {name: row(60.0) for name in icmp}, "mpi": {}} | more


def answer(*values: Any, failures: dict[int, str] | None = None) -> Answer:
    heard = Heard({i: v for i, v in enumerate(values) if v is not None}, failures or {})
    return Answer(NODES[: len(values)], {"latency": heard}, "2.13.0")


def played(check: str, directory: Path, found: Answer, part: Any, toml: str = "") -> Any:
    chosen = task(check, directory, toml=toml)
    chosen.memo.once(("fleet", check), lambda: found)
    return chosen, list(part.run(chosen))


# --- Measuring ------------------------------------------------------------------------------------


def test_the_first_echo_which_waited_for_an_address_does_not_count() -> None:
    assert worker.parsed(PING) == pytest.approx([35.0, 41.0])


@contextmanager
def door() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=worker._answer_all, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()


def test_messages_over_tcp_come_back_as_often_as_was_asked() -> None:
    with door() as where:
        found = worker.trips(where, "127.0.0.1", 50)
    assert (len(found["times"]), found["why"]) == (50, "")
    assert min(found["times"]) > 0


def test_a_port_on_which_nobody_is_is_told_with_the_systems_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    found = worker.trips(where, "127.0.0.1", 5)
    assert found["times"] == []
    assert found["why"] == f"127.0.0.1 port {where[1]}: Connection refused"


class Lone:
    """What the mirror uses of a crew."""

    def __init__(self, port: int) -> None:
        self.me = Met("n1", "127.0.0.1", "lo", (0,))
        self.ports = range(port, port + 1)


def test_the_port_of_the_mirror_is_free_for_the_next_exercise() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with worker._served(Lone(port)) as taken:
        assert worker.trips(("127.0.0.1", taken), "127.0.0.1", 2)["why"] == ""
    assert port not in iperf.listening()


def test_who_answers_something_else_is_no_mirror() -> None:
    def lie(server: socket.socket) -> None:
        line, _ = server.accept()
        with line:
            line.recv(64)
            line.sendall(bytes(64))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lie, args=(server,), daemon=True).start()
        found = worker.trips(server.getsockname(), "127.0.0.1", 5)
    assert "another message came back" in found["why"]


# --- Judging --------------------------------------------------------------------------------------


def test_mpirun_is_given_no_ipv6_address_of_which_it_takes_the_colon_for_that_of_slots() -> None:
    found = worker.mpi(("fd77::1", "fd77::2"), "eth0", {})
    assert found["times"] == []
    assert "mpirun takes no IPv6 address, fd77::2: give" in found["why"]


def test_each_method_is_judged_by_itself_on_its_median(tmp_path: Path) -> None:
    found = answer(said({"n2": row(35.0)}, mpi={"n1 n2": row(220.0)}), said({"n1": row(38.0)}))
    chosen, yielded = played("network", tmp_path, found, latency.RoundTrips())
    results = judged(chosen, yielded)
    assert {name: results[name].verdict for name in ("latency", "latency_tcp", "latency_mpi")} == {
        "latency": "PASS",
        "latency_tcp": "PASS",
        "latency_mpi": "FAIL",
    }
    assert results["latency"].observed == pytest.approx(38.03e-6)
    facts = {f.name: f.text for f in yielded if isinstance(f, Fact)}
    assert facts["n1 - n2, ping"].startswith("median 35.03 us, p95 35.1 us, p99 35.1 us; 100")


def test_a_pair_without_an_echo_is_unknown_and_takes_the_pass_away(tmp_path: Path) -> None:
    silent = row(0.0, count=0, why="no echo of 1000 came back: silence")
    found = answer(said({"n2": row(35.0)}), said({"n1": silent}))
    chosen, yielded = played("network", tmp_path, found, latency.RoundTrips())
    result = judged(chosen, yielded)["latency"]
    assert result.verdict == "UNKNOWN"
    assert "n2 - n1, ping: no echo of 1000 came back" in result.reason


def test_a_head_that_was_lost_leaves_its_pairs_unknown_by_name(tmp_path: Path) -> None:
    found = answer(said({"n2": row(35.0)}), None, failures={1: "rank 1 (n2) gave no sign of life"})
    chosen, yielded = played("network", tmp_path, found, latency.RoundTrips())
    result = judged(chosen, yielded)["latency"]
    assert result.verdict == "UNKNOWN"
    assert "n2 - n1: rank 1 (n2) gave no sign of life" in result.reason


def test_without_openmpi_by_profile_its_latency_does_not_apply(tmp_path: Path) -> None:
    toml = '[profile]\nopenmpi = "optional"\n'
    found = answer(said({"n2": row(35.0)}), said({"n1": row(38.0)}))
    chosen, yielded = played("network", tmp_path, found, latency.RoundTrips(), toml)
    assert latency.exercise(chosen).options["mpi"] is None
    assert judged(chosen, yielded)["latency_mpi"].verdict == "NOT_APPLICABLE"


def test_echoes_that_did_not_come_back_are_told(tmp_path: Path) -> None:
    found = answer(said({"n2": row(35.0, sent=103)}), said({"n1": row(38.0)}))
    _, yielded = played("network", tmp_path, found, latency.RoundTrips())
    words = [f.text for f in yielded if isinstance(f, Remark)]
    assert words == ["n1 - n2, ping: 3 of 103 did not come back"]


@pytest.mark.parametrize(
    "value",
    [{}, {"icmp": {"n2": {}}, "tcp": {}, "mpi": {}}, said({"n2": {"times": [float("nan")]}})],
)
def test_what_no_rank_writes_is_refused(value: Any) -> None:
    with pytest.raises(ProbeError, match="wanted what they write"):
        latency.read(answer(value, said({"n1": row(1.0)})))


def test_times_that_are_none_are_refused() -> None:
    lie = {"times": [0.0] * 9, "sent": 9, "why": ""}
    with pytest.raises(ProbeError, match="is no time"):
        latency.read(answer(said({"n2": lie}), said({"n1": row(1.0)})))


# --- How even -------------------------------------------------------------------------------------


def ratios(values: dict[tuple[str, str], float | None], floor: float = latency.FLOOR) -> list[Any]:
    return list(latency.compared(values, "round trip", floor, 0.0))


def test_there_and_back_are_compared_by_their_mean() -> None:
    [sample] = ratios({("a", "b"): 100e-6, ("b", "a"): 140e-6})
    assert sample.value == pytest.approx(40 / 120)
    assert dict(sample.labels) == {"pair": "a-b", "figure": "round trip"}


def test_medians_that_are_not_sure_leave_their_difference_unsure() -> None:
    values: dict[tuple[str, str], float | None] = {("a", "b"): 76e-6, ("b", "a"): 88e-6}
    bounds = {("a", "b"): (70e-6, 90e-6), ("b", "a"): (80e-6, 95e-6)}
    sample, *_ = latency.compared(values, "round trip", latency.FLOOR, 0.0, bounds)
    assert sample.value == pytest.approx(12 / 82)
    assert (sample.low, sample.high) == (0.0, pytest.approx(25 / 82))


def test_less_than_ten_microseconds_apart_is_even_and_says_so() -> None:
    sample, remark = ratios({("a", "b"): 30e-6, ("b", "a"): 39e-6})
    assert (sample.value, "counts as none" in remark.text) == (0.0, True)


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        ({("a", "b"): None, ("b", "a"): 1e-3}, "a -> b"),
        ({("b", "a"): 1e-3}, "a -> b"),
        ({("a", "b"): 1e-3}, "b -> a"),
    ],
)
def test_one_direction_alone_is_no_symmetry(values: Any, lacks: str) -> None:
    [trouble] = ratios(values)
    assert isinstance(trouble, Trouble)
    assert f"of {lacks} was not measured" in trouble.text


PAIRS = [(a, b) for a in "abc" for b in "abc" if a != b]


def test_the_longest_pair_is_held_against_the_shortest_of_all() -> None:
    values: dict[tuple[str, str], float | None] = dict.fromkeys(PAIRS, 100e-6)
    values["a", "c"] = 150e-6
    sample, remark = latency.spread(values, 3, 0.0)
    assert isinstance(sample, Sample)
    assert sample.value == pytest.approx(0.5)
    assert "longest a-c with 150 us" in remark.text


def test_a_spread_of_less_than_ten_microseconds_is_none() -> None:
    values: dict[tuple[str, str], float | None] = dict.fromkeys(PAIRS, 30e-6)
    values["a", "c"] = 39e-6
    sample, _ = latency.spread(values, 3, 0.0)
    assert sample.value == 0.0


def test_a_pair_that_was_not_measured_leaves_the_spread_unknown() -> None:
    values: dict[tuple[str, str], float | None] = dict.fromkeys(PAIRS, 100e-6)
    values["a", "c"] = None
    found = list(latency.spread(values, 3, 0.0))
    assert [type(f) for f in found] == [Trouble]
    assert "5 of 6 ordered pairs" in found[0].text

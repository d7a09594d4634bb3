"""Who sends to whom at once: every pair once, no node twice, and rounds that grow as n - 1."""

from __future__ import annotations

import itertools

import pytest

from dvfd.drills import rounds
from dvfd.drills.rounds import Round, Width

WIDTH = Width()


def busy(each: Round) -> list[int]:
    return [node for flow in each.flows for node in flow.pair]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 17, 256])
def test_pairings_have_every_pair_once_and_no_node_twice_in_a_round(count: int) -> None:
    found = list(rounds.pairings(count))
    assert sorted(itertools.chain(*found)) == list(itertools.combinations(range(count), 2))
    assert all(len({n for pair in each for n in pair}) == 2 * len(each) for each in found)
    assert len(found) == count - 1 + count % 2


def test_a_bisection_has_the_rounds_of_both_directions_already() -> None:
    plain = [r.flows for r in rounds.speed(4, WIDTH) if r.name.endswith("both")]
    first = [r.flows for r in rounds.bisection(4, WIDTH) if r.name.endswith(".1")]
    assert plain == first
    names = [r.name for r in rounds.speed(4, WIDTH, both=False)]
    assert len(names) == 6
    assert not any(name.endswith("both") for name in names)


@pytest.mark.slow
def test_4096_nodes_meet_in_4095_rounds() -> None:
    count = met = 0
    for pairs in rounds.pairings(4096):
        count += 1
        met += len(pairs)
        assert len(set(itertools.chain(*pairs))) == 4096
    assert (count, met) == (4095, 4096 * 4095 // 2)


def test_the_matchings_of_four_nodes_are_the_three_ways_to_halve_them() -> None:
    found = {frozenset(pairs) for pairs in rounds.matchings(4)}
    ways = [{(0, 1), (2, 3)}, {(0, 2), (1, 3)}, {(0, 3), (1, 2)}]
    assert found == set(map(frozenset, ways))
    with pytest.raises(ValueError, match="3 nodes cannot be halved"):
        rounds.matchings(3)


def test_speed_takes_each_direction_alone_and_then_both() -> None:
    there, back, both = rounds.speed(2, WIDTH)
    assert [f.pair for f in there.flows] == [(0, 1)]
    assert [f.pair for f in back.flows] == [(1, 0)]
    assert [f.pair for f in both.flows] == [(0, 1), (1, 0)]
    assert len(list(rounds.speed(6, WIDTH))) == rounds.speed_rounds(6) == 15


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_a_node_sends_by_eight_streams_or_more_however_many_receive(
    count: int, threads: bool
) -> None:
    each = rounds.aggregate(count, Width(threads))
    assert {f.pair for f in each.flows} == set(rounds.ordered(count))
    for node in range(count):
        sent = sum(f.processes * f.streams for f in each.flows if f.source == node)
        assert sent >= 8
        ports = [s for f in each.flows if f.destination == node for s in f.slots]
        assert len(set(ports)) == len(ports) <= each.ports


def test_bisection_tries_each_matching_both_ways_on_three_sets_of_ports() -> None:
    found = list(rounds.bisection(4, WIDTH))
    assert len(found) == 9
    first, second, third = found[:3]
    assert {f.pair for f in first.flows} == {(b, a) for a, b in (f.pair for f in first.flows)}
    sets = [{s for f in each.flows for s in f.slots} for each in (first, second, third)]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_what_lasts_flows_at_four_fifths_and_a_pair_without_a_rate_does_not() -> None:
    each = rounds.lasting(3, WIDTH, {(0, 1): 1e9, (1, 2): 400e9, (2, 0): 0.0})
    stream, datagrams, _, fast = each.flows
    assert (stream.pair, stream.rate, datagrams.rate) == ((0, 1), 8e8, 1e7)
    assert fast.rate == 1e9  # not a hundredth of 400: one thread receives it
    assert not set(stream.slots) & set(datagrams.slots)
    assert {f.pair for f in each.flows} == {(0, 1), (1, 2)}


def test_the_second_pass_tries_a_pair_twice_and_both_ends_with_a_healthy_partner() -> None:
    found = rounds.again(4, [(0, 1)], WIDTH)
    pairs = [f.pair for each in found for f in each.flows]
    assert sorted(pairs) == [(0, 1), (0, 1), (0, 2), (2, 1)]
    assert all(len(set(busy(each))) == len(busy(each)) for each in found)
    assert [f.pair for each in rounds.again(2, [(1, 0)], WIDTH) for f in each.flows] == [(1, 0)] * 2


def test_the_second_pass_is_bounded_where_everything_fails() -> None:
    found = rounds.again(64, list(rounds.ordered(64)), WIDTH)
    assert 0 < len(found) <= rounds.MOST_AGAIN
    assert rounds.again(64, [], WIDTH) == []


def test_time_grows_with_the_nodes_and_not_with_the_pairs() -> None:
    one, large, huge = (rounds.takes(rounds.speed_rounds(n), 60) for n in (2, 256, 4096))
    assert one == 3 * 68
    assert large == 255 * one
    assert huge == 4095 * one

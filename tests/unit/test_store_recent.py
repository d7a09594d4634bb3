"""The ring answers for ten minutes, forgets no live series, and costs little."""

from __future__ import annotations

import tracemalloc

import pytest
from fakes import FakeClock
from fakes_store import sample

from dvfd.model import Sample, labels
from dvfd.store import recent
from dvfd.store.recent import Recent

NOW = 1_800_000_000.0


def filled(*samples: Sample, now: float = NOW, clock: FakeClock | None = None) -> Recent:
    ring = Recent(clock or FakeClock(now))
    ring.add(samples)
    return ring


def values(ring: Recent, since: float, until: float) -> list[float]:
    return [s.value for _, inside, _ in ring.window("heat", since, until) for s in inside]


def test_a_window_holds_its_own_samples_ends_included_and_the_one_before() -> None:
    ring = filled(*(sample(at, at) for at in (1.0, 2.0, 3.0, 4.0)))

    assert values(ring, 2.0, 3.0) == [1.0, 2.0, 3.0]


def test_what_a_counter_grew_from_survives_a_long_silence() -> None:
    ring = filled(sample(7.0, NOW - 90_000))
    ring.add([sample(8.0, NOW + i) for i in range(300)])

    assert values(ring, NOW, NOW + 60)[:2] == [7.0, 8.0]


def test_a_series_silent_for_the_window_still_gives_its_newest_sample() -> None:
    ring = filled(sample(1.0, NOW - 9000), sample(2.0, NOW - 8000))

    assert values(ring, NOW - 60, NOW) == [2.0]


def test_the_newest_sample_stays_however_old_and_the_rest_goes() -> None:
    ring = filled(*(sample(float(i), NOW + i) for i in range(2000)), now=NOW + 2000)

    assert len(values(ring, 0, NOW + 2000)) <= recent.KEPT + recent.SLACK + 1
    assert ring.newest("heat")[0].value == 1999.0


def test_a_fast_series_is_bounded_by_count() -> None:
    ring = filled(*(sample(1.0, NOW + i / 100) for i in range(5000)))

    assert len(values(ring, 0, NOW + 100)) <= recent.CROWD


def test_what_lies_ahead_of_a_clock_set_back_is_dropped_by_the_next_sample() -> None:
    ring = filled(sample(1.0, NOW + 3600))

    ring.add([sample(2.0, NOW)])

    assert [s.value for s in ring.newest("heat")] == [2.0]


@pytest.mark.parametrize("step", [-3600.0, -30.0])
@pytest.mark.parametrize("silence", [4.0, 40.0, 4000.0])
def test_a_clock_set_back_makes_no_silent_series_young(step: float, silence: float) -> None:
    clock = FakeClock(NOW)
    ring = filled(*(sample(1.0, NOW - ago) for ago in range(600, -1, -5)), clock=clock)

    clock.step(step)
    clock.advance(silence)
    inside = [
        s.at for _, found, _ in ring.window("heat", clock.now() - 60, clock.now()) for s in found
    ]

    assert inside == [s.at for s in ring.newest("heat")] == [clock.now() - silence]


def test_a_series_that_speaks_after_the_clock_was_set_back_is_whole_again() -> None:
    clock = FakeClock(NOW)
    ring = filled(*(sample(1.0, NOW - ago) for ago in range(600, -1, -5)), clock=clock)

    clock.step(-30)
    ring.add([sample(2.0, clock.now())])

    assert values(ring, clock.now() - 10, clock.now()) == [1.0, 1.0, 1.0, 2.0]


def test_a_clock_set_back_by_less_than_clocks_differ_moves_nothing() -> None:
    clock = FakeClock(NOW)
    ring = filled(sample(1.0, NOW), clock=clock)

    clock.advance(5)
    clock.step(-0.9)

    assert ring.newest("heat")[0].at == NOW


def test_a_source_whose_clock_is_ahead_is_as_far_ahead_as_it_was() -> None:
    clock = FakeClock(NOW)
    ring = filled(sample(1.0, NOW + 30), clock=clock)

    clock.advance(5)

    assert ring.newest("heat")[0].at == NOW + 30


def test_what_the_disk_has_from_the_future_was_nobody_knows_when() -> None:
    ring = Recent(FakeClock(NOW))

    ring.remember([sample(1.0, NOW - 60), sample(2.0, NOW + 3600)])

    assert [(s.value, s.at < NOW - 604_800) for s in ring.newest("heat")] == [(2.0, True)]


def test_a_sample_that_comes_late_takes_its_place_in_time() -> None:
    ring = filled(sample(1.0, NOW - 10), sample(3.0, NOW), sample(2.0, NOW - 5))

    assert values(ring, 0, NOW) == [1.0, 2.0, 3.0]


def test_the_later_word_on_the_same_instant_counts() -> None:
    ring = filled(Sample("heat", 1.0, NOW, (), 0.0, 2.0), sample(5.0, NOW))

    assert ring.newest("heat") == [sample(5.0, NOW)]


def test_intervals_come_back_with_their_samples() -> None:
    ring = filled(Sample("heat", 1.0, NOW - 1, (), 0.5, 2.0), sample(5.0, NOW))

    assert [(s.low, s.high) for s in ring.window("heat", 0, NOW)[0][1]] == [
        (0.5, 2.0),
        (None, None),
    ]


def test_where_chooses_series_by_their_labels() -> None:
    ring = filled(sample(1.0, NOW, job="a", rank=0), sample(2.0, NOW, job="b", rank=0))

    assert [own for own, *_ in ring.window("heat", 0, NOW, labels(job="b"))] == [
        labels(job="b", rank=0)
    ]


def test_an_ended_series_is_gone_and_a_later_sample_revives_it() -> None:
    ring = filled(sample(1.0, NOW, job="a"), sample(2.0, NOW, job="b"))

    ring.end({"job": "a"})
    ended = len(ring)
    ring.add([sample(3.0, NOW + 1, job="a")])

    assert (ended, len(ring)) == (1, 2)


def test_series_beyond_the_bound_are_refused_and_counted() -> None:
    ring = Recent(FakeClock(NOW))

    refused = ring.add(sample(1.0, NOW, i=i) for i in range(recent.SERIES_LIMIT + 3))

    assert (refused, len(ring)) == (3, recent.SERIES_LIMIT)


def test_a_hundred_series_of_ten_minutes_cost_less_than_half_a_mebibyte() -> None:
    names = [labels(rank=rank) for rank in range(100)]
    tracemalloc.start()
    ring = Recent(FakeClock(NOW))
    for i in range(120):
        ring.add(Sample("heat", i + 0.5, NOW + 5 * i, name) for name in names)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert size < 512 * 1024

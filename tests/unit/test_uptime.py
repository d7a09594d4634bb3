"""What counts as up, what as observed: blind time is neither."""

from __future__ import annotations

import pytest
from fakes_telemetry import Ranks as Reporting
from fakes_telemetry import values

from dvfd.model import Sample, labels
from dvfd.probes.ranks import Ranks
from dvfd.probes.uptime import Tally

UP, OBSERVED, SAMPLES = "job_up_seconds_total", "job_observed_seconds_total", "job_samples_total"


class Bench:
    """A job of two ranks that is looked at each second, at an interval of 5 s."""

    def __init__(self, remembered=lambda _metric: ()) -> None:
        self.ranks = Reporting()
        self.probe = Ranks(self.ranks.book, self.ranks.clock, interval=5.0, remembered=remembered)
        self.seats = [self.join(rank) for rank in range(2)]

    def join(self, rank: int, **how):
        return self.ranks.join(rank, world_size=2, local_world_size=2, **how)

    def train(self, seconds: int, *seats, **fields) -> None:
        for _ in range(seconds):
            self.ranks.step(*(seats or self.seats), **fields)
            self.look()

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.ranks.clock.advance(1)
            self.look()

    def look(self) -> None:
        self.found = list(self.probe.sample(self.ranks.clock.now()))

    def counted(self) -> tuple[float, float]:
        (up,), (observed,) = values(self.found, UP), values(self.found, OBSERVED)
        return up, observed


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.look()
    return made


def test_a_job_that_trains_is_up_all_the_time(bench: Bench) -> None:
    bench.train(20)

    assert bench.counted() == (20, 20)


def test_the_first_look_has_seen_nothing_yet(bench: Bench) -> None:
    assert bench.counted() == (0, 0)


def test_a_dead_rank_is_observed_downtime(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.book.died(bench.seats[1])
    bench.wait(5)

    assert bench.counted() == (10, 15)


def test_a_rank_that_never_came_is_observed_downtime() -> None:
    bench = Bench()
    bench.ranks.book.left(bench.seats[1])
    bench.look()
    bench.train(5, bench.seats[0])

    assert bench.counted() == (0, 5)


def test_a_hang_is_downtime_from_its_limit_on(bench: Bench) -> None:
    bench.train(20)
    bench.wait(30)

    up, observed = bench.counted()

    assert observed == 50
    assert up == 20 + 9  # the limit is 10 s; the span in which it is reached is down


def test_a_checkpoint_that_is_being_written_is_no_downtime(bench: Bench) -> None:
    bench.train(20)
    bench.ranks.tell(bench.seats[0], "checkpoint_begin")
    bench.wait(50)

    assert bench.counted() == (70, 70)


def test_an_announced_pause_is_no_downtime(bench: Bench) -> None:
    bench.train(20)
    bench.ranks.tell(bench.seats[0], "pause", seconds=600)
    bench.wait(100)

    assert bench.counted() == (120, 120)


def test_a_rank_that_came_back_between_two_looks_was_down(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.book.died(bench.seats[1])
    again = bench.join(1, pid=4711)
    bench.train(5, bench.seats[0], again)

    assert bench.counted() == (14, 15)


def test_time_between_looks_that_are_far_apart_is_in_neither_counter(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.step(*bench.seats, every=16)
    bench.look()

    assert bench.counted() == (10, 10)


def test_looks_that_are_a_little_late_lose_nothing(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.step(*bench.seats, every=6)
    bench.look()

    assert bench.counted() == (16, 16)


def test_while_a_rank_is_awaited_nothing_is_observed(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.book.hung_up(bench.seats[1])
    bench.wait(5)

    assert bench.counted() == (10, 10)


def test_what_is_known_to_be_down_is_down_though_another_is_awaited(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.book.hung_up(bench.seats[1])
    bench.ranks.book.died(bench.seats[0])
    bench.wait(5)

    assert bench.counted() == (10, 15)


def test_a_rank_that_ended_in_order_takes_nothing_from_the_others(bench: Bench) -> None:
    bench.train(10)
    bench.ranks.tell(bench.seats[1], "end")
    bench.train(5, bench.seats[0])

    assert bench.counted() == (15, 15)


def test_counters_go_on_where_the_store_remembers_them() -> None:
    kept = {UP: 900.0, OBSERVED: 1000.0, SAMPLES: 64.0}
    bench = Bench(lambda metric: [
        Sample(metric, 1e6, 0.0, labels(job="another")),
        Sample(metric, kept[metric], 0.0, labels(job="gpt")),
    ])  # fmt: skip
    bench.look()
    bench.train(5, samples=8)

    assert bench.counted() == (905, 1005)
    assert values(bench.found, SAMPLES) == [64 + 5 * 2 * 8]


def test_the_time_in_which_the_daemon_was_away_is_in_neither_counter(bench: Bench) -> None:
    bench.train(10)
    before = {s.metric: s for s in bench.found}
    bench.ranks.clock.advance(8)
    bench.probe = Ranks(
        bench.ranks.book, bench.ranks.clock, remembered=lambda metric: [before[metric]]
        if metric in before else [],
    )  # fmt: skip
    bench.look()
    bench.train(5)

    assert bench.counted() == (15, 15)


def test_samples_are_those_of_the_ranks_here(bench: Bench) -> None:
    bench.train(10, samples=8)

    assert values(bench.found, SAMPLES) == [160]


def test_samples_of_a_rank_that_came_back_are_added(bench: Bench) -> None:
    bench.train(10, samples=8)
    bench.ranks.book.died(bench.seats[1])
    bench.train(1, bench.seats[0], bench.join(1, pid=4711), samples=8)

    assert values(bench.found, SAMPLES) == [176]


def test_a_job_that_tells_no_samples_has_no_count_of_them(bench: Bench) -> None:
    bench.train(10)

    assert values(bench.found, SAMPLES) == []


def test_the_world_size_is_told(bench: Bench) -> None:
    assert values(bench.found, "job_processes") == [2]


def test_up_is_never_more_than_observed() -> None:
    tally = Tally()
    for number, well in enumerate([True, None, True, True, False, False, None, True, True]):
        tally.look(well=well, restarts=0, now=float(number), interval=5.0)

    assert (tally.up, tally.observed) == (2, 4)


def test_a_clock_that_stands_still_or_runs_back_counts_nothing() -> None:
    tally = Tally()
    for now in (100.0, 100.0, 50.0):
        tally.look(well=True, restarts=0, now=now, interval=5.0)

    assert (tally.up, tally.observed) == (0, 0)

"""What the ranks probe measures, and when it keeps silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakes_telemetry import Ranks as Reporting
from fakes_telemetry import values

from dvfd.config import data_dir
from dvfd.errors import ProbeError
from dvfd.probes.ranks import Ranks
from dvfd.telemetry.jobs import DEAF

if TYPE_CHECKING:
    from dvfd.model import Sample


class Bench:
    """Ranks that report, and the probe that looks at them."""

    def __init__(self, **jobs: object) -> None:
        self.ranks = Reporting(**jobs)
        self.probe = Ranks(self.ranks.book, self.ranks.clock)

    def look(self) -> list[Sample]:
        return list(self.probe.sample(self.ranks.clock.now()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_declares_what_the_catalogue_expects_of_it() -> None:
    import tomllib

    metrics = tomllib.loads((data_dir("checks") / "metrics.toml").read_text())

    assert {n for n, m in metrics.items() if m.get("source") == "ranks"} == set(Ranks.metrics)


def test_no_job_is_no_sample(bench: Bench) -> None:
    assert bench.look() == []


def test_an_expected_job_that_never_came_is_absent() -> None:
    assert values(Bench(expected=("gpt",)).look(), "job_absent") == [1]


LOSSES = ("job_nonfinite_total", "job_loss_spikes_total")


def test_a_job_that_tells_no_loss_has_none_that_is_well(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=3)
    found = bench.look()
    assert [values(found, metric) for metric in LOSSES] == [[], []]


def test_losses_that_come_are_counted(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=3, loss=1.0)
    found = bench.look()
    assert [values(found, metric) for metric in LOSSES] == [[0], [0]]


def test_losses_of_a_rank_that_hangs_are_not_known(bench: Bench) -> None:
    one, two = bench.ranks.join(0), bench.ranks.join(1)
    bench.ranks.step(one, two, times=3, loss=1.0)
    bench.ranks.clock.advance(60)
    bench.ranks.step(one, loss=1.0)
    found = bench.look()
    assert [values(found, metric) for metric in LOSSES] == [[], []]


def test_throughput_is_taken_between_steps_and_scaled_to_the_world(bench: Bench) -> None:
    seats = [bench.ranks.join(rank, world_size=8) for rank in range(4)]
    bench.ranks.step(*seats, times=2, every=0.5, samples=10)
    bench.look()
    bench.ranks.step(*seats, times=10, every=0.5, samples=10)
    bench.ranks.clock.advance(0.4)

    assert values(bench.look(), "job_throughput_samples_per_second") == [pytest.approx(160)]


def test_the_first_look_knows_no_throughput(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=5, samples=10)

    assert values(bench.look(), "job_throughput_samples_per_second") == []


def test_between_slow_steps_throughput_never_exceeds_what_the_silence_allows(bench: Bench) -> None:
    seat = bench.ranks.join(0, world_size=1, local_world_size=1)
    bench.ranks.step(seat, every=8, samples=80)
    bench.look()
    bench.ranks.step(seat, every=8, samples=80)
    assert values(bench.look(), "job_throughput_samples_per_second") == [10]

    bench.ranks.clock.advance(16)
    assert values(bench.look(), "job_throughput_samples_per_second") == [5]


def test_steps_that_may_be_on_their_way_are_not_missed_yet(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=20, every=0.1, samples=10)
    bench.look()
    bench.ranks.step(seat, every=0.1, samples=10)
    bench.look()
    bench.ranks.clock.advance(1.5)

    assert values(bench.look(), "job_throughput_samples_per_second") == []


def test_a_hang_is_a_throughput_of_zero(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=5, samples=10)
    bench.look()
    bench.ranks.clock.advance(30)

    found = bench.look()
    assert values(found, "job_throughput_samples_per_second") == [0]
    assert values(found, "rank_stall_ratio") == [3]


def test_a_job_that_reports_no_samples_has_no_throughput(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=5)
    bench.look()
    bench.ranks.step(seat, times=5)

    assert values(bench.look(), "job_throughput_samples_per_second") == []


def test_means_are_of_the_steps_since_the_last_look(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=5, loss=9.0)
    bench.look()
    bench.ranks.step(seat, loss=1.0, grad_norm=2.0, allreduce=0.1)
    bench.ranks.step(seat, loss=2.0, grad_norm=4.0, allreduce=0.3)

    found = bench.look()
    assert values(found, "job_loss") == [1.5]
    assert values(found, "job_gradient_norm") == [3.0]
    assert values(found, "job_allreduce_seconds") == [pytest.approx(0.2)]


def test_a_nonfinite_loss_is_in_no_mean(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), loss=float("nan"))

    found = bench.look()
    assert values(found, "job_loss") == []
    assert values(found, "job_nonfinite_total") == [1]


def test_communication_is_a_share_of_the_step(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=5, every=2, communication=0.5)

    assert values(bench.look(), "job_communication_ratio") == [pytest.approx(0.25)]


def test_the_slower_of_two_ranks_is_the_straggler(bench: Bench) -> None:
    fast, slow = bench.ranks.join(0), bench.ranks.join(1)
    bench.ranks.step(fast, times=9, compute=0.1)
    bench.ranks.step(slow, times=9, compute=0.2)

    assert values(bench.look(), "rank_straggler_ratio") == [1.0, 0.5]


def test_a_rank_is_a_straggler_against_its_own_past(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat, times=12, every=61, compute=0.1)
    bench.ranks.step(seat, times=64, every=0.1, compute=0.2)

    assert values(bench.look(), "rank_straggler_ratio") == [pytest.approx(0.5)]


def test_the_skew_is_between_the_ranks_that_live(bench: Bench) -> None:
    one, two, dead = (bench.ranks.join(rank) for rank in range(3))
    bench.ranks.step(one, two, dead, times=5)
    bench.ranks.step(one, times=2)
    bench.ranks.step(one, two, times=5)
    bench.ranks.book.died(dead)

    assert values(bench.look(), "job_step_skew") == [2]


def test_ranks_that_report_at_different_times_are_not_skewed(bench: Bench) -> None:
    early, late = (bench.ranks.join(rank) for rank in range(2))
    bench.ranks.step(early, late, times=5)
    bench.ranks.step(early, times=3)

    assert values(bench.look(), "job_step_skew") == [0]


def test_ranks_that_never_came_or_left_are_missing(bench: Bench) -> None:
    bench.ranks.join(0)
    bench.ranks.book.left(bench.ranks.join(1))

    assert values(bench.look(), "job_ranks_missing") == [3]


def test_validation_loss_is_told_once_and_at_its_time(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), val_loss=2.5)
    told_at = bench.ranks.clock.now()
    bench.ranks.clock.advance(3)

    (found,) = [s for s in bench.look() if s.metric == "job_validation_loss"]
    assert (found.value, found.at) == (2.5, pytest.approx(told_at))
    assert values(bench.look(), "job_validation_loss") == []


def test_a_job_that_ended_brings_no_sample(bench: Bench) -> None:
    seat = bench.ranks.join(0, local_world_size=1)
    bench.ranks.step(seat)
    bench.ranks.tell(seat, "end")

    assert bench.look() == []


def test_a_rank_awaited_after_a_restart_brings_no_word_on_its_health(bench: Bench) -> None:
    seat = bench.ranks.join(0)
    bench.ranks.step(seat)
    bench.ranks.book.hung_up(seat)

    assert values(bench.look(), "rank_responding") == []


def test_silence_alone_brings_the_stall(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=2)
    bench.ranks.clock.advance(10)

    assert values(bench.probe.silence(bench.ranks.clock.now()), "rank_stall_ratio") == [1]


def test_while_nobody_listens_nothing_is_said_of_the_ranks(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=3)
    bench.ranks.book.listened(bench.ranks.clock.boot())
    assert bench.look()
    bench.ranks.clock.advance(DEAF + 1)
    with pytest.raises(ProbeError, match="nobody has listened to the ranks for 6 s"):
        bench.look()
    assert bench.probe.silence(bench.ranks.clock.now()) == []


def test_once_the_lines_are_read_again_silence_counts_from_the_last_word(bench: Bench) -> None:
    bench.ranks.step(bench.ranks.join(0), times=3)
    bench.ranks.book.listened(bench.ranks.clock.boot())
    bench.ranks.clock.advance(30)
    bench.ranks.book.listened(bench.ranks.clock.boot())
    assert values(bench.look(), "rank_stall_ratio")[0] >= 1

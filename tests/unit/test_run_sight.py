"""What is seen of a run's job: only what it did since the run was armed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from fakes_telemetry import Ranks

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.runs.advance import Seen
from dvfd.runs.run import Axis, Plan, Run
from dvfd.runs.sight import Sight

PHASE1 = load(Config()).checks["stability_phase1"]


class Stage:
    """A book of ranks, and a run that was armed now."""

    def __init__(self) -> None:
        self.ranks = Ranks()
        self.placed: list[Mapping[int, int]] = []
        self.wrong: tuple[str, ...] = ()
        self.arm()

    def arm(self) -> None:
        boot = self.ranks.clock.boot()
        axis = Axis(boot_id="this boot", offset=-boot)
        plan = Plan.of(PHASE1, job="gpt")
        self.run = Run(id="r", plan=plan, node="n", armed_at=0.0, axis=axis)
        self.sight = Sight(self.ranks.book, armed=boot, placed=self._placed)

    def _placed(self, pids: Mapping[int, int]) -> tuple[str, ...]:
        self.placed.append(pids)
        return self.wrong

    def look(self) -> Seen:
        return self.sight.look(self.run, boot=self.ranks.clock.boot())


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_nobody_has_reported_yet(stage: Stage) -> None:
    stage.ranks.clock.advance(7)
    seen = stage.look()
    assert (seen.t, seen.world_size, seen.living, seen.gone) == (7.0, None, False, 7.0)


def test_ranks_count_once_they_made_a_step(stage: Stage) -> None:
    seats = [stage.ranks.join(rank, checkpoint_every=500) for rank in range(4)]
    stage.ranks.step(*seats[:3])
    seen = stage.look()
    assert (seen.ranks, seen.expected, seen.world_size, seen.checkpoint_every) == (3, 4, 4, 500)


def test_steps_from_before_the_arming_are_not_of_the_run(stage: Stage) -> None:
    seats = [stage.ranks.join(rank) for rank in range(4)]
    stage.ranks.step(*seats, times=50)
    stage.ranks.clock.advance(1)
    stage.arm()
    assert (stage.look().world_size, stage.look().ranks) == (None, 0)
    stage.ranks.step(*seats)
    assert (stage.look().ranks, stage.look().steps) == (4, 0)
    stage.ranks.step(*seats, times=20)
    assert stage.look().steps == 20


def test_the_slowest_rank_counts(stage: Stage) -> None:
    seats = [stage.ranks.join(rank) for rank in range(4)]
    stage.ranks.step(*seats)
    stage.look()
    stage.ranks.step(*seats, times=10)
    stage.ranks.step(seats[0], times=5)
    assert stage.look().steps == 10


def test_another_job_is_not_looked_at(stage: Stage) -> None:
    stage.ranks.step(stage.ranks.join(0, job="other"))
    assert stage.look().world_size is None


def test_a_job_that_ended_is_seen_to_have_ended(stage: Stage) -> None:
    seat = stage.ranks.join(0, world_size=1, local_world_size=1)
    stage.ranks.step(seat)
    stage.ranks.tell(seat, "end")
    assert stage.look().ended


def test_time_without_a_living_rank_is_counted(stage: Stage) -> None:
    seat = stage.ranks.join(0)
    stage.ranks.step(seat)
    assert stage.look().gone == 0.0
    stage.ranks.book.died(seat)
    stage.ranks.clock.advance(60)
    assert (stage.look().living, stage.look().gone) == (False, 60.0)


def test_reports_far_apart_are_told(stage: Stage) -> None:
    seat = stage.ranks.join(0)
    for step in (200, 400):
        stage.ranks.step(seat, step=step)
    assert stage.look().stride == 200


def test_places_are_looked_at_once_all_ranks_are_there(stage: Stage) -> None:
    stage.wrong = ("ranks 0 and 1 may both run on core 2",)
    seats = [stage.ranks.join(rank) for rank in range(4)]
    stage.ranks.step(*seats[:3])
    assert (stage.look().wrong, stage.placed) == ((), [])
    stage.ranks.step(seats[3])
    assert stage.look().wrong == stage.wrong
    assert stage.placed == [{rank: 1000 + rank for rank in range(4)}]


def test_ranks_whose_processes_cannot_be_seen_are_not_well_placed(stage: Stage) -> None:
    stage.ranks.step(*[stage.ranks.join(rank, pid=0) for rank in range(4)])
    assert "cannot be seen" in stage.look().wrong[0]

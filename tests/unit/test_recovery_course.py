"""What trails tell of a recovery: samples, losses, the times that it took."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dvfd.drills import trail
from dvfd.drills.drill import Trouble
from dvfd.drills.reliability import course, figures
from dvfd.drills.reliability.course import Team, Timeline, teams
from dvfd.drills.trail import Process, Step, Trail
from dvfd.model import Sample

BATCH = 3


def falling(step: int) -> float:
    return 5.0 - 0.02 * step + 0.05 * math.sin(7.0 * step)


def team(
    steps: Iterable[int],
    *,
    world: int = 2,
    at: float = 0.0,
    resumed: int = 0,
    loss: Callable[[int], float] = falling,
    shift: int = 0,
) -> Team:
    """Ranks that take *steps* a second apart, six samples a step over all of them."""
    share = 2 * BATCH // world
    found = []
    for rank in range(world):
        process = Process(
            100 + rank, 1, f"g{at}", rank, world, at, at + 1 if resumed else 0.0, resumed
        )
        for number, step in enumerate(steps, 1):
            first = (step - 1) * 2 * BATCH + rank * share + shift
            ids = tuple(1000 - place for place in range(first, first + share))
            process.steps.append(Step(at + 1 + number + rank / 10, step, loss(step), first, ids))
        found.append(process)
    return Team(tuple(found))


BEFORE = team(range(1, 46))
AFTER = team(range(41, 60), at=100.0, resumed=40)


def test_a_job_that_goes_on_from_its_checkpoint_skips_and_repeats_no_sample() -> None:
    found = course.seen([BEFORE, AFTER])
    assert (found.looked, found.errors) == (59 * 6, 0)


def test_the_order_of_samples_stays_with_twice_the_processes() -> None:
    assert course.seen([BEFORE, team(range(41, 60), world=6, at=100.0, resumed=40)]).errors == 0


def test_samples_that_no_step_took_are_counted() -> None:
    found = course.seen([BEFORE, team(range(46, 60), at=100.0, resumed=40, shift=6)])
    assert found.skipped == 6


def test_samples_that_two_steps_took_are_counted() -> None:
    found = course.seen([BEFORE, team(range(46, 60), at=100.0, resumed=45, shift=-6)])
    assert found.twice == 6


def test_a_step_that_took_other_samples_the_second_time_is_seen() -> None:
    found = course.seen([BEFORE, team(range(41, 60), at=100.0, resumed=40, shift=6)])
    assert found.changed == 5 * 6


def test_a_step_that_only_some_ranks_made_does_not_count() -> None:
    torn = team(range(1, 46))
    torn.processes[0].steps.append(Step(99.0, 46, 1.0, 270, (730, 729, 728)))
    assert course.seen([torn]).looked == 45 * 6


def test_a_loss_that_goes_on_falling_is_no_jump() -> None:
    found = course.jump(BEFORE.losses(), AFTER.losses())
    assert found is not None
    assert found < 1


def test_a_training_that_forgot_what_it_knew_jumps() -> None:
    anew = team(range(41, 60), at=100.0, loss=lambda step: falling(step - 40))
    found = course.jump(BEFORE.losses(), anew.losses())
    assert found is not None
    assert found > 10


def test_a_loss_that_is_no_number_is_the_largest_jump() -> None:
    broken = team(range(41, 60), at=100.0, loss=lambda _step: math.nan)
    assert course.jump(BEFORE.losses(), broken.losses()) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [60, 62, 66, 75])
def test_one_loss_after_that_is_no_number_is_the_largest_jump(bad: float, step: int) -> None:
    after = {each: falling(each) for each in range(60, 80)} | {step: bad}
    assert course.jump({each: falling(each) for each in range(1, 60)}, after) == math.inf


@pytest.mark.parametrize("step", [40, 50, 59])
def test_a_loss_before_that_is_no_number_leaves_the_jump_unknown(step: int) -> None:
    before = {each: falling(each) for each in range(1, 60)} | {step: math.nan}
    assert course.jump(before, {each: falling(each) for each in range(60, 80)}) is None


def test_a_loss_that_went_wrong_in_one_recovery_is_told_though_the_next_cannot_be_judged() -> None:
    def spoilt(step: int) -> float:
        return math.nan if step == 58 else falling(step)

    after = [
        team(range(41, 60), at=100.0, resumed=40, loss=spoilt),
        team(range(60, 80), at=200.0, resumed=59),
    ]
    found = figures.continued("growth", [BEFORE], after, [40, 59], 0.0)
    [value] = [s.value for s in found if isinstance(s, Sample) and s.metric == figures.JUMP]
    assert value == math.inf


def test_no_sample_that_was_looked_at_is_no_sample_without_error() -> None:
    torn = team(range(41, 60), at=100.0, resumed=40)
    torn.processes[0].steps.clear()
    idle = team(())
    found = list(figures.continued("growth", [idle], [torn], [40], 0.0))
    assert figures.SAMPLES not in {s.metric for s in found if isinstance(s, Sample)}
    assert figures.SAMPLES in {s.metric for s in found if isinstance(s, Trouble)}


def test_too_few_steps_before_say_nothing_of_a_jump() -> None:
    assert course.jump(team(range(1, 9)).losses(), AFTER.losses()) is None


def test_steps_done_again_are_held_against_the_first_time() -> None:
    assert course.redone(BEFORE.losses(), AFTER.losses()) == (5, 0.0)
    other = team(range(41, 60), at=100.0, resumed=40, loss=lambda step: 1.01 * falling(step))
    assert course.redone(BEFORE.losses(), other.losses())[1] == pytest.approx(0.01)


def test_a_team_has_begun_when_its_last_rank_has_made_a_step() -> None:
    assert AFTER.first == pytest.approx(102.1)
    assert AFTER.made(45) == pytest.approx(106.1)
    lame = team(range(41, 60), at=100.0)
    lame.processes[1].steps.clear()
    assert lame.first is None
    assert lame.after(0.0) is None


def test_processes_that_joined_together_are_a_team_in_order() -> None:
    found = teams([*AFTER.processes, *reversed(BEFORE.processes)])
    assert [each.joined for each in found] == [0.0, 100.0]
    assert [each.rank for each in found[0].processes] == [0, 1]


def test_a_group_whose_port_came_again_is_another_team() -> None:
    again = team(range(41, 60), at=100.0, resumed=40)
    for process in again.processes:
        process.group = "g0.0"
    assert [each.joined for each in teams([*BEFORE.processes, *again.processes])] == [0.0, 100.0]


def lost(*verified: int) -> float:
    after = [AFTER, team(range(60, 80), at=200.0, resumed=59)]
    found = figures.continued("growth", [BEFORE], after, verified, 0.0)
    [value] = [s.value for s in found if isinstance(s, Sample) and s.metric == figures.LOST]
    return value


def test_each_resumption_is_held_against_the_checkpoint_that_was_newest_then() -> None:
    assert lost(40, 59) == 0
    assert lost(45, 59) == 5
    assert lost(40, 60) == 1


def test_a_timeline_tells_its_parts_in_their_order() -> None:
    line = Timeline(harmed=10.0, noticed=20.0, healed=24.0, joined=30.0, loaded=31.5, first=32.0)
    assert line.recovery == 8.0
    assert line.words == (
        "injected at 0 s; noticed by the job at 10.0 s; healed at 14.0 s; all joined at 20.0 s; "
        "checkpoint loaded at 21.5 s; first new step at 22.0 s"
    )


# --- The trail itself ---------------------------------------------------------------------------


def test_what_a_rank_wrote_is_what_is_read(tmp_path: Path) -> None:
    pen = Trail(tmp_path)
    pen.joined(1, 4)
    pen.resumed(40)
    pen.step(41, 2.5, 12, [7, 9])
    [found] = trail.read(tmp_path)
    assert (found.rank, found.world, found.resumed) == (1, 4, 40)
    assert [(s.step, s.loss, s.first, s.ids) for s in found.steps] == [(41, 2.5, 12, (7, 9))]
    assert trail.started(found.pid) == found.start


def test_a_half_written_line_is_left_aside(tmp_path: Path) -> None:
    pen = Trail(tmp_path)
    pen.joined(0, 1)
    [path] = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('{"at": 1.0, "step": 1, "lo')
    [found] = trail.read(tmp_path)
    assert not found.steps


def test_without_a_directory_nothing_is_written(tmp_path: Path) -> None:
    Trail(None).step(1, 2.0, 0, [1])
    assert trail.read(tmp_path) == []

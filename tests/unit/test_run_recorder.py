"""What a run's file gets besides windows: every event once, over restarts and stepped clocks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fakes_telemetry import STAMP, Ranks, an_event

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.model import Sample, labels
from dvfd.runs.recorder import Recorder
from dvfd.runs.rows import Event, Minute, What
from dvfd.runs.run import Axis, Plan, Run, Stage

CATALOGUE = load(Config())
PHASE1 = CATALOGUE.checks["stability_phase1"]


class File:
    """A run's file: a pen and its rows, that outlive a daemon."""

    def __init__(self) -> None:
        self.rows: list[Event | Minute] = []

    def add(self, rows: list[Event | Minute]) -> None:
        self.rows.extend(rows)

    def events(self, *whats: What) -> list[Event]:
        events = [row for row in self.rows if isinstance(row, Event)]
        return [e for e in events if not whats or e.what in whats]

    def minutes(self, metric: str = "") -> list[Minute]:
        minutes = [row for row in self.rows if isinstance(row, Minute)]
        return [m for m in minutes if metric in {"", m.metric}]

    def grown(self, metric: str) -> float:
        return sum(m.grown for m in self.minutes(metric))


class Saves:
    """Checkpoints that are handed over to be verified."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.written: list[str] = []
        self.pids: dict[int, int] = {}
        self.idle = True
        self.refusal = ""

    def add(self, save) -> str:
        self.added.append(save.path)
        return self.refusal

    def begun(self, path: str, step: int) -> None:
        self.written.append(path)

    def resume(self, events, pids) -> None:
        self.pids = dict(pids)

    def tick(self, t: float, at: float) -> None: ...


class Watch:
    """A run of job gpt with four ranks, watched by a recorder that may be replaced."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self.clock = self.ranks.clock
        self.file = File()
        self.saves = Saves()
        self.slept = 0.0
        self.axis = Axis(boot_id="b", offset=-self.clock.boot())
        self.recorder = self.another()
        self.seats: list[object] = []

    def another(self, stage: Stage = Stage.RUNNING) -> Recorder:
        plan = Plan.of(PHASE1, job="gpt")
        run = Run(id="r", plan=plan, node="n0", stage=stage, armed_at=0.0, axis=self.axis)
        recorder = Recorder(
            run, PHASE1, metrics=CATALOGUE.metrics, book=self.ranks.book, pen=self.file,
            saves=self.saves, clock=self.clock, monotonic=lambda: self.clock.boot() - self.slept,
        )  # fmt: skip
        self.ranks.book.listener = recorder.heard
        return recorder

    @property
    def t(self) -> float:
        return self.axis.t(self.clock.boot())

    def join(self, **hello: object) -> None:
        self.seats = [self.ranks.join(rank, **hello) for rank in range(4)]

    def tick(self) -> None:
        self.recorder.tick(self.t, self.clock.now(), self.clock.boot())

    def train(self, seconds: int = 1, **fields: object) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.ranks.step(*self.seats, every=0.0, **fields)
            self.tick()

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.tick()

    def restart(self, away: float = 0.0) -> None:
        """The daemon goes, and another comes after *away* seconds, with the same book."""
        last = (self.t, self.clock.now())
        self.clock.advance(away)
        self.recorder = self.another()
        self.recorder.resume(self.file, t=last[0], at=last[1])

    def told(self, *whats: What) -> list[tuple[float, str]]:
        return [(e.t, e.text) for e in self.file.events(*whats)]

    def happened(self) -> list[What]:
        return [e.what for e in self.file.events()]


@pytest.fixture
def watch() -> Watch:
    made = Watch()
    made.join()
    made.train(3)
    return made


# --- Availability -------------------------------------------------------------------------------


def test_a_job_that_is_not_there_is_down_and_one_that_steps_is_up() -> None:
    watch = Watch()
    watch.wait(2)
    watch.join()
    watch.train(3)
    assert watch.happened() == [What.DOWN, What.UP]
    assert watch.told(What.DOWN) == [(1.0, "job gpt is not here")]


def test_a_dead_rank_is_down_within_a_second_and_says_why(watch: Watch) -> None:
    watch.ranks.book.died(watch.seats[2])
    watch.clock.advance(0.5)
    watch.tick()
    [(t, why)] = watch.told(What.DOWN)
    assert t == watch.t
    assert "rank 2: process 1002 is gone" in why


def test_a_job_that_hangs_is_down(watch: Watch) -> None:
    watch.wait(20)
    [(_, why)] = watch.told(What.DOWN)
    assert "no progress" in why


def test_a_job_that_ended_is_down(watch: Watch) -> None:
    for seat in watch.seats:
        watch.ranks.tell(seat, "end")
    watch.wait(1)
    assert watch.told(What.DOWN)[0][1] == "job gpt has ended"


def test_a_daemon_that_was_away_saw_nothing_since_its_last_look(watch: Watch) -> None:
    before = watch.t
    watch.restart(away=60)
    watch.train(1)
    assert watch.told(What.UNSEEN) == [(before, "no daemon looked")]


def test_a_daemon_that_did_not_look_for_long_saw_nothing(watch: Watch) -> None:
    before = watch.t
    watch.clock.advance(30)
    watch.tick()
    assert watch.told(What.UNSEEN) == [(before, "the daemon did not look")]
    watch.train(1)
    assert watch.file.events()[-1].what in {What.UP, What.DOWN}


def test_how_long_nobody_looked_is_told_whatever_ranks_tell_afterwards(watch: Watch) -> None:
    watch.restart(away=60)
    watch.train(1)
    watch.clock.advance(30)
    watch.tick()
    assert [e.value for e in watch.file.events(What.DAEMON)] == pytest.approx([60, 30])


def test_four_seconds_are_no_gap(watch: Watch) -> None:
    watch.clock.advance(4)
    watch.tick()
    assert not watch.told(What.UNSEEN)
    assert not watch.told(What.DAEMON)


def test_records_that_ranks_send_afterwards_close_the_gap(watch: Watch) -> None:
    before = watch.t
    watch.restart()
    watch.ranks.step(*watch.seats, times=30, every=1.0)
    watch.recorder._gap = watch.recorder._gap._replace(until=watch.t)
    watch.train(1)
    assert (before, "told afterwards: the ranks made progress while no daemon looked") in (
        watch.told(What.UP)
    )


def test_a_gap_in_which_one_rank_stood_still_stays_one(watch: Watch) -> None:
    watch.restart()
    watch.ranks.step(*watch.seats[1:], times=30, every=1.0)
    watch.recorder._gap = watch.recorder._gap._replace(until=watch.t)
    watch.train(1)
    assert not any("told afterwards" in text for _, text in watch.told(What.UP))


# --- Clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_is_told_once_and_moves_nothing(watch: Watch, by: float) -> None:
    watch.clock.step(by)
    watch.train(5)
    assert [e.value for e in watch.file.events(What.CLOCK)] == [pytest.approx(by)]
    assert watch.happened() == [What.UP, What.CLOCK]


def test_a_step_while_no_daemon_looked_is_told(watch: Watch) -> None:
    last = (watch.t, watch.clock.now())
    watch.clock.advance(10)
    watch.clock.step(-3600)
    watch.recorder = watch.another()
    watch.recorder.resume(watch.file, t=last[0], at=last[1])
    watch.train(2)
    assert [e.value for e in watch.file.events(What.CLOCK)] == [pytest.approx(-3600)]


def test_a_machine_that_slept_says_how_long_and_was_not_seen(watch: Watch) -> None:
    before = watch.t
    watch.slept += 600
    watch.clock.advance(601)
    watch.tick()
    assert [e.value for e in watch.file.events(What.SUSPENDED)] == [pytest.approx(600)]
    assert watch.told(What.UNSEEN) == [(before, "the machine was suspended")]


# --- Losses -------------------------------------------------------------------------------------


def come_back(watch: Watch, rank: int, pid: int, **hello: object) -> None:
    watch.seats[rank] = watch.ranks.join(rank, pid=pid, **hello)


def test_a_death_is_one_failure_however_long_it_lasts(watch: Watch) -> None:
    watch.ranks.book.died(watch.seats[2])
    watch.wait(20)
    [failure] = watch.file.events(What.FAILURE)
    assert (failure.rank, failure.step) == (2, 3)
    assert "process 1002 is gone" in failure.text


def test_a_rank_that_comes_back_is_one_restart_and_no_second_failure(watch: Watch) -> None:
    watch.ranks.book.died(watch.seats[2])
    watch.wait(1)
    come_back(watch, 2, 2002)
    watch.train(3)
    assert len(watch.file.events(What.FAILURE)) == 1
    assert [e.rank for e in watch.file.events(What.RESTART)] == [2]
    assert watch.file.grown("rank_restarts_total") == 1


def test_two_deaths_of_one_rank_are_two(watch: Watch) -> None:
    for pid in (2002, 3002):
        watch.ranks.book.died(watch.seats[2])
        watch.wait(1)
        come_back(watch, 2, pid)
        watch.train(1)
    assert len(watch.file.events(What.FAILURE)) == 2
    assert len(watch.file.events(What.RESTART)) == 2


def test_a_process_that_is_replaced_between_two_looks_is_a_failure_too(watch: Watch) -> None:
    for rank in (1, 3):
        watch.ranks.book.died(watch.seats[rank])
        come_back(watch, rank, 2000 + rank)
    watch.train(1)
    assert [e.rank for e in watch.file.events(What.FAILURE)] == [1, 3]
    assert [e.rank for e in watch.file.events(What.RESTART)] == [1, 3]


def test_a_rank_that_fails_or_leaves_is_a_failure_and_one_that_ends_is_none(watch: Watch) -> None:
    watch.ranks.tell(watch.seats[0], "end", failed=True)
    watch.ranks.book.left(watch.seats[1])
    watch.ranks.tell(watch.seats[2], "end")
    watch.wait(2)
    assert [e.rank for e in watch.file.events(What.FAILURE)] == [0, 1]


def test_a_daemon_that_comes_after_a_death_does_not_tell_it_again(watch: Watch) -> None:
    watch.ranks.book.died(watch.seats[2])
    watch.wait(1)
    watch.restart()
    watch.wait(2)
    assert len(watch.file.events(What.FAILURE)) == 1


def test_what_came_back_while_no_daemon_looked_is_told_once(watch: Watch) -> None:
    watch.ranks.book.died(watch.seats[2])
    watch.wait(1)
    watch.ranks.book.died(watch.seats[3])
    come_back(watch, 2, 2002)
    come_back(watch, 3, 2003)
    watch.restart(away=30)
    watch.train(3)
    assert len(watch.file.events(What.FAILURE)) == 2
    assert len(watch.file.events(What.RESTART)) == 2


def test_restarts_before_the_run_are_none_of_it() -> None:
    ranks = Ranks()
    ranks.join(0)
    ranks.book.died(ranks.join(0))
    ranks.join(0, pid=4000)
    watch = Watch(ranks)
    watch.wait(2)
    assert watch.file.grown("rank_restarts_total") == 0
    assert not watch.file.events(What.RESTART, What.FAILURE)


def test_a_world_of_another_size_is_a_failure(watch: Watch) -> None:
    watch.join(world_size=3, local_world_size=3, run="r1")
    watch.train(1)
    texts = [text for _, text in watch.told(What.FAILURE)]
    assert texts == ["the world changed from 4 to 3 processes"]


# --- Faults injected on purpose -----------------------------------------------------------------


def test_what_follows_from_an_injected_fault_is_planned(watch: Watch) -> None:
    watch.recorder.injected("SIGKILL to rank 2")
    watch.ranks.book.died(watch.seats[2])
    watch.wait(1)
    watch.recorder.healed()
    healed = watch.t
    come_back(watch, 2, 2002)
    watch.train(4)
    assert not watch.file.events(What.FAILURE)
    assert len(watch.file.events(What.PLANNED)) == 1
    [recovered] = watch.file.events(What.RECOVERED)
    assert recovered.value == 1.0
    assert watch.told(What.HEALED) == [(healed, "")]


def test_after_the_recovery_a_loss_is_a_failure_again(watch: Watch) -> None:
    watch.recorder.injected("a partition")
    watch.recorder.healed()
    watch.train(2)
    watch.ranks.book.died(watch.seats[0])
    watch.wait(1)
    assert len(watch.file.events(What.FAILURE)) == 1


def test_a_fault_that_nobody_heals_is_over_at_its_end(watch: Watch) -> None:
    watch.recorder.injected("a partition", seconds=5.0)
    watch.train(8)
    watch.ranks.book.died(watch.seats[0])
    watch.wait(1)
    assert len(watch.file.events(What.HEALED)) == 1
    assert len(watch.file.events(What.FAILURE)) == 1


def test_a_healing_without_a_fault_is_not_written(watch: Watch) -> None:
    watch.recorder.healed()
    assert not watch.file.events(What.HEALED)


def test_a_fault_outlives_the_daemon(watch: Watch) -> None:
    watch.recorder.injected("a partition")
    watch.restart()
    watch.ranks.book.died(watch.seats[0])
    watch.wait(1)
    assert not watch.file.events(What.FAILURE)
    assert len(watch.file.events(What.PLANNED)) == 1


# --- Counters -----------------------------------------------------------------------------------


def test_a_loss_that_is_nan_from_the_first_step_on_is_counted() -> None:
    watch = Watch()
    watch.join()
    watch.train(1, loss=math.nan)
    assert watch.file.grown("job_nonfinite_total") == 4


def test_what_a_job_counted_before_the_run_is_none_of_it() -> None:
    ranks = Ranks()
    ranks.step(*[ranks.join(rank) for rank in range(4)], loss=math.nan)
    watch = Watch(ranks)
    watch.wait(2)
    watch.recorder.stop(watch.t)
    assert watch.file.minutes("job_nonfinite_total")[-1].last == 4
    assert watch.file.grown("job_nonfinite_total") == 0


def test_a_count_is_on_its_way_to_the_disk_at_once(watch: Watch) -> None:
    watch.train(1, loss=math.inf)
    assert watch.file.grown("job_nonfinite_total") == 4


def test_comparisons_in_every_step_are_one_row_a_minute(watch: Watch) -> None:
    watch.train(120, grad_hash=7)
    watch.recorder.stop(watch.t)
    assert len(watch.file.minutes("job_hash_comparisons_total")) <= 4
    assert watch.file.grown("job_hash_comparisons_total") == 3 * 120


def test_counts_go_on_over_a_restart_of_the_daemon(watch: Watch) -> None:
    watch.train(1, loss=math.nan)
    watch.ranks.step(*watch.seats, loss=math.nan)  # nobody looks
    watch.restart(away=20)
    watch.train(2, loss=2.0)
    assert watch.file.grown("job_nonfinite_total") == 8


def test_a_first_count_while_no_daemon_looked_is_counted(watch: Watch) -> None:
    watch.restart(away=20)
    watch.ranks.step(*watch.seats, grad_norm=math.nan)
    watch.restart()
    watch.train(1)
    assert watch.file.grown("job_nonfinite_total") == 4


def test_a_job_that_hangs_is_not_seen_to_compute_nothing_wrong(watch: Watch) -> None:
    watch.train(5, loss=2.0)
    watch.wait(300)
    watch.recorder.stop(watch.t)
    covered = sum(m.covered for m in watch.file.minutes("job_nonfinite_total"))
    assert 5 <= covered <= 60
    assert sum(m.covered for m in watch.file.minutes("rank_restarts_total")) > 290


def test_norms_that_differ_between_ranks_are_counted_by_the_step(watch: Watch) -> None:
    watch.train(2, grad_norm=1.0)
    for n, seat in enumerate(watch.seats):
        watch.ranks.step(seat, every=0.0, grad_norm=1.0 + n)
    watch.wait(1)
    assert watch.file.grown("run_gradient_norm_disagreements_total") == 1


def test_hashes_that_differ_are_counted(watch: Watch) -> None:
    for n, seat in enumerate(watch.seats):
        watch.ranks.step(seat, every=0.0, grad_hash=n)
    watch.wait(1)
    assert watch.file.grown("job_hash_comparisons_total") == 3
    assert watch.file.grown("job_hash_mismatches_total") == 3


# --- Probes -------------------------------------------------------------------------------------


def test_probes_are_folded_for_the_runs_own_job_and_for_the_node(watch: Watch) -> None:
    at = watch.clock.now()
    watch.recorder.sampled(
        [
            Sample("rank_cpu_ratio", 0.9, at, labels(job="gpt", rank=0)),
            Sample("rank_cpu_ratio", 0.1, at, labels(job="other", rank=0)),
            Sample("node_memory_used_ratio", 0.5, at, labels(numa_node=0)),
            Sample("rank_step_seconds", 0.5, at, labels(job="gpt", rank=0)),
        ]
    )
    watch.recorder.stop(watch.t)
    found = {(m.metric, m.last) for m in watch.file.minutes()}
    assert {("rank_cpu_ratio", 0.9), ("node_memory_used_ratio", 0.5)} <= found
    assert not {("rank_cpu_ratio", 0.1), ("rank_step_seconds", 0.5)} & found


# --- Ranks in step ------------------------------------------------------------------------------


def test_ranks_that_part_are_one_issue_of_the_kind_skew(watch: Watch) -> None:
    for _ in range(8):
        watch.ranks.step(*watch.seats[1:])
        watch.tick()
    [(_, text)] = watch.told(What.ISSUE)
    assert text.split()[0] == "skew"
    assert max(m.high for m in watch.file.minutes("run_step_skew") or [skew(watch)]) > 1


def skew(watch: Watch) -> Minute:
    watch.recorder.stop(watch.t)
    return watch.file.minutes("run_step_skew")[-1]


def test_a_collective_that_timed_out_is_an_issue(watch: Watch) -> None:
    error = "[gloo] Timed out waiting 10000ms for recv operation to complete"
    watch.ranks.tell(watch.seats[0], "exception", type="RuntimeError", error=error)
    watch.ranks.tell(watch.seats[1], "exception", type="ValueError", error="no such file")
    [(_, text)] = watch.told(What.ISSUE)
    assert text.split()[0] == "timeout"
    assert len(watch.told(What.NOTE)) == 2


def test_a_collective_that_was_timed_is_told(watch: Watch) -> None:
    watch.ranks.tell(watch.seats[0], "collective", message="64KiB", took=0.0045)
    assert [(e.text, e.value) for e in watch.file.events(What.PROBED)] == [("64KiB", 0.0045)]


# --- Checkpoints --------------------------------------------------------------------------------


def save(watch: Watch, rank: int, step: int = 500, path: str = "/c/500") -> None:
    watch.ranks.tell(watch.seats[rank], "checkpoint_saved", path=path, step=step)


def begin(watch: Watch, rank: int, step: int = 500, path: str = "/c/500") -> None:
    watch.ranks.tell(watch.seats[rank], "checkpoint_begin", path=path, step=step)


def test_a_checkpoint_is_begun_saved_and_handed_over(watch: Watch) -> None:
    begin(watch, 0)
    watch.wait(4)
    save(watch, 0)
    watch.wait(3)
    [saved] = watch.file.events(What.SAVED)
    assert (saved.rank, saved.step, saved.text, saved.value) == (0, 500, "/c/500", 4.0)
    assert len(watch.file.events(What.BEGUN)) == 1
    assert watch.saves.added == ["/c/500"]


def test_shards_of_one_checkpoint_are_handed_over_once_all_are_written(watch: Watch) -> None:
    for rank in range(4):
        begin(watch, rank)
    save(watch, 0)
    watch.wait(5)
    assert watch.saves.added == []
    for rank in (1, 2, 3):
        save(watch, rank)
    watch.wait(3)
    assert watch.saves.added == ["/c/500"]


def test_one_that_is_written_over_is_handed_over_before_it(watch: Watch) -> None:
    save(watch, 0, step=500, path="/c/latest")
    begin(watch, 0, step=1000, path="/c/latest")
    assert watch.saves.added == ["/c/latest"]
    assert watch.saves.written == ["/c/latest"]


def test_a_save_that_fails_or_is_loaded_is_told(watch: Watch) -> None:
    begin(watch, 0)
    watch.ranks.tell(watch.seats[0], "checkpoint_failed", step=500, error="disk full")
    watch.ranks.tell(watch.seats[0], "checkpoint_loaded", path="/c/0", step=0, seconds=3)
    assert watch.told(What.FAILED) == [(watch.t, "disk full")]
    assert [e.value for e in watch.file.events(What.RESTORED)] == [3.0]
    assert watch.saves.added == []


def test_a_queue_that_is_full_leaves_it_unverified(watch: Watch) -> None:
    watch.saves.refusal = "64 wait"
    save(watch, 0)
    watch.wait(2)
    assert watch.told(What.UNVERIFIED) == [(watch.t, "/c/500: 64 wait")]


def test_an_event_that_waited_in_the_rank_has_its_own_time(watch: Watch) -> None:
    last = watch.t
    watch.restart(away=60)
    clock = watch.clock
    stamp = replace(STAMP, boot=clock.boot(), wall=clock.now(), first=90)
    event = replace(an_event(90, "checkpoint_saved", path="/c/1", step=1), stamp=stamp)
    watch.ranks.book.event(watch.seats[0], replace(event, at=clock.now() - 20))
    assert watch.told(What.SAVED) == [(last + 40, "/c/1")]


def test_no_event_is_from_before_anybody_looked_last(watch: Watch) -> None:
    last = watch.t
    watch.restart(away=60)
    clock = watch.clock
    stamp = replace(STAMP, boot=clock.boot(), wall=clock.now(), first=90)
    event = replace(an_event(90, "checkpoint_saved", path="/c/1", step=1), stamp=stamp)
    watch.ranks.book.event(watch.seats[0], replace(event, at=clock.now() - 3600))
    assert watch.told(What.SAVED) == [(last, "/c/1")]


def test_a_restart_hands_the_ranks_pids_to_those_who_look_for_paths(watch: Watch) -> None:
    watch.restart()
    assert watch.saves.pids == {rank: 1000 + rank for rank in range(4)}


def test_other_jobs_are_none_of_the_run(watch: Watch) -> None:
    seat = watch.ranks.join(0, pid=7000, job="other")
    watch.ranks.tell(seat, "checkpoint_saved", path="/o/1", step=1)
    watch.wait(3)
    assert watch.saves.added == []
    assert not watch.told(What.SAVED)


# --- Its end ------------------------------------------------------------------------------------


def test_after_its_end_only_a_save_that_was_begun_in_it_is_heard(watch: Watch) -> None:
    begin(watch, 0)
    watch.recorder.stop(watch.t)
    assert not watch.recorder.idle()
    save(watch, 0)
    save(watch, 0, step=1000, path="/c/1000")
    assert not watch.recorder.idle()
    watch.wait(3)
    assert watch.recorder.idle()
    assert watch.saves.added == ["/c/500"]


def test_after_its_end_nothing_else_is_written(watch: Watch) -> None:
    watch.recorder.stop(watch.t)
    rows = len(watch.file.rows)
    watch.ranks.book.died(watch.seats[0])
    watch.wait(90)
    assert len(watch.file.rows) == rows


def test_a_daemon_that_finds_a_run_over_writes_nothing_into_it(watch: Watch) -> None:
    watch.recorder.stop(watch.t)
    rows = len(watch.file.rows)
    watch.recorder = watch.another(Stage.COMPLETE)
    watch.recorder.resume(watch.file, t=watch.t, at=watch.clock.now())
    watch.clock.advance(60)
    watch.ranks.book.died(watch.seats[0])
    watch.wait(90)
    assert len(watch.file.rows) == rows


def test_a_save_that_is_never_told_to_end_holds_the_end_for_two_minutes(watch: Watch) -> None:
    begin(watch, 0)
    watch.recorder.stop(watch.t)
    watch.clock.advance(119)
    assert not watch.recorder.idle()
    watch.clock.advance(2)
    assert watch.recorder.idle()

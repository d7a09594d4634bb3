"""What the book of jobs keeps apart, counts once, and says of a rank that does not respond."""

from __future__ import annotations

import math

import pytest
from fakes_telemetry import Ranks, a_hello, values

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import WireError
from dvfd.telemetry.jobs import OF_THE_LIVING, Peer


@pytest.fixture
def ranks() -> Ranks:
    return Ranks()


def labels_of(ranks: Ranks) -> set[str]:
    return {job["job"] for job in ranks.book.snapshot()}


# --- Who is who ---------------------------------------------------------------------------------


def test_a_job_registers_by_reporting(ranks: Ranks) -> None:
    ranks.join(0)
    ranks.join(1)

    job = ranks.snapshot()

    assert (job["job"], job["world_size"], len(job["ranks"])) == ("gpt", 4, 2)


def test_the_status_names_a_ranks_process_by_pid_and_start(ranks: Ranks) -> None:
    ranks.table.add(7, start=4711)
    ranks.join(0, pid=7)
    ranks.join(1, pid=0)

    seen, unseen = ranks.snapshot()["ranks"]

    assert (seen["pid"], seen["start"]) == (7, 4711)
    assert (unseen["pid"], unseen["start"]) == (None, None)


def test_another_users_job_of_one_name_is_another_job(ranks: Ranks) -> None:
    ranks.join(0, pid=10, uid=1000)
    ranks.join(0, pid=11, uid=2000)

    assert labels_of(ranks) == {"gpt", "gpt~2000"}


def test_the_processes_of_a_job_are_not_those_of_its_namesake(ranks: Ranks) -> None:
    ranks.join(0, pid=10, uid=1000)
    ranks.join(0, pid=11, uid=2000)

    assert ranks.book.named("gpt") == ["gpt", "gpt~2000"]
    assert [p.pid for p in ranks.book.registered("gpt")] == [10]
    assert [p.pid for p in ranks.book.registered("gpt~2000")] == [11]


def test_a_rank_that_comes_back_before_its_old_lines_end_is_read_has_its_seat(ranks: Ranks) -> None:
    old = ranks.join(0, pid=10)
    del ranks.table.table[10]
    ranks.join(0, pid=11)

    assert labels_of(ranks) == {"gpt"}
    assert ranks.snapshot()["restarts"] == 1
    assert ranks.book.left(old).documents == {}


def test_a_second_live_process_on_one_seat_is_another_job(ranks: Ranks) -> None:
    ranks.join(0, pid=10)
    ranks.join(0, pid=11)

    assert labels_of(ranks) == {"gpt", "gpt~2"}
    assert ranks.book.counters()["conflicts"] == 1


def test_the_ranks_of_a_second_job_gather_in_it(ranks: Ranks) -> None:
    for rank in (0, 1):
        ranks.join(rank, pid=10 + rank)
    for rank in (0, 1):
        ranks.join(rank, pid=20 + rank)

    assert [len(job["ranks"]) for job in ranks.book.snapshot()] == [2, 2]


def test_a_new_run_while_the_old_one_lives_is_another_job(ranks: Ranks) -> None:
    ranks.join(0, pid=10)
    ranks.join(0, pid=11, run="r2")

    assert labels_of(ranks) == {"gpt", "gpt~2"}


def test_a_new_run_after_the_old_one_died_takes_its_place(ranks: Ranks) -> None:
    ranks.book.died(ranks.join(0, pid=10))
    ranks.join(0, pid=11, run="r2")

    assert labels_of(ranks) == {"gpt"}
    assert ranks.ends == [{"job": "gpt", "rank": "0"}]


def test_a_new_process_for_a_dead_one_is_a_restart(ranks: Ranks) -> None:
    ranks.book.died(ranks.join(0, pid=10))
    ranks.join(0, pid=11)

    assert ranks.snapshot()["restarts"] == 1
    assert values(ranks.news.samples, "rank_restarts_total") == [1]


def test_a_reused_pid_is_another_process(ranks: Ranks) -> None:
    seat = ranks.join(0, pid=10)
    ranks.book.left(seat)
    ranks.table.add(10, start=999)
    ranks.join(0, pid=10, world_size=4)

    assert ranks.snapshot()["ranks"][0]["state"] == "responding"


def test_a_process_that_lost_its_seat_moves_nothing(ranks: Ranks) -> None:
    old = ranks.join(0, pid=10)
    ranks.book.left(old)
    ranks.join(0, pid=11)
    ranks.book.left(old)
    ranks.book.died(old)

    assert ranks.snapshot()["ranks"][0]["state"] == "responding"


def test_jobs_are_bounded_and_ended_ones_go_first() -> None:
    ranks = Ranks(limit=2)
    ended = ranks.join(0, pid=10, job="a", local_world_size=1)
    ranks.tell(ended, "end")
    ranks.join(0, pid=11, job="b")
    ranks.join(0, pid=12, job="c")

    assert labels_of(ranks) == {"b", "c"}
    assert ranks.news.documents["job", "a"] is None
    with pytest.raises(WireError, match="2 jobs"):
        ranks.join(0, pid=13, job="d")


def test_ranks_of_a_job_are_bounded() -> None:
    ranks = Ranks(ranks_limit=1)
    ranks.join(0)

    with pytest.raises(WireError, match="more than 1 ranks"):
        ranks.join(1)
    assert ranks.book.counters()["refused"] == 1


def test_namesakes_are_bounded(ranks: Ranks) -> None:
    for pid in range(10, 19):
        ranks.join(0, pid=pid)

    with pytest.raises(WireError, match="taken"):
        ranks.join(0, pid=19)


# --- Once -----------------------------------------------------------------------------------------


def test_rows_that_come_again_are_counted_once(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, loss=math.nan)
    ranks._sequences.clear()
    ranks.step(seat, loss=math.nan)

    assert seat.job.counters.nonfinite == 1
    assert seat.rank.steps_total == 1


def test_rows_committed_before_a_restart_are_not_counted_again(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=5, loss=math.nan)
    again = restart(ranks)
    seat = ranks.join(0)
    ranks._sequences.clear()
    ranks.step(seat, times=6, loss=math.nan)

    assert again.jobs()[0].counters.nonfinite == 6
    assert seat.rank.steps_total == 6


def test_what_was_committed_after_the_ranks_document_counts_its_steps_and_not_its_events(
    ranks: Ranks,
) -> None:
    ranks.step(ranks.join(0), times=5, loss=math.nan)
    book = restart(ranks)
    asked: list[int] = []

    def steps_after(sequence: int) -> int:
        asked.append(sequence)
        return 2

    peer = Peer(1000, 1000, ranks.table.identify(1000))
    more = {"session": "1000-1000", "committed": 8, "steps_after": steps_after}
    seat, _ = book.hello(a_hello(), peer, **more)

    assert (asked, seat.rank.steps_total, seat.rank.seen) == ([5], 7, 8)


def test_an_event_that_comes_again_is_counted_once(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "exception", error="x")
    ranks._sequences.clear()
    ranks.tell(seat, "exception", error="x")

    assert seat.job.counters.exceptions == 1


# --- At once --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_news(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, loss=math.inf, grad_norm=math.nan)

    assert ranks.news.touched == {"job_nonfinite_total"}
    baseline_then_news = [0, 2]
    assert values(ranks.news.samples, "job_nonfinite_total") == baseline_then_news


def test_losses_are_counted_from_the_first_one_that_came(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, samples=8)
    assert not ranks.news.samples
    ranks.step(seat, loss=1.0)

    assert values(ranks.news.samples, "job_nonfinite_total") == [0]
    assert values(ranks.news.samples, "job_loss_spikes_total") == [0]


def test_a_healthy_step_is_no_news(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, loss=1.0, samples=8)
    ranks.step(seat, loss=1.0, samples=8)

    assert not ranks.news.touched
    assert not ranks.news.samples


def test_a_new_runs_loss_is_not_held_against_the_last_ones(ranks: Ranks) -> None:
    seat = ranks.join(0, run="r1")
    ranks.step(seat, times=800, loss=2.0, grad_norm=1.0)
    ranks.book.died(seat)
    ranks.step(ranks.join(0, pid=11, run="r2"), times=30, loss=9.0, grad_norm=8.0)

    [job] = ranks.book.all()
    assert (job.counters.spikes, job.counters.norm_excursions) == (0, 0)


def test_a_timed_collective_takes_no_step_out_of_the_pace(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=3)
    ranks.tell(seat, "collective", message="64KiB", took=0.005)
    ranks.step(seat)
    assert len(seat.rank.pace) == 3


def test_a_new_job_starts_its_counters_at_zero(ranks: Ranks) -> None:
    ranks.join(0)

    assert values(ranks.news.samples, "job_exceptions_total") == [0]
    assert values(ranks.news.samples, "rank_responding") == [1]


def test_a_death_is_news(ranks: Ranks) -> None:
    seat = ranks.join(0)
    news = ranks.book.died(seat)

    assert values(news.samples, "rank_responding") == [0]
    assert "rank_responding" in news.touched
    assert "process 1000 is gone" in ranks.book.why("gpt")


STRAGGLES, LOSES = "rank_straggler_ratio", "job_nonfinite_total"
OF_0, OF_1, OF_ALL = {"job": "gpt", "rank": "0"}, {"job": "gpt", "rank": "1"}, {"job": "gpt"}


def lose_rank_0(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.join(1)
    ranks.book.died(seat)


def test_a_death_explains_the_silence_of_its_rank_and_of_its_job(ranks: Ranks) -> None:
    lose_rank_0(ranks)
    assert ranks.book.mute(STRAGGLES, OF_0)
    assert ranks.book.mute(LOSES, OF_ALL)


def test_an_end_by_a_failure_explains_the_silence_of_its_rank(ranks: Ranks) -> None:
    ranks.tell(ranks.join(0), "end", failed=True)
    assert ranks.book.mute(STRAGGLES, OF_0)


def test_what_only_the_living_tell_is_measured() -> None:
    assert load(Config()).metrics.keys() >= OF_THE_LIVING


def test_a_death_explains_no_silence_of_another_rank_or_job(ranks: Ranks) -> None:
    lose_rank_0(ranks)
    ranks.join(0, job="other")
    assert not ranks.book.mute(STRAGGLES, OF_1)
    assert not ranks.book.mute(LOSES, {"job": "other"})
    assert not ranks.book.mute(LOSES, {"job": "nobody's"})
    assert not ranks.book.mute(LOSES, {})


@pytest.mark.parametrize("metric", ["rank_responding", "rank_stall_ratio", "a_sites_own"])
def test_a_death_explains_no_silence_of_what_is_told_of_the_dead(ranks: Ranks, metric: str) -> None:
    lose_rank_0(ranks)
    assert not ranks.book.mute(metric, OF_0)


def test_a_rank_that_left_without_a_word_while_its_process_runs_explains_nothing(
    ranks: Ranks,
) -> None:
    ranks.news = ranks.book.left(ranks.join(0))
    assert not ranks.book.mute(STRAGGLES, OF_0)


def test_leaving_without_saying_so_is_no_end(ranks: Ranks) -> None:
    news = ranks.book.left(ranks.join(0))

    assert values(news.samples, "rank_responding") == [0]
    assert "without saying so" in ranks.book.why("gpt")


def test_progress_after_a_stall_is_news(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=3)
    ranks.clock.advance(60)
    ranks.step(seat)

    assert "rank_stall_ratio" in ranks.news.touched


def test_hashes_that_differ_at_one_step_are_news(ranks: Ranks) -> None:
    one, two = ranks.join(0), ranks.join(1)
    ranks.step(one, param_hash=7, grad_hash=1)
    ranks.step(two, param_hash=8, grad_hash=1)

    baseline_then_news = [0, 1]
    assert values(ranks.news.samples, "job_hash_mismatches_total") == baseline_then_news
    assert one.job.counters.comparisons == 2


# --- Ends -----------------------------------------------------------------------------------------


def test_a_job_ends_when_all_its_ranks_said_so(ranks: Ranks) -> None:
    seats = [ranks.join(rank, local_world_size=2) for rank in (0, 1)]
    for seat in seats:
        ranks.tell(seat, "end")
        ranks.book.left(seat)

    assert ranks.snapshot()["state"] == "ended"
    assert ranks.ends[-1] == {"job": "gpt"}


def test_an_end_by_a_failure_does_not_end_the_job(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "exception", type="ValueError", error="bad batch")
    ranks.tell(seat, "end", failed=True)

    assert values(ranks.news.samples, "rank_responding") == [0]
    assert "ValueError: bad batch" in ranks.book.why("gpt")


def test_what_an_exception_says_is_kept_without_the_secrets_in_it(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "exception", type="HTTPError", error="403 for x: api_key=hunter2, see log")

    assert ranks.snapshot()["exception"] == "HTTPError: 403 for x: api_key=***, see log"


def test_what_a_rank_failed_with_is_said_of_it_and_of_its_jobs_exceptions(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.join(1)
    ranks.tell(seat, "exception", type="ValueError", error="no")
    ranks.tell(seat, "end", failed=True)

    assert ranks.book.said("rank_responding", OF_0) == "ValueError: no"
    assert ranks.book.said("job_exceptions_total", OF_ALL) == "ValueError: no"
    assert not ranks.book.said("rank_responding", OF_1)
    assert not ranks.book.said("job_loss", OF_ALL)


def test_a_lost_rank_is_not_here_any_more(ranks: Ranks) -> None:
    seats = [ranks.join(n, local_world_size=2) for n in (0, 1)]
    ranks.tell(seats[0], "end", failed=True)

    assert "1 of 2 ranks here" in ranks.snapshot()["summary"]
    assert ranks.snapshot()["present"] == 1
    assert [rank["lost"] for rank in ranks.snapshot()["ranks"]] == [True, False]


def test_a_forgotten_job_is_gone_with_its_records(ranks: Ranks) -> None:
    ranks.book.died(ranks.join(0))
    news = ranks.book.forget("gpt")

    assert set(news.documents) == {("job", "gpt"), ("rank", "gpt/0")}
    assert not ranks.book.snapshot()
    assert ranks.book.forget("gpt") is None


def test_an_expected_job_is_absent_until_it_reports() -> None:
    ranks = Ranks(expected=("gpt",))
    assert ranks.book.absent() == {"gpt": True}

    seat = ranks.join(0)
    assert values(ranks.news.samples, "job_absent") == [0]

    ranks.book.died(seat)
    assert ranks.book.absent() == {"gpt": True}


# --- Silence --------------------------------------------------------------------------------------


def stall_of(ranks: Ranks, seat: object) -> tuple[float, float]:
    age, limit, _ = seat.job.stall(seat.rank, ranks.clock.boot())
    return age, limit


def test_an_announced_pause_is_no_hang_until_it_is_over(ranks: Ranks) -> None:
    seat, other = ranks.join(0), ranks.join(1)
    ranks.step(seat, other, times=5)
    ranks.tell(seat, "pause", seconds=100)
    ranks.clock.advance(99)

    assert stall_of(ranks, other)[1] == 100
    ranks.step(seat, other)
    assert stall_of(ranks, other)[1] == 10


def test_an_evaluation_before_the_first_step_may_take_as_long_as_was_announced(
    ranks: Ranks,
) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "pause", seconds=3600)
    assert stall_of(ranks, seat)[1] == 3600


def test_before_the_first_step_a_rank_has_minutes(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.clock.advance(299)

    assert stall_of(ranks, seat) == (299, 300)


def test_a_rank_hangs_after_ten_seconds_or_five_slow_steps(ranks: Ranks) -> None:
    fast, slow = ranks.join(0), ranks.join(1)
    ranks.step(fast, times=10, every=0.1)
    ranks.step(slow, times=10, every=4)

    assert stall_of(ranks, fast)[1] == 10
    assert stall_of(ranks, slow)[1] == pytest.approx(20)


def test_the_next_deadline_is_the_first_limit_that_can_pass(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=3)

    assert ranks.book.next_deadline() == pytest.approx(ranks.clock.boot() + 10)
    ranks.clock.advance(11)
    assert ranks.book.next_deadline() is None


def test_a_checkpoint_gives_every_rank_its_own_limit(ranks: Ranks) -> None:
    saver, other = ranks.join(0), ranks.join(1)
    ranks.step(saver, other, times=3)
    ranks.tell(saver, "checkpoint_begin", path="/c", step=3)
    ranks.clock.advance(30)
    assert stall_of(ranks, other) == (30, 60)

    ranks.tell(saver, "checkpoint_saved", path="/c", step=3)
    assert stall_of(ranks, other) == (0, 10)


def test_a_checkpoint_that_outlives_its_limit_has_failed(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "checkpoint_begin", path="/c", step=3)
    ranks.clock.advance(61)
    ranks.book.look()

    assert ranks.book.checkpoints()[0].failed == 1


def test_a_stopped_process_does_not_respond(ranks: Ranks) -> None:
    ranks.join(0)
    ranks.table.add(1000, state="T")
    ranks.book.look()

    assert "process 1000 is stopped" in ranks.book.why("gpt")


def test_a_process_that_is_stopped_or_goes_on_is_news_once(ranks: Ranks) -> None:
    ranks.step(ranks.join(0, pid=1000))
    told = []
    for state in ("S", "T", "T", "S"):
        ranks.table.add(1000, state=state)
        told.append([values(n.samples, "rank_responding") for n in ranks.book.look()])

    assert told == [[], [[0.0]], [], [[1.0]]]


def test_a_zombie_is_gone(ranks: Ranks) -> None:
    ranks.book.left(ranks.join(0))
    ranks.table.add(1000, state="Z")
    ranks.book.look()

    assert "is gone" in ranks.book.why("gpt")


def test_a_process_that_ended_while_its_last_word_waits_to_be_read_is_not_called_gone(
    ranks: Ranks,
) -> None:
    seat = ranks.join(0)
    ranks.table.add(1000, state="Z")

    told = ranks.book.look()
    ranks.tell(seat, "end", reason="done")
    told += ranks.book.look()

    assert [sample for news in told for sample in news.samples] == []


def test_a_process_that_is_gone_while_its_line_stays_open_is_found_at_the_second_look(
    ranks: Ranks,
) -> None:
    ranks.join(0)
    ranks.table.add(1000, state="Z")
    ranks.book.look()
    [news] = ranks.book.look()

    assert values(news.samples, "rank_responding") == [0.0]


def test_a_process_out_of_sight_is_judged_by_progress_and_says_so(ranks: Ranks) -> None:
    seat = ranks.join(0, pid=0)
    ranks.step(seat, times=3)
    assert ranks.snapshot()["ranks"][0]["state"] == "responding"

    ranks.clock.advance(11)
    assert "cannot be seen from here" in ranks.book.why("gpt")


def test_a_row_from_the_future_is_no_progress_beyond_now(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat)
    seat.rank.take(ranks_row(ranks, 1e9), ranks.clock.boot())

    assert seat.rank.progress == ranks.clock.boot()


def ranks_row(ranks: Ranks, ahead: float):
    from dvfd.telemetry.wire import Row

    return Row(99, 2, ranks.clock.boot() + ahead)


# --- Checkpoints ----------------------------------------------------------------------------------


def test_checkpoints_due_and_saved_are_counted_from_the_first_step(ranks: Ranks) -> None:
    seat = ranks.join(0, checkpoint_every=5)
    ranks.step(seat, step=1003)
    ranks.step(seat, step=1011)
    ranks.tell(seat, "checkpoint_saved", path="/c/1005", step=1005)

    (state,) = ranks.book.checkpoints()
    assert (state.due, state.saved, state.path, state.step) == (2, 1, "/c/1005", 1005)


def test_a_checkpoint_that_is_due_now_or_being_saved_is_not_missing(ranks: Ranks) -> None:
    def missing() -> int:
        return ranks.book.checkpoints()[0].missing

    seat = ranks.join(0, checkpoint_every=5)
    ranks.step(seat, step=1)
    ranks.step(seat, step=5)
    assert missing() == 0
    ranks.tell(seat, "checkpoint_begin", path="/c/5", step=5)
    ranks.step(seat, step=9)  # it is written while the training goes on
    assert missing() == 0
    ranks.tell(seat, "checkpoint_saved", path="/c/5", step=5)
    ranks.step(seat, step=11)
    assert missing() == 1


def test_the_shards_of_one_checkpoint_count_once(ranks: Ranks) -> None:
    seats = [ranks.join(rank) for rank in (0, 1)]
    for seat in seats:
        ranks.tell(seat, "checkpoint_saved", path="/c", step=5)

    assert ranks.book.checkpoints()[0].saved == 1


@pytest.mark.parametrize(("world", "shared"), [(4, False), (8, True)])
def test_a_checkpoint_is_shared_where_the_job_has_ranks_elsewhere(
    ranks: Ranks, world: int, shared: bool
) -> None:
    ranks.join(0, world_size=world, local_world_size=4)

    assert ranks.book.checkpoints()[0].shared is shared


# --- Over a restart -------------------------------------------------------------------------------


def restart(ranks: Ranks):
    """Another daemon, with what the last news kept."""
    documents = ranks.documents
    jobs = {key: doc for (kind, key), doc in documents.items() if kind == "job"}
    found = {key: doc for (kind, key), doc in documents.items() if kind == "rank"}
    ranks.book = ranks.another_book()
    ranks.book.restore(jobs, found)
    return ranks.book


def test_a_rank_that_lived_through_a_restart_is_awaited(ranks: Ranks) -> None:
    ranks.step(ranks.join(0), times=3)
    restart(ranks)
    assert ranks.snapshot()["ranks"][0]["state"] == "awaited"

    ranks.clock.advance(11)
    assert "not heard from again" in ranks.book.why("gpt")


def test_a_rank_that_died_during_a_restart_does_not_respond(ranks: Ranks) -> None:
    ranks.step(ranks.join(0))
    del ranks.table.table[1000]
    restart(ranks)

    assert "process 1000 is gone" in ranks.book.why("gpt")


def test_why_a_rank_ended_outlives_a_restart(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.tell(seat, "exception", type="ValueError", error="no")
    ranks.tell(seat, "end", failed=True)
    restart(ranks)

    assert ranks.snapshot()["exception"] == "ValueError: no"
    assert "rank 0: ended by a failure: ValueError: no" in ranks.book.why("gpt")


def test_a_restart_is_no_progress(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=3)
    ranks.tell(seat, "end", failed=True)
    at = ranks.clock.now()
    for _ in "again", "and again":
        ranks.clock.advance(300)
        restart(ranks)

    assert ranks.snapshot()["ranks"][0]["progress_at"] == at


def test_steps_after_a_restart_are_progress(ranks: Ranks) -> None:
    ranks.step(ranks.join(0), times=3)
    ranks.clock.advance(5)
    restart(ranks)
    seat = ranks.join(0)
    ranks.step(seat, times=5)

    assert ranks.snapshot()["ranks"][0]["progress_at"] == ranks.clock.now()


def test_what_was_kept_without_its_last_progress_tells_none(ranks: Ranks) -> None:
    seat = ranks.join(0)
    ranks.step(seat, times=3)
    ranks.tell(seat, "end", failed=True)
    for document in ranks.documents.values():
        document.pop("progress_at", None)
    restart(ranks)

    assert ranks.snapshot()["ranks"][0]["progress_at"] is None


def test_jobs_that_have_ended_come_last(ranks: Ranks) -> None:
    ranks.tell(ranks.join(0, job="a", local_world_size=1), "end")
    ranks.join(1, job="b")

    assert [job["job"] for job in ranks.book.snapshot()] == ["b", "a"]


def test_a_rank_that_comes_back_after_a_restart_has_not_restarted(ranks: Ranks) -> None:
    ranks.step(ranks.join(0), times=2)
    restart(ranks)
    ranks.join(0)

    assert ranks.snapshot()["restarts"] == 0
    assert ranks.snapshot()["ranks"][0]["state"] == "responding"


@pytest.mark.parametrize("spoilt", [{}, {"label": 1}, {"counters": None}])
def test_a_record_that_is_none_of_ours_is_left_out(ranks: Ranks, spoilt: dict) -> None:
    ranks.book.restore({"gpt": spoilt}, {"gpt/0": spoilt, "odd": {}})

    assert ranks.book.snapshot() == []

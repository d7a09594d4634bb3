"""What is kept of a run that is over: when, how and why it ended, and what it had done."""

from __future__ import annotations

from typing import Any

import pytest
from fakes_telemetry import Ranks

from dvfd.reporting.ran import runs_of
from dvfd.telemetry.chronicle import KIND, LIMIT


@pytest.fixture
def ranks() -> Ranks:
    return Ranks()


def kept(ranks: Ranks) -> list[dict[str, Any]]:
    found = [d for (kind, _), d in ranks.documents.items() if kind == KIND and d is not None]
    return sorted(found, key=lambda each: each["began"])


def test_a_run_that_ended_is_kept_with_all_that_it_did(ranks: Ranks) -> None:
    began = ranks.clock.now()
    seats = [ranks.join(0, world_size=2), ranks.join(1, world_size=2)]
    ranks.step(*seats, times=5, samples=8.0, loss=1.5)
    ranks.step(*seats, samples=8.0, loss=1.25)
    ranks.tell(seats[0], "checkpoint_saved", path="/ckpt", step=6)
    for seat in seats:
        ranks.tell(seat, "end")
    (ran,) = runs_of(kept(ranks), "gpt")
    assert (ran.how, ran.began, ran.ended) == ("ended", began, ranks.clock.now())
    assert (ran.steps, ran.samples, ran.loss, ran.saved) == (6, 96.0, 1.25, 1)
    assert ran.end("0", "step") == 1.0


def test_a_job_that_failed_is_kept_with_its_exception_once_no_rank_is_left(ranks: Ranks) -> None:
    seats = [ranks.join(0, pid=10), ranks.join(1, pid=11)]
    ranks.step(*seats, times=3)
    ranks.tell(seats[0], "exception", type="RuntimeError", error="no such sample")
    ranks.tell(seats[0], "end", failed=True)
    assert [each["how"] for each in kept(ranks)] == [""]
    ranks.clock.advance(2)
    ranks.news = ranks.book.died(seats[1])
    (ran,) = runs_of(kept(ranks))
    assert (ran.how, ran.why) == ("failed", "RuntimeError: no such sample")
    assert ran.ended == ranks.clock.now()


def test_a_killed_job_ended_when_its_last_process_did_and_not_when_it_was_forgotten(
    ranks: Ranks,
) -> None:
    seat = ranks.join(0, pid=10)
    ranks.step(seat, times=3)
    ranks.news = ranks.book.died(seat)
    ended = ranks.clock.now()
    ranks.clock.advance(3600)
    news = ranks.book.forget("gpt")
    assert news is not None
    ranks.news = news
    (ran,) = runs_of(kept(ranks))
    assert (ran.how, ran.ended) == ("gone", ended)
    assert "process 10 left without a word" in ran.why


def test_ranks_that_come_back_go_on_with_their_run(ranks: Ranks) -> None:
    seat = ranks.join(0, pid=10)
    ranks.step(seat, times=3, samples=8.0)
    ranks.news = ranks.book.died(seat)
    ranks.clock.advance(5)
    ranks.join(0, pid=11)
    (ran,) = runs_of(kept(ranks))
    assert (ran.how, ran.ended) == ("", None)
    assert not kept(ranks)[0]["whole"]  # the first process's samples are not known any more


def test_the_same_name_begins_anew_after_an_end(ranks: Ranks) -> None:
    for pid in (10, 11):
        seat = ranks.join(0, pid=pid)
        ranks.step(seat, times=4)
        ranks.tell(seat, "end")
        ranks.clock.advance(60)
    assert [ran.steps for ran in runs_of(kept(ranks))] == [4, 4]


def test_a_rank_that_comes_after_another_has_ended_is_of_the_same_run(ranks: Ranks) -> None:
    began = ranks.clock.now()
    first = ranks.join(0, pid=10)
    ranks.step(first, times=4, samples=8.0)
    ranks.tell(first, "end")
    second = ranks.join(1, pid=11)
    ranks.step(second, times=4, samples=8.0)
    ranks.tell(second, "end")
    (ran,) = runs_of(kept(ranks))
    assert (ran.began, ran.how, len(ran.ranks), ran.samples) == (began, "ended", 2, 64.0)


def test_a_job_that_was_lost_while_no_daemon_ran_is_said_to_be(ranks: Ranks) -> None:
    seat = ranks.join(0, pid=10)
    ranks.step(seat, times=3)
    by_kind = {
        kind: {key: d for (k, key), d in ranks.documents.items() if k == kind and d}
        for kind in ("job", "rank", KIND)
    }
    del ranks.table.table[10]
    ranks.clock.advance(100)
    book = ranks.another_book()
    book.restore(*by_kind.values())
    for news in book.look():
        ranks.news = news
    (ran,) = runs_of(kept(ranks))
    assert (ran.how, ran.blind, ran.ended) == ("gone", True, ranks.clock.now())


def test_no_more_runs_are_kept_than_the_limit_and_the_oldest_go(ranks: Ranks) -> None:
    for pid in range(10, 10 + LIMIT + 3):
        seat = ranks.join(0, pid=pid)
        ranks.tell(seat, "end")
        ranks.clock.advance(60)
    assert len(kept(ranks)) == LIMIT

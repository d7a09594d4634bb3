"""Rows of other nodes at a run's leader: each once, on its own seconds, and silence by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_peers import Node, Wire, member

from dvfd.runs.company import QUIET, Abroad
from dvfd.runs.peers import DELIVERY, Peers
from dvfd.runs.rows import What
from dvfd.runs.run import Stage


class Two:
    """A leader and one other node, whose clocks began at different times."""

    def __init__(self, directory: Path, **plan: Any) -> None:
        self.lead = Node(directory, "n1", boot=1000.0, plan=plan)
        self.other = Node(directory, "n2", boot=9000.0, leader="n1", of="run-of-n1", plan=plan)
        self.wire = Wire(self.lead, self.other)
        self.peers = self.take_up()

    def take_up(self) -> Peers:
        """As a daemon that starts."""
        return Peers(
            self.lead.run, [member(self.other)], file=self.lead.file, clock=self.lead.clock,
            connect=self.wire.connect,
        )  # fmt: skip

    def poll(self, seconds: float = 2.0) -> Abroad:
        self.wire.pass_time(seconds)
        self.peers.poll()
        return self.look()

    def look(self) -> Abroad:
        lead = self.lead
        found = self.peers.look(lead.run, t=lead.t(), at=lead.clock.now())
        lead.file.flush()
        return found

    def here(self, kind: str) -> list[Any]:
        """What the leader's file has of the other node."""
        return [row for row in getattr(self.lead.file, kind)() if row.node == "n2"]

    def said(self, what: What) -> list[str]:
        return [e.text for e in self.lead.file.events() if e.what is what]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    made.lead.file.close()
    made.other.file.close()


# --- Coming together ------------------------------------------------------------------------------


def test_who_has_not_come_is_named_with_the_reason(two: Two) -> None:
    two.other.run = replace(two.other.run, of="")
    waits = two.poll().waits
    assert waits.startswith("0 of 1 other nodes came: n2 (no run there is part of this one")
    two.wire.cut.add("n2")
    assert "n2 ([Errno 111] Connection refused)" in two.poll().waits


def test_who_came_is_a_peer_with_its_run(two: Two) -> None:
    found = two.poll()
    assert (found.waits, found.peers) == ("", {"n2": "run-of-n2"})
    assert "n2 came, with its run run-of-n2: its clock is 0.000 s" in two.said(What.NOTE)[0]


def test_a_node_without_an_address_is_told_what_to_write(two: Two) -> None:
    two.peers._peers[0].url = ""
    assert "[[cluster.nodes]] gives no url" in two.poll().waits


def test_an_address_where_another_node_answers_is_told(two: Two) -> None:
    two.other.run = replace(two.other.run, node="n3")
    assert "http://n2:9109 is the dvfd of node n3" in two.poll().waits


def test_a_run_that_was_broken_off_there_falls_here(two: Two) -> None:
    two.poll()
    two.other.run = replace(two.other.run, stage=Stage.ABORTED, reason="stopped by root")
    assert two.poll().fallen == "n2: stopped by root"


def test_why_a_pass_there_would_not_count_is_told_here(two: Two) -> None:
    plan = replace(two.other.run.plan, discounts=("ranks 4 and 5 share processor 0",))
    two.other.run = replace(two.other.run, plan=plan)
    assert two.poll().discounts == ("n2: ranks 4 and 5 share processor 0",)


# --- Rows -----------------------------------------------------------------------------------------


def test_rows_come_on_the_leaders_seconds(two: Two) -> None:
    two.wire.pass_time(60.0)
    two.other.run = replace(
        two.other.run, axis=replace(two.other.run.axis, offset=-9000.0 + 600.0)
    )  # it was armed ten minutes before
    t = two.lead.t()
    two.other.write(two.other.window(), two.other.event(), two.other.minute(10))
    two.poll(0.0)
    assert [w.ended for w in two.here("windows")] == [pytest.approx(t)]
    assert [e.t for e in two.here("events")] == [pytest.approx(t)]
    assert [m.minute for m in two.here("minutes")] == [0]


def test_a_clock_that_is_an_hour_apart_moves_no_row_and_is_told(two: Two) -> None:
    two.other.clock.step(3600.0)
    two.wire.pass_time(30.0)
    two.other.write(two.other.window())
    t = two.lead.t()
    two.poll(0.0)
    assert [w.ended for w in two.here("windows")] == [pytest.approx(t)]
    assert "its clock is 3600.000 s ahead of this node's" in two.said(What.NOTE)[0]
    assert "chronyc tracking" in two.said(What.NOTE)[0]


def test_a_window_that_grew_takes_its_own_place(two: Two) -> None:
    two.wire.pass_time(30.0)
    two.other.write(two.other.window(loss=1.0)._replace(steps=20))
    two.poll()
    two.other.write(two.other.window(loss=2.5))
    two.poll()
    assert [(w.steps, w.loss) for w in two.here("windows")] == [(50, 2.5)]


def test_every_row_comes_once_through_a_restart_of_the_leader(two: Two) -> None:
    for number in range(3):
        two.wire.pass_time(60.0)
        two.other.write(two.other.window(number), two.other.minute(number), two.other.event())
        two.poll()
        two.peers = two.take_up()
    two.poll()
    assert [w.window for w in two.here("windows")] == [0, 1, 2]
    assert [m.minute for m in two.here("minutes")] == [0, 1, 2]
    assert len(two.here("events")) == 3


def test_what_was_recorded_while_the_network_was_away_is_not_lost(two: Two) -> None:
    two.poll()
    two.wire.cut.add("n2")
    for number in range(5):
        two.wire.pass_time(60.0)
        two.other.write(two.other.window(number), two.other.minute(number + 1))
        two.poll()
    two.wire.cut.clear()
    two.poll()
    assert [w.window for w in two.here("windows")] == [0, 1, 2, 3, 4]
    assert len(two.here("minutes")) == 5


def test_a_long_absence_is_made_up_for_page_by_page(two: Two) -> None:
    for number in range(30):
        two.wire.pass_time(60.0)
        two.other.write(*[two.other.minute(number) for _ in range(300)])
    two.poll()
    assert len(two.here("minutes")) == 9000
    rows = [url for url in two.wire.asked if "/rows" in url]
    assert len(rows) >= 5


def test_rows_that_the_leaders_disk_refuses_are_asked_for_again(two: Two) -> None:
    two.poll()
    two.other.write(two.other.event())
    two.lead.file.path.rename(two.lead.file.path.with_suffix(".away"))
    two.wire.pass_time(1.0)
    two.peers.poll()
    two.lead.file.path.with_suffix(".away").rename(two.lead.file.path)
    two.poll()
    assert len(two.here("events")) == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("windows", [], "keys and values wanted"),
        ("since", 77, "answered for another run or mark"),
        ("until", "x", "a whole number wanted"),
        ("events", {"columns": ["t"], "rows": [[1.0]]}, "is missing"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused_whole(
    two: Two, key: str, value: object, words: str
) -> None:
    two.poll()
    two.other.write(two.other.event())
    two.wire.spoil = lambda found: found | {key: value} if "windows" in found else found
    two.poll()
    assert words in two.peers.documents()["peers"][0]["trouble"]
    assert two.here("events") == []


def test_a_rank_that_cannot_be_is_refused(two: Two) -> None:
    two.other.write(two.other.window(rank=99))
    two.poll()
    assert two.here("windows") == []
    assert "rank 99 of 8" in two.peers.documents()["peers"][0]["trouble"]


def test_a_minute_of_the_year_10000_is_refused_and_fills_no_memory(two: Two) -> None:
    two.poll()
    two.other.write(two.other.minute(2**50))
    two.poll()
    assert two.here("minutes") == []
    assert "run second 6.7554e+16, wanted" in two.peers.documents()["peers"][0]["trouble"]


def test_an_integer_of_hundreds_of_digits_is_refused_in_words(two: Two) -> None:
    two.poll()
    two.other.write(two.other.event())
    two.wire.spoil = lambda found: found | {"run": {**found["run"], "at": 10**400}}
    two.poll()
    assert "told: at: a number wanted, got 1000" in two.peers.documents()["peers"][0]["trouble"]


def test_rows_of_another_run_are_none_of_ours(two: Two) -> None:
    two.poll()
    two.other.run = replace(two.other.run, of="another")
    two.other.write(two.other.event())
    two.poll()
    assert two.here("events") == []


# --- Silence --------------------------------------------------------------------------------------


def test_silence_is_written_once_and_its_end(two: Two) -> None:
    two.poll()
    two.wire.cut.add("n2")
    for _ in range(30):
        two.poll()
    assert len(two.said(What.SILENT)) == 1
    assert "n2 has been silent for" in two.said(What.SILENT)[0]
    assert "Connection refused" in two.peers.trouble
    two.wire.cut.clear()
    two.poll()
    assert two.said(What.HEARD) == ["heard again"]
    assert two.peers.trouble == ""


def test_a_leader_that_was_restarted_knows_who_was_silent(two: Two) -> None:
    two.poll()
    two.wire.cut.add("n2")
    two.poll(QUIET + 1)
    two.wire.cut.clear()
    two.peers = two.take_up()
    two.poll()
    assert two.said(What.HEARD) == ["heard again"]


def test_a_daemon_that_answers_and_does_not_look_is_silent(two: Two) -> None:
    two.poll()
    two.other.stuck = True
    two.poll(QUIET + 5)
    assert "n2 answers, and has not looked at its run for 35 s" in two.said(What.SILENT)[0]


def test_the_age_of_the_newest_row_is_shown(two: Two) -> None:
    two.wire.pass_time(10.0)
    two.other.write(two.other.event())
    two.poll(0.0)
    two.wire.pass_time(7.0)
    [shown] = two.peers.documents()["peers"]
    assert (shown["node"], shown["run"], shown["age"]) == ("n2", "run-of-n2", pytest.approx(7.0))


# --- The end --------------------------------------------------------------------------------------


def over(two: Two) -> None:
    two.poll()
    two.lead.run = replace(two.lead.run, stage=Stage.COMPLETE, ended_t=two.lead.t())


def ready(two: Two) -> bool:
    return two.peers.ready(two.lead.run, t=two.lead.t())


def close(two: Two) -> list[str]:
    two.peers.close(two.lead.run, t=two.lead.t(), at=two.lead.clock.now())
    two.lead.file.flush()
    return two.said(What.SILENT)


def test_last_rows_are_waited_for_until_the_record_there_is_closed(two: Two) -> None:
    over(two)
    two.poll()
    assert not ready(two)
    two.other.write(two.other.event(What.NOTE))
    two.other.done = True
    two.poll()
    assert ready(two)
    assert len(two.here("events")) == 1
    assert close(two) == []


def test_who_does_not_deliver_is_waited_for_a_minute_and_named(two: Two) -> None:
    over(two)
    two.wire.cut.add("n2")
    two.poll(QUIET - 10)
    assert not ready(two)
    two.wire.pass_time(DELIVERY)
    assert ready(two)
    assert ["n2" in words for words in close(two)] == [True]


def test_who_delivered_and_went_is_not_missed(two: Two) -> None:
    two.other.done = True
    over(two)
    two.wire.cut.add("n2")
    two.poll(QUIET + 10)
    assert close(two) == []

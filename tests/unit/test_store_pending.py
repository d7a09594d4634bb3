"""The queue is bounded, keeps order, loses the oldest first, and counts what it loses."""

from __future__ import annotations

import math
import threading
import time

import pytest
from fakes_store import fold, sample

from dvfd.store import operations
from dvfd.store import pending as queue
from dvfd.store.operations import (
    CommitTelemetry,
    EndSeries,
    PutRecord,
    PutRecordNow,
    PutSamples,
)
from dvfd.store.pending import Pending


def telemetry(sequence: int, session: str = "s", rows: int = 1) -> CommitTelemetry:
    return CommitTelemetry(session, sequence, [fold(1)] * rows, 0.0, print, {})


def kinds(pending: Pending) -> list[str]:
    return [operation.kind for _, operation in pending.take()]


def test_operations_leave_in_the_order_in_which_they_came() -> None:
    pending = Pending()
    for operation in (PutSamples([sample(1, 1)]), EndSeries({}, 2), PutSamples([sample(1, 3)])):
        pending.add(operation)

    assert kinds(pending) == ["samples", "ends", "samples"]


def test_nothing_leaves_before_it_is_settled() -> None:
    pending = Pending()
    pending.add(PutSamples([sample(1, 1)]))

    turn = pending.take()
    still = pending.size
    pending.settle(turn)

    assert (still, pending.size) == (1, 0)


def test_a_newer_document_replaces_the_one_that_waits() -> None:
    pending = Pending()
    for text in ("1", "2"):
        pending.add(PutRecord(("kind", "key"), text))

    assert [operation.text for operation in pending.of(PutRecord)] == ["2"]
    assert pending.size == 1


def test_a_document_that_replaces_another_waits_behind_all_that_came_before_it() -> None:
    pending = Pending()
    pending.add(PutRecord(("kind", "key"), "1"))
    pending.add(EndSeries({}, 2))
    pending.add(PutRecord(("kind", "key"), "2"))

    assert kinds(pending) == ["ends", "records"]


def test_a_document_replaced_while_it_is_committed_is_written_again() -> None:
    pending = Pending()
    pending.add(PutRecord(("kind", "key"), "1"))
    turn = pending.take()
    pending.add(PutRecord(("kind", "key"), "2"))

    pending.settle(turn)

    assert [operation.text for operation in pending.of(PutRecord)] == ["2"]


def test_beyond_the_bound_the_oldest_samples_are_lost_and_counted() -> None:
    pending = Pending()
    for at in range(queue.LIMITS["samples"] + 5):
        pending.add(PutSamples([sample(1, at)]))

    assert pending.lost["samples"] == 5
    assert pending.of(PutSamples)[0].samples[0].at == 5


def test_after_a_refusal_a_session_is_refused_until_it_asks_for_its_cursor() -> None:
    pending = Pending()
    full = telemetry(1, rows=queue.LIMITS["telemetry"])

    taken = [pending.add_telemetry(full), pending.add_telemetry(telemetry(2))]
    pending.resume("s", 0.0)

    assert (taken, pending.add_telemetry(telemetry(3))) == ([False, False], True)


def test_a_session_that_asks_for_its_cursor_withdraws_what_waits() -> None:
    pending = Pending()
    pending.add_telemetry(telemetry(1))
    pending.add_telemetry(telemetry(1, session="other"))

    pending.resume("s", 0.0)

    assert [o.session for o in pending.of(CommitTelemetry)] == ["other"]


def test_a_session_cannot_resume_while_its_commit_is_under_way() -> None:
    pending = Pending()
    pending.add_telemetry(telemetry(1))
    turn = pending.take()

    early = pending.resume("s", 0.0)
    pending.settle(turn)

    assert (early, pending.resume("s", 0.0)) == (False, True)


def test_what_waits_of_a_refused_session_is_let_go() -> None:
    pending = Pending()
    pending.add_telemetry(telemetry(1))
    pending.take()
    pending.add_telemetry(telemetry(2))
    pending.add_telemetry(telemetry(1, "t"))
    pending.refuse("s")
    assert [(o.session, o.sequence) for o in pending.of(CommitTelemetry)] == [("s", 1), ("t", 1)]


def test_nothing_is_lost_and_nothing_urgent_to_begin_with() -> None:
    pending = Pending()

    assert pending.lost == dict.fromkeys(queue.LIMITS, 0)
    assert (pending.lost_at, pending.urgent, pending.size) == (-math.inf, False, 0)


def test_a_loss_is_told_with_its_time() -> None:
    pending, before = Pending(), time.monotonic()
    pending.add(PutSamples([sample(1, 1)] * (queue.LIMITS["samples"] + 1)))

    assert pending.lost["samples"] == queue.LIMITS["samples"] + 1
    assert before <= pending.lost_at <= time.monotonic()


def test_whatever_can_be_written_has_a_bound() -> None:
    named = {getattr(each, "kind", None) for each in vars(operations).values()} - {None}

    assert named == set(queue.LIMITS)


def test_what_waits_counts_by_its_weight_until_it_is_settled() -> None:
    pending = Pending()
    pending.add(PutSamples([sample(1, at) for at in range(3)]))
    pending.add(EndSeries({}, 2))
    assert pending.size == 4

    pending.settle(pending.take())
    assert pending.size == 0


def test_what_is_urgent_stays_so_until_the_last_of_it_is_settled() -> None:
    pending = Pending()
    pending.add(EndSeries({}, 1))
    turn = pending.take()
    pending.add(EndSeries({}, 2))
    pending.add(PutSamples([sample(1, 1)]))
    pending.settle(turn)
    assert pending.urgent

    pending.settle(pending.take())
    assert not pending.urgent


class Woken(threading.Condition):
    """Counts how often the writer is woken."""

    count = 0

    def notify_all(self) -> None:
        self.count += 1
        super().notify_all()


def test_the_writer_is_woken_by_the_first_that_waits_and_by_the_first_that_is_urgent() -> None:
    pending = Pending()
    pending.changed = woken = Woken()
    counts = []
    for operation in (
        PutSamples([sample(1, 1)]),
        PutSamples([sample(1, 2)]),
        EndSeries({}, 3),
        EndSeries({}, 4),
        PutSamples([sample(1, 5)]),
    ):
        pending.add(operation)
        counts.append(woken.count)

    assert counts == [1, 1, 2, 2, 2]


def test_one_transaction_takes_a_bounded_turn() -> None:
    third = queue.TURN // 3  # three of them are not yet a turn
    pending = Pending()
    for _ in range(5):
        pending.add(PutSamples([sample(1, 1)] * third))

    assert len(kinds(pending)) == 4


def test_a_turn_that_is_full_exactly_takes_no_more() -> None:
    pending = Pending()
    for _ in range(3):
        pending.add(PutSamples([sample(1, 1)] * (queue.TURN // 2)))

    assert len(kinds(pending)) == 2


@pytest.mark.parametrize(("rows", "taken"), [(-1, True), (0, False)])
def test_telemetry_is_taken_up_to_its_bound(rows: int, taken: bool) -> None:
    pending = Pending()
    operation = telemetry(1, rows=queue.LIMITS["telemetry"] + rows)  # and its cursor

    assert pending.add_telemetry(operation) is taken
    assert pending.lost["telemetry"] == (0 if taken else 1)


def test_what_waits_of_all_sessions_counts_towards_the_bound() -> None:
    pending = Pending()
    most = telemetry(1, rows=queue.LIMITS["telemetry"] - 2)

    assert [pending.add_telemetry(o) for o in (most, telemetry(1, "t"))] == [True, False]


def test_a_refused_session_stays_refused_while_its_commit_is_under_way() -> None:
    pending = Pending()
    pending.add_telemetry(telemetry(1))
    pending.take()
    pending.resume("s", 0.0)

    assert not pending.add_telemetry(telemetry(2))


def test_nothing_is_taken_of_a_session_that_was_refused() -> None:
    pending = Pending()
    pending.add(PutSamples([sample(1, 1)]))  # of no session
    pending.refuse("s")

    assert not pending.add_telemetry(telemetry(1))
    assert pending.resume("s", 0.0)


@pytest.mark.parametrize(("kind", "urgent"), [(PutRecord, False), (PutRecordNow, True)])
def test_only_a_record_that_must_not_be_forgotten_is_urgent(
    kind: type[PutRecord], urgent: bool
) -> None:
    pending = Pending()
    pending.add(kind(("told", "key"), "{}"))
    assert pending.urgent is urgent

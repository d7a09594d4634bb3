"""The queue is bounded, keeps order, loses the oldest first, and counts what it loses."""

from __future__ import annotations

from fakes_store import fold, sample

from dvfd.store import pending as queue
from dvfd.store.operations import CommitTelemetry, EndSeries, PutRecord, PutSamples
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

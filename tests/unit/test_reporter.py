"""What the reporter promises to the job that it lives in, and what it sends."""

from __future__ import annotations

import math
import os
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from fakes_telemetry import Listener, listening, without_launcher

from dvfd.telemetry import reporter as module
from dvfd.telemetry import wire
from dvfd.telemetry.reporter import Reporter, complain, default_socket, identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    without_launcher(monkeypatch)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with listening(tmp_path / "s") as found:
        yield found


def a_reporter(listener: Listener, **settings: object) -> Reporter:
    return Reporter(**{"job": "gpt", "socket": listener.path, "interval": 0.0, **settings})


def test_it_introduces_itself_before_its_first_step(listener: Listener) -> None:
    a_reporter(listener, rank=1, world_size=4, checkpoint_every=500)

    (hello,) = listener.packets()

    assert (hello.job, hello.rank, hello.world_size) == ("gpt", 1, 4)
    assert (hello.pid, hello.checkpoint_every) == (os.getpid(), 500)


def test_a_step_arrives_with_every_field_given(listener: Listener) -> None:
    given = {"samples": 32, "loss": 1.5, "grad_norm": 2.5, "compute": 0.1, "communication": 0.01,
             "allreduce": 0.02, "bytes": 1e6, "lr": 3e-4, "val_loss": 1.6,
             "grad_hash": 2**64 - 1, "param_hash": 7}  # fmt: skip
    a_reporter(listener).step(3, **given)

    (row,) = listener.rows()

    assert row.step == 3
    assert {name: getattr(row, name) for name in given} == given


def test_a_step_that_is_told_later_keeps_the_time_when_it_was_done(listener: Listener) -> None:
    done = time.monotonic() - 5
    a_reporter(listener).step(3, at=done)

    (packet,) = (p for p in listener.packets() if isinstance(p, wire.Steps))

    assert packet.stamp.boot - packet.rows[0].boot == pytest.approx(5, abs=1)


def test_only_the_first_trouble_of_a_session_is_told(listener: Listener) -> None:
    reporter = a_reporter(listener)
    reporter.note("a value is missing")
    reporter.note("again")
    reporter.step(1)

    notes = [p.error for p in listener.packets() if isinstance(p, wire.Event)]

    assert notes == ["a value is missing"]
    assert reporter.stats()["errors"] == 2


def test_what_is_not_given_is_absent_and_not_zero(listener: Listener) -> None:
    a_reporter(listener).step(3, loss=0.0)

    (row,) = listener.rows()

    assert row.loss == 0.0
    assert (row.samples, row.grad_norm, row.lr, row.grad_hash) == (None, None, None, None)


def test_the_hash_of_a_gradient_goes_with_the_next_step_alone(listener: Listener) -> None:
    reporter = a_reporter(listener)

    reporter.gradient(2**64 - 1)
    reporter.step(1, loss=1.0)
    reporter.step(2, loss=1.0)

    assert [row.grad_hash for row in listener.rows()] == [2**64 - 1, None]


def test_a_hash_that_the_job_gives_itself_counts(listener: Listener) -> None:
    reporter = a_reporter(listener)

    reporter.gradient(5)
    reporter.step(3, grad_hash=7)
    reporter.step(4)

    assert [row.grad_hash for row in listener.rows()] == [7, None]


def test_a_field_of_an_earlier_lap_of_the_ring_does_not_show(listener: Listener) -> None:
    reporter = a_reporter(listener, batch=1, capacity=2)
    reporter.step(1, val_loss=9.0)
    reporter.step(2)
    reporter.step(3)

    assert [row.val_loss for row in listener.rows()] == [9.0, None, None]


def test_steps_wait_for_a_full_packet(listener: Listener) -> None:
    reporter = a_reporter(listener, interval=60, batch=10)
    for step in range(1, 20):
        reporter.step(step)

    sizes = [len(p.rows) for p in listener.packets() if isinstance(p, wire.Steps)]

    assert sizes == [10]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["loss", "grad_norm"])
def test_a_value_that_is_not_finite_goes_at_once(
    listener: Listener, field: str, value: float
) -> None:
    reporter = a_reporter(listener, interval=60)
    reporter.step(1, **{field: value})

    (row,) = listener.rows()

    assert not math.isfinite(getattr(row, field))


def test_events_go_at_once_in_their_place_between_steps(listener: Listener) -> None:
    reporter = a_reporter(listener, interval=60)
    reporter.step(1)
    reporter.checkpoint_begin("/ckpt/1", 1)
    reporter.step(2)
    reporter.checkpoint_saved("/ckpt/1", 1)

    _, first, begin, second, saved = listener.packets()

    assert [p.stamp.first for p in (first, begin, second, saved)] == [1, 2, 3, 4]
    assert (begin.event, saved.event, saved.path) == (
        "checkpoint_begin",
        "checkpoint_saved",
        "/ckpt/1",
    )


def test_rows_not_committed_go_again_on_a_new_line(listener: Listener, tmp_path: Path) -> None:
    reporter = a_reporter(listener)
    for step in range(1, 6):
        reporter.step(step)
    hello = listener.packets()[0]
    listener.acknowledge(hello.stamp.session, 3)
    reporter.step(6)
    listener.close()

    with listening(tmp_path / "s") as again:
        reporter.step(7)
        reporter._retry = 0.0
        reporter.step(8)
        assert [row.step for row in again.rows()] == [4, 5, 6, 7, 8]


def test_events_not_committed_go_again_on_a_new_line(listener: Listener, tmp_path: Path) -> None:
    reporter = a_reporter(listener)
    reporter.checkpoint_failed("/ckpt", 1, OSError("disk full"))
    listener.packets()
    listener.close()

    with listening(tmp_path / "s") as again:
        reporter.step(2)
        reporter._retry = 0.0
        reporter.step(3)
        assert "disk full" in again.packets()[1].error


@pytest.mark.parametrize(("took", "told"), [(2.6, 3), ("soon", None), (math.nan, None)])
def test_a_loaded_checkpoint_is_told_in_whole_seconds_or_not_at_all(
    listener: Listener, took: object, told: int | None
) -> None:
    reporter = a_reporter(listener)
    reporter.checkpoint_loaded("/ckpt", 500, took)

    events = [p for p in listener.packets() if isinstance(p, wire.Event)]
    assert [(e.event, e.step, e.seconds) for e in events] == (
        [] if told is None else [("checkpoint_loaded", 500, told)]
    )
    assert reporter.stats()["errors"] == (told is None)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(90, 90), (90.4, 90), (math.inf, 3600), (1e300, 3600), (math.nan, None), ("x", None)],
)
def test_a_pause_is_told_in_whole_seconds_up_to_an_hour_or_not_at_all(
    listener: Listener, seconds: float, told: int | None
) -> None:
    reporter = a_reporter(listener)
    reporter.pause(seconds)

    events = [p for p in listener.packets() if isinstance(p, wire.Event)]
    assert [e.seconds for e in events] == ([] if told is None else [told])
    assert reporter.stats()["errors"] == (told is None)


@pytest.mark.parametrize(
    ("message", "took", "told"),
    [("64KiB", 0.0045, [("64KiB", 0.0045)]), ("64KiB", "soon", []), ("bucket", math.nan, [])],
)
def test_a_timed_collective_is_told_as_it_was_or_not_at_all(
    listener: Listener, message: str, took: object, told: list[tuple[str, float]]
) -> None:
    reporter = a_reporter(listener)
    reporter.collective(message, took)

    events = [p for p in listener.packets() if isinstance(p, wire.Event)]
    assert [(e.message, e.took) for e in events if e.event == "collective"] == told


def test_an_overflow_drops_the_oldest_and_says_how_many(tmp_path: Path) -> None:
    reporter = Reporter(job="gpt", socket=str(tmp_path / "s"), batch=2, capacity=4)
    for step in range(1, 11):
        reporter.step(step)

    with listening(tmp_path / "s") as listener:
        reporter._retry = 0.0
        reporter.exception("x")
        _, *steps, _ = listener.packets()

    assert [row.step for packet in steps for row in packet.rows] == [8, 9, 10]
    assert steps[0].stamp.lost == reporter.stats()["lost"] == 7


def test_a_wrapped_ring_is_sent_in_order(tmp_path: Path) -> None:
    reporter = Reporter(job="gpt", socket=str(tmp_path / "s"), batch=4, capacity=8)
    for step in range(1, 12):
        reporter.step(step)

    with listening(tmp_path / "s") as listener:
        reporter._retry = reporter._due = 0.0
        reporter.step(12)
        assert [row.step for row in listener.rows()] == [5, 6, 7, 8, 9, 10, 11, 12]


def test_without_a_daemon_it_tries_at_most_once_a_second(tmp_path: Path) -> None:
    reporter = Reporter(job="gpt", socket=str(tmp_path / "s"))
    first = reporter._retry
    for step in range(1000):
        reporter.step(step, loss=math.nan)

    assert reporter._retry == first
    assert first >= time.monotonic() - 1


def test_a_daemon_that_does_not_read_never_blocks_the_job(listener: Listener) -> None:
    reporter = a_reporter(listener, batch=512, interval=60, capacity=4096)
    since = time.monotonic()
    for step in range(100_000):
        reporter.step(step)

    assert time.monotonic() - since < 5
    assert reporter.stats()["lost"] > 0


@pytest.mark.parametrize("wrong", ["word", None, object(), 1 << 70, [], 1e400])
def test_nonsense_is_counted_and_never_raised(listener: Listener, wrong: object) -> None:
    reporter = a_reporter(listener)
    reporter.step(wrong, loss=wrong)
    reporter.step(1, samples="many", grad_hash="x")
    reporter.checkpoint_saved(wrong, "x")

    assert reporter.stats()["errors"] >= 1


class Wordless(Exception):
    """One that cannot be printed."""

    def __repr__(self) -> str:
        raise ValueError("no words")

    __str__ = __repr__


def test_what_cannot_be_put_into_words_is_counted_and_never_raised(listener: Listener) -> None:
    reporter = a_reporter(listener)
    reporter.note(Wordless())  # type: ignore[arg-type]
    reporter.exception(Wordless())
    complain(SimpleNamespace(reporter=reporter), "a callback", Wordless())
    reporter.note("words")
    reporter.step(1, loss=math.nan)

    (told,) = [p.error for p in listener.packets() if isinstance(p, wire.Event)]
    assert told == "words"
    assert reporter.stats()["errors"] >= 3


def test_a_reporter_that_cannot_be_built_keeps_silent() -> None:
    reporter = Reporter(job="gpt", rank="first", socket="/nonexistent/s")  # type: ignore[arg-type]
    reporter.step(1)
    reporter.end()

    assert reporter.stats()["errors"] == 1


def test_a_value_on_a_device_is_left_out_and_never_read(listener: Listener) -> None:
    class OnDevice:
        device = SimpleNamespace(type="cuda")

        def __float__(self) -> float:
            raise AssertionError("waited for the device")

    reporter = a_reporter(listener)
    reporter.step(1, loss=OnDevice(), samples=8)
    reporter.step(2)
    _, steps, note, *_ = listener.packets()

    assert (steps.rows[0].loss, steps.rows[0].samples) == (None, 8)
    assert note.event == "note"
    assert "cuda" in note.error


def test_numbers_of_other_kinds_are_read(listener: Listener) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 2.5

    a_reporter(listener).step(True, loss=Scalar(), lr=Scalar())

    (row,) = listener.rows()
    assert (row.step, row.loss, row.lr) == (1, 2.5, 2.5)


def test_leaving_its_block_ends_it(listener: Listener) -> None:
    with a_reporter(listener) as reporter:
        reporter.step(1)

    end = listener.packets()[-1]
    assert (end.event, end.failed) == ("end", False)


def test_leaving_its_block_by_an_exception_reports_a_failure(listener: Listener) -> None:
    with pytest.raises(ValueError, match="bad batch"), a_reporter(listener):
        raise ValueError("bad batch")

    *_, exception, end = listener.packets()
    assert (exception.type, exception.error) == ("ValueError", "bad batch")
    assert (end.event, end.failed) == ("end", True)


def test_an_uncaught_exception_at_exit_is_no_clean_end(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = a_reporter(listener)
    monkeypatch.setattr(sys, "last_value", RuntimeError("boom"), raising=False)
    reporter._at_exit()

    assert listener.packets()[-1].failed


def test_after_its_end_it_says_nothing(listener: Listener) -> None:
    reporter = a_reporter(listener)
    reporter.end("done")
    reporter.end()
    reporter.step(9)
    reporter.exception("late")

    assert [getattr(p, "reason", "") for p in listener.packets()] == ["", "done"]


def test_an_event_from_a_signal_handler_inside_a_step_is_kept(listener: Listener) -> None:
    reporter = a_reporter(listener)
    reporter._acquire()
    reporter.exception("SIGTERM")
    reporter._release()
    reporter.step(1)

    assert listener.packets()[-1].error == "SIGTERM"


def test_a_long_text_is_cut_to_what_the_daemon_takes(listener: Listener) -> None:
    a_reporter(listener).exception("x" * 100_000)

    assert len(listener.packets()[-1].error) == module.TEXT_LIMIT


def test_events_without_a_daemon_are_bounded(tmp_path: Path) -> None:
    reporter = Reporter(job="gpt", socket=str(tmp_path / "s"))
    for _ in range(1000):
        reporter.exception("again")

    assert len(reporter._events) == module.EVENTS_LIMIT


def test_identity_comes_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1",
                        "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "abc"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    who = identity("gpt")

    assert (who["rank"], who["world_size"], who["local_rank"], who["local_world_size"]) == (
        5,
        8,
        1,
        4,
    )
    assert who["run"] == "abc"


def test_identity_comes_from_slurm_and_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"}.items():
        monkeypatch.setenv(name, value)

    who = identity("gpt", rank=2)

    assert (who["rank"], who["world_size"], who["run"]) == (2, 4, "77")


def test_a_run_without_an_id_is_named_by_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    assert identity("gpt")["run"].startswith(f"{os.getppid()}-")


def test_the_socket_is_the_variable_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent/user")
    assert default_socket() == "/nonexistent/user/dvfd/ingest.sock"

    monkeypatch.setenv("DVFD_SOCKET", "/elsewhere")
    assert default_socket() == "/elsewhere"

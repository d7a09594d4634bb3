"""Reporters in real processes, the real socket, and a store in memory behind the receiver."""

from __future__ import annotations

import ast
import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes_telemetry import FakeStore, values, without_launcher
from rank_processes import FOREVER, Daemon, process, until

from dvfd.telemetry import receiver as module
from dvfd.telemetry import reporter as vendored

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    without_launcher(monkeypatch)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "ingest.sock", FakeStore()) as found:
        yield found


def test_what_is_committed_is_acknowledged(daemon: Daemon) -> None:
    reporter = daemon.reporter()
    for step in range(1, 6):
        reporter.step(step, loss=2.0, samples=8)
    until(lambda: len(daemon.store.folds) >= 1)
    until(lambda: reporter.step(9) or reporter.stats()["committed"] >= 5)

    assert sum(fold.samples_sum or 0 for fold in daemon.store.folds) == 40
    assert daemon.book.snapshot()[0]["ranks"][0]["pid"] == os.getpid()


def test_nothing_is_acknowledged_before_it_is_committed(daemon: Daemon) -> None:
    daemon.store.at_once = False
    reporter = daemon.reporter()
    for step in range(1, 4):
        reporter.step(step)
    until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].steps_total == 3)
    reporter.step(4)

    assert reporter.stats()["committed"] == 0


def test_a_nan_wakes_the_judge_after_its_sample_is_written(daemon: Daemon) -> None:
    reporter = daemon.reporter(interval=600)  # what would be told by the way comes too late
    reporter.step(1, loss=math.nan)

    until(lambda: daemon.woken.count("job_nonfinite_total") == 2)  # the hello is the first
    assert values(daemon.store.samples, "job_nonfinite_total") == [0, 1]


def test_a_killed_rank_is_seen_without_anybody_looking(daemon: Daemon) -> None:
    with process(daemon, FOREVER) as child:
        until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].steps_total > 3)
        child.kill()
        until(lambda: 0 in values(daemon.store.samples, "rank_responding"))

    until(lambda: "is gone" in daemon.book.why("gpt"))


def test_a_stopped_rank_does_not_respond(daemon: Daemon) -> None:
    with process(daemon, FOREVER) as child:
        until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].steps_total > 3)
        child.send_signal(signal.SIGSTOP)
        until(lambda: daemon.book.look() or "is stopped" in daemon.book.why("gpt"))


def test_a_rank_that_ends_has_not_died(daemon: Daemon) -> None:
    with process(daemon, "r.step(1); r.end()") as child:
        child.wait()
        until(lambda: [j["state"] for j in daemon.book.snapshot()] == ["ended"])

    assert 0 not in values(daemon.store.samples, "rank_responding")


def test_a_script_that_runs_to_its_end_has_not_died(daemon: Daemon) -> None:
    with process(daemon, "r.step(1)") as child:
        child.wait()
        until(lambda: [j["state"] for j in daemon.book.snapshot()] == ["ended"])

    assert 0 not in values(daemon.store.samples, "rank_responding")


def test_a_script_that_raises_has_failed(daemon: Daemon) -> None:
    with process(daemon, "r.step(1); raise ValueError('bad batch')") as child:
        child.wait()
        until(lambda: "bad batch" in daemon.book.why("gpt"))

    assert values(daemon.store.samples, "rank_responding")[-1] == 0


def test_a_forked_child_neither_speaks_for_its_parent_nor_ends_it(daemon: Daemon) -> None:
    body = "r.step(1)\nif os.fork() == 0: sys.exit()\nos.wait(); r.exception(2); time.sleep(60)"
    with process(daemon, body):
        until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].counters.exceptions == 1)

    assert len(daemon.book.snapshot()) == 1


def test_a_forked_child_that_fails_before_it_reports_is_no_job(daemon: Daemon) -> None:
    body = """
        with r:
            r.step(1)
            if os.fork() == 0: raise ValueError("of the child")
            os.wait(); r.exception(2); time.sleep(60)
    """
    with process(daemon, body):
        until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].counters.exceptions == 1)

    assert len(daemon.book.snapshot()) == 1


def test_a_forked_child_that_reports_is_another_rank_of_its_own(daemon: Daemon) -> None:
    body = "r.step(1)\nif os.fork() == 0: r.step(5)\ntime.sleep(60)"
    with process(daemon, body) as child:
        until(lambda: len(daemon.book.snapshot()) == 2)
        pids = {job["ranks"][0]["pid"] for job in daemon.book.snapshot()}
        os.kill((pids - {child.pid}).pop(), signal.SIGKILL)

    assert child.pid in pids


def oldest_python() -> str:
    """The oldest interpreter here that the reporter promises to run on; our own if no other."""
    for name in ("python3.8", "python3.9", "python3.10"):
        with contextlib.suppress(OSError):
            if subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0:
                return name
    return sys.executable


def test_the_reporter_runs_on_the_oldest_python_here(daemon: Daemon) -> None:
    with process(daemon, "r.step(1, loss=2.0, lr=1e-3); r.end()", oldest_python()) as child:
        child.wait()
        until(lambda: [j["state"] for j in daemon.book.snapshot()] == ["ended"])


def test_the_reporter_is_written_in_python_3_8() -> None:
    source = Path(vendored.__file__).read_text(encoding="utf-8")
    assert ast.parse(source, feature_version=(3, 8))


def test_a_rank_comes_back_after_a_restart_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    store, path = FakeStore(), tmp_path / "ingest.sock"
    with Daemon(path, store) as first:
        reporter = first.reporter()
        for step in range(1, 11):
            reporter.step(step, samples=1)
        until(lambda: store.folds)
    for step in range(11, 21):
        reporter.step(step, samples=1)
    with Daemon(path, store) as second:
        reporter._retry = 0.0
        reporter.step(21, samples=1)
        until(lambda: sum(fold.count for fold in store.folds) == 21)
        until(lambda: second.book.jobs()[0].ranks[0].steps_total == 21)

    assert sum(fold.samples_sum for fold in store.folds) == 21


def test_watching_goes_on_while_the_store_does_not_work(daemon: Daemon) -> None:
    daemon.store.ok = False
    reporter = daemon.reporter()
    reporter.step(1, loss=math.nan)

    until(lambda: 1 in values(daemon.store.samples, "job_nonfinite_total"))


def test_a_store_that_works_again_gets_what_it_refused(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK", 0.1)
    daemon.store.ok = False
    reporter = daemon.reporter()
    for step in range(1, 4):
        reporter.step(step)
    until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].steps_total == 3)
    daemon.store.ok = True

    def resend() -> bool:
        reporter._retry = 0.0
        reporter.exception("x")
        return sum(fold.count for fold in daemon.store.folds) == 3

    until(resend)
    assert daemon.book.jobs()[0].ranks[0].steps_total == 3


# --- Bad input ------------------------------------------------------------------------------------


def connect(daemon: Daemon) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(daemon.path)
    line.settimeout(5)
    return line


def test_hostile_packets_are_counted_and_the_line_is_closed(daemon: Daemon) -> None:
    with connect(daemon) as line:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                line.send(os.urandom(300))
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(10) == b""

    assert daemon.receiver.counters()["malformed"] == module.MALFORMED_LIMIT
    assert daemon.receiver.alive()


def test_a_huge_packet_is_refused(daemon: Daemon) -> None:
    with connect(daemon) as line:
        line.send(b"x" * 150_000)
        until(lambda: daemon.receiver.counters()["malformed"] == 1)


def test_a_sender_is_logged_once_a_minute(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(daemon) as line:
        for _ in range(20):
            line.send(b"rubbish")
        until(lambda: daemon.receiver.counters()["malformed"] == 20)

    said = capsys.readouterr()
    assert (said.out + said.err).count("telemetry refused") == 1


def test_steps_before_a_hello_are_refused(daemon: Daemon) -> None:
    from dvfd.telemetry.reporter import HEADER, MAGIC, ROW, STEPS, VERSION

    with connect(daemon) as line:
        header = HEADER.pack(MAGIC, VERSION, STEPS, 1, 7, 1, 0, 1.0, 1.0, 1.0)
        line.send(header + bytes(ROW.size))
        until(lambda: daemon.receiver.counters()["malformed"] == 1)


def test_lines_of_one_user_are_bounded(tmp_path: Path) -> None:
    with Daemon(tmp_path / "s", FakeStore(), lines=8, lines_per_user=3) as daemon:
        lines = [connect(daemon) for _ in range(5)]
        until(lambda: daemon.receiver.counters()["lines_refused"] == 2)
        for line in lines:
            line.close()

        reporter = daemon.reporter()
        until(lambda: reporter.step(1) or setattr(reporter, "_retry", 0) or daemon.book.jobs())


def test_a_line_that_never_says_hello_is_closed(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_LIMIT", 0.1)
    with connect(daemon) as line:
        assert line.recv(10) == b""


def test_a_flood_is_throttled_and_the_others_are_served(daemon: Daemon) -> None:
    with connect(daemon) as line:
        line.setblocking(False)
        until(lambda: _flood(line) or daemon.receiver.counters()["lines_refused"] > 0)
        daemon.reporter(rank=0).step(1)
        until(daemon.book.jobs)


def _flood(line: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            line.send(b"x")


# --- The socket -----------------------------------------------------------------------------------


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ingest.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    with Daemon(path, FakeStore()) as daemon:
        assert daemon.receiver.alive()

    assert not path.exists()


def test_a_socket_that_somebody_listens_on_is_not_stolen(daemon: Daemon, tmp_path: Path) -> None:
    second = Daemon(tmp_path / "ingest.sock", FakeStore())
    with pytest.raises(OSError, match="another dvfd listens here"):
        second.receiver.start()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ingest.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        Daemon(path, FakeStore()).receiver.start()

    assert path.read_text() == "precious"


def test_everyone_may_connect(daemon: Daemon) -> None:
    assert Path(daemon.path).stat().st_mode & 0o777 == 0o666

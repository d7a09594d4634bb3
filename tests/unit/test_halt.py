"""A job is stopped: asked, given time, killed, and nobody else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed import eventually

from dvfd.incidents.halt import LONGEST, Halted, halt
from dvfd.telemetry.processes import Process, Processes

TABLE = Processes()

OBEYS = "import signal,sys,time; print('up', flush=True); time.sleep(60)"
SAVES = (
    "import signal,sys,time\n"
    "def save(*_): print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, save); print('up', flush=True); time.sleep(60)"
)
IGNORES = "import signal,time; signal.signal(15, 1); print('up', flush=True); time.sleep(60)"
FORKS = (
    "import os,signal,time\n"
    "signal.signal(15, 1)\n"
    "pid = os.fork()\n"
    "print(pid, flush=True) if pid else None\n"
    "time.sleep(60)"
)

LATER = (
    "import os,signal,time\n"
    "def fork(*_):\n"
    "    pid = os.fork()\n"
    "    print(pid, flush=True) if pid else None\n"
    "signal.signal(15, fork); print('up', flush=True)\n"
    "while True: time.sleep(1)"
)

CHILD = (
    "import signal,sys,time\n"
    "def save(*_): time.sleep(0.5); print('written', flush=True); sys.exit(0)\n"
    "signal.signal(15, save); print('up', flush=True); time.sleep(60)"
)

WRITES = (
    "import signal,subprocess,sys,time\n"
    "signal.signal(15, lambda *_: sys.exit(0))\n"
    f"subprocess.Popen([sys.executable, '-c', {CHILD!r}])\n"
    "time.sleep(60)"
)

FORKS_LATE = (
    "import signal,subprocess,sys,time\n"
    "def end(*_):\n"
    f"    subprocess.Popen([sys.executable, '-c', {CHILD!r}])\n"
    "    time.sleep(1.5)\n"
    "    sys.exit(0)\n"
    "signal.signal(15, end); print('ready', flush=True); time.sleep(60)"
)

LEAVES = (
    "import os,signal,sys,time\n"
    "child = os.fork()\n"
    "if child == 0: signal.signal(10, lambda *_: os.setsid())\n"
    "else: signal.signal(15, lambda *_: time.sleep(2) or sys.exit(0)); print(child, flush=True)\n"
    "while True: time.sleep(1)"
)


class Job:
    """Processes that were started, and registered or not."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[str]] = []

    def start(self, code: str, *, own_group: bool = True) -> tuple[Process, str]:
        """A process that is up, and what it said."""
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
            start_new_session=own_group,
        )  # fmt: skip
        self.children.append(child)
        assert child.stdout
        said = child.stdout.readline().strip()
        found = TABLE.identify(child.pid)
        assert found
        return found, said

    def rest(self, number: int = 0) -> str:
        """What the process said afterwards; it is over then."""
        return self.children[number].communicate(timeout=10)[0]


@pytest.fixture
def job() -> Iterator[Job]:
    made = Job()
    yield made
    for child in made.children:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def test_a_process_has_time_for_its_last_checkpoint(job: Job) -> None:
    process, _ = job.start(SAVES)

    found = halt(lambda: [process], grace=20)

    assert job.rest() == "saved\n"
    assert (found.asked, found.killed) == ({process.pid}, set())
    assert "1 processes of job j were asked to end" in found.words("j")


def test_what_does_not_end_within_the_grace_is_killed(job: Job) -> None:
    process, _ = job.start(IGNORES)

    found = halt(lambda: [process], grace=0.3)

    assert job.children[0].wait(10) == -signal.SIGKILL
    assert found.killed == {process.pid}
    assert not found.left


@pytest.mark.slow
def test_the_group_that_a_registered_process_leads_goes_with_it(job: Job) -> None:
    process, worker = job.start(FORKS)

    halt(lambda: [process], grace=0.3)

    assert eventually(lambda: TABLE.identify(int(worker)) is None, 60)


def test_a_child_that_outlives_its_rank_has_time_for_its_checkpoint_too(job: Job) -> None:
    process, _ = job.start(WRITES)

    found = halt(lambda: [process], grace=20)

    assert job.rest() == "written\n"
    assert len(found.asked) == 2
    assert not found.killed


def test_a_child_that_has_left_the_group_of_its_rank_is_not_touched(job: Job) -> None:
    process, said = job.start(LEAVES)
    child = TABLE.identify(int(said))
    assert child
    looks = []

    def registered() -> list[Process]:
        """Once the rank was asked, its child goes away into a session of its own."""
        looks.append(0)
        if len(looks) == 2:
            os.kill(child.pid, signal.SIGUSR1)
        return [process]

    try:
        found = halt(registered, grace=1)

        assert os.getpgid(child.pid) == child.pid
        assert TABLE.state(child) not in "ZX"
        assert found.killed == {process.pid}
    finally:
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_was_forked_after_it_was_asked_goes_with_the_group(job: Job) -> None:
    process, _ = job.start(LATER)

    halt(lambda: [process], grace=1)

    worker = int(job.rest())  # ends only once nobody holds the pipe
    assert eventually(lambda: TABLE.identify(worker) is None, 60)


@pytest.mark.slow
def test_a_child_that_was_forked_after_its_rank_was_asked_has_time_too(job: Job) -> None:
    process, _ = job.start(FORKS_LATE)

    found = halt(lambda: [process], grace=20)

    assert job.rest() == "up\nwritten\n"
    assert len(found.asked) == 2


def test_the_group_that_we_are_in_ourselves_is_left_alone(job: Job, monkeypatch) -> None:
    process, said = job.start(FORKS)
    monkeypatch.setattr(os, "getpgrp", lambda: process.pid)

    halt(lambda: [process], grace=0.3)

    worker = TABLE.identify(int(said))
    assert worker
    assert TABLE.state(worker) not in "ZX"
    os.kill(worker.pid, signal.SIGKILL)


def test_the_group_of_somebody_else_is_left_alone(job: Job) -> None:
    """A rank that was started from a shell is in that shell's group, as this one is in ours."""
    process, _ = job.start(IGNORES, own_group=False)
    beside, _ = job.start(OBEYS, own_group=False)

    halt(lambda: [process], grace=0.3)

    assert TABLE.state(beside) not in "ZX"
    assert job.children[0].wait(10) == -signal.SIGKILL


def test_a_pid_that_was_given_away_is_not_touched(job: Job) -> None:
    process, _ = job.start(OBEYS)
    before = Process(process.pid, process.start - 1)

    found = halt(lambda: [before], grace=0.3)

    assert job.children[0].poll() is None
    assert found.words("j") == "nothing of job j ran here any more"


class Late(Processes):
    """The process table as it was a moment ago: everybody lives."""

    def state(self, process: Process) -> str:
        return "S"


def test_a_pid_that_is_given_away_between_look_and_signal_is_not_touched(job: Job) -> None:
    process, _ = job.start(OBEYS)
    before = Process(process.pid, process.start - 1)
    passed = [0.0]

    found = halt(
        lambda: [before], grace=1, processes=Late(), monotonic=lambda: passed[0],
        wait=lambda seconds: passed.__setitem__(0, passed[0] + seconds),
    )  # fmt: skip

    assert job.children[0].poll() is None
    assert not found.asked | found.killed


def test_a_stopped_process_ends_too(job: Job) -> None:
    process, _ = job.start(SAVES)
    os.kill(process.pid, signal.SIGSTOP)
    eventually(lambda: TABLE.state(process) == "T", 5)

    found = halt(lambda: [process], grace=20)

    assert not found.killed
    assert job.rest() == "saved\n"


def test_ranks_that_a_launcher_starts_again_are_ended_as_well(job: Job) -> None:
    first, _ = job.start(OBEYS)
    known = [first]

    def registered() -> list[Process]:
        if len(known) == 1 and TABLE.state(first) in "ZX":
            known.append(job.start(OBEYS)[0])
        return known

    found = halt(registered, grace=20)

    assert found.asked == {process.pid for process in known}
    assert len(found.asked) == 2


@pytest.mark.slow
def test_ranks_that_come_back_after_a_while_are_ended_if_it_is_waited_for_them(job: Job) -> None:
    first, _ = job.start(OBEYS)
    known, gone = [first], [0.0]

    def registered() -> list[Process]:
        if TABLE.state(first) in "ZX" and not gone[0]:
            gone[0] = time.monotonic()
        if len(known) == 1 and gone[0] and time.monotonic() - gone[0] > 0.5:
            known.append(job.start(OBEYS)[0])
        return known

    assert len(halt(registered, grace=20).asked) == 1
    found = halt(registered, grace=20, linger=1.5)

    assert len(known) == 2
    assert found.asked == {known[1].pid}


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else afterwards")
def test_without_the_right_it_says_so_and_names_the_drop_in(job: Job) -> None:
    process, _ = job.start(OBEYS)
    child = os.fork()
    if child == 0:  # pragma: no cover  # as nobody, who may not signal root's process
        os.setgid(65534)
        os.setuid(65534)
        began = time.monotonic()
        words = halt(lambda: [process], grace=30).words("j")
        right = "not allowed" in words and "stop-jobs.conf" in words and "of root" in words
        os._exit(0 if right and time.monotonic() - began < 10 else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert job.children[0].poll() is None


def test_our_own_process_and_init_are_never_touched() -> None:
    ours = TABLE.identify(os.getpid())
    init = TABLE.identify(1)
    assert ours
    assert init

    assert not halt(lambda: [ours, init], grace=0.1).asked


# --- Without processes: a clock in hand, and a table in which everybody lives ------------------

NOBODY = Process(2**22 + 1, 1)
"""Of a pid beyond the greatest that Linux gives."""


class Clock:
    """Time that passes while it is waited."""

    def __init__(self) -> None:
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def halt(self, registered: Callable[[], list[Process]], **how: float) -> Halted:
        """Of a table in which everybody lives."""
        return halt(registered, **how, processes=Late(), wait=self.wait, monotonic=lambda: self.now)


def test_what_was_done_is_told_in_a_sentence() -> None:
    found = Halted({1, 2}, {2}, {9: "ann", 8: "root"}, {7, 5}, 12.4)

    assert found.words("j") == (
        "2 processes of job j were asked to end; 1 did not within the grace and were killed; "
        "not allowed to signal pid 8 of root, 9 of ann: install systemd/drop-ins/stop-jobs.conf, "
        "or end them; still there: pid 5, 7; after 12 s"
    )


def test_a_job_that_starts_again_and_again_is_left_to_people() -> None:
    clock = Clock()
    found = clock.halt(lambda: [Process(NOBODY.pid, int(clock.now * 10))], grace=1e6)

    assert LONGEST <= found.seconds < LONGEST + 6
    assert found.left == {NOBODY.pid}


def test_the_time_to_come_back_begins_when_the_last_one_went() -> None:
    clock = Clock()
    found = clock.halt(lambda: [NOBODY] if clock.now < 30 else [], grace=1e6, linger=10)

    assert 39 < found.seconds < 41


def test_what_cannot_be_killed_is_given_up_and_named() -> None:
    found = Clock().halt(lambda: [NOBODY], grace=1)

    assert (found.asked, found.killed, found.left) == (set(), set(), {NOBODY.pid})
    assert 6 <= found.seconds < 7


def test_the_number_that_stands_for_ones_own_group_is_no_process() -> None:
    assert Clock().halt(lambda: [Process(0, 1)], grace=1).seconds == 0


def refusing(error: type[OSError], *numbers: int) -> Callable[[int, int], None]:
    """A kernel that does not let *numbers* be sent."""
    send = signal.pidfd_send_signal

    def refuse(held: int, number: int) -> None:
        if number in numbers:
            raise error
        send(held, number)

    return refuse


def test_what_may_not_be_signalled_is_named_with_its_owner_and_not_waited_for(
    job: Job, monkeypatch
) -> None:
    process, _ = job.start(OBEYS)
    kernel = refusing(PermissionError, signal.SIGTERM, signal.SIGKILL)
    monkeypatch.setattr(signal, "pidfd_send_signal", kernel)
    clock = Clock()

    found = halt(lambda: [process], grace=30, wait=clock.wait, monotonic=lambda: clock.now)

    assert found == Halted(refused={process.pid: Path(f"/proc/{process.pid}").owner()})


def test_what_may_be_asked_but_not_killed_is_named_too(job: Job, monkeypatch) -> None:
    process, _ = job.start(IGNORES, own_group=False)
    monkeypatch.setattr(signal, "pidfd_send_signal", refusing(PermissionError, signal.SIGKILL))

    found = halt(lambda: [process], grace=0.2)

    assert (found.asked, found.killed, found.left) == ({process.pid}, set(), set())
    assert list(found.refused) == [process.pid]


def test_what_ends_by_itself_meanwhile_was_not_asked(job: Job, monkeypatch) -> None:
    process, _ = job.start(OBEYS)
    monkeypatch.setattr(signal, "pidfd_send_signal", refusing(ProcessLookupError, signal.SIGTERM))

    assert not halt(lambda: [process], grace=0.2).asked


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError])
def test_a_group_that_may_not_be_killed_as_one_is_killed_one_by_one(
    job: Job, monkeypatch, error: type[OSError]
) -> None:
    process, _ = job.start(FORKS)
    monkeypatch.setattr(os, "killpg", lambda *_: (_ for _ in ()).throw(error))

    found = halt(lambda: [process], grace=0.2)

    assert len(found.killed) == 2


def test_what_was_asked_and_may_not_be_woken_is_named(job: Job, monkeypatch) -> None:
    process, _ = job.start(SAVES)
    monkeypatch.setattr(signal, "pidfd_send_signal", refusing(PermissionError, signal.SIGCONT))

    found = halt(lambda: [process], grace=20)

    assert (found.asked, list(found.refused)) == ({process.pid}, [process.pid])

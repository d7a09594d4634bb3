"""Receiver and store are killed twice under real ranks: the run's file has every step once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from dvfd import log
from dvfd.clock import SystemClock
from dvfd.config import Jobs
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Axis
from dvfd.store import Store
from dvfd.store.run_file import RunFile
from dvfd.store.run_reading import Reading
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver
from dvfd.telemetry.reporter import Reporter

RANKS = 3
STEPS = 600
RATE = 100
CHECKPOINT_EVERY = 50
WAIT = 60.0


def serve(place: Path, *, dies: int) -> None:
    """Be the daemon's parts; *dies* commits after the start die between file and store."""
    log.setup("warning")  # to stderr: stdout is for the answer
    clock = SystemClock()
    store = Store(place / "store.db", metrics={}, clock=clock)
    path = place / "run.db"
    file = RunFile.open(path) if path.exists() else RunFile.create(path, {})
    file.job, file.every, file.node = "gpt", 100, "n"
    file.set_axis(Axis(boot_id="b", offset=0.0))
    take, left = file.take, [dies]

    def take_and_die(packets) -> bool:
        taken = take(tuple(packets))
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken

    store.start()
    store.record(file)
    file.take = take_and_die
    book = JobBook(Jobs(), clock)

    def heard(_job, rank, told) -> None:
        origin = f"{rank.session}/{told.stamp.first}"
        if told.event == "checkpoint_saved":
            file.add([Event(node="n", t=0.0, at=0.0, what=What.SAVED, rank=rank.rank,
                            step=told.step, origin=origin)])  # fmt: skip

    book.listener = heard
    receiver = Receiver(place / "ingest.sock", book, store, clock, lambda _: None)
    receiver.start()
    print("ready", flush=True)
    signal.pause()


def report(place: Path, rank: int) -> None:
    """Report at a steady pace, save checkpoints, and wait until all of it is acknowledged."""
    reporter = Reporter(
        job="gpt", run="r", rank=rank, world_size=RANKS, local_world_size=RANKS, local_rank=rank,
        socket=str(place / "ingest.sock"), interval=0.05,
    )  # fmt: skip
    for step in range(1, STEPS + 1):
        time.sleep(1 / RATE)
        reporter.step(step, samples=8, loss=2.5)
        if step % CHECKPOINT_EVERY == 0:
            reporter.checkpoint_saved("/nowhere", step)
    until = time.monotonic() + WAIT
    wanted = STEPS + STEPS // CHECKPOINT_EVERY
    while reporter.stats()["committed"] < wanted and time.monotonic() < until:
        time.sleep(0.1)
        reporter._flush(time.monotonic())
    print(json.dumps(reporter.stats()), flush=True)


def child(place: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(place), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def serving(place: Path, *, dies: int = 0) -> subprocess.Popen[str]:
    server = child(place, "serve", dies)
    assert server.stdout.readline() == "ready\n"
    return server


def in_store(place: Path) -> tuple[int, int]:
    """Steps of all ranks in the store, and the sum of their samples."""
    with sqlite3.connect(place / "store.db") as store:
        return store.execute("SELECT sum(count), sum(samples_sum) FROM folds").fetchone()


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 5], ids=["anywhere", "between the two commits"])
def test_each_step_and_event_is_in_the_file_and_in_the_store_once(
    tmp_path: Path, dies: int
) -> None:
    server = serving(tmp_path, dies=dies)
    ranks = [child(tmp_path, "rank", number) for number in range(RANKS)]
    try:
        for again in (dies, 0):
            if not dies:
                time.sleep(1.5)
                server.kill()
            server.communicate(timeout=WAIT)
            assert server.returncode == -signal.SIGKILL
            server = serving(tmp_path, dies=again)
        stats = [json.loads(rank.communicate(timeout=2 * WAIT)[0]) for rank in ranks]
    finally:
        for process in (server, *ranks):
            process.kill()
            process.communicate()

    windows = list(Reading(tmp_path / "run.db").windows())
    steps = Counter[int]()
    for window in windows:
        steps[window.rank] += window.steps
    assert sum(each["lost"] for each in stats) == 0
    assert steps == dict.fromkeys(range(RANKS), STEPS)
    assert sum(window.samples for window in windows) == 8 * STEPS * RANKS
    assert all(w.steps == 100 and w.last_step == 100 * (w.window + 1) for w in windows)
    assert in_store(tmp_path) == (STEPS * RANKS, 8.0 * STEPS * RANKS)
    saved = Counter((e.rank, e.step) for e in Reading(tmp_path / "run.db").events())
    assert set(saved.values()) == {1}
    assert len(saved) == RANKS * STEPS // CHECKPOINT_EVERY


if __name__ == "__main__":
    place, role, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if role == "serve":
        serve(place, dies=number)
    else:
        report(place, number)

"""Sixteen ranks at 100 steps a second into the real receiver and store: is anything lost?

Prints one JSON object. With `--kill` the receiving process is killed with SIGKILL in the middle
and started again: nothing may be committed twice, and nothing that is still in a ring be lost.
`--serve DIR` is the receiving process; `--rank N` one reporting process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.record import Figure, exactly, keep
from dvfd import log
from dvfd.clock import SystemClock
from dvfd.config import Jobs
from dvfd.store import Store
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver
from dvfd.telemetry.reporter import Reporter

SETTLE = 10.0
"""Seconds after the last step in which a rank waits for the last acknowledgements."""


def serve(place: Path) -> None:
    """Receive until SIGTERM."""
    log.setup("warning")  # to stderr: stdout is for the answer
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    clock = SystemClock()
    store = Store(place / "store.db", metrics={}, clock=clock)
    store.start()
    book = JobBook(Jobs(), clock)
    receiver = Receiver(place / "ingest.sock", book, store, clock, lambda _metrics: None)
    receiver.start()
    print("ready", flush=True)
    signal.sigwait([signal.SIGTERM])
    receiver.stop()
    store.stop()
    steps = sum(rank["steps_total"] for job in book.snapshot() for rank in job["ranks"])
    print(json.dumps({"counters": receiver.counters(), "steps": steps}), flush=True)


def report(place: Path, rank: int, *, world: int, rate: float, seconds: float) -> None:
    """Report at a steady pace, then wait until everything is acknowledged."""
    reporter = Reporter(
        job="bench", run="r", rank=rank, world_size=world, local_world_size=world,
        local_rank=rank, socket=str(place / "ingest.sock"),
    )  # fmt: skip
    begun = float(int(time.monotonic()) + 1)  # the steps of a synchronous job end together
    steps = round(rate * seconds)
    for step in range(1, steps + 1):
        time.sleep(max(0.0, begun + step / rate - time.monotonic()))
        reporter.step(step, samples=1, loss=2.5, grad_norm=1.0, compute=0.008, communication=0.001)
    deadline = time.monotonic() + SETTLE
    while reporter.stats()["committed"] < steps and time.monotonic() < deadline:
        time.sleep(0.2)
        reporter._flush(time.monotonic())
    print(json.dumps(reporter.stats()), flush=True)
    reporter.end()


def child(*arguments: str) -> subprocess.Popen[str]:
    """One of this file's own processes."""
    command = [sys.executable, "-m", "bench.ingest", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def receiving(place: Path) -> subprocess.Popen[str]:
    """The receiving process, once it listens."""
    server = child("--serve", str(place))
    assert server.stdout
    server.stdout.readline()
    return server


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def committed(place: Path) -> tuple[int, int, float]:
    """Steps in the store, steps that lie in two rows of one rank, and their samples."""
    query = "SELECT rank, first_step, last_step, count, samples_sum FROM folds ORDER BY 1, 2"
    with sqlite3.connect(place / "store.db") as database:
        rows = database.execute(query).fetchall()
    twice, last = 0, dict[int, int]()
    for rank, first, end, _, _ in rows:
        twice += max(0, last.get(rank, 0) - first + 1)
        last[rank] = max(end, last.get(rank, 0))
    return sum(row[3] for row in rows), twice, sum(row[4] for row in rows)


def measure(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it."""
    server = receiving(place)
    settings = ["--ranks", options.ranks, "--rate", options.rate, "--seconds", options.seconds]
    texts = [str(each) for each in settings]
    ranks = [child("--rank", str(n), "--place", str(place), *texts) for n in range(options.ranks)]
    before = cpu_seconds(server.pid)
    time.sleep(options.seconds / 2)
    if options.kill:
        server.kill()
        server.wait()
        server = receiving(place)
        before = cpu_seconds(server.pid)
    time.sleep(options.seconds / 2)
    spent = cpu_seconds(server.pid) - before
    stats = [json.loads(each.communicate()[0]) for each in ranks]
    server.terminate()
    heard = json.loads(server.communicate()[0])
    steps, twice, samples = committed(place)
    wanted = options.ranks * round(options.rate * options.seconds)
    return {
        "bench": "ingest",
        "killed": options.kill,
        "ranks": options.ranks,
        "steps_per_second_and_rank": options.rate,
        "seconds": options.seconds,
        "reported": wanted,
        "committed": steps,
        "committed_samples": samples,
        "committed_twice": twice,
        "lost": wanted - steps,
        "lost_by_the_reporters": sum(each["lost"] for each in stats),
        "acknowledged": sum(each["committed"] for each in stats),
        "counted_in_memory": heard["steps"],
        "receiver_cpu_ratio": round(spent / (options.seconds / (2 if options.kill else 1)), 4),
        "counters": heard["counters"],
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """What must be zero, and what the receiving cost."""
    how = "16 ranks x 100 steps/s" + (", receiver killed midway" if found["killed"] else "")
    steps = f"{how}: of {found['reported']} steps"
    return [
        exactly("lost", f"{steps} lost", found["lost"], "steps", 0),
        exactly("twice", f"{steps} committed twice", found["committed_twice"], "steps", 0),
        exactly("miscounted", f"{steps} missed or doubled in memory",
                abs(found["reported"] - found["counted_in_memory"]), "steps", 0),
        Figure("cpu", f"{how}: receiver and writer, of one core",
               100 * found["receiver_cpu_ratio"], "%"),
    ]  # fmt: skip


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    elif options.rank is not None:
        report(
            options.place, options.rank, world=options.ranks, rate=options.rate,
            seconds=options.seconds,
        )  # fmt: skip
    else:
        with tempfile.TemporaryDirectory() as place:
            found = measure(Path(place), options)
        keep("ingest_killed" if options.kill else "ingest", figures(found), raw=found)
        print(json.dumps(found))


if __name__ == "__main__":
    main()

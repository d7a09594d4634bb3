"""48 hours of 16 ranks at 2 steps a second, replayed: real receiver, store, recorder and judge.

The daemon's parts live in a process of their own whose clock is told to it; the ranks are real
Reporters whose clock is the same. Judged every simulated minute. Prints one JSON object, and keeps
it unless `--short`, which replays `--hours` and keeps nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.record import Figure, at_most, exactly, keep
from dvfd import log
from dvfd.catalogue import load
from dvfd.config import parse
from dvfd.model import Check, Sample, labels
from dvfd.people.attestations import Attestations
from dvfd.runs import parts
from dvfd.runs.baselines import Baselines
from dvfd.runs.conductor import Order
from dvfd.runs.freezing import judged_again
from dvfd.store import Store
from dvfd.store.run_reading import Reading
from dvfd.telemetry import receiver as receiving
from dvfd.telemetry import reporter as reporting
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver

RANKS = 16
RATE = 2
HOURS = 48.0
BEAT = 5
"""Simulated seconds between looks: the probes' interval, and the resolution that is wanted."""

M_ARENA_MAX = -8
"""mallopt(3), as in dvfd.daemon, of which there are only parts here."""

SAMPLES = 35.0
"""Of one rank and step: 1120 samples a second in all."""

START = (1_800_000_000.0, 10_000.0)
"""Wall and boot clock at the start."""


class ToldClock:
    """A clock that stands until it is told another time."""

    def __init__(self) -> None:
        self.wall, self.up = START

    def now(self) -> float:
        """Unix seconds."""
        return self.wall

    def boot(self) -> float:
        """CLOCK_BOOTTIME seconds."""
        return self.up

    def advance(self, seconds: float) -> None:
        """Both clocks go on."""
        self.wall += seconds
        self.up += seconds


def serve(place: Path, hours: float) -> None:
    """Be the daemon's parts: a line on stdin says how many seconds to go on, or which step of all
    ranks to wait for before the next look.
    """
    log.setup("warning")
    receiving.GATHER = 0.0  # real time that packets wait for company: here there is none
    receiving.STUCK = 1e9  # a commit takes real milliseconds, and the clock here runs far ahead
    with suppress(OSError, AttributeError):  # as the daemon does
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    config = parse("[profile]\nnodes = 1\nsingle_process_throughput = 62.5\n")
    catalogue, clock = load(config), ToldClock()
    run_of = catalogue.checks["stability_phase2c"]
    check = replace(run_of, nodes=1, duration=3600.0 * hours)
    catalogue = replace(catalogue, checks={**catalogue.checks, check.id: check})
    store = Store(place / "dvfd.db", metrics=catalogue.metrics, clock=clock)
    book = JobBook(config.jobs, clock)
    receiver = Receiver(place / "ingest.sock", book, store, clock, lambda _metrics: None)
    spent: list[float] = []

    def judge(found: Check) -> None:
        began = time.perf_counter()
        results = conductor.results(found, clock.now())
        spent.append(time.perf_counter() - began)
        assert len(results) == len(found.criteria)

    conductor = parts.conduct(
        config, catalogue, store=store, book=book, clock=clock, directory=place / "runs",
        judge=judge, attestations=Attestations(catalogue, store, clock),
        baselines=Baselines(place / "runs", store, clock), monotonic=clock.boot,
    )  # fmt: skip
    store.start()
    receiver.start()
    conductor.arm(Order(check=check.id, job="replay", force=True), by="bench")
    print("ready", flush=True)
    rows = 0
    for line in sys.stdin:
        word, amount = line.split()
        if word == "advance":
            clock.advance(float(amount))
        else:
            until = time.monotonic() + 10.0
            while not _came(book, int(amount)) and time.monotonic() < until:
                time.sleep(0.0005)
            rows = rows if conductor.run().frozen else receiver.counters()["rows"]
            if conductor.run().stage.over:  # its last words have no real time to be written in
                store.flush()
            conductor.sampled(_probed(clock.now()))
            conductor.tick()
        print("ok", flush=True)
    run, rss, processor = conductor.run(), _peak(), time.process_time()
    began, before = time.perf_counter(), time.process_time()
    again = judged_again(place / "runs" / f"{run.id}.db", run, check)
    took, spent_again = time.perf_counter() - began, time.process_time() - before
    receiver.stop()
    conductor.stop()
    store.stop()
    answer = {
        "stage": run.stage,
        "reason": run.reason,
        "rss_mib": rss,
        "processor_seconds": processor,
        "judgements": len(spent),
        "judging_ms": 1000 * sum(spent) / max(1, len(spent)),
        "last_judging_ms": 1000 * spent[-1],
        "judged_again_seconds": took,
        "judged_again_processor_seconds": spent_again,
        "verdicts": {j.result.criterion.id: j.result.verdict for j in again},
        "file_mb": (place / "runs" / f"{run.id}.db").stat().st_size / 1e6,
        "rows": rows,
        "kept": sum(w.steps for w in Reading(place / "runs" / f"{run.id}.db").windows()),
    }
    print(json.dumps(answer), flush=True)


def _came(book: JobBook, step: int) -> bool:
    """Whether every rank's step is in the book."""
    with book.lock:
        ranks = [rank for job in book.all() for rank in job.ranks.values()]
        return len(ranks) == RANKS and all((rank.step or 0) >= step for rank in ranks)


def _probed(at: float) -> list[Sample]:
    """What the probes of a node with 16 ranks measure of what a run needs."""
    found = [Sample("rank_cpu_ratio", 0.95, at, labels(job="replay", rank=r)) for r in range(RANKS)]
    found += [Sample("node_memory_used_ratio", 0.5, at, labels(numa_node=n)) for n in range(4)]
    found += [
        Sample("cpu_package_energy_joules_total", 200.0 * (at - START[0]), at, labels(package=p))
        for p in range(2)
    ]
    found += [Sample("cpu_temperature_celsius", 60.0, at, labels(package=p)) for p in range(2)]
    counters = ("job_nonfinite_total", "job_loss_spikes_total", "job_hash_comparisons_total",
                "job_hash_mismatches_total")  # fmt: skip
    return found + [Sample(name, 0.0, at, labels(job="replay")) for name in counters]


def _peak() -> float:
    """The most resident memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def replay(place: Path, hours: float) -> dict[str, Any]:
    """Drive the ranks and the other process's clock."""
    clock = ToldClock()
    told = SimpleNamespace(
        time=clock.now,
        monotonic=clock.boot,
        clock_gettime=lambda _which: clock.boot(),
        CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
    )
    vars(reporting).update(_monotonic=clock.boot, time=told)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.stability_replay"),
            *("--serve", str(place), "--hours", str(hours)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    ranks = [
        reporting.Reporter(
            job="replay", run="r", rank=rank, world_size=RANKS, local_world_size=RANKS,
            local_rank=rank, socket=str(place / "ingest.sock"), checkpoint_every=250,
            interval=3600.0,
        )
        for rank in range(RANKS)
    ]  # fmt: skip

    def ask(words: str) -> None:
        print(words, file=server.stdin, flush=True)
        assert server.stdout
        assert server.stdout.readline() == "ok\n"

    began, step, processor = time.perf_counter(), 0, time.process_time()
    for _ in range(round(hours * 3600 / BEAT) + 60):
        ask(f"advance {BEAT}")
        for _ in range(BEAT * RATE):
            step += 1
            clock.advance(1 / RATE)
            loss = 2.0 + 1.0 / (1.0 + step / 1e5)
            for rank in ranks:
                rank.step(step, samples=SAMPLES, loss=loss, grad_norm=1.0, compute=0.4,
                          communication=0.05, allreduce=0.0045)  # fmt: skip
        if step % 250 == 0:
            ranks[0].checkpoint_begin("/nowhere", step)
            ranks[0].checkpoint_saved("/nowhere", step)
        for rank in ranks:
            rank._flush(clock.boot())
        ask(f"step {step}")
    took, processor = time.perf_counter() - began, time.process_time() - processor
    server.stdin.close()
    answer: dict[str, Any] = json.loads(server.stdout.read())
    server.wait()
    more = {"ranks_processor_seconds": processor, "sent": step * RANKS, "hours": hours}
    return answer | {"seconds": took, **more}


def main() -> None:
    """Replay and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.hours)
        return
    with tempfile.TemporaryDirectory(prefix="dvfd-replay-") as place:
        found = replay(Path(place), options.hours)
    print(json.dumps(found, indent=1))
    if not options.short:
        keep("stability_replay", figures(found), raw=found)


def figures(found: dict[str, Any]) -> list[Figure]:
    """What was asked for, beside its bound."""
    return [
        at_most(
            "seconds",
            "48 h of 16 ranks at 2 steps/s replayed, judged every minute",
            found["seconds"],
            "s",
            300,
        ),
        at_most(
            "processor",
            "48 h replayed: processor time of daemon and ranks",
            found["processor_seconds"] + found["ranks_processor_seconds"],
            "s",
            300,
        ),
        Figure(
            "live",
            "48 h replayed: a judgement while the run is on, mean",
            found["judging_ms"],
            "ms",
        ),
        at_most(
            "rss",
            "48 h replayed: resident memory of the daemon's parts, peak",
            found["rss_mib"],
            "MiB",
            80,
        ),
        at_most("file", "48 h replayed: the run's file at its end", found["file_mb"], "MB", 300),
        at_most(
            "judging",
            "48 h replayed: judging the run from its file at its end",
            found["judged_again_seconds"],
            "s",
            2,
        ),
        at_most(
            "judging_processor",
            "48 h replayed: judging the run, processor time",
            found["judged_again_processor_seconds"],
            "s",
            2,
        ),
        exactly(
            "lost",
            "48 h replayed: steps that are not in the file",
            found["rows"] - found["kept"],
            "steps",
            0,
        ),
    ]


if __name__ == "__main__":
    main()

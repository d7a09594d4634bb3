"""How far each part of the daemon is from its limit: start, sampling, ingest, scrape, judging.

The parts of a whole daemon with 16 ranks, which its own receiver's code takes packets for, and with
5,000 live series in its store: of five metrics of ranks, a thousand each, as sixteen jobs of 64
would bring. Nothing else runs in the process, so processor time is that of the part; wall time is
told for the start alone. What a limit is:

- start: READY within 1.5 s;
- a sampling pass, every probe once, comes every 5 s: its share of the half of a percent of a core
  that the whole daemon may take is 25 ms;
- ingest: 16 ranks at ten steps a second;
- a scrape: 20 ms of a processor, at the 16 ranks, and with all series;
- judging: a live pass comes every 5 s, the lists once a day; all of the catalogue once must take
  less than one interval.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import build_node, chosen, cpu_seconds, finish, quantile, start_ready
from bench.record import Figure, at_most
from dvfd.config import parse
from dvfd.daemon import Daemon, settle
from dvfd.model import Sample, labels
from dvfd.sinks.prometheus import Exposition
from dvfd.telemetry import reporter, wire
from dvfd.telemetry.fold import Before, folds
from dvfd.telemetry.jobs import Peer

RANKS, RATE = 16, 10
WIDE = 5000
WIDE_METRICS = (
    "rank_step_seconds", "rank_compute_seconds", "rank_stall_ratio", "rank_responding",
    "rank_steps_total",
)  # fmt: skip

INTERVAL = 5.0
"""Seconds between passes of probes and of the watch, as delivered."""

SHARE = 0.005 * INTERVAL * 1e3
"""Milliseconds of a processor in an interval: half of a percent of a core."""

READY, SCRAPE = 1.5, 20.0

CONFIG = """
log_level = "error"
[http]
port = 0
[alerting]
urls = []
"""

Seat = Any


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    starts, passes, seconds = (3, 10, 10) if options.short else (20, 100, 60)
    with tempfile.TemporaryDirectory() as place:
        found = {"start": _starts(Path(place) / "node", starts)}
        with _parts(Path(place) / "parts") as daemon:
            found |= _measured(daemon, passes, seconds)
    finish("speed", options, _figures(found), found)


def _starts(place: Path, times: int) -> dict[str, list[float]]:
    """Wall and processor seconds until READY."""
    node, wall, cpu = build_node(place), [], []
    for _ in range(times):
        wall.append(start_ready(node))
        cpu.append(sum(cpu_seconds(node.daemon.pid)))
        node.stop()
    return {"wall": wall, "cpu": cpu}


@contextmanager
def _parts(place: Path) -> Iterator[Any]:
    """A daemon whose store writes and whose other threads do not run."""
    place.mkdir()
    os.environ |= {"DVFD_STATE_DIR": str(place / "state"), "RUNTIME_DIRECTORY": str(place)}
    daemon: Any = Daemon(parse(CONFIG))
    daemon._store.start()
    settle()  # as one does that is READY
    try:
        yield daemon
    finally:
        daemon._store.stop()


def _measured(daemon: Any, passes: int, seconds: int) -> dict[str, Any]:
    seats = [_seat(daemon, rank) for rank in range(RANKS)]
    spent = [_ingest(daemon, seats, second) for second in range(seconds)]
    daemon._store.flush()
    found = {
        "ingest_ms": spent,
        "sampling_ms": [_sampled(daemon, seats, seconds + turn) for turn in range(passes)],
        "scrape_ms": _scraped(daemon, passes),
        "live_ms": [_judged(daemon, ("live",)) for _ in range(passes)],
        "catalogue_ms": [_judged(daemon, daemon._catalogue.checks) for _ in range(3)],
        "series": daemon._store.health().series,
    }
    _widen(daemon)
    return found | {
        "wide_series": daemon._store.health().series,
        "wide_scrape_ms": _scraped(daemon, passes),
        "wide_live_ms": [_judged(daemon, ("live",)) for _ in range(passes)],
        "wide_catalogue_ms": [_judged(daemon, daemon._catalogue.checks) for _ in range(3)],
    }


def _spent(what: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Milliseconds of a processor, of all threads of this process unless *clock* is of one."""
    began = clock()
    what()
    return 1e3 * (clock() - began)


# --- Telemetry ------------------------------------------------------------------------------------


def _seat(daemon: Any, rank: int) -> Seat:
    stamp = wire.Stamp(rank + 1, 0, 0, 0.0, 0.0, 0.0)
    hello = wire.Hello(
        stamp=stamp, job="j", run="r", rank=rank, world_size=RANKS, local_rank=rank,
        local_world_size=RANKS, checkpoint_every=0, restarts=0, pid=os.getpid(), start=1,
        python="3", reporter=1,
    )  # fmt: skip
    peer = Peer(
        uid=os.getuid(), pid=os.getpid(), process=daemon._book._processes.identify(os.getpid())
    )
    return daemon._book.hello(hello, peer, session=f"speed-{rank}")[0]


def _ingest(daemon: Any, seats: Sequence[Seat], second: int) -> float:
    """A second of every rank, one packet each: decoded, booked, folded and committed."""
    packets = [_packet(daemon, rank, second) for rank in range(RANKS)]

    def take() -> None:
        for seat, packet in zip(seats, packets, strict=True):
            _take(daemon, seat, packet)
        daemon._store.flush()

    return _spent(take)


def _take(daemon: Any, seat: Seat, packet: bytes) -> None:
    """As the receiver does with a packet."""
    steps = wire.decode(packet)
    assert isinstance(steps, wire.Steps)
    before = Before(None if seat.rank.broken else seat.rank.stepped, seat.rank.seen)
    daemon._receiver.publish(daemon._book.steps(seat, steps.rows, 0))
    at, rank = daemon._clock.now(), seat.rank.rank
    folded = tuple(folds(seat.job.label, rank, steps.rows, at, before, 0))
    daemon._store.commit_telemetry(f"speed-{rank}", steps.last, folded, lambda _: None, job="j")


def _packet(daemon: Any, rank: int, second: int) -> bytes:
    """A second of steps that ends now."""
    now, first = daemon._clock.boot(), 1 + RATE * second
    given = {"samples": 8.0, "loss": 2.5, "grad_norm": 1.0, "compute": 0.07, "lr": 1e-3,
             "communication": 0.01, "allreduce": 0.02, "bytes": 1e6}  # fmt: skip
    mask = sum(1 << bit for bit, name in enumerate(reporter.FIELDS) if name in given)
    values = [given.get(name, 0) for name in reporter.FIELDS]
    head = reporter.HEADER.pack(
        reporter.MAGIC, reporter.VERSION, reporter.STEPS, RATE, rank + 1, first, 0, now, now,
        time.time(),
    )  # fmt: skip
    rows = [
        reporter.ROW.pack(mask, first + step, now - 1 + (step + 1) / RATE, *_typed(values))
        for step in range(RATE)
    ]
    return head + b"".join(rows)


def _typed(values: Sequence[float]) -> list[float]:
    """The last two fields are hashes: whole numbers."""
    return [*map(float, values[:-2]), *map(int, values[-2:])]


# --- Sampling, scraping, judging ------------------------------------------------------------------


def _sampled(daemon: Any, seats: Sequence[Seat], second: int) -> float:
    """Every probe of the shared thread once, after news of every rank."""
    for rank, seat in enumerate(seats):
        _take(daemon, seat, _packet(daemon, rank, second))
    daemon._store.flush()
    names = [
        name for name, source in daemon._sampler._sources.items() if source.probe.deadline <= 0
    ]

    def sample() -> None:
        for name in names:
            daemon._sampler.once(name)
        daemon._store.flush()

    return _spent(sample)


def _scraped(daemon: Any, times: int) -> list[float]:
    exposition = Exposition(daemon._state.snapshot)
    # The writer goes on meanwhile: its chores are no part of a scrape.
    return [_spent(exposition.text, time.thread_time) for _ in range(times)]


def _judged(daemon: Any, checks: Sequence[str]) -> float:
    return _spent(
        lambda: [daemon._judgements.run_check(daemon._catalogue.checks[name]) for name in checks]
    )


def _widen(daemon: Any) -> None:
    """The series of ranks elsewhere, until there are as many as wanted."""
    at = daemon._clock.now()
    each = WIDE // len(WIDE_METRICS)
    for back in range(12):
        daemon._store.write(
            Sample(metric, 1.0, at - INTERVAL * (11 - back), labels(job="wide", rank=rank))
            for metric in WIDE_METRICS
            for rank in range(each)
        )
        daemon._store.flush(60)


# --- What it comes to -----------------------------------------------------------------------------


def _figures(found: dict[str, Any]) -> list[Figure]:
    wall, cpu = found["start"]["wall"], found["start"]["cpu"]
    ingest = 1e3 * RANKS * RATE / statistics.median(found["ingest_ms"])
    wanted, wide = RANKS * RATE, f"{found['wide_series']:,} series"
    figures = [
        at_most("start", f"Start to READY, p95 of {len(wall)}", quantile(wall, 0.95), "s", READY),
        Figure("start_cpu", "Start to READY, processor time, median", statistics.median(cpu), "s"),
        at_most("sampling", f"A sampling pass with {RANKS} ranks, with what it commits",
                statistics.median(found["sampling_ms"]), "ms", SHARE),
        Figure("ingest", f"{RANKS} ranks: rows taken and committed a second of a processor",
               ingest, "rows/s", f">= {wanted} rows/s", ingest >= wanted),
        at_most("scrape", f"A scrape with {RANKS} ranks, p99", quantile(found["scrape_ms"], 0.99),
                "ms", SCRAPE),
        at_most("scrape_wide", f"A scrape with {wide}, p99",
                quantile(found["wide_scrape_ms"], 0.99), "ms", SCRAPE),
        at_most("live", f"A live pass with {RANKS} ranks",
                statistics.median(found["live_ms"]), "ms", SHARE),
        at_most("live_wide", f"A live pass with {wide}",
                statistics.median(found["wide_live_ms"]), "ms", 1e3 * INTERVAL),
        at_most("catalogue", "All of the catalogue judged once, with "
                f"{wide}", max(found["wide_catalogue_ms"]), "ms", 1e3 * INTERVAL),
    ]  # fmt: skip
    return [*figures, *map(_headroom, (f for f in figures if f.wanted))]


def _headroom(figure: Figure) -> Figure:
    """How often the value fits into its limit."""
    limit = float(figure.wanted.split()[1])
    times = figure.value / limit if figure.wanted.startswith(">=") else limit / figure.value
    text = f"{figure.text}: how often it fits into its limit"
    return Figure(f"{figure.name}_headroom", text, times, "times")


if __name__ == "__main__":
    main()

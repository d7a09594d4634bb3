"""What the daemon takes beside an exporter: memory, processor, disk, start, /metrics, threads.

The daemon as delivered, 5 s sampling, beside simulated ranks that report ten steps a second each,
and scraped every 15 s as a Prometheus would; a node exporter beside it, scraped as often. After ten
starts it runs with 4 ranks for 600 s, then anew with 16 ranks for 1800 s, or as it is told;
processor time counts from 30 s on and includes its children's; then come 500 scrapes one after the
other, a connection each, while the ranks go on.
There is no GPU, no checkpoint to verify and no log to read here: each costs what its own probe
takes. Both processes are read from /proc, one after the other, after the warm-up, with every
scrape, and at the end. Disk writes are `write_bytes` of /proc/PID/io: what is bound for a disk.

The limit on processor time is one for four ranks. Processor seconds are what counts, and the
machine makes more of them or fewer: a daemon wakes for moments, and finds memory as cold as others,
of this machine or of its host, have left it. The load is kept with them, and what one small piece
of work takes over and over, and after half a second in which this process slept. On a node that
trains memory is not left alone for long: with four ranks the same is measured once more beside four
ranks of the reference job, unthrottled, which report to nobody.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.harness import (
    build_node,
    chosen,
    cpu_seconds,
    descriptors,
    finish,
    quantile,
    start_ready,
    status,
    testbed,
    written,
)
from bench.harness import node as tests_node
from bench.record import Figure, at_most, unlimited
from bench.simulated import simulated

EXPORTER = "prometheus-node-exporter"

TRAINING = "dvfd.drills.reference_job"

WARM_UP = 30.0
SCRAPE_EVERY = 15.0
KIB = 1024  # in a MiB
HOUR = 3600.0
PAUSE = 0.5
PAUSES = 41
MB = 1e6

LIMITED = 4
"""Ranks for which processor time and series have a limit."""

WHOLE = ((LIMITED, 600.0), (16, 1800.0))
"""Ranks and seconds of what is measured if nothing else is asked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What /proc says of a process; times in seconds, counts since its start."""

    at: float
    load: float
    cpu: float
    cpu_children: float
    rss_mib: float
    pss_mib: float
    peak_mib: float
    threads: int
    descriptors: int
    switches: int
    write_bytes: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A process, what it is scraped at, and what was read of it so far."""

    pid: int
    address: str
    readings: list[Reading]

    def scrape(self) -> bytes:
        """What it tells."""
        return bytes(testbed.fetch(self.address))

    def read(self) -> None:
        """Take note of what it uses."""
        self.readings.append(_reading(self.pid))

    def rate(self, name: str) -> float:
        """Of a counter, a second, between the first reading and the last."""
        first, last = self.readings[0], self.readings[-1]
        return float(getattr(last, name) - getattr(first, name)) / (last.at - first.at)


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, ranks=0, seconds=600.0)
    asked = ((options.ranks, options.seconds),) if options.ranks else WHOLE
    for ranks, seconds in ((options.ranks or LIMITED, 20.0),) if options.short else asked:
        found = _case(ranks, seconds, *((2, 50) if options.short else (10, 500)))
        name = "daemon" if ranks == LIMITED else f"daemon_{ranks}"
        finish(name, options, _figures(found), found)


def _case(ranks: int, seconds: float, starts: int, scrapes: int) -> dict[str, Any]:
    """What is found with so many ranks."""
    with tempfile.TemporaryDirectory() as place:
        node = build_node(Path(place) / "node")
        ready = [_start_and_stop(node) for _ in range(starts)]
        start_ready(node)
        try:
            found = _run(node, Path(place), ranks, seconds, scrapes)
        finally:
            node.stop()
    return found | {"ready_seconds": ready, "seconds": seconds, "ranks": ranks}


def _start_and_stop(node: Any) -> float:
    seconds = start_ready(node)
    node.stop()
    return seconds


def _run(node: Any, place: Path, ranks: int, seconds: float, scrapes: int) -> dict[str, Any]:
    own = Watched(node.daemon.pid, f"http://{node.address}/metrics", [])
    port = testbed.free_port()
    command = [testbed.need(EXPORTER), f"--web.listen-address=127.0.0.1:{port}"]
    with (
        testbed.running(command, port, place / "exporter.log", "/metrics") as server,
        simulated(node, "simulated", ranks=ranks),
    ):
        other = Watched(server.process.pid, f"{server.url}/metrics", [])
        _together((own, other), min(WARM_UP, seconds / 2))
        for each in (own, other):
            each.readings.clear()
            each.read()
        _together((own, other), seconds)
        spent = sum(cpu_seconds(own.pid))
        latencies = [_timed(own) for _ in range(scrapes)]
        spent = sum(cpu_seconds(own.pid)) - spent
        body = own.scrape()
        trained = _beside_training((own, other), place, seconds) if ranks == LIMITED else {}
        work = [1e6 * quantile(_work(pause), 0.5) for pause in (0.0, PAUSE)]
    return {
        "own": [asdict(reading) for reading in own.readings],
        "exporter": [asdict(reading) for reading in other.readings],
        "rates": _rates(own),
        "exporter_rates": _rates(other),
        "scrape_ms": latencies,
        "scrape_cpu_ms": 1e3 * spent / scrapes,
        "scrape_bytes": len(body),
        "work_us": work,
        **trained,
        "series": sum(not text.startswith(b"#") for text in body.splitlines()),
    }


def _beside_training(both: Sequence[Watched], place: Path, seconds: float) -> dict[str, Any]:
    """What both take while others train on the same processors."""
    both = tuple(replace(each, readings=[]) for each in both)
    log, nobody = place / "training.log", {"DVFD_SOCKET": str(place / "nobody")}
    environment = {**os.environ, **nobody, "OMP_NUM_THREADS": "1"}
    with tests_node.torchrun(TRAINING, "--print-every=10", environment=environment, log=log):
        testbed.eventually(lambda: b"step=" in log.read_bytes(), 120, every=0.5)
        _together(both, min(WARM_UP, seconds / 2))
        for each in both:
            each.readings.clear()
        _together(both, seconds)
        work = [1e6 * quantile(_work(pause), 0.5) for pause in (0.0, PAUSE)]
    return {
        "training": [asdict(reading) for reading in both[0].readings],
        "training_rates": [_rates(each) for each in both],
        "training_work_us": work,
    }


def _together(both: Sequence[Watched], seconds: float) -> None:
    """Scrape and read both in turn for so long."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for each in both:
            each.scrape()
            each.read()
        time.sleep(min(SCRAPE_EVERY, left))
    for each in both:
        each.read()


def _work(pause: float) -> list[float]:
    """Processor seconds of one small piece of work, each time after a *pause* in seconds."""
    values = {str(number): [number] * 5 for number in range(20)}
    took = []
    for _ in range(PAUSES):
        time.sleep(pause)
        began = time.thread_time()
        json.loads(json.dumps(values))
        took.append(time.thread_time() - began)
    return took


def _timed(watched: Watched) -> float:
    began = time.perf_counter()
    watched.scrape()
    return 1e3 * (time.perf_counter() - began)


def _reading(pid: int) -> Reading:
    own, children = cpu_seconds(pid)
    return Reading(
        at=time.monotonic(),
        load=float(Path("/proc/loadavg").read_text(encoding="utf-8").split()[0]),
        cpu=own,
        cpu_children=children,
        rss_mib=status(pid, "VmRSS") / KIB,
        pss_mib=_proportional(pid) / KIB,
        peak_mib=status(pid, "VmHWM") / KIB,
        threads=status(pid, "Threads"),
        descriptors=descriptors(pid),
        switches=_switches(pid),
        write_bytes=written(pid)["write_bytes"],
    )


def _proportional(pid: int) -> int:
    """KiB: what it shares with others counts by its share."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(text.split()[1]) for text in told if text.startswith("Pss:"))


def _switches(pid: int) -> int:
    """Context switches of the threads that live now, its own accord or not."""
    told = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/status")]
    lines = (text.split() for one in told for text in one.splitlines())
    return sum(int(words[1]) for words in lines if words and words[0].endswith("_switches:"))


def _rates(watched: Watched) -> dict[str, float]:
    return {
        "cpu_percent": 100 * (watched.rate("cpu") + watched.rate("cpu_children")),
        "switches": watched.rate("switches"),
        "mb_per_hour": HOUR * watched.rate("write_bytes") / MB,
    }


def _figures(found: dict[str, Any]) -> list[Figure]:
    ready, scrape, ranks = found["ready_seconds"], found["scrape_ms"], found["ranks"]
    begin, end = found["own"][0], found["own"][-1]
    after = f"with {ranks} ranks after {found['seconds']:g} s"
    cpu, series = found["rates"]["cpu_percent"], found["series"]
    with_ranks = f"with {ranks} ranks"
    limited = at_most if ranks == LIMITED else unlimited
    return [
        at_most("rss", f"Daemon: resident memory {after}", end["rss_mib"], "MiB", 80),
        at_most("peak", f"Daemon: resident memory {with_ranks}, peak", end["peak_mib"], "MiB", 80),
        limited("cpu", f"Daemon {with_ranks}: of one core, children included", cpu, "%", 0.5),
        *(_training(found) if "training" in found else ()),
        *_beside(found, with_ranks),
        Figure("ready", "Start to READY, median", quantile(ready, 0.5), "s"),
        at_most("ready_max", f"Start to READY, longest of {len(ready)}", max(ready), "s", 1.5),
        Figure("scrape", f"/metrics {with_ranks}, median of {len(scrape)}",
               quantile(scrape, 0.5), "ms"),
        at_most("scrape_p99", f"/metrics {with_ranks}, p99 of {len(scrape)}",
                quantile(scrape, 0.99), "ms", 20),
        Figure("scrape_cpu", f"Processor time of a scrape {with_ranks}", found["scrape_cpu_ms"],
               "ms"),
        limited("series", f"Series on /metrics {with_ranks}", series, "series", 500),
        Figure("threads", f"Threads {with_ranks} at the end", end["threads"], "threads"),
        Figure("threads_grown", "Threads more than after warm-up",
               end["threads"] - begin["threads"], "threads"),
        Figure("descriptors", f"File descriptors {with_ranks} at the end", end["descriptors"],
               "descriptors"),
        Figure("descriptors_grown", "File descriptors more than after warm-up",
               end["descriptors"] - begin["descriptors"], "descriptors"),
    ]  # fmt: skip


def _training(found: dict[str, Any]) -> list[Figure]:
    """The same of the time in which others trained."""
    loads = [reading["load"] for reading in found["training"]]
    return [
        at_most("cpu_training",
                "Daemon with 4 ranks while four others train on the same cores: of one core",
                found["training_rates"][0]["cpu_percent"], "%", 0.5),
        Figure("exporter_cpu_training", "Node exporter in the same time: of one core",
               found["training_rates"][1]["cpu_percent"], "%"),
        Figure("load_training", "Load average meanwhile", sum(loads) / len(loads), ""),
        Figure("work_training", "Meanwhile: a small piece of work after 0.5 s of sleep",
               found["training_work_us"][1], "us"),
    ]  # fmt: skip


def _beside(found: dict[str, Any], with_ranks: str) -> list[Figure]:
    """The same of both, in pairs."""
    rates, others = found["rates"], found["exporter_rates"]
    end, other = found["own"][-1], found["exporter"][-1]
    loads = [reading["load"] for reading in found["own"]]
    exporter = "Node exporter in the same time"
    return [
        Figure("exporter_rss", f"{exporter}: resident memory", other["rss_mib"], "MiB"),
        Figure("pss", f"Daemon {with_ranks}: its share of memory (PSS)", end["pss_mib"], "MiB"),
        Figure("exporter_pss", f"{exporter}: its share of memory (PSS)", other["pss_mib"], "MiB"),
        Figure("exporter_cpu", f"{exporter}: of one core", others["cpu_percent"], "%"),
        Figure("switches", f"Daemon {with_ranks}: context switches a second", rates["switches"],
               "1/s"),
        Figure("exporter_switches", f"{exporter}: context switches a second",
               others["switches"], "1/s"),
        Figure("writes", f"Daemon {with_ranks}: bound for the disk an hour",
               rates["mb_per_hour"], "MB"),
        Figure("exporter_writes", f"{exporter}: bound for the disk an hour",
               others["mb_per_hour"], "MB"),
        Figure("exporter_threads", f"{exporter}: threads", other["threads"], "threads"),
        Figure("exporter_descriptors", f"{exporter}: file descriptors", other["descriptors"],
               "descriptors"),
        Figure("load", "Load average meanwhile", sum(loads) / len(loads), ""),
        Figure("work", "Processor time of a small piece of work, over and over",
               found["work_us"][0], "us"),
        Figure("work_paused", f"The same, each time after {PAUSE:g} s of sleep",
               found["work_us"][1], "us"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

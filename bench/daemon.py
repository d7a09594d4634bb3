"""What the daemon takes: memory, processor, start, /metrics, series, threads, descriptors.

The daemon as delivered, 5 s sampling, beside four simulated ranks that report ten steps a second
each, and scraped every 15 s as a Prometheus would. After ten starts it runs for 600 s; processor
time counts from 30 s on and includes its children's; then come 500 scrapes one after the other, a
connection each, while the ranks go on. There is no GPU, no checkpoint to verify and no log to
read here: each costs what its own probe takes.
"""

from __future__ import annotations

import tempfile
import time
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
)
from bench.record import Figure, at_most
from bench.simulated import simulated

WARM_UP = 30.0
SCRAPE_EVERY = 15.0
MIB = 1024  # KiB in a MiB


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    starts, seconds, scrapes = (2, 30.0, 50) if options.short else (10, 600.0, 500)
    with tempfile.TemporaryDirectory() as place:
        node = build_node(Path(place) / "node")
        ready = [_start_and_stop(node) for _ in range(starts)]
        start_ready(node)
        try:
            found = _run(node, seconds, scrapes)
        finally:
            node.stop()
    found |= {"ready_seconds": ready, "seconds": seconds}
    finish("daemon", options, _figures(found), found)


def _start_and_stop(node: Any) -> float:
    seconds = start_ready(node)
    node.stop()
    return seconds


def _run(node: Any, seconds: float, scrapes: int) -> dict[str, Any]:
    pid, began = node.daemon.pid, time.monotonic()
    address = f"http://{node.address}/metrics"
    with simulated(node, "simulated"):
        _scraping(address, began + min(WARM_UP, seconds / 2))
        before, since = cpu_seconds(pid), time.monotonic()
        begin = _state(pid)
        _scraping(address, began + seconds)
        after, until = cpu_seconds(pid), time.monotonic()
        end = _state(pid)
        latencies = [_timed(address) for _ in range(scrapes)]
        spent = sum(cpu_seconds(pid)) - sum(after)
        body = testbed.fetch(address)
    return {
        "begin": begin,
        "end": end,
        "after_scrapes": _state(pid),
        "cpu_own_percent": 100 * (after[0] - before[0]) / (until - since),
        "cpu_children_percent": 100 * (after[1] - before[1]) / (until - since),
        "scrape_ms": latencies,
        "scrape_cpu_ms": 1e3 * spent / scrapes,
        "scrape_bytes": len(body),
        "series": sum(not text.startswith(b"#") for text in body.splitlines()),
    }


def _scraping(address: str, until: float) -> None:
    """Scrape now and then until monotonic time *until*."""
    while (left := until - time.monotonic()) > 0:
        testbed.fetch(address)
        time.sleep(min(SCRAPE_EVERY, left))


def _timed(address: str) -> float:
    began = time.perf_counter()
    testbed.fetch(address)
    return 1e3 * (time.perf_counter() - began)


def _state(pid: int) -> dict[str, float]:
    return {
        "rss_mib": status(pid, "VmRSS") / MIB,
        "peak_mib": status(pid, "VmHWM") / MIB,
        "threads": status(pid, "Threads"),
        "descriptors": descriptors(pid),
    }


def _figures(found: dict[str, Any]) -> list[Figure]:
    ready, scrape = found["ready_seconds"], found["scrape_ms"]
    begin, end = found["begin"], found["end"]
    cpu = found["cpu_own_percent"] + found["cpu_children_percent"]
    after = f"after {found['seconds']:g} s"
    return [
        at_most("rss", f"Daemon: resident memory {after}", end["rss_mib"], "MiB", 80),
        at_most("peak", "Daemon: resident memory, peak", end["peak_mib"], "MiB", 80),
        at_most("cpu", "Daemon: of one core, children included", cpu, "%", 0.5),
        Figure("ready", "Start to READY, median", quantile(ready, 0.5), "s"),
        at_most("ready_max", f"Start to READY, longest of {len(ready)}", max(ready), "s", 1.5),
        Figure("scrape", f"/metrics, median of {len(scrape)}", quantile(scrape, 0.5), "ms"),
        at_most("scrape_p99", f"/metrics, p99 of {len(scrape)}", quantile(scrape, 0.99), "ms", 20),
        Figure("scrape_cpu", "Processor time of a scrape", found["scrape_cpu_ms"], "ms"),
        at_most("series", "Series on /metrics with 4 ranks", found["series"], "series", 500),
        Figure("threads", "Threads at the end", end["threads"], "threads"),
        Figure("threads_grown", "Threads more than after warm-up",
               end["threads"] - begin["threads"], "threads"),
        Figure("descriptors", "File descriptors at the end", end["descriptors"], "descriptors"),
        Figure("descriptors_grown", "File descriptors more than after warm-up",
               end["descriptors"] - begin["descriptors"], "descriptors"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

"""What one report costs a training step: dvfd's reporter beside prometheus_client and statsd.

Prints one JSON object: microseconds per step, the median and the range of the rounds, all in the
same process and turn by turn. Five numbers are reported each time. The receiver is dvfd's own, in
a process of its own with a store on disk; statsd sends to a UDP socket that is read.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge, Histogram
from statsd import StatsClient

from bench.record import Figure, keep
from dvfd.telemetry.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable


def dvfd(path: str, batch: int = 128) -> Callable[[int], None]:
    """A step as a job reports it: five fields."""
    step = Reporter(job="bench", run="r", socket=path, batch=batch).step

    def report(number: int) -> None:
        step(number, samples=32, loss=2.5, grad_norm=1.5, compute=0.08, communication=0.01)

    return report


def prometheus() -> Callable[[int], None]:
    """The same five numbers as gauges, and the step time as a histogram."""
    registry = CollectorRegistry()
    names = ("samples", "loss", "grad_norm", "compute", "communication")
    gauges = [Gauge(name, name, registry=registry) for name in names]
    seconds = Histogram("step_seconds", "step_seconds", registry=registry)
    samples, loss, grad_norm, compute, communication = gauges

    def report(number: int) -> None:
        samples.set(32)
        loss.set(2.5)
        grad_norm.set(1.5)
        compute.set(0.08)
        communication.set(0.01)
        seconds.observe(0.09)

    return report


def statsd(port: int) -> Callable[[int], None]:
    """The same numbers over UDP, a datagram each."""
    client = StatsClient("127.0.0.1", port)

    def report(number: int) -> None:
        client.gauge("samples", 32)
        client.gauge("loss", 2.5)
        client.gauge("grad_norm", 1.5)
        client.gauge("compute", 0.08)
        client.gauge("communication", 0.01)
        client.timing("step", 90)

    return report


def microseconds(report: Callable[[int], None], steps: int, pause: float = 0.0) -> float:
    """Seconds inside *report* per step, in microseconds; *pause* between steps is not counted."""
    if not pause:
        since = time.perf_counter()
        for number in range(steps):
            report(number)
        return (time.perf_counter() - since) / steps * 1e6
    spent = 0
    for number in range(steps):
        time.sleep(pause)
        since_ns = time.perf_counter_ns()
        report(number)
        spent += time.perf_counter_ns() - since_ns
    return spent / steps / 1e3


def summary(values: list[float]) -> dict[str, float]:
    """Median and range, rounded to what the noise allows."""
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The medians; the reporter's is bounded, the others stand beside it."""
    return [
        Figure(name, f"A step's report: {name.replace('_', ' ')}", each["median"], "us",
               "<= 2 us" if name == "dvfd" else "", each["median"] <= 2 if name == "dvfd" else None,
               each["low"], each["high"])
        for name, each in found["per_step"].items()
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        path = str(Path(place) / "ingest.sock")
        serving = [sys.executable, "-m", "bench.ingest", "--serve", place]
        with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            server.stdout.readline()
            found = measure(path, sink.getsockname()[1], options.rounds, options.steps)
            server.terminate()
            server.communicate()
    keep("reporter", figures(found), raw=found)
    print(json.dumps(found))


def measure(path: str, port: int, rounds: int, steps: int) -> dict[str, Any]:
    """All of them, turn by turn."""
    candidates = {
        "dvfd": (dvfd(path), steps, 0.0),
        "dvfd_without_a_daemon": (dvfd("/nonexistent/ingest.sock"), steps, 0.0),
        "dvfd_at_100_steps_a_second": (dvfd(path), 200, 0.01),
        "prometheus_client": (prometheus(), steps, 0.0),
        "prometheus_client_at_100_steps_a_second": (prometheus(), 200, 0.01),
        "statsd": (statsd(port), steps // 10, 0.0),
    }
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, (report, count, pause) in candidates.items():
            found[name].append(microseconds(report, count, pause))
    return {
        "bench": "reporter",
        "unit": "microseconds per step",
        "python": platform.python_version(),
        "rounds": rounds,
        "steps": steps,
        "per_step": {name: summary(values) for name, values in found.items()},
    }


if __name__ == "__main__":
    main()

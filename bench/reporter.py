"""What one report costs a training step: dvfd's reporter beside prometheus_client and statsd.

Microseconds a step, median and range of the rounds, all in the same process and turn by turn. Five
numbers are reported each time. Back to back, as a loop of nothing else does; at 100 steps a second,
when the process has slept; and cold, after 32 MiB of other memory were copied, which leaves nothing
of the reporter in the caches, as a step of training does. (bench.overhead times the calls inside a
real job.) prometheus_client stands twice: with its values in the process, and in multiprocess mode,
which a job of several ranks needs. The receiver is dvfd's own, in a process of its own with a store
on disk; statsd sends to a UDP socket that is read.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram
from statsd import StatsClient

from bench.harness import chosen, finish
from bench.multiprocess import Multiprocess
from bench.record import Figure
from dvfd.telemetry.reporter import Reporter

PAUSE = 0.01
"""Seconds between steps at a hundred a second."""

COLD = 32 << 20
"""Bytes copied between steps: more than the caches of a core hold."""

FEW = 100
"""Reports of a round where something lies between them."""


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


def multiprocess(directory: Path) -> Callable[[int], None]:
    """The same, in files of *directory* that other processes read."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    step = Multiprocess().step

    def report(number: int) -> None:
        step(number, samples=32, loss=2.5, grad_norm=1.5, compute=0.08, communication=0.01,
             allreduce=0.09)  # fmt: skip

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


Between = Callable[[], object]


def back_to_back(report: Callable[[int], None], steps: int) -> float:
    """Microseconds of a report, of *steps* with nothing in between."""
    since = time.perf_counter()
    for number in range(steps):
        report(number)
    return (time.perf_counter() - since) / steps * 1e6


def after(between: Between) -> Callable[[Callable[[int], None], int], float]:
    """Times reports after each of which something happens that is not counted: the clock is."""

    def microseconds(report: Callable[[int], None], steps: int) -> float:
        spent = 0
        for number in range(steps):
            between()
            since = time.perf_counter_ns()
            report(number)
            spent += time.perf_counter_ns() - since
        return spent / steps / 1e3

    return microseconds


def copying() -> Between:
    """Copies more than caches hold."""
    source, target = bytes(COLD), bytearray(COLD)

    def copy() -> None:
        memoryview(target)[:] = source

    return copy


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
    options = chosen(__doc__, rounds=7, steps=20_000)
    if options.short:
        options.rounds, options.steps = 2, 5_000
    with tempfile.TemporaryDirectory() as place, socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        serving = [sys.executable, "-m", "bench.ingest", "--serve", place]
        with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            server.stdout.readline()
            found = measure(Path(place), sink.getsockname()[1], options.rounds, options.steps)
            server.terminate()
            server.communicate()
    finish("reporter", options, figures(found), found)


def measure(place: Path, port: int, rounds: int, steps: int) -> dict[str, Any]:
    """All of them, turn by turn."""
    (place / "values").mkdir()
    libraries = {
        "dvfd": dvfd(str(place / "ingest.sock")),
        "prometheus_client": prometheus(),
        "prometheus_client_multiprocess": multiprocess(place / "values"),
    }
    asleep, cold = after(lambda: time.sleep(PAUSE)), after(copying())
    candidates: dict[str, Callable[[], float]] = {}
    for name, report in libraries.items():
        candidates[name] = partial(back_to_back, report, steps)
        candidates[f"{name}_at_100_steps_a_second"] = partial(asleep, report, FEW)
        candidates[f"{name}_with_cold_caches"] = partial(cold, report, FEW)
    candidates["nothing_with_cold_caches"] = partial(cold, lambda _number: None, FEW)
    unheard = dvfd("/nonexistent/ingest.sock")
    candidates["dvfd_without_a_daemon"] = partial(back_to_back, unheard, steps)
    candidates["statsd"] = partial(back_to_back, statsd(port), steps // 10)
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, microseconds in candidates.items():
            found[name].append(microseconds())
    return {
        "rounds": rounds,
        "steps": steps,
        "per_step": {name: summary(values) for name, values in found.items()},
    }


if __name__ == "__main__":
    main()

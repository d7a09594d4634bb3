"""How long a visitor waits for the page, /metrics and the interface, and how large the page is.

The daemon as delivered, with a day of charts and two weeks of reports in its store, beside 4 and
then 16 simulated ranks that report 40 steps a second together. Each of three addresses is asked
200 times in turn, a connection each, on loopback: from connecting to the last byte, unpacked, so
what is measured is the server's time and next to nothing else. The first visit, which imports
the templates, is a figure of its own.
"""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import build_node, chosen, finish, quantile, start_ready, testbed
from bench.record import Figure, at_most
from bench.simulated import simulated
from dvfd import log
from dvfd.catalogue import load as load_catalogue
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.model import Check, Clock, Report, Result, Sample, Verdict, labels
from dvfd.sinks.page import DAY, RUNS, TOPICS
from dvfd.store import Store

JOB = "simulated"
ADDRESSES = ("/", "/?span=day", "/metrics", "/api/v1/status")
STEPS = 40.0
"""Steps a second of all ranks together: as many in both cases, so that only the size differs."""

EVERY = 5.0
"""Seconds between the samples of a chart, as the daemon takes them."""

KB = 1000.0


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    log.setup("error")
    visits, settle = (10, 1.0) if options.short else (200, 10.0)
    with tempfile.TemporaryDirectory() as place:
        found = {ranks: _case(Path(place) / f"{ranks}", ranks, visits, settle) for ranks in (4, 16)}
    figures = [figure for ranks, case in found.items() for figure in _figures(ranks, case)]
    finish("page", options, figures, {str(ranks): case for ranks, case in found.items()})


def _case(place: Path, ranks: int, visits: int, settle: float) -> dict[str, Any]:
    node = build_node(place)
    _remember(place / "state")
    start_ready(node)
    try:
        with simulated(node, JOB, ranks=ranks, rate=STEPS / ranks):
            time.sleep(settle)
            return _visits(node.address, visits)
    finally:
        node.stop()


class Yesterday(SystemClock):
    """The time a day ago, until it is told to be today."""

    shift = DAY

    def now(self) -> float:
        """Unix seconds."""
        return super().now() - self.shift


def _remember(state: Path) -> None:
    """A day of each chart, rolled up, and as many reports of a checklist as the page shows."""
    state.mkdir()
    clock, catalogue = Yesterday(), load_catalogue(Config())
    store = Store(state / "dvfd.db", metrics=catalogue.metrics, clock=clock)
    store.start()
    try:
        for check in catalogue.checks.values():
            for day in range(RUNS if check.schedule else 0, 0, -1):
                store.keep(_report(check, clock.now() - DAY * day))
        for topic in TOPICS:
            for hour in range(24):
                store.write(_hour(topic.metric, clock.now() + 3600.0 * hour))
            store.flush(60)
        clock.shift = 0.0
        testbed.eventually(lambda: all(_is_whole(store, clock, t.metric) for t in TOPICS), 60, 0.5)
    finally:
        store.stop()


def _is_whole(store: Store, clock: Clock, metric: str) -> bool:
    """Whether the minutes of a day can be read: a store rolls up in its own time."""
    now = clock.now()
    return len(store.series(metric, labels(job=JOB), since=now - DAY, until=now)) > 0.99 * DAY / 60


def _hour(metric: str, since: float) -> list[Sample]:
    """An hour of samples that differ, so that no line is drawn with fewer points than it has."""
    moments = [since + EVERY * n for n in range(int(3600 / EVERY))]
    return [Sample(metric, 2.0 + at % 1, at, labels(job=JOB)) for at in moments]


def _report(check: Check, at: float) -> Report:
    results = tuple(Result(c, Verdict.PASS, at, "as wanted") for c in check.criteria)
    return Report(check, results, at, scheduled=at)


def _visits(address: str, visits: int) -> dict[str, Any]:
    first, _ = _ask(address, "/")
    found: dict[str, Any] = {path: {"ms": [], "bytes": 0} for path in ADDRESSES}
    for _ in range(visits):
        for path in ADDRESSES:
            took, size = _ask(address, path)
            found[path]["ms"].append(took)
            found[path]["bytes"] = max(found[path]["bytes"], size)
    return {"first_ms": first, **found}


def _ask(address: str, path: str) -> tuple[float, int]:
    """Milliseconds until the last byte of the answer, and the bytes of its body."""
    host, _, port = address.rpartition(":")
    began = time.perf_counter()
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(1 << 18), b""))
    took = 1e3 * (time.perf_counter() - began)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode()
    if not status.endswith("200 OK"):
        raise RuntimeError(f"{path}: read {status!r}, wanted 200 OK")
    return took, len(body)


def _figures(ranks: int, case: dict[str, Any]) -> list[Figure]:
    page, day = case["/"], case["/?span=day"]
    metrics, status = case["/metrics"], case["/api/v1/status"]
    among = f"with {ranks} ranks"
    size = at_most(f"page_kb_{ranks}", f"Page {among}", page["bytes"] / KB, "KB", 200)
    return [
        Figure(f"page_first_{ranks}", f"Page {among}, the first visit", case["first_ms"], "ms"),
        *_times(f"page_{ranks}", f"Page {among}", page["ms"], 100),
        size,
        *_times(f"page_day_{ranks}", f"Page {among}, a day of charts", day["ms"], 100),
        Figure(f"page_day_kb_{ranks}", f"Page {among}, a day of charts", day["bytes"] / KB, "KB"),
        *_times(f"metrics_{ranks}", f"/metrics {among}", metrics["ms"], None),
        *_times(f"status_{ranks}", f"/api/v1/status {among}", status["ms"], None),
        Figure(f"status_kb_{ranks}", f"/api/v1/status {among}", status["bytes"] / KB, "KB"),
    ]


def _times(name: str, text: str, found: list[float], limit: float | None) -> list[Figure]:
    middle, slow = quantile(found, 0.5), quantile(found, 0.99)
    said = f"{text}, p99 of {len(found)}"
    return [
        Figure(name, f"{text}, median of {len(found)}", middle, "ms"),
        Figure(f"{name}_p99", said, slow, "ms")
        if limit is None
        else at_most(f"{name}_p99", said, slow, "ms", limit),
    ]


if __name__ == "__main__":
    main()

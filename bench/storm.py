"""What one Alertmanager bears when a whole fleet tells it of the same breach as fast as it can.

Ten thousand nodes, each with an alert of its own as dvfd writes it, are posted to a real
Alertmanager over 32 connections, twice: as news and as the first resend. It groups by alert and
criterion. Pages are counted at a webhook: one breach of a fleet should be one page. The posting
takes processor time of the same machine, so a real one bears more.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.harness import chosen, cpu_seconds, finish, quantile, status, testbed
from bench.record import Figure, at_most, exactly
from dvfd.config import Config
from dvfd.sinks.alert import Alert, document

CONNECTIONS = 32
MIB = 1024  # KiB in a MiB
GROUP_WAIT = 5.0

CONFIG = """
route: {{receiver: hook, group_by: [alertname, criterion], group_wait: 5s, group_interval: 5m}}
receivers:
- {{name: hook, webhook_configs: [{{url: '{url}'}}]}}
"""

JITTER = 300.0
"""Seconds over which the checklists of a fleet spread, as delivered."""


@dataclass(frozen=True, slots=True)
class Page:
    """One notification."""

    alerts: int


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, nodes=10_000)
    if options.short:
        options.nodes = 500
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), options.nodes)
    finish("storm", options, figures(found), found)


def measure(place: Path, nodes: int) -> dict[str, Any]:
    """Post everything twice; what it took, and what people would have been told."""
    bodies = [alert(f"node-{number:05}") for number in range(nodes)]
    with webhook() as (url, pages), alertmanager(place, url) as server:
        began, cpu = time.monotonic(), sum(cpu_seconds(server.process.pid))
        took = post_all(server.port, bodies)
        news = time.monotonic() - began
        post_all(server.port, bodies)
        resend = time.monotonic() - began - news
        spent = sum(cpu_seconds(server.process.pid)) - cpu
        testbed.eventually(
            lambda: max((p.alerts for p in pages), default=0) >= nodes, 360, every=0.5
        )
        return {
            "nodes": nodes,
            "news_per_second": nodes / news,
            "resends_per_second": nodes / resend,
            "post_ms": [1e3 * seconds for seconds in took],
            "cpu_ms_per_post": 1e3 * spent / (2 * nodes),
            "peak_mib": status(server.process.pid, "VmHWM") / MIB,
            "pages": [page.alerts for page in pages],
        }


def alert(node: str) -> bytes:
    """The body of one node's post."""
    config = Config.model_validate({"node": {"name": node}})
    now = time.time()
    breach = Alert(
        key=f"daily.network/{node}",
        name="DvfdCriterionFailed",
        severity="critical",
        since=now,
        summary=f"daily.network fails on {node}",
        description="network: 0.97, wanted less than 0.9",
        labels={"check": "daily", "criterion": "daily.network"},
    )
    return json.dumps([document(breach, config, now=now)]).encode()


def post_all(port: int, bodies: Sequence[bytes]) -> list[float]:
    """Post every body; the seconds that each took. Raises on anything but success."""
    local = threading.local()

    def post(body: bytes) -> float:
        if not hasattr(local, "link"):
            local.link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        began = time.perf_counter()
        local.link.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
        answer = local.link.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"Alertmanager answered {answer.status}")
        return time.perf_counter() - began

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(post, bodies))


@contextlib.contextmanager
def alertmanager(place: Path, url: str) -> Iterator[Any]:
    """A real one that groups as a fleet should."""
    config, port = place / "alertmanager.yml", testbed.free_port()
    config.write_text(CONFIG.format(url=url), encoding="utf-8")
    command = [
        testbed.need(testbed.ALERTMANAGER),
        f"--config.file={config}",
        f"--storage.path={place / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (place / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = testbed.Server(f"http://127.0.0.1:{port}", port, process)
    try:
        testbed.eventually(lambda: _ready(server.url), 30, every=0.1)
        yield server
    finally:
        server.stop()


def _ready(url: str) -> bool:
    try:
        testbed.fetch(f"{url}/-/ready")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def webhook() -> Iterator[tuple[str, list[Page]]]:
    """Where pages go; the list grows as they come."""
    pages: list[Page] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pages.append(Page(len(body["alerts"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def figures(found: dict[str, Any]) -> list[Figure]:
    """The numbers, with what was wanted of them."""
    nodes, rate = found["nodes"], found["news_per_second"]
    # The fullest second of ten thousand nodes spread over the jitter: tests/unit
    # test_schedule_fleet.py holds them to the mean and five deviations of it.
    mean = nodes / JITTER
    fullest = mean + 5 * math.sqrt(mean)
    return [
        Figure("posts", f"Alertmanager: posts a second, {nodes} nodes at once", rate, "posts/s"),
        Figure("resends", "Alertmanager: resends a second", found["resends_per_second"], "posts/s"),
        Figure("post_p99", "Alertmanager: a post, p99", quantile(found["post_ms"], 0.99), "ms"),
        Figure("post_cpu", "Alertmanager: processor, of a post", found["cpu_ms_per_post"], "ms"),
        Figure("peak", "Alertmanager: resident memory, peak", found["peak_mib"], "MiB"),
        at_most("morning", "A checklist that fails everywhere: of what Alertmanager takes, in the "
                "fullest second", 100 * fullest / rate, "%", 50),
        exactly("told", "Nodes named in the last page", found["pages"][-1], "nodes", nodes),
        at_most("pages", "Pages for all of them", len(found["pages"]), "pages", 2),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

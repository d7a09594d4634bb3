"""A real Prometheus for a measurement: started with a configuration, asked, and looked at."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import cpu_seconds, status, testbed

KIB_PER_MIB = 1024

CONFIG = """
global: {{scrape_interval: {interval:g}s, evaluation_interval: {interval:g}s}}
rule_files: {rules}
scrape_configs:
- job_name: dvfd
  file_sd_configs: [{{files: ['{targets}']}}]
- job_name: prometheus
  static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""

PATIENCE = 120.0
"""Seconds for one question: a snapshot writes everything that is in memory."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    url: str
    pid: int

    def value(self, expression: str) -> float:
        """The one value of a question; raises LookupError when there are none or several."""
        found = self.query(expression)
        if len(found) != 1:
            raise LookupError(f"{expression}: {len(found)} series, wanted 1")
        return float(found[0]["value"][1])

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series that PromQL finds now, or *at* a Unix time."""
        when: dict[str, Any] = {} if at is None else {"time": at}
        return list(self._ask("query", query=expression, **when)["result"])

    def query_range(self, expression: str, seconds: float, step: float) -> tuple[float, int]:
        """How long a graph of the last *seconds* takes, and how many series it has."""
        now = time.time()
        return self.course(expression, now - seconds, now, step)

    def course(self, expression: str, since: float, until: float, step: float) -> tuple[float, int]:
        """How long a graph of [since, until] takes, and how many series it has."""
        began = time.perf_counter()
        found = self._ask("query_range", query=expression, start=since, end=until, step=step)
        return time.perf_counter() - began, len(found["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule group."""
        return list(self._ask("rules")["groups"])

    def snapshot(self) -> str:
        """Write what is in memory as a block; the name of its directory."""
        return str(self._ask("admin/tsdb/snapshot", post=True)["name"])

    def cpu(self) -> float:
        """Processor seconds so far."""
        return sum(cpu_seconds(self.pid))

    def memory(self, key: str = "VmRSS") -> float:
        """MiB of resident memory now, or with VmHWM at most."""
        return status(self.pid, key) / KIB_PER_MIB

    def _ask(self, what: str, *, post: bool = False, **arguments: Any) -> Any:
        data = urllib.parse.urlencode(arguments).encode()
        method = "POST" if post or arguments else "GET"
        request = urllib.request.Request(f"{self.url}/api/v1/{what}", data or None, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]


@contextlib.contextmanager
def prometheus(
    place: Path, targets: Path, *, interval: float, rules: Sequence[Path]
) -> Iterator[Prometheus]:
    """Prometheus below *place*, ended afterwards; its database stays."""
    port, config = testbed.free_port(), place / "prometheus.yml"
    config.write_text(
        CONFIG.format(
            interval=interval,
            rules=json.dumps([str(path) for path in rules]),
            targets=targets,
            port=port,
        ),
        encoding="utf-8",
    )
    command = [
        testbed.need(testbed.PROMETHEUS),
        f"--config.file={config}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-admin-api",  # snapshots
    ]
    with (place / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = testbed.Server(f"http://127.0.0.1:{port}", port, process)
    try:
        testbed.eventually(lambda: _ready(server), 60, every=0.2)
        yield Prometheus(server.url, process.pid)
    finally:
        server.stop()


def _ready(server: Any) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"{server.process.args} ended with {server.process.returncode}")
    try:
        testbed.fetch(f"{server.url}/-/ready")
    except OSError:
        return False
    return True

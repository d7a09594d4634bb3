"""Real Prometheus, real Alertmanager, a webhook receiver and a browser: on loopback, free ports.

A part that is missing skips the test and is named; in CI it fails the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ALERTMANAGER = "prometheus-alertmanager"
PROMETHEUS = "prometheus"
PROMTOOL = "promtool"


def need(program: str) -> str:
    """The path of *program*, or no test."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed: scripts/test installs what the tests need"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    assert path is not None
    return path


def outside() -> list[str]:
    """What a command begins with that asks a registry: `scripts/apart` took the network away."""
    network = os.environ.get("DVFD_TEST_OUTSIDE")
    return ["nsenter", f"--net={network}"] if network else []


def reachable(path: Path) -> None:
    """Let every user of this machine come as far as *path*: pytest keeps its folders to ours."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if mode & stat.S_ISVTX:  # /tmp
            return
        folder.chmod(mode | OPEN)


OPEN = 0o055
"""All may read and enter."""


def free_port() -> int:
    """A port that nobody listens on now, below those that the kernel gives to who asks for any: so
    nobody else is given it before it is listened on.
    """
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    some = [random.SystemRandom().randrange(10_000, given) for _ in range(20 * (given > 10_000))]
    for port in [*some, 0]:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            return int(server.getsockname()[1])
    pytest.fail("no port is free")


def port_of(process: subprocess.Popen[bytes]) -> int:
    """The port that *process* took where it was told to take any: 0."""

    def listening() -> int:
        held = {_points_to(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
        for table in ("tcp", "tcp6"):
            lines = Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
            for _, local, _, state, *_, inode in (line.split()[:10] for line in lines):
                if state == LISTEN and f"socket:[{inode}]" in held:
                    return int(local.rpartition(":")[2], 16)
        if process.poll() is not None:
            pytest.fail(f"{process.args} ended: {process.returncode}")
        return 0

    return int(eventually(listening, 60))


def _points_to(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""


LISTEN = "0A"
"""As /proc/net/tcp writes it."""


def eventually(what: Callable[[], Any], timeout: float, every: float = 0.02) -> Any:
    """The first true answer of *what*; fails after *timeout* seconds with the last one."""
    end = time.monotonic() + timeout
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s; last seen: {answer!r}")
        time.sleep(every)


def fetch(url: str, timeout: float = 5.0) -> bytes:
    """The body at *url*; raises OSError for anything but success."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return bytes(answer.read())


@dataclass
class Server:
    """A child process that listens at `url`."""

    url: str
    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class Webhook:
    """Receives what Alertmanager sends: `alerts` in order, each with the time of its arrival.

    `notifications` has a pair for each post: the path, and the document with all its alerts.
    """

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.notifications: list[tuple[str, dict[str, Any]]] = []
        received, notifications = self.alerts, self.notifications

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                at = time.monotonic()
                document = json.loads(body)
                received.extend(alert | {"received": at} for alert in document["alerts"])
                notifications.append((self.path, document))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Webhook:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def matching(self, status: str, **labels: str) -> list[dict[str, Any]]:
        """What came with *status* ("firing", "resolved") and these labels."""
        return [
            alert
            for alert in self.alerts
            if alert["status"] == status and labels.items() <= alert["labels"].items()
        ]

    def wait_for(self, status: str, timeout: float, **labels: str) -> dict[str, Any]:
        """The first alert that matches; fails after *timeout* seconds."""
        return dict(eventually(lambda: self.matching(status, **labels), timeout)[0])


@contextlib.contextmanager
def alertmanager(
    directory: Path, webhook_url: str, *, port: int = 0, text: str = ""
) -> Iterator[Server]:
    """A real Alertmanager that groups by alert and criterion and waits for nothing, or configured
    by *text*.
    """
    config = directory / "alertmanager.yml"
    config.write_text(
        text
        or "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
        "receivers:\n"
        f"- {{name: hook, webhook_configs: [{{url: '{webhook_url}', send_resolved: true}}]}}\n"
    )
    command = [
        need(ALERTMANAGER),
        f"--config.file={config}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, port, directory / "alertmanager.log") as server:
        yield server


@contextlib.contextmanager
def prometheus(
    directory: Path,
    target: str,
    *,
    interval: str = "1s",
    rules: tuple[Path, ...] = (),
    alerts_to: str = "",
    options: tuple[str, ...] = (),
    scrape: Mapping[str, Any] | None = None,
) -> Iterator[Server]:
    """A real Prometheus that scrapes *target* and sends alerts to *alerts_to*, each "host:port";
    *options* are its own, *scrape* adds to how it scrapes.
    """
    job = {"job_name": "dvfd", "static_configs": [{"targets": [target]}], **(scrape or {})}
    config = directory / "prometheus.yml"
    receivers = [alerts_to] if alerts_to else []
    config.write_text(
        f"global: {{scrape_interval: {interval}, evaluation_interval: {interval}}}\n"
        f"rule_files: {json.dumps([str(path) for path in rules])}\n"
        f"scrape_configs: [{json.dumps(job)}]\n"
        "alerting:\n"
        f"  alertmanagers: [{{static_configs: [{{targets: {json.dumps(receivers)}}}]}}]\n"
    )
    command = [
        need(PROMETHEUS),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        "--web.listen-address=127.0.0.1:0",
        *options,
    ]
    with running(command, 0, directory / "prometheus.log") as server:
        yield server


def query(server: Server, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers to PromQL now."""
    quoted = urllib.request.quote(expression)  # type: ignore[attr-defined]
    answer = json.loads(fetch(f"{server.url}/api/v1/query?query={quoted}"))
    return list(answer["data"]["result"])


def promtool(
    *arguments: str, text: bytes = b"", timeout: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """Run promtool on *text*."""
    return subprocess.run(
        [need(PROMTOOL), *arguments], input=text, capture_output=True, timeout=timeout, check=False
    )


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, ready: str = "/-/ready") -> Iterator[Server]:
    """*command* once it answers at the path *ready* of *port*, or of the one that it took where
    that is 0; its words go to *log*.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    server = Server("", port, process)
    try:
        server.port = port or port_of(process)
        server.url = f"http://127.0.0.1:{server.port}"
        eventually(lambda: _ready(server, log, ready), 60)
        yield server
    finally:
        server.stop()


def _ready(server: Server, log: Path, path: str) -> bool:
    if server.process.poll() is not None:
        pytest.fail(f"{server.process.args} ended: {log.read_text()[-2000:]}")
    try:
        fetch(f"{server.url}{path}")
    except OSError:
        return False
    return True

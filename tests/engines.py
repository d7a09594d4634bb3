"""Real engines that hold a past which was written down: Prometheus from blocks, VictoriaMetrics."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import testbed

VICTORIA = "/usr/bin/victoria-metrics"

EVER = "100y"

Write = Callable[[object, bool], object]
"""Writes all samples to a text file; whether in milliseconds."""


@contextlib.contextmanager
def prometheus_of(
    directory: Path, write: Write, *, options: tuple[str, ...] = ()
) -> Iterator[testbed.Server]:
    """A Prometheus with what *write* writes as OpenMetrics, which scrapes nothing."""
    text = directory / "past.om"
    with text.open("w", encoding="utf-8") as out:
        write(out, False)
    made = testbed.promtool(
        "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=486h", "--quiet",
        str(text), str(directory / "prometheus"), timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr.decode()
    text.unlink()
    kept = (f"--storage.tsdb.retention.time={EVER}", *options)
    with testbed.prometheus(directory, "127.0.0.1:1", interval="1h", options=kept) as server:
        yield server


@contextlib.contextmanager
def victoria_of(
    directory: Path, write: Write, *, options: tuple[str, ...] = ()
) -> Iterator[testbed.Server]:
    """A VictoriaMetrics with what *write* writes, as soon as all of it can be read."""
    text = directory / "past.txt"
    with text.open("w", encoding="utf-8") as out:
        write(out, True)
    command = [
        testbed.need(VICTORIA), f"-storageDataPath={directory / 'victoria'}",
        "-httpListenAddr=127.0.0.1:0", f"-retentionPeriod={EVER}",
        "-memory.allowedBytes=512MB", *options,
    ]  # fmt: skip
    with testbed.running(command, 0, directory / "victoria.log", "/health") as server:
        with text.open("rb") as body:
            url = f"{server.url}/api/v1/import/prometheus"
            request = urllib.request.Request(url, data=body.read(), method="POST")
            urllib.request.urlopen(request, timeout=300).close()
        testbed.fetch(f"{server.url}/internal/force_flush", 60)
        text.unlink()
        yield server

"""What a job would use instead: prometheus_client in multiprocess mode, the same values a step.

Each process writes its values into memory-mapped files of its own; whoever serves /metrics adds
them up. $PROMETHEUS_MULTIPROC_DIR says where the files lie.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

GAUGES = ("loss", "grad_norm", "compute", "communication", "lr", "val_loss")
COUNTERS = ("samples", "bytes")


class Multiprocess:
    """Takes what a Reporter takes: a Histogram, Gauges and Counters of it."""

    def __init__(self) -> None:
        # The library chooses its kind of value by the environment, once, when it is imported.
        kind = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        with mock.patch.object(values, "ValueClass", kind):
            none = CollectorRegistry()
            self._gauges = {name: Gauge(name, name, registry=none) for name in GAUGES}
            self._counters = {name: Counter(name, name, registry=none) for name in COUNTERS}
            self._steps = Counter("steps", "steps", registry=none)
            self._allreduce = Histogram("allreduce_seconds", "all-reduce", registry=none)

    def step(self, _step: int, **fields: Any) -> None:
        """Note what the job gives of it; what it does not is left out, as the Reporter does."""
        self._steps.inc()
        for name, counter in self._counters.items():
            if (value := fields.get(name)) is not None:
                counter.inc(value)
        for name, gauge in self._gauges.items():
            if (value := fields.get(name)) is not None:
                gauge.set(value)
        if (seconds := fields.get("allreduce")) is not None:
            self._allreduce.observe(seconds)


def serve(port: int) -> None:
    """Serve the values of all processes on loopback, in a thread of this one."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(port, "127.0.0.1", registry)

"""The way that needs no dvfd in it: a real Prometheus with a plain rule for each fault.

It scrapes twice, every 15 s and every second, what dvfd's /metrics shows raw, and of the disk and
the network port what a real node_exporter does; rules are evaluated as often as is scraped, as
Prometheus' own example has it. Its alerts go to the Alertmanager that dvfd pushes to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import testbed

EXPORTER = "prometheus-node-exporter"
INTERVALS = ("15s", "1s")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a person writes who has only the metric: `{}` in *expr* stands for the scrape's job."""

    name: str
    expr: str
    severity: str
    hold: str = "0s"

    def document(self, interval: str) -> dict[str, Any]:
        """As an alerting rule over what is scraped so often."""
        labels = {"fault": self.name, "scrape": interval, "severity": self.severity}
        expr = self.expr.replace("{}", f'{{job="{interval}"}}')
        return {"alert": "Scraped", "expr": expr, "for": self.hold, "labels": labels}


def config(targets: Sequence[str], alerts_to: str, rules: Path) -> str:
    """Prometheus' configuration. JSON is YAML."""
    jobs = [
        {"job_name": each, "scrape_interval": each, "static_configs": [{"targets": list(targets)}]}
        | ({"scrape_timeout": "10s"} if each == "15s" else {"scrape_timeout": each})
        for each in INTERVALS
    ]
    managers = [{"static_configs": [{"targets": [alerts_to]}]}]
    return json.dumps(
        {
            "scrape_configs": jobs,
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": managers},
        }
    )


def groups(rules: Sequence[Rule]) -> str:
    """The rules once for each interval."""
    return json.dumps(
        {
            "groups": [
                {"name": each, "interval": each, "rules": [r.document(each) for r in rules]}
                for each in INTERVALS
            ]
        }
    )


@contextlib.contextmanager
def scraping(place: Path, targets: Sequence[str], alerts_to: str, rules: Sequence[Rule]) -> Any:
    """Prometheus, running."""
    file, settings = place / "rules.json", place / "prometheus.json"
    file.write_text(groups(rules), encoding="utf-8")
    settings.write_text(config(targets, alerts_to, file), encoding="utf-8")
    command = [
        testbed.need(testbed.PROMETHEUS), f"--config.file={settings}",
        f"--storage.tsdb.path={place / 'tsdb'}", "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    with testbed.running(command, 0, place / "prometheus.log") as server:
        yield server


@contextlib.contextmanager
def node_exporter(place: Path, proc: Path) -> Iterator[Any]:
    """A real one that counts errors of ports and the space of file systems; *proc* is its /proc."""
    command = [
        testbed.need(EXPORTER), "--web.listen-address=127.0.0.1:0", f"--path.procfs={proc}",
        "--collector.disable-defaults", "--collector.netdev", "--no-collector.netdev.netlink",
        "--collector.filesystem", "--collector.filesystem.fs-types-exclude=^$",
        "--collector.filesystem.mount-points-exclude=^$",
    ]  # fmt: skip
    with testbed.running(command, 0, place / "exporter.log", ready="/") as server:
        yield server

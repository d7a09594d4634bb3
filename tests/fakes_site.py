"""A site: a directory of checks, the settings beside it, and stand-ins for its inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvfd.config import Config
from dvfd.errors import DvfdError
from dvfd.model import Metric, Origin
from dvfd.remote import Access, Answer
from dvfd.shell import Output

METRICS = """
[site_smart]
help = "1 while the disk says of itself that it is well"
unit = "bool"
labels = ["disk"]
from = { textfile = "smart", series = "smartmon_healthy" }
possible = [0, 1]

[site_load]
help = "Load of the last minute"
unit = "load"
from = { scrape = "node", series = "node_load1" }
"""

LINES = """
clause = "Our runbook, chapter 4"

[[criterion]]
id = "clock"
text = "The clock is right"
metric = "plugin_status"
where = { plugin = "ntp" }
unit = "status"
comparison = "<"
limit = 2

[[criterion]]
id = "disks"
text = "No disk says that it fails"
metric = "site_smart"
unit = "bool"
comparison = "=="
limit = 1
"""


def site(directory: Path, metrics: str = METRICS, **lists: str) -> Config:
    """A configuration with one plugin, text file and scrape, and *lists* in its directory."""
    checks = directory / "checks.d"
    checks.mkdir(exist_ok=True)
    (checks / "metrics.toml").write_text(metrics)
    for name, text in (lists or {"daily": LINES}).items():
        (checks / f"{name}.toml").write_text(text)
    return Config.model_validate(
        {
            "site": {"checks": checks},
            "plugin": [{"name": "ntp", "command": ["/bin/true"]}],
            "textfile": [{"name": "smart", "directory": directory}],
            "scrape": [{"name": "node", "url": "http://127.0.0.1:9100/metrics"}],
        }
    )


def metric(name: str = "site_smart", **keys: Any) -> Metric:
    """A site's metric; *series*, *where* and *times* are its origin's."""
    of = {key: keys.pop(key) for key in ("series", "where", "times") if key in keys}
    origin = Origin(**{"source": "textfile", "input": "smart", "series": "smartmon_healthy", **of})
    return Metric(
        **{"name": name, "unit": "bool", "help": "", "labels": ("disk",), **keys}, origin=origin
    )


class FakeRun:
    """Stands for the child that runs a plugin: answers what it is told, keeps what it was asked."""

    def __init__(self, *answers: Mapping[str, Any] | str | Exception) -> None:
        self.answers = list(answers)
        self.orders: list[Any] = []

    def __call__(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Output:
        self.orders.append(json.loads(stdin))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        said = answer if isinstance(answer, str) else json.dumps(answer)
        return Output(0, said, "", 0.1)


def ended(code: int, stdout: str = "all is well", **keys: Any) -> dict[str, Any]:
    """How a plugin ended."""
    return {"code": code, "stdout": stdout, "stderr": "", "cut": False, **keys}


class FakeExporter:
    """Stands for HTTP: answers with a body or raises."""

    def __init__(self, body: str = "", status: int = 200, error: str = "") -> None:
        self.body, self.status, self.error = body, status, error

    def __call__(self, url: str, access: Access, *, within: float) -> Answer:
        if self.error:
            raise DvfdError(self.error)
        return Answer(self.status, self.body.encode(), 0.0, 0.0)

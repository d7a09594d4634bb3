"""A checklist that was due while nobody ran is judged once when the daemon comes, marked late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually

from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.model import Report
from dvfd.store import Store

DAY = 86400.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose last daily checklist was three days ago."""
    clock, catalogue = SystemClock(), load(Config())
    (tmp_path / "state").mkdir()
    store = Store(tmp_path / "state" / "dvfd.db", metrics=catalogue.metrics, clock=clock)
    store.start()
    at = clock.now() - 3 * DAY
    store.keep(Report(catalogue.checks["daily"], (), at), scheduled=at)
    store.stop()
    with running(Node(tmp_path, [])) as node:
        yield node


def test_a_missed_checklist_is_judged_once_and_marked_late(node: Node) -> None:
    def judged() -> list[dict]:
        return list(node.ask("history", name="daily", hours=1)["rows"])

    [row] = eventually(judged, 60)
    assert 0 < row["late"] <= DAY + 300
    assert row["verdict"] == "UNKNOWN"
    assert node.results()["daily.responding"]["verdict"] == "UNKNOWN"

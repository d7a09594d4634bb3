"""What is asked of a daemon by several people at once is done one after the other."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from fakes import FakeClock
from fakes_report import CATALOGUE

from dvfd.control import Peer
from dvfd.drills.findings import Findings
from dvfd.model import Report
from dvfd.operations import _judged

HARDWARE = CATALOGUE.checks["hardware"]
BESIDE = 0.3
"""Seconds in which the second one would come between, if it could."""


class Node:
    """Keeps the newest findings, judges them, and notes what is written down: a report's and whose
    findings it was made of. While the first is judged the second is handed in.
    """

    def __init__(self) -> None:
        self.newest: Findings | None = None
        self.written: list[tuple[float, float]] = []
        self.second = threading.Event()
        self.thread = threading.Thread(target=self.hand_in, args=(2.0,))
        parts: Any = SimpleNamespace(
            catalogue=CATALOGUE, clock=FakeClock(), judgements=self, drilled=self, witness=self
        )
        self.found = _judged(parts)["drilled"].answer

    def hand_in(self, began: float) -> None:
        findings = Findings(check="hardware", began=began, ended=began + 1)
        self.found({"findings": findings.to_dict()}, Peer(1, 0, 0))

    def keep(self, findings: Findings, *, at: float) -> None:
        self.newest = findings
        if findings.began == 2.0:
            self.second.set()

    def run_check(self, _check: object) -> Report:
        if self.thread.ident is None:
            self.thread.start()
            self.second.wait(BESIDE)
        assert self.newest
        return Report(HARDWARE, (), 3.0, run=self.newest.run)

    def tested(self, report: Report, findings: Findings) -> object:
        assert report.run
        self.written.append((report.run.began, findings.began))
        return SimpleNamespace()


def test_of_two_runs_of_a_test_each_is_recorded_with_its_own_figures() -> None:
    node = Node()

    node.hand_in(1.0)
    node.thread.join(10)

    assert node.written == [(1.0, 1.0), (2.0, 2.0)]

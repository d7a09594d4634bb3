"""The source's three scripts of the first day, for real on this machine, by their own names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed import need

from dvfd.drills import tree

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "hardware": "validate_hardware.py",
    "openmpi_gloo": "validate_openmpi_gloo.py",
    "pytorch": "validate_pytorch_dist.py",
}
MOST = 60.0
"""Seconds that the three may take on two cores without what soaks."""


@dataclass
class Ran:
    """One command: its exit code, what it printed, and how long it took."""

    code: int
    report: Any
    seconds: float
    state: str

    def verdict(self, criterion: str) -> str:
        reports = self.report.get("reports", [self.report])
        rows = {row["criterion"]: row for report in reports for row in report["results"]}
        return str(rows[criterion]["verdict"])


def run(directory: Path, *argv: str, toml: str = "") -> Ran:
    config = directory / "dvfd.toml"
    config.write_text(toml)
    environment = {
        **os.environ, "DVFD_CONFIG": str(config), "DVFD_STATE_DIR": str(directory / "state"),
        "RUNTIME_DIRECTORY": str(directory),
    }  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *argv, "-o", "json"], cwd=directory, env=environment,
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    took = time.monotonic() - began
    assert "Traceback" not in done.stderr, done.stderr
    state = environment["DVFD_STATE_DIR"]
    return Ran(done.returncode, json.loads(done.stdout), took, state)


def left_over(state: str) -> list[str]:
    """Processes that a drill with the store *state* started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        if tree.MARK.encode() in environment and state.encode() in environment:
            found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()!r}")
    return found


@pytest.fixture(
    scope="module",
    params=[
        "hardware",
        *(pytest.param(n, marks=pytest.mark.long) for n in SCRIPTS if n != "hardware"),
    ],
)
def script(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Ran]:
    need("mpirun")
    path = str(ROOT / "tests" / SCRIPTS[request.param])
    return request.param, run(tmp_path_factory.mktemp("script"), path, "--no-soak")


def test_a_script_gives_a_verdict_for_each_of_the_four_items(script: tuple[str, Ran]) -> None:
    name, ran = script
    assert ran.report["check"] == name
    items = {row["item"] for row in ran.report["results"]}
    assert items >= {"item 1", "item 2", "item 3", "item 4"}


def test_what_was_not_measured_has_a_reason_of_its_own(script: tuple[str, Ran]) -> None:
    _, ran = script
    blind = [row for row in ran.report["results"] if row["verdict"] == "UNKNOWN"]
    assert not [row["criterion"] for row in blind if "nothing measures" in row["reason"]]
    assert all("its source: " in row["reason"] or "straddles" in row["reason"] for row in blind)


def test_the_exit_code_says_the_verdict(script: tuple[str, Ran]) -> None:
    _, ran = script
    assert ran.code == {"PASS": 0, "FAIL": 2, "UNKNOWN": 3}[ran.report["verdict"]] or ran.code == 1


def test_nothing_is_left_running(script: tuple[str, Ran]) -> None:
    _, ran = script
    assert not left_over(ran.state)


def small_node() -> str:
    """The profile for two cores that docs/validation.md shows."""
    text = (ROOT / "docs/validation.md").read_text(encoding="utf-8")
    return next(b for b in re.findall(r"(?ms)^```toml\n(.*?)^```", text) if "override" in b)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All three at once, with the profile of a small node."""
    need("mpirun")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    directory = tmp_path_factory.mktemp("small")
    return run(directory, "-m", "dvfd", "check", *SCRIPTS, "--no-soak", toml=small_node())


@pytest.mark.long
def test_a_small_node_that_is_what_its_profile_says_passes(small: Ran) -> None:
    bad = [
        (row["criterion"], row["reason"])
        for report in small.report["reports"]
        for row in report["results"]
        if row["verdict"] == "FAIL" and row["severity"] == "critical"
    ]
    assert [name for name, _ in bad if name != "openmpi_gloo.ring_latency"] == [], bad


@pytest.mark.long
def test_a_site_that_changed_a_limit_says_so_in_the_report(small: Ran) -> None:
    [hardware] = [r for r in small.report["reports"] if r["check"] == "hardware"]
    changed = {row["criterion"] for row in hardware["results"] if row["overridden"]}
    assert changed == {
        "hardware.cores", "hardware.cores_least", "hardware.memory_rank", "hardware.memory_total",
    }  # fmt: skip


@pytest.mark.long
def test_the_three_take_less_than_a_minute(small: Ran) -> None:
    assert small.seconds <= MOST

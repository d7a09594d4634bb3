"""Whatever writes may be killed at any moment: nothing that was promised is lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = "9"

BROKEN = """
import sys, tempfile
from pathlib import Path
from bench.crashing import broken
from bench.crashing.killing import kill_often
from dvfd import log

log.setup("critical")
with tempfile.TemporaryDirectory() as place:
    victim = getattr(broken, sys.argv[1])()
    found = kill_often(victim, Path(place) / "it", 100, seed="9")
sys.exit(0 if found.faults else 1)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the harness forks, and must have one thread when it does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute and a half on two quiet cores
def test_two_hundred_kills_lose_and_double_nothing_that_was_promised() -> None:
    found = run("-m", "bench.crash", "--short", "--seed", SEED)

    assert found.returncode == 0, f"seed {SEED}: {found.stdout}{found.stderr}"
    assert "kill -9 at random moments, 9 kinds of writers: 200 kills" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["Hasty", "Appended", "Repeated"])
def test_a_writer_that_promises_too_early_or_says_it_twice_is_caught(victim: str) -> None:
    found = run("-c", BROKEN, victim)

    assert found.returncode == 0, f"not caught: {found.stdout}{found.stderr}"

"""A disk that takes nothing is told, costs nothing that was promised, and is lived through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = "9"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on two quiet cores
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_every_writing_point_says_so_loses_nothing_and_goes_on() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "bench.disk_full", "--short", "--seed", SEED],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert found.returncode == 0, f"seed {SEED}: {found.stdout}{found.stderr}"
    assert "17 writing points: 34 cases" in found.stdout

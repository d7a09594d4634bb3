"""Copies of the integrations beside the reporter's, where there is no dvfd: as in an image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes_frameworks import INSTALLED, environment

from dvfd.assets import carry_out, packaged, plan

pytestmark = [pytest.mark.slow, pytest.mark.torch]

USE = """
import sys
sys.modules["dvfd"] = None  # as where it is not installed
import accelerate, transformers
from dvfd_accelerate import DvfdTracker
from dvfd_huggingface import DvfdCallback
from dvfd_reporter import Reporter
print(DvfdTracker.__module__, DvfdCallback.__module__, Reporter.__module__)
print(accelerate.__version__.partition(".")[0], transformers.__version__.partition(".")[0])
"""


def test_the_exported_files_work_without_dvfd_and_hide_no_framework(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    files = {name: text for name, text in packaged().items() if name.startswith("job/")}
    carry_out(tmp_path, plan(tmp_path, files))

    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**environment(INSTALLED), "PYTHONPATH": str(tmp_path / "job")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stderr == ""
    modules, versions = done.stdout.splitlines()
    assert modules == "dvfd_accelerate dvfd_huggingface dvfd_reporter"
    assert all(int(version) >= 1 for version in versions.split())

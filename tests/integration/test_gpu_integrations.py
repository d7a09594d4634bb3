"""Integrations on a real GPU: they take no value that would have to be waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes_frameworks import INSTALLED, environment

SCRIPT = Path(__file__).parents[1] / "gpu_trainings.py"

pytestmark = [pytest.mark.gpu, pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    directory = tmp_path_factory.mktemp("gpu")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(directory)],
        env=environment(INSTALLED, DVFD_SOCKET=str(directory / "nobody")),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_value_that_is_waited_for_would_be_seen(waits: dict[str, Any]) -> None:
    assert len(waits["control"]["waits"]) == 1


@pytest.mark.parametrize("framework", ["huggingface", "lightning"])
def test_no_hook_waits_for_the_device(waits: dict[str, Any], framework: str) -> None:
    found = waits[framework]
    assert found["steps"] == 20
    assert found["calls"] >= 20
    assert found["waits"] == []

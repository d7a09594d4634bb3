"""What is shipped: the wheel holds the framework's data, and the daemon loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HEAVY = {"torch", "numpy", "scipy", "pandas", "matplotlib"}

LOADED = """
import sys, dvfd.daemon, dvfd.cli.run
from dvfd.config import Config
dvfd.daemon.Daemon(Config())
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_the_daemon_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(done.stdout.split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    directory = tmp_path_factory.mktemp("wheel")
    [built] = hatchling.WheelBuilder(str(ROOT)).build(directory=str(directory))
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_all_of_the_framework(wheel: set[str]) -> None:
    checks = {f"dvfd/checks/{path.name}" for path in (ROOT / "checks").glob("*.toml")}
    assert len(checks) > 20
    assert checks <= wheel


def test_the_wheel_holds_templates_and_types(wheel: set[str]) -> None:
    assert {"dvfd/py.typed", "dvfd/sinks/templates/page.html.j2"} <= wheel


def test_the_wheel_holds_no_tests_and_no_benches(wheel: set[str]) -> None:
    assert not [name for name in wheel if name.startswith(("tests/", "bench/", "scripts/"))]

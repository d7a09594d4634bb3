"""A real calibration: measured, written, named by a configuration, and used by a daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes_calibration import document
from node import Node, running
from testbed import eventually, fetch

from dvfd.calibration import checksum, conditions, torch_of, write
from dvfd.config import Config

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(600)]

TINY = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
JOB = ["-m", "dvfd.drills.reference_job", "--job=tiny", "--width=64", "--layers=1"]

TWO = "[profile]\nprocesses_per_node = 2\n"


def environment(directory: Path, toml: str) -> dict[str, str]:
    """Its own store, sockets and configuration."""
    (directory / "dvfd.toml").write_text(toml)
    (directory / "run").mkdir(exist_ok=True, mode=0o700)
    ours = {k: v for k, v in os.environ.items() if not k.startswith("DVFD_")}
    return ours | {
        "DVFD_CONFIG": str(directory / "dvfd.toml"),
        "DVFD_STATE_DIR": str(directory / "state"),
        "RUNTIME_DIRECTORY": str(directory / "run"),
    }


def calibrate(file: Path, *words: str) -> list[str]:
    ours = [sys.executable, "-m", "dvfd", "calibrate", "-o", str(file), "--seconds=15", *words]
    return [*ours, "--", sys.executable, *TINY, *JOB]


def measured(file: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    """How it ended; None where another drill of this machine keeps it out."""
    done = subprocess.run(
        calibrate(file, "--force"),
        env=env, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    return None if "another drill runs" in done.stderr else done


def said(words: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *words],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_what_is_measured_is_what_a_configuration_can_be_held_to(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    env = environment(tmp_path, TWO)
    done = eventually(lambda: measured(file, env), 240, every=2)
    assert done.returncode == 0, done.stderr
    told = tomllib.loads(file.read_text())
    many, one = (told["profile"][f"{k}_throughput"] for k in ("expected", "single_process"))
    assert 0 < many < 1e5
    assert 0 < one < 1e5
    assert told["calibration"]["job"] == "tiny"
    assert told["calibration"]["left_out"] == []
    assert told["calibration"]["checksum"] == checksum(told)
    assert len(told["calibration"]["core"]) >= 1
    assert len(told["calibration"]["allreduce"]) == 6
    assert {row["ranks"] for row in told["calibration"]["memory"]} == {1, 2}

    env = environment(tmp_path, f'{TWO}calibration = "{file}"\n')
    assert said(["config", "check"], env).startswith("ok: ")
    assert "notice" not in said(["config", "check"], env)
    assert f'"expected_throughput": {many}' in said(["config", "show"], env)

    env = environment(tmp_path, f'[profile]\ncalibration = "{file}"\n')  # four processes
    assert "processes_per_node was 2, is 4" in said(["config", "check"], env)
    assert "processes_per_node was 2, is 4" in said(["status"], env)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_training_whose_calibration_is_ended(
    tmp_path: Path, number: signal.Signals
) -> None:
    env = environment(tmp_path, TWO) | {"OUR_TEST": str(tmp_path)}
    command = [sys.executable, *TINY, *JOB]
    script = (
        "import time; from pathlib import Path; from dvfd.drills import conduct, trial\n"
        f"conduct.LOCK, place = '\\0dvfd-{tmp_path.parent.name}', Path({str(tmp_path)!r})\n"
        "with conduct.alone():\n"
        f"    with trial.running({command!r}, place / 's', place / 'log'): time.sleep(300)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], env=env)
    try:
        eventually(lambda: len(ours(tmp_path)) >= 4, 60)  # the caller, torchrun, two ranks
    finally:
        caller.send_signal(number)
        code = caller.wait(60)
    assert code == (143 if number == signal.SIGTERM else -9)
    eventually(lambda: not ours(tmp_path), 0.1 if number == signal.SIGTERM else 60)


def ours(directory: Path) -> list[int]:
    """Processes that have our mark."""
    found, mark = [], f"OUR_TEST={directory}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_daemon_starts_without_its_calibration_and_takes_it_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    node = Node(tmp_path / "node", [], f'[profile]\ncalibration = "{file}"\n')
    with running(node):
        assert "cannot be read" in node.ask("status")["notices"][0]
        eventually(lambda: "calibration must be looked at" in node.said(), 60)

        here = conditions(Config(), torch_of(Path(sys.executable)))
        write(file, document(here, at=datetime.now(UTC)), "", now=datetime.now(UTC))
        assert node.daemon
        node.daemon.send_signal(signal.SIGHUP)

        eventually(lambda: (node.ask("status") or {"notices": "?"})["notices"] == [], 60)
        expected = "dvfd_profile_expected_throughput_samples_per_second 270.25"
        assert expected in fetch(f"http://{node.address}/metrics").decode()

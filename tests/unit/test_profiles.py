"""The ready profiles: each is taken, says what its kind of node is, and hides nothing."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from dvfd import catalogue
from dvfd.cli.config import KINDS, config
from dvfd.clock import SystemClock
from dvfd.config import DEFAULT_CONFIG, Config, data_dir, load
from dvfd.drills.calibrate import Wish, steps
from dvfd.drills.drill import Task

ROOT = Path(__file__).parents[2]
PROFILES = data_dir("systemd") / "profiles"
DEFAULT = re.compile(r"^#(\w+ = )", re.MULTILINE)


def profile(kind: str) -> Config:
    return load(PROFILES / f"{kind}.toml")


def test_the_command_knows_every_profile_that_there_is() -> None:
    assert sorted(KINDS) == sorted(path.stem for path in PROFILES.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_a_configuration_that_the_framework_takes(kind: str) -> None:
    assert catalogue.load(profile(kind)).criteria


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_commented_in_one_may_be_switched_on(kind: str, tmp_path: Path) -> None:
    text = (PROFILES / f"{kind}.toml").read_text()
    path = tmp_path / "all.toml"
    path.write_text(DEFAULT.sub(r"\1", text))

    found = load(path)
    assert catalogue.load(found).criteria
    assert len(found.profile.rank_cores) == found.profile.processes_per_node


@pytest.mark.parametrize("kind", KINDS)
def test_none_denies_a_source(kind: str) -> None:
    said = profile(kind).profile
    assert said.temperature_sensors
    assert said.power_meters


def test_the_node_of_the_framework_overrides_nothing() -> None:
    assert catalogue.load(profile("cpu-node")).overrides == ()


def test_a_gpu_node_has_a_process_for_each_gpu() -> None:
    said = profile("gpu-node").profile
    assert (said.gpus, said.processes_per_node, said.backend) == (8, 8, "nccl")


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_can_be_measured_under_each(kind: str, tmp_path: Path) -> None:
    found = profile(kind)
    check = catalogue.load(found).checks["hardware"]
    task = Task(check=check, config=found, clock=SystemClock(), scratch=tmp_path, state=tmp_path)
    training = next(step for step in steps(task, Wish()) if step.name == "training")
    assert f"--nproc_per_node={found.profile.processes_per_node}" in training.text
    assert f"--backend={found.profile.backend}" in training.text


def test_a_new_configuration_is_the_profile_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "dvfd.toml"
    done = CliRunner().invoke(config, ["new", "cpu-node", "-o", str(path)])
    assert done.exit_code == 0
    assert path.read_bytes() == (PROFILES / "cpu-node.toml").read_bytes()
    assert CliRunner().invoke(config, ["new", "cpu-node"]).output == path.read_text()


def test_a_configuration_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "dvfd.toml"
    path.write_text("theirs")
    done = CliRunner().invoke(config, ["new", "laptop", "-o", str(path)])
    assert "is there already" in str(done.exception)
    assert path.read_text() == "theirs"


@pytest.mark.skipif(DEFAULT_CONFIG.exists(), reason="a configuration is installed here, and kept")
@pytest.mark.parametrize("kind", KINDS)
def test_the_installer_begins_with_the_profile_that_it_is_told(kind: str) -> None:
    done = install("--profile", kind)
    assert f"share/systemd/profiles/{kind}.toml" in done.stdout


def test_the_installer_refuses_a_profile_that_is_none() -> None:
    done = install("--profile", "mainframe")
    assert (done.returncode, "laptop cpu-node gpu-node" in done.stderr) == (3, True)


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the installer would do; it touches nothing."""
    argv = [str(ROOT / "scripts/install"), "--dry-run", "--no-start", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

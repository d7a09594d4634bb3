"""Where a profile and a machine differ: what is promised must be here, what is denied must not."""

import shutil
from pathlib import Path

import pytest

from dvfd.config import parse
from dvfd.errors import ProbeError
from dvfd.fitting import gaps


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Four processors, two ports, a sensor and a meter."""
    cpu = tmp_path / "sys/devices/system/cpu"
    cpu.mkdir(parents=True)
    (cpu / "online").write_text("0-3\n")
    for name in ("net/eth0", "infiniband/mlx5_0/ports/1"):
        (tmp_path / "sys/class" / name).mkdir(parents=True)
    sensor(tmp_path)
    meter(tmp_path)
    return tmp_path


def sensor(machine: Path) -> None:
    place = machine / "sys/class/hwmon/hwmon0"
    place.mkdir(parents=True)
    for name, text in ("name", "coretemp"), ("temp1_label", "Package id 0"), ("temp1_input", "1"):
        (place / name).write_text(text)


def meter(machine: Path) -> None:
    (machine / "sys/class/powercap/intel-rapl:0").mkdir(parents=True)


def gpus(machine: Path, count: int) -> None:
    for number in range(count):
        (machine / "dev").mkdir(exist_ok=True)
        (machine / f"dev/nvidia{number}").touch()


def found(machine: Path, profile: str) -> dict[str, tuple[bool, str, str]]:
    settings = parse(f"[profile]\n{profile}").profile
    return {gap.subject: (gap.lacking, gap.text, gap.do) for gap in gaps(settings, machine)}


def test_a_machine_that_is_what_the_profile_says_has_none(machine: Path) -> None:
    assert (
        found(machine, 'rank_cores = ["0", "1", "2", "3"]\ninterfaces = ["eth0", "mlx5_0"]') == {}
    )


def test_gpus_that_the_profile_does_not_know_are_told(machine: Path) -> None:
    gpus(machine, 2)

    lacking, text, do = found(machine, "")["gpu"]
    assert (lacking, text) == (False, "2 NVIDIA devices, the profile says cpu")
    assert "gpus = 2" in do


@pytest.mark.parametrize(("there", "lacking"), [(7, True), (9, False)])
def test_another_number_of_gpus_is_told(machine: Path, there: int, lacking: bool) -> None:
    gpus(machine, there)

    told = found(machine, 'accelerator = "gpu"\ngpus = 8')["gpu"]
    assert told[:2] == (lacking, f"the profile says 8, {there} are in /dev")


def test_the_right_number_of_gpus_is_well(machine: Path) -> None:
    gpus(machine, 8)
    assert "gpu" not in found(machine, 'accelerator = "gpu"\ngpus = 8')


def test_a_rank_bound_to_a_processor_that_is_not_there_is_lacking(machine: Path) -> None:
    lacking, text, _ = found(machine, 'processes_per_node = 2\nrank_cores = ["0-1", "3-5"]')[
        "rank_cores"
    ]
    assert (lacking, text) == (True, "names processors that are not online: 4, 5")


def test_more_ranks_than_processors_are_told(machine: Path) -> None:
    assert found(machine, "processes_per_node = 5")["processors"][0]
    assert "processors" not in found(machine, "processes_per_node = 4")


def test_sensors_that_the_profile_denies_are_told(machine: Path) -> None:
    denied = "temperature_sensors = false"
    assert found(machine, denied)["sensors"][0] is False

    shutil.rmtree(machine / "sys/class/hwmon")
    assert "sensors" not in found(machine, denied)


def test_meters_that_the_profile_denies_are_told(machine: Path) -> None:
    denied = "power_meters = false"
    assert "power_meters = true" in found(machine, denied)["power"][2]

    (machine / "sys/class/powercap/intel-rapl:0").rmdir()
    assert "power" not in found(machine, denied)


def test_sensors_and_meters_that_are_promised_and_not_here_are_lacking(machine: Path) -> None:
    shutil.rmtree(machine / "sys/class/hwmon")
    shutil.rmtree(machine / "sys/class/powercap")
    told = found(machine, "")

    assert told["sensors"][0] is told["power"][0] is True
    assert "temperature_sensors = false" in told["sensors"][2]
    assert "power_meters = false" in told["power"][2]


def test_an_interface_that_is_not_here_is_named_beside_those_that_are(machine: Path) -> None:
    _, text, _ = found(machine, 'interfaces = ["eth0", "ib0"]')["interfaces"]
    assert text == "ib0 is not here; there are eth0, mlx5_0:1"


def test_a_machine_that_cannot_be_looked_at_is_no_match(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="online"):
        found(tmp_path, "")

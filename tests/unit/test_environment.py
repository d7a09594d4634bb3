"""What a machine is: as evidence that falls when kernel, driver, BIOS or membership change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dvfd.environment import environment_facts, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"


class Machine:
    """Trees like /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.write("proc/cpuinfo", "model name\t: ACME 9\nmicrocode\t: 0xd000375\n")
        for name, text in (("vendor", "ACME"), ("version", "1.7"), ("date", "02/03/2026")):
            self.write(f"sys/class/dmi/id/bios_{name}", f"{text}\n")
        self.write("proc/driver/nvidia/version", NVIDIA)
        self.write("sys/module/mlx5_core/version", "24.10-1\n")
        driver = self.sys / "bus/drivers/mlx5_core"
        driver.mkdir(parents=True)
        device = self.sys / "class/net/eth0/device"
        device.mkdir(parents=True)
        (device / "driver").symlink_to(driver)
        (self.sys / "class/net/lo").mkdir()

    def write(self, path: str, text: str) -> None:
        place = self.proc.parent / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="ascii")

    def print(self, *members: str) -> dict[str, str]:
        return fingerprint(environment_facts(self.proc, self.sys), members or ("n1",))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_fingerprint_names_what_evidence_rests_on(machine: Machine) -> None:
    found = machine.print("n2", "n1")

    assert found["bios"] == "ACME 1.7 02/03/2026"
    assert found["driver"] == "nvidia 550.54.15"
    assert found["network"] == "mlx5_core 24.10-1"
    assert (found["processor"], found["microcode"]) == ("ACME 9", "0xd000375")
    assert found["membership"] == "n1 n2"


@pytest.mark.parametrize(
    ("path", "text", "key"),
    [
        ("sys/class/dmi/id/bios_version", "1.8", "bios"),
        ("proc/driver/nvidia/version", NVIDIA.replace("550.54", "560.35"), "driver"),
        ("sys/module/mlx5_core/version", "24.11", "network"),
        ("proc/cpuinfo", "model name\t: ACME 9\nmicrocode\t: 0xd000390\n", "microcode"),
    ],
)
def test_a_change_of_the_machine_changes_that_and_nothing_else(
    machine: Machine, path: str, text: str, key: str
) -> None:
    before = machine.print()
    machine.write(path, text)

    after = machine.print()

    assert {name for name in before if before[name] != after[name]} == {key}


def test_a_member_more_is_another_fingerprint(machine: Machine) -> None:
    assert machine.print("n1") != machine.print("n1", "n2")


def test_what_cannot_be_read_is_said_to_be_not_known(tmp_path: Path) -> None:
    found = fingerprint(environment_facts(tmp_path / "none", tmp_path / "none"), ["n1"])

    assert (found["bios"], found["microcode"], found["network"]) == ("not known",) * 3
    assert found["driver"] == "none"

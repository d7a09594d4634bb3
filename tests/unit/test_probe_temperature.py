"""Package temperatures and throttle counts, from whichever driver has them."""

from __future__ import annotations

import shutil

import pytest
from fakes_probes import FIXTURES, measure, tree, values

from dvfd.errors import NotApplicable
from dvfd.model import labels
from dvfd.probes.temperature import Temperature, criticals

P0, P1 = labels(package=0), labels(package=1)


def look(root):
    return measure(Temperature(sys=root / "sys"))


def test_intel_packages_are_read_and_not_their_cores_or_the_disk():
    samples, error = look(FIXTURES / "hwmon_coretemp")

    assert values(samples, "cpu_temperature_celsius") == {P0: 61.0, P1: 68.0}
    assert error == ""


def test_throttling_is_counted_once_for_each_package():
    samples, _ = look(FIXTURES / "hwmon_coretemp")

    assert values(samples, "cpu_throttles_total") == {P0: 0, P1: 3}


def test_the_die_counts_before_a_control_value_with_an_offset():
    samples, error = look(FIXTURES / "hwmon_k10temp")

    assert values(samples, "cpu_temperature_celsius") == {P0: 71.5, P1: 64.25}
    assert error == ""


def test_amd_says_why_it_counts_no_throttling():
    probe = Temperature(sys=FIXTURES / "hwmon_k10temp/sys")

    measure(probe)

    assert "only Intel" in probe.gaps["cpu_throttles_total"]


def test_thermal_zones_serve_where_coretemp_is_not_loaded():
    samples, error = look(FIXTURES / "thermal_zones")

    assert values(samples, "cpu_temperature_celsius") == {P0: 58.0}
    assert error == ""


def test_a_board_without_package_sensors_is_an_error_and_not_cool(tmp_path):
    root = tree(tmp_path, "hwmon_coretemp")
    for name in ("hwmon1", "hwmon2"):
        shutil.rmtree(root / "sys/class/hwmon" / name)

    samples, error = look(root)

    assert values(samples, "cpu_temperature_celsius") == {}
    assert error.startswith(f"no package temperature sensor under {root}/sys/class/hwmon")
    assert "found nvme" in error


def test_no_sensors_do_not_apply_only_by_the_profile(tmp_path):
    with pytest.raises(NotApplicable, match="profile"):
        list(Temperature(expected=False, sys=tmp_path).sample(0))

    assert "no package temperature sensor" in look(tmp_path)[1]


def test_one_broken_sensor_is_named_and_the_other_read(tmp_path):
    root = tree(tmp_path, "hwmon_coretemp")
    path = root / "sys/class/hwmon/hwmon1/temp1_input"
    path.write_text("")

    samples, error = look(root)

    assert values(samples, "cpu_temperature_celsius") == {P1: 68.0}
    assert error == f"{path}: read '', wanted an integer"


def test_sensors_that_move_are_found_again(tmp_path):
    root = tree(tmp_path, "hwmon_coretemp")
    probe = Temperature(sys=root / "sys")
    measure(probe)
    (root / "sys/class/hwmon/hwmon1").rename(root / "sys/class/hwmon/hwmon7")

    assert "hwmon1" in measure(probe)[1]
    assert len(values(measure(probe)[0], "cpu_temperature_celsius")) == 2


def test_critical_temperatures_are_those_of_packages_whose_driver_tells(tmp_path):
    root = tree(tmp_path, "hwmon_coretemp")
    (root / "sys/class/hwmon/hwmon2/temp1_crit").unlink()

    assert criticals(root / "sys") == {"0": 110.0}
    assert criticals(FIXTURES / "hwmon_k10temp/sys") == {}

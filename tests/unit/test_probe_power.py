"""Package energy from RAPL: unwrapped, packages only, and never a guess."""

from __future__ import annotations

import pytest
from fakes import FakeClock
from fakes_probes import FIXTURES, as_nobody, measure, tree, values

from dvfd.errors import NotApplicable
from dvfd.model import labels
from dvfd.probes.power import Power

P0, P1 = labels(package=0), labels(package=1)
METRIC = "cpu_package_energy_joules_total"
COUNTER = "sys/class/powercap/intel-rapl:{}/energy_uj"


class Meter:
    def __init__(self, root):
        self.root, self.clock = root, FakeClock()
        self.probe = Power(clock=self.clock, sys=root / "sys")

    def use(self, domain, microjoules, *, limit=262143328850):
        path = self.root / COUNTER.format(domain)
        path.write_text(str((int(path.read_text()) + microjoules) % limit))

    def after(self, seconds=5.0):
        self.clock.advance(seconds)
        samples, error = measure(self.probe)
        return values(samples, METRIC), error


def test_counters_start_at_nothing():
    assert Meter(FIXTURES / "rapl_intel").after() == ({P0: 0.0, P1: 0.0}, "")


def test_energy_of_packages_is_counted_in_joules(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_intel"))
    meter.after()
    meter.use(0, 1_000_000_000)
    meter.use("0:0", 500_000_000)

    assert meter.after()[0][P0] == pytest.approx(1000)


def test_a_wrap_is_no_loss(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_intel"))
    meter.after()
    for _ in range(3):
        meter.use(0, 1)
        meter.use(1, 2_500_000_000)  # 500 W
        found, error = meter.after()

    assert found[P1] == pytest.approx(7500)
    assert error == ""


def test_amd_wraps_at_its_own_range(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_amd"))
    meter.after()
    meter.use(0, 1_250_000_000, limit=65532610987)

    assert meter.after() == ({P0: pytest.approx(1250)}, "")


def test_a_package_of_two_dies_is_one_package(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_dies"))
    meter.after()
    meter.use(0, 100_000_000)
    meter.use(1, 200_000_000)

    assert meter.after() == ({P0: pytest.approx(300)}, "")


def test_a_gap_that_may_hide_a_second_wrap_is_an_error_and_no_power(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_amd"))
    meter.after()

    samples, error = meter.after(70)
    assert samples == {}
    assert "may have wrapped twice" in error

    meter.use(0, 1_000_000)
    assert meter.after() == ({P0: 1.0}, "")


def test_a_counter_that_stands_still_is_an_error_and_no_package_that_uses_nothing(tmp_path):
    meter = Meter(tree(tmp_path, "rapl_intel"))
    meter.after()
    meter.use(1, 1_000_000)

    samples, error = meter.after()

    assert samples == {P1: 1.0}
    assert "intel-rapl:0/energy_uj: read 100000000 again after 5.0 s: it stands still" in error


def test_a_refusal_names_the_capability():
    with as_nobody("rapl_intel", denied=COUNTER.format(1)) as root:
        samples, error = Meter(root).after()

    assert samples == {P0: 0.0}
    assert "intel-rapl:1/energy_uj: permission denied" in error
    assert "root may, and a daemon with the ambient capability CAP_DAC_READ_SEARCH" in error


def test_a_die_that_cannot_be_read_silences_its_package(tmp_path):
    root = tree(tmp_path, "rapl_dies")
    (root / COUNTER.format(1)).unlink()

    samples, error = Meter(root).after()

    assert samples == {}
    assert "intel-rapl:1/energy_uj: no such file" in error


def test_no_meter_is_an_error_unless_the_profile_says_so(tmp_path):
    assert "no package domain" in Meter(tmp_path).after()[1]

    with pytest.raises(NotApplicable, match="profile"):
        list(Power(clock=FakeClock(), expected=False, sys=tmp_path).sample(0))


def test_it_is_read_often_enough_for_the_shortest_range():
    assert Power(clock=FakeClock(), interval=60).interval == 10

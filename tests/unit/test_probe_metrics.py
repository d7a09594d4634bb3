"""What host probes bring is what checks/metrics.toml says, by name, source and labels."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_probes import FIXTURES, H100, FakeNvml, measure

from dvfd.config import data_dir
from dvfd.probes.cpu import Cpu
from dvfd.probes.gpu import Gpu
from dvfd.probes.memory import Memory
from dvfd.probes.network import Network
from dvfd.probes.node import FileSystems, Node
from dvfd.probes.power import Power
from dvfd.probes.temperature import Temperature

METRICS = tomllib.loads((data_dir("checks") / "metrics.toml").read_text())


def roots(name):
    return {"proc": FIXTURES / name / "proc", "sys": FIXTURES / name / "sys"}


def probes():
    clock = FakeClock()
    return [
        Cpu(lambda: [("gpt", 0, 101, 0.0)], clock=clock, **roots("cgroup_v2")),
        Memory(**roots("numa2")),
        Temperature(sys=FIXTURES / "hwmon_coretemp/sys"),
        Power(clock=clock, sys=FIXTURES / "rapl_intel/sys"),
        Network(clock=clock, **roots("nic")),
        Node(clock=clock, **roots("loaded")),
        FileSystems(lambda: [Path("/")]),
        Gpu(accelerator="gpu", expected=1, nvml=FakeNvml(H100), sys=FIXTURES / "numa1/sys"),
    ]


@pytest.mark.parametrize("probe", probes(), ids=lambda p: p.name)
def test_a_probe_declares_the_metrics_whose_source_it_is(probe):
    assert set(probe.metrics) == {n for n, m in METRICS.items() if m.get("source") == probe.name}


@pytest.mark.parametrize("probe", probes(), ids=lambda p: p.name)
def test_samples_carry_the_labels_of_their_metric(probe):
    samples, error = measure(probe)

    assert error == ""
    for sample in samples:
        wanted = sorted(METRICS[sample.metric].get("labels", []))
        assert [name for name, _ in sample.labels] == wanted, sample.metric


@pytest.mark.parametrize("probe", probes(), ids=lambda p: p.name)
def test_a_probe_may_miss_two_passes_before_its_values_are_stale(probe):
    freshest = min(METRICS[name].get("max_age", 15) for name in probe.metrics)

    assert probe.interval * 3 <= freshest

"""The GPU probe on a real NVIDIA GPU."""

from __future__ import annotations

import pytest
from fakes_probes import measure

from dvfd.probes.gpu import Gpu, NvmlError, Pynvml

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def nvml():
    """NVML itself; skips where there is none."""
    library = Pynvml()
    try:
        library.start()
    except NvmlError as error:
        pytest.skip(f"no NVIDIA GPU here: {error}")
    yield library
    library.stop()


def test_every_gpu_has_a_temperature_memory_and_utilisation(nvml):
    probe = Gpu(accelerator="gpu", expected=nvml.count())

    samples, error = measure(probe)
    found = {s.metric for s in samples}

    assert error == ""
    assert found | set(probe.gaps) == set(probe.metrics)
    assert all(10 < s.value < 110 for s in samples if s.metric == "gpu_temperature_celsius")
    assert all(0 <= s.value <= 1 for s in samples if s.metric.endswith("_ratio"))


def test_energy_is_used_between_two_looks(nvml):
    probe = Gpu(accelerator="gpu", expected=nvml.count())

    first, second = (energy(probe) for _ in range(2))

    assert all(second[gpu] >= used for gpu, used in first.items())


def test_a_gpu_too_many_in_the_profile_is_missing(nvml):
    samples, _ = measure(Gpu(accelerator="gpu", expected=nvml.count() + 1))

    assert [s.value for s in samples if s.metric == "gpu_missing"] == [1]


def energy(probe):
    return {s.labels: s.value for s in measure(probe)[0] if s.metric == "gpu_energy_joules_total"}

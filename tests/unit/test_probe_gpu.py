"""GPUs behind the NVML seam: what it says, and everything that it refuses to say."""

from __future__ import annotations

import re
from pathlib import Path

import pynvml
import pytest
from fakes_probes import FIXTURES, H100, LOST, UNSUPPORTED, FakeNvml, measure, values

from dvfd.errors import NotApplicable
from dvfd.model import labels
from dvfd.probes import gpu as module
from dvfd.probes.gpu import FAULTS, SLOWED, Fault, Gpu, NvmlError, Pynvml

G0, G1 = labels(gpu=0), labels(gpu=1)
BARE = FIXTURES / "numa1/sys"
WITH_GPUS = FIXTURES / "pci_gpus/sys"


def gpu(nvml, *, expected=2, accelerator="gpu", sys=BARE):
    return Gpu(accelerator=accelerator, expected=expected, nvml=nvml, sys=sys)


def test_a_sound_gpu_is_told_in_base_units():
    samples, error = measure(gpu(FakeNvml(H100), expected=1))

    assert {s.metric: s.value for s in samples} == {
        "gpu_missing": 0,
        "gpu_utilization_ratio": 0.87,
        "gpu_temperature_celsius": 61,
        "gpu_memory_used_ratio": 0.5,
        "gpu_energy_joules_total": 123_456.789,
        "gpu_ecc_uncorrected_total": 0,
        "gpu_throttled": 0.0,
        "gpu_xid_total": 0,
    }
    assert error == ""


def test_every_declared_metric_is_brought():
    probe = gpu(FakeNvml(H100))

    assert {s.metric for s in measure(probe)[0]} == set(probe.metrics)


def test_a_cpu_profile_on_a_machine_without_gpus_does_not_apply():
    with pytest.raises(NotApplicable, match="CPUs"):
        list(gpu(FakeNvml(), accelerator="cpu").sample(0))


def test_a_cpu_profile_on_a_machine_with_gpus_is_an_error_and_never_not_applicable():
    nvml = FakeNvml(H100)

    samples, error = measure(gpu(nvml, accelerator="cpu", sys=WITH_GPUS))

    assert samples == []
    assert "PCI shows 2 NVIDIA GPUs" in error
    assert 'accelerator = "gpu"' in error
    assert nvml.starts == 0


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault.NO_LIBRARY, "NVIDIA's driver"),
        (Fault.NO_DRIVER, "NVIDIA's driver"),
        (Fault.NO_PERMISSION, "DeviceAllow=char-nvidia* rw"),
    ],
)
def test_an_absent_or_hidden_driver_is_an_error_with_advice(fault, advice):
    samples, error = measure(gpu(FakeNvml(start=NvmlError(fault))))

    assert samples == []
    assert fault.value in error
    assert advice in error


def test_the_start_is_tried_again_at_every_pass():
    nvml = FakeNvml(H100, H100, start=NvmlError(Fault.NO_DRIVER))
    probe = gpu(nvml)
    measure(probe)
    nvml.broken = None

    samples, error = measure(probe)
    measure(probe)

    assert values(samples, "gpu_missing") == {(): 0}
    assert error == ""
    assert nvml.starts == 2


def test_a_lost_gpu_is_missing_and_silent():
    samples, error = measure(gpu(FakeNvml(H100, LOST)))

    assert values(samples, "gpu_missing") == {(): 1}
    assert list(values(samples, "gpu_temperature_celsius")) == [G0]
    assert "GPU 1: GPU is lost" in error


def test_a_gpu_lost_between_two_readings_leaves_no_half_of_them():
    samples, _ = measure(gpu(FakeNvml(H100, H100 | {"energy": LOST})))

    assert G1 not in {s.labels for s in samples}
    assert values(samples, "gpu_missing") == {(): 1}


def test_gpus_that_nvml_does_not_show_are_missing():
    assert values(measure(gpu(FakeNvml(H100), expected=8))[0], "gpu_missing") == {(): 7}


def test_no_gpu_shown_where_pci_has_some_is_a_refusal_named():
    samples, error = measure(gpu(FakeNvml(), sys=WITH_GPUS))

    assert values(samples, "gpu_missing") == {(): 2}
    assert "NVML shows no GPU, but PCI shows 2" in error
    assert "DeviceAllow" in error


def test_without_an_expectation_nobody_can_say_that_none_is_missing():
    probe = gpu(FakeNvml(H100), expected=0)

    assert values(measure(probe)[0], "gpu_missing") == {}
    assert "profile.gpus" in probe.gaps["gpu_missing"]


def test_a_denied_gpu_is_an_error_and_not_missing():
    samples, error = measure(gpu(FakeNvml(H100, NvmlError(Fault.NO_PERMISSION, "Denied"))))

    assert values(samples, "gpu_missing") == {(): 0}
    assert "GPU 1: Denied" in error


@pytest.mark.parametrize("sentinel", [2**32 - 1, 2**31 - 1, 2**64 - 1])
def test_a_temperature_that_stands_for_none_is_an_error(sentinel):
    samples, error = measure(gpu(FakeNvml(H100 | {"temperature": sentinel}), expected=1))

    assert values(samples, "gpu_temperature_celsius") == {}
    assert f"GPU 0: gpu_temperature_celsius: read {sentinel}" in error


@pytest.mark.parametrize("memory", [UNSUPPORTED, (0, 0)])
def test_a_gpu_that_shares_the_hosts_memory_has_a_gap_and_no_error(memory):
    probe = gpu(FakeNvml(H100 | {"memory": memory}), expected=1)

    samples, error = measure(probe)

    assert values(samples, "gpu_memory_used_ratio") == {}
    assert "GPU 0" in probe.gaps["gpu_memory_used_ratio"]
    assert error == ""


def test_a_gap_that_closes_is_forgotten():
    nvml = FakeNvml(H100 | {"uncorrected": UNSUPPORTED})
    probe = gpu(nvml, expected=1)
    measure(probe)
    nvml.gpus[0] = H100

    measure(probe)

    assert probe.gaps == {}


@pytest.mark.parametrize(
    ("reasons", "wanted"),
    [(0x1, 0.0), (0x4, 0.0), (0x8, 1.0), (0x20, 1.0), (0x40, 1.0), (0x84, 1.0)],
)
def test_heat_and_brakes_slow_a_gpu_but_idling_and_the_power_cap_do_not(reasons, wanted):
    samples, _ = measure(gpu(FakeNvml(H100 | {"slowdowns": reasons}), expected=1))

    assert values(samples, "gpu_throttled") == {G0: wanted}


def test_critical_xids_are_counted_and_programs_own_are_not():
    nvml = FakeNvml(H100, H100)
    probe = gpu(nvml)
    nvml.pending = [(0, 79), (1, 13), (1, 31), (0, 109)]

    assert values(measure(probe)[0], "gpu_xid_total") == {G0: 2, G1: 0}
    nvml.pending = [(1, 48)]
    assert values(measure(probe)[0], "gpu_xid_total") == {G0: 2, G1: 1}


def test_a_wait_for_events_that_fails_costs_no_reading_and_a_new_connection():
    nvml = FakeNvml(H100, LOST)
    nvml.pending = [LOST]
    probe = gpu(nvml)

    samples, error = measure(probe)
    measure(probe)

    assert values(samples, "gpu_missing") == {(): 1}
    assert "connecting anew" in error
    assert (nvml.starts, nvml.stops) == (2, 1)


def test_a_connection_that_is_gone_is_made_anew():
    nvml = FakeNvml(H100, NvmlError(Fault.GONE, "Uninitialized"))
    probe = gpu(nvml)

    assert "connecting anew" in measure(probe)[1]
    nvml.gpus[1] = H100
    assert measure(probe)[1] == ""
    assert nvml.starts == 2


def test_a_wedged_driver_may_hang_so_it_has_a_deadline():
    assert gpu(FakeNvml()).deadline == 5.0


class Library:
    """pynvml, as far as a test scripts it: a function's value, or the error code it ends with."""

    NVMLError = pynvml.NVMLError
    NVMLError_Timeout = pynvml.NVMLError_Timeout

    def __init__(self, **script):
        self.nvmlEventTypeXidCriticalError = pynvml.nvmlEventTypeXidCriticalError
        self.script = {"nvmlInit": None} | script

    def __getattr__(self, name):
        def call(*_):
            value = self.script[name]
            if isinstance(value, list):
                value = value.pop(0)
            if isinstance(value, Code):
                raise pynvml.NVMLError(value)
            return value

        return call


class Code(int):
    """An NVML_ERROR_* code to raise."""


def adapter(**script):
    found = Pynvml(lambda: Library(**script))
    found.start()
    return found


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (pynvml.NVML_ERROR_UNINITIALIZED, Fault.GONE),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, Fault.NOT_SUPPORTED),
        (pynvml.NVML_ERROR_NO_PERMISSION, Fault.NO_PERMISSION),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, Fault.NO_DRIVER),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, Fault.NO_LIBRARY),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, Fault.NOT_SUPPORTED),
        (pynvml.NVML_ERROR_GPU_IS_LOST, Fault.LOST),
        (pynvml.NVML_ERROR_GPU_NOT_FOUND, Fault.LOST),
        (pynvml.NVML_ERROR_UNKNOWN, Fault.OTHER),
    ],
)
def test_refusals_of_the_library_mean_what_nvml_says(code, fault):
    with pytest.raises(NvmlError) as caught:
        adapter(nvmlDeviceGetCount=Code(code)).count()

    assert caught.value.fault is fault
    assert set(FAULTS) <= {v for k, v in vars(pynvml).items() if k.startswith("NVML_ERROR_")}


def test_an_older_driver_is_asked_by_the_older_name():
    old = adapter(
        nvmlDeviceGetCurrentClocksEventReasons=Code(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
    )

    assert old.slowdowns(None) == 0x40


def test_events_are_taken_without_waiting_and_named_by_their_gpu():
    event = pynvml.c_nvmlEventData_t()
    event.eventData = 79
    found = adapter(
        nvmlEventSetCreate="set",
        nvmlDeviceRegisterEvents=None,
        nvmlDeviceGetIndex=3,
        nvmlEventSetWait_v2=[event, Code(pynvml.NVML_ERROR_TIMEOUT)],
    )
    found.listen(event.device)

    assert list(found.events()) == [(3, 79)]


def test_every_function_that_is_asked_for_exists_in_pynvml():
    asked = set(re.findall(r"nvml[A-Z]\w+", Path(module.__file__).read_text()))
    ours = {name for name in asked if name.startswith(("nvmlClocksEventReason",))}

    assert {name for name in asked - ours if not hasattr(pynvml, name)} == set()


def test_the_bits_that_mean_slowed_are_nvmls():
    names = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    bits = [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names]

    assert sum(bits) == SLOWED

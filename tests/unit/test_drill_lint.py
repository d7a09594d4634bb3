"""The environment's settings: what is wrong is named with its mend, what is not read stays open."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task
from fakes_software import THERE, TORCH, Software, by_torchrun

from dvfd.drills.interface import VARIABLE
from dvfd.drills.lint import LOOKS, EnvironmentLint, World
from dvfd.drills.supervise import supervise
from dvfd.errors import ToolTimeout
from dvfd.model import Result, labels
from dvfd.probes.node import Discipline

UNBOUND = resource.RLIM_INFINITY
SYNCHRONISED, ADRIFT = Discipline(0, 0.001), Discipline(0x40, 16.0)
SWAPS = "Filename Type Size Used Priority\n"


class Node:
    """A node on which every setting is as it should be, until a test changes one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {"OMP_NUM_THREADS": "8"}
        self.files = self.memory = (65536, 65536)
        self.clock: Discipline | OSError = SYNCHRONISED
        self.profile = "process_group_timeout = 10\n"
        self.software: dict[str, Any] = {}
        self.write("proc/swaps", SWAPS)
        self.write("proc/sys/vm/swappiness", "60\n")
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        for cpu in range(4):
            self.governor(cpu, "schedutil", "acpi-cpufreq")

    def write(self, path: str, text: str) -> None:
        place = self.directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def governor(self, cpu: int, governor: str, driver: str, preference: str = "") -> None:
        place = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        self.write(f"{place}/scaling_governor", f"{governor}\n")
        self.write(f"{place}/scaling_driver", f"{driver}\n")
        if preference:
            self.write(f"{place}/energy_performance_preference", f"{preference}\n")

    def adapter(self, name: str) -> None:
        (self.directory / "sys/class/infiniband" / name).mkdir(parents=True)

    def port(self, name: str) -> None:
        (self.directory / "sys/class/net" / name / "device").mkdir(parents=True)

    def _discipline(self) -> Discipline:
        if isinstance(self.clock, OSError):
            raise self.clock
        return self.clock

    def look(self, setting: str) -> tuple[float | None, str]:
        """The sample of *setting*, and what was said of it."""
        _, findings = self._run()
        where = labels(setting=setting)
        value = next((s.value for s in findings.samples if s.labels == where), None)
        said = (*findings.remarks, *findings.troubles)
        return value, "; ".join(s.text for s in said if s.labels == where)

    def judged(self) -> Result:
        return judged(*self._run())["environment_lint"]

    def _run(self) -> Any:
        limits = {resource.RLIMIT_NOFILE: self.files, resource.RLIMIT_MEMLOCK: self.memory}
        world = World(
            environ=self.environ,
            limit=lambda kind: limits[kind],
            discipline=self._discipline,
            there=lambda: THERE,
        )
        chosen = task(
            "openmpi_gloo",
            self.directory,
            toml=f"[profile]\n{self.profile}",
            run=Software(**self.software),
            proc=self.directory / "proc",
            sys=self.directory / "sys",
        )
        return chosen, supervise(chosen, [EnvironmentLint(world)])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# --- Together -----------------------------------------------------------------------------------


def test_a_node_on_which_all_is_well_passes(node: Node) -> None:
    result = node.judged()
    assert result.verdict == "PASS", (result.reason, result.note)
    assert result.samples == 1
    assert f"all {len(LOOKS)} series pass" in result.reason


def test_one_wrong_setting_is_a_warning_with_its_mend(node: Node) -> None:
    node.files = (512, 512)
    result = node.judged()
    assert (result.verdict, result.criterion.severity) == ("FAIL", "warning")
    assert "ulimit -n 65536" in result.note


def test_one_setting_that_cannot_be_read_keeps_the_rest_from_passing(node: Node) -> None:
    node.clock = PermissionError(errno.EPERM, "Operation not permitted")
    result = node.judged()
    assert result.verdict == "UNKNOWN"
    assert "clock: adjtimex: Operation not permitted" in result.reason


def test_one_setting_that_cannot_be_read_hides_no_wrong_one(node: Node) -> None:
    node.clock = OSError(errno.ENOSYS, "Function not implemented")
    node.files = (512, 512)
    assert node.judged().verdict == "FAIL"


def test_nothing_read_at_all_is_unknown(node: Node) -> None:
    chosen, _ = node._run()
    assert judged(chosen, [])["environment_lint"].verdict == "UNKNOWN"


# --- Threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["8", "8,2", "6", "2"])
def test_threads_within_a_ranks_cores_are_fine(node: Node, given: str) -> None:
    node.environ = {"OMP_NUM_THREADS": given}
    assert node.look("omp_num_threads") == (1.0, "")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "torchrun makes it 1, a rank has 8 cores: export OMP_NUM_THREADS=8"),
        ({"OMP_NUM_THREADS": "32"}, "take each other's processors: export OMP_NUM_THREADS=8"),
        ({"OMP_NUM_THREADS": "1"}, "the others stand idle"),
        ({"OMP_NUM_THREADS": "auto"}, "no number of threads"),
        ({"OMP_NUM_THREADS": "0"}, "no number of threads"),
    ],
)
def test_threads_that_waste_cores_are_wrong(
    node: Node, environ: dict[str, str], words: str
) -> None:
    node.environ = environ
    value, said = node.look("omp_num_threads")
    assert value == 0.0
    assert words in said


def test_one_thread_for_one_core_is_fine_though_nobody_said_so(node: Node) -> None:
    node.environ = {}
    node.software = {"elastic": [r | {"processors": [0, 1]} for r in by_torchrun()]}
    assert node.look("omp_num_threads") == (1.0, "")


@pytest.mark.parametrize(
    ("software", "words"),
    [
        ({"torch": TORCH | {"version": "", "backends": {}}}, "has no torch"),
        ({"elastic": ToolTimeout("python: still running after 240 s; killed")}, "still running"),
        ({"elastic": by_torchrun()[:3]}, "3 of 4 ranks answered"),
    ],
)
def test_threads_that_no_rank_told_are_not_known(
    node: Node, software: dict[str, Any], words: str
) -> None:
    node.software = software
    value, said = node.look("omp_num_threads")
    assert value is None
    assert words in said


# --- Interface ----------------------------------------------------------------------------------


def test_loopback_is_fine_on_one_node_and_wrong_on_two(node: Node) -> None:
    node.environ |= {VARIABLE: "lo"}
    assert node.look("interface") == (1.0, "")
    node.profile += "nodes = 2\n"
    value, said = node.look("interface")
    assert value == 0.0
    assert "lo reaches no other" in said


def test_a_bridge_between_nodes_is_wrong(node: Node) -> None:
    node.environ |= {VARIABLE: "docker0"}
    node.profile += 'nodes = 2\ninterfaces = ["eth0"]\n'
    value, said = node.look("interface")
    assert value == 0.0
    assert "docker0 is no port of this node: export GLOO_SOCKET_IFNAME=eth0" in said


def test_a_port_that_is_not_the_profiles_is_wrong(node: Node) -> None:
    node.port("eth0")
    node.profile += "nodes = 2\n"
    assert node.look("interface") == (1.0, "")
    node.profile += 'interfaces = ["eth1"]\n'
    value, said = node.look("interface")
    assert value == 0.0
    assert "eth0 is not among the profile's eth1" in said


def test_an_interface_that_could_not_be_found_out_is_not_known(node: Node) -> None:
    node.software = {"address": ToolTimeout("python: still running after 30 s; killed")}
    value, said = node.look("interface")
    assert value is None
    assert "still running" in said


# --- Timeouts -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_timeout_that_nobody_stated_is_not_known(node: Node) -> None:
    node.profile = ""
    value, said = node.look("timeouts")
    assert value is None
    assert "[profile] process_group_timeout = 10" in said


@pytest.mark.parametrize("software", [{}, {"torch": TORCH | {"rendezvous": None}}])
def test_torchs_half_hour_leaves_no_room_for_a_recovery(
    node: Node, software: dict[str, Any]
) -> None:
    node.profile = "process_group_timeout = 1800\n"
    node.software = software
    value, said = node.look("timeouts")
    assert value == 0.0
    assert "noticed too late for a recovery within 30 s" in said


def test_a_rendezvous_shorter_than_the_process_group_is_wrong(node: Node) -> None:
    node.environ |= {"PET_RDZV_CONF": "last_call_timeout=1,join_timeout=5"}
    value, said = node.look("timeouts")
    assert value == 0.0
    assert "--rdzv-conf join_timeout=20" in said


@pytest.mark.parametrize(
    ("environ", "torch", "words"),
    [
        ({"PET_RDZV_CONF": "join_timeout=soon"}, TORCH, "no number"),
        ({}, TORCH | {"rendezvous": None}, "does not tell how long a rendezvous waits"),
        ({}, TORCH | {"rendezvous": "600"}, "lacks something"),
    ],
)
def test_a_rendezvous_that_does_not_tell_is_not_known(
    node: Node, environ: dict[str, str], torch: Any, words: str
) -> None:
    node.environ |= environ
    node.software = {"torch": torch}
    value, said = node.look("timeouts")
    assert value is None
    assert words in said


# --- Limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [(1028, 1028), (UNBOUND, UNBOUND)])
def test_enough_open_files_are_fine(node: Node, files: tuple[int, int]) -> None:
    node.files = files
    assert node.look("open_files") == (1.0, "")


def test_a_low_hard_limit_of_open_files_is_named_too(node: Node) -> None:
    node.files = (1024, 1024)
    value, said = node.look("open_files")
    assert value == 0.0
    assert "1024 open files for each process, wanted 1028" in said
    assert "the hard limit is 1024: /etc/security/limits.conf" in said


def test_locked_memory_matters_to_nccl_over_an_adapter_only(node: Node) -> None:
    assert node.look("locked_memory") == (1.0, "")
    node.adapter("mlx5_0")
    assert node.look("locked_memory") == (1.0, "")
    node.profile += 'backend = "nccl"\n'
    value, said = node.look("locked_memory")
    assert value == 0.0
    assert "cannot register its buffers with mlx5_0" in said
    node.memory = (UNBOUND, UNBOUND)
    assert node.look("locked_memory") == (1.0, "")


# --- The kernel ---------------------------------------------------------------------------------


def test_a_clock_adrift_is_wrong(node: Node) -> None:
    node.clock = ADRIFT
    value, said = node.look("clock")
    assert value == 0.0
    assert "apt-get install chrony" in said


def test_swap_in_use_is_wrong(node: Node) -> None:
    node.write("proc/swaps", f"{SWAPS}/dev/sda2 partition 8388604 524288 -2\n")
    node.write("proc/sys/vm/swappiness", "1\n")
    value, said = node.look("swap")
    assert value == 0.0
    assert "512 MiB of swap in use" in said


@pytest.mark.parametrize(("swappiness", "value"), [("60", 0.0), ("100", 0.0), ("10", 1.0)])
def test_swap_that_the_kernel_is_eager_to_fill_is_wrong(
    node: Node, swappiness: str, value: float
) -> None:
    node.write("proc/swaps", f"{SWAPS}/swapfile file 8388604 0 -2\n")
    node.write("proc/sys/vm/swappiness", swappiness)
    assert node.look("swap")[0] == value


def test_swap_that_does_not_read_is_not_known(node: Node) -> None:
    node.write("proc/swaps", f"{SWAPS}/swapfile file\n")
    assert node.look("swap")[0] is None
    (node.directory / "proc/swaps").unlink()
    value, said = node.look("swap")
    assert value is None
    assert "no such file" in said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[always] madvise never", 1.0),
        ("always [madvise] never", 1.0),
        ("always madvise [never]", 0.0),
        ("always madvise never", None),
    ],
)
def test_huge_pages_are_wrong_only_for_nobody(node: Node, text: str, value: float | None) -> None:
    node.write("sys/kernel/mm/transparent_hugepage/enabled", text)
    assert node.look("huge_pages")[0] == value


@pytest.mark.parametrize(
    ("governor", "driver", "preference", "value"),
    [
        ("performance", "acpi-cpufreq", "", 1.0),
        ("performance", "intel_pstate", "power", 1.0),
        ("powersave", "intel_pstate", "balance_performance", 1.0),
        ("powersave", "intel_pstate", "", 1.0),
        ("powersave", "amd-pstate-epp", "power", 0.0),
        ("powersave", "intel_pstate", "balance_power", 0.0),
        ("powersave", "acpi-cpufreq", "", 0.0),
        ("userspace", "acpi-cpufreq", "", 0.0),
        ("ondemand", "acpi-cpufreq", "", 1.0),
    ],
)
def test_a_governor_is_wrong_where_it_holds_the_frequency_down(
    node: Node, governor: str, driver: str, preference: str, value: float
) -> None:
    node.governor(3, governor, driver, preference)
    assert node.look("cpu_governor")[0] == value


def test_one_slow_processor_is_told_among_the_rest(node: Node) -> None:
    node.governor(3, "powersave", "acpi-cpufreq")
    assert "powersave on 1, schedutil on 3 processors" in node.look("cpu_governor")[1]


def test_without_cpufreq_the_governor_is_not_known(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for cpu in range(4):
        (tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor").unlink()
    value, said = node.look("cpu_governor")
    assert value is None
    assert "the hypervisor or the firmware decides" in said

"""Memory in use by NUMA node; cache that can be dropped is free."""

from __future__ import annotations

import pytest
from fakes_probes import FIXTURES, measure, tree, values

from dvfd.errors import ProbeError
from dvfd.probes.memory import Memory, fields, used_ratio


def probe(root):
    return Memory(proc=root / "proc", sys=root / "sys")


def ratios(root):
    samples, error = measure(probe(root))
    return {
        dict(w)["numa_node"]: v for w, v in values(samples, "node_memory_used_ratio").items()
    }, error


def test_a_recorded_node_is_read():
    found, error = ratios(FIXTURES / "numa1")

    assert list(found) == ["0"]
    assert 0 < found["0"] < 0.1
    assert error == ""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("numa2", {"0": 0.3, "1": 0.6}),
        ("numa4", {"0": 0.9, "1": 0.7, "2": 0.5, "3": 0.3}),
    ],
)
def test_every_node_has_its_own_share(name, wanted):
    assert ratios(FIXTURES / name) == (pytest.approx(wanted), "")


def test_a_kernel_without_numa_is_one_node():
    assert ratios(FIXTURES / "numa_none") == (pytest.approx({"0": 0.5}), "")


def test_a_hidden_sysfs_is_an_error_and_not_one_node(tmp_path):
    root = tree(tmp_path, "numa_none")
    (root / "sys/devices/system/cpu/online").unlink()
    (root / "sys/devices/system/cpu").rmdir()

    found, error = ratios(root)

    assert found == {}
    assert "is sysfs hidden" in error


def test_a_node_without_memory_is_left_out(tmp_path):
    root = tree(tmp_path, "numa2")
    path = root / "sys/devices/system/node/node1/meminfo"
    path.write_text("".join(f"Node 1 {n}: 0 kB\n" for n in fields(path.read_text())))

    found, error = ratios(root)

    assert list(found) == ["0"]
    assert error == ""


def test_one_broken_node_is_named_and_the_other_read(tmp_path):
    root = tree(tmp_path, "numa2")
    path = root / "sys/devices/system/node/node0/meminfo"
    path.write_text("Node 0 MemTotal: 5 kB\n")

    found, error = ratios(root)

    assert list(found) == ["1"]
    assert error == f"{path}: meminfo has no MemFree, FilePages, Shmem, SReclaimable"


def test_what_is_missing_is_never_taken_for_zero():
    with pytest.raises(ProbeError, match="SReclaimable"):
        used_ratio({"MemTotal": 9, "MemFree": 1, "FilePages": 1, "Shmem": 1})

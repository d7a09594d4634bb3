"""Hardware item 3: NUMA nodes, and where the ranks and their pages lie."""

from __future__ import annotations

import pytest
from fakes_drills import judged, task
from fakes_machine import FakeMachine, child
from fakes_probes import FIXTURES

from dvfd.drills.numa import Numa, RankNuma, pages
from dvfd.drills.supervise import supervise
from dvfd.model import Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
PARTS = (Numa(), RankNuma())
RANKS = ("numa_binding", "numa_local", "numa_balance")
EIGHTS = tuple(range(first, first + 8) for first in (0, 8, 16, 24))
GB = 10**9


def machine_of(directory, nodes):
    """32 cores without SMT on *nodes* nodes, and a crew on eight cores each."""
    machine = FakeMachine(directory, threads=1, nodes=nodes)
    machine.bound(*EIGHTS)
    return machine


@pytest.fixture
def machine(tmp_path):
    return machine_of(tmp_path, 2)


def found(machine):
    return supervise(task("hardware", machine.proc.parent, **machine.world), PARTS)


def results(machine):
    chosen = task("hardware", machine.proc.parent, **machine.world)
    return judged(chosen, supervise(chosen, PARTS))


def facts(machine):
    return {fact.name: fact.text for fact in found(machine).facts}


# --- The node ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [2, 4])
def test_several_nodes_with_ranks_spread_over_them_pass(tmp_path, nodes):
    judgement = results(machine_of(tmp_path, nodes))

    assert judgement["numa_nodes"].observed == nodes
    assert {judgement[name].verdict for name in ("numa_nodes", *RANKS)} == {PASS}


def test_one_node_passes_and_every_line_says_that_there_is_but_one(tmp_path):
    judgement = results(machine_of(tmp_path, 1))

    assert {judgement[name].verdict for name in ("numa_nodes", *RANKS)} == {PASS}
    assert "1 is below the expected 2 to 4" in judgement["numa_nodes"].note
    assert all("nothing can lie on another" in judgement[name].note for name in RANKS)


def test_memory_without_processors_is_told_and_not_counted(machine):
    machine.node(2, [], size=512 * GB)

    judgement = results(machine)

    assert judgement["numa_nodes"].observed == 2
    assert judgement["numa_balance"].verdict is PASS
    assert "2: no processors (CXL memory?), 512.0 GB" in facts(machine)["NUMA nodes"]


def test_a_node_that_lost_its_memory_is_told_and_not_counted(machine):
    machine.node(1, range(16, 32), size=0)

    result = results(machine)["numa_nodes"]

    assert result.observed == 1
    assert "node 1 has processors and no memory" in result.note


def test_no_node_that_has_both_fails(tmp_path):
    machine = machine_of(tmp_path, 1)
    machine.node(0, range(32), size=0)
    machine.node(1, [])

    assert results(machine)["numa_nodes"].verdict is FAIL


def test_hidden_nodes_are_unknown(tmp_path):
    judgement = results(machine_of(tmp_path, 0))

    assert {judgement[name].verdict for name in ("numa_nodes", *RANKS)} == {UNKNOWN}
    assert "a container hides it" in judgement["numa_nodes"].reason


def test_distances_are_told(machine):
    assert facts(machine)["NUMA nodes"].endswith("256.0 GB, distances 21 10")


def test_the_nodes_of_network_cards_are_told_where_the_firmware_tells(machine):
    machine.write("sys/class/net/eth0/device/numa_node", 1)
    machine.write("sys/class/net/eth1/device/numa_node", -1)
    machine.write("sys/class/net/lo/mtu", 65536)
    machine.write("sys/devices/pci/numa_node", 0)
    (machine.sys / "devices/pci/virtio2").mkdir()
    (machine.sys / "class/net/eth2").mkdir()
    (machine.sys / "class/net/eth2/device").symlink_to(machine.sys / "devices/pci/virtio2")

    told = {name: text for name, text in facts(machine).items() if name.startswith("NUMA node of")}

    assert told == {
        "NUMA node of eth0": "1",
        "NUMA node of eth1": "not told by the firmware",
        "NUMA node of eth2": "0",
    }


def test_a_recorded_machine_has_one_node(tmp_path):
    place = FIXTURES / "kvm_2_cores"

    findings = supervise(
        task("hardware", tmp_path, proc=place / "proc", sys=place / "sys"), [Numa()]
    )

    assert [s.value for s in findings.samples] == [1]
    assert findings.facts[0].text == "0: processors 0-1, 13.0 GB, distances 10"


# --- The ranks --------------------------------------------------------------------------------


def test_a_rank_on_processors_of_two_nodes_fails_and_is_named(machine):
    machine.bound(EIGHTS[0], range(12, 20), *EIGHTS[2:])

    result = results(machine)["numa_binding"]

    assert (result.verdict, result.observed) == (FAIL, 2)
    assert "rank 1 on 12-19: bind each rank to the processors of one node" in result.note


def test_pages_on_another_node_fail(machine):
    machine.children[3] = child(EIGHTS[3], pages={0: 60, 1: 940})

    result = results(machine)["numa_local"]

    assert (result.verdict, result.observed) == (FAIL, 0.94)
    assert "rank 3 runs on node 1 and has" in result.note


def test_a_few_pages_on_another_node_pass(machine):
    machine.children[3] = child(EIGHTS[3], pages={0: 40, 1: 960})

    assert results(machine)["numa_local"].verdict is PASS


def test_three_ranks_on_one_node_and_one_on_the_other_are_uneven(machine):
    machine.bound(range(4), range(4, 8), range(8, 12), range(16, 20))

    result = results(machine)["numa_balance"]

    assert (result.verdict, result.observed) == (FAIL, 2)
    assert "ranks: 3 on node 0, 1 on node 1" in result.note


def test_ranks_that_may_run_everywhere_count_everywhere(machine):
    machine.bound(*[machine.online] * 4)

    judgement = results(machine)

    assert judgement["numa_balance"].observed == 0
    assert judgement["numa_binding"].verdict is FAIL


def test_the_pages_of_a_running_job_are_looked_at(machine):
    for number, mask in enumerate(EIGHTS):
        text = child(mask, pages={1: 5})["numa_maps"]
        machine.rank(800 + number, number, mask, numa_maps=text)

    result = results(machine)["numa_local"]

    assert (result.verdict, result.observed) == (FAIL, 0)
    assert "rank 0 (pid 800) runs on node 0" in result.note
    assert machine.run.ran == []


def test_one_rank_that_hides_its_pages_keeps_the_rest_from_passing(machine):
    for number, mask in enumerate(EIGHTS):
        text = child(mask, pages={number // 2: 5})["numa_maps"]
        machine.rank(800 + number, number, mask, numa_maps=text if number else "")

    judgement = results(machine)

    assert judgement["numa_local"].verdict is UNKNOWN
    assert "rank 0 (pid 800): no pages in /proc/PID/numa_maps" in judgement["numa_local"].reason
    assert judgement["numa_binding"].verdict is PASS


def test_processors_on_no_node_are_unknown(machine):
    machine.write("sys/devices/system/node/node1/cpulist", "16-30")

    judgement = results(machine)

    assert {judgement[name].verdict for name in RANKS} == {UNKNOWN}
    assert "processors 31 lie on no NUMA node" in judgement["numa_binding"].reason


def test_processors_that_could_be_plugged_in_lie_on_no_node_and_do_no_harm(machine):
    machine.bound(*EIGHTS[:3], [*EIGHTS[3], *range(64, 128)])

    assert results(machine)["numa_binding"].verdict is PASS


def test_a_rank_on_offline_processors_only_is_unknown(machine):
    machine.bound(*EIGHTS[:3], range(64, 128))

    assert "of which none is online" in results(machine)["numa_binding"].reason


def test_a_state_that_names_no_processor_is_unknown(machine):
    machine.children[0]["stat"] = "9 (py) S 1"

    assert "wanted a processor" in results(machine)["numa_local"].reason


def test_huge_pages_weigh_what_they_are_and_pages_of_files_nothing():
    text = (
        "7f00 default anon=1 dirty=1 N0=1 kernelpagesize_kB=2048\n"
        "7f10 default file=/usr/lib/libtorch.so mapped=900 N0=900 kernelpagesize_kB=4\n"
        "7f20 default heap anon=512 dirty=512 N0=256 N1=256 kernelpagesize_kB=4\n"
        "7ffe default stack anon=3 dirty=3 N1=3\n"
    )

    assert pages(text) == {0: (2048 + 1024) * 1024, 1: (1024 + 12) * 1024}

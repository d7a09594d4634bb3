"""What Slurm says of a job becomes nodes, and which of them this is; a riddle is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd import cluster, slurm
from dvfd.config import Cluster, Config, Member
from dvfd.errors import DvfdError, ToolError

JOB = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_JOB_NUM_NODES": "4"}
STEP = {"SLURM_STEP_ID": "1", "SLURM_STEP_NODELIST": "n[2-3]", "SLURM_STEP_NUM_NODES": "2"}


def allocation(environ: dict[str, str], own: str = "n2") -> slurm.Allocation:
    found = slurm.allocation(environ, slurm.expanded, own)
    assert found is not None
    return found


# --- Lists of nodes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("n1", ["n1"]),
        ("n1,m2", ["n1", "m2"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[1-2,7]-ib,login", ["n1-ib", "n2-ib", "n7-ib", "login"]),
        ("r[1-2]n[0-1]", ["r1n0", "r1n1", "r2n0", "r2n1"]),
        ("n[998-1001]", ["n998", "n999", "n1000", "n1001"]),
    ],
)
def test_a_list_stands_for_its_names_in_order(listed, names):
    assert slurm.expanded(listed) == names


PREFIX = st.text(string.ascii_lowercase, min_size=1, max_size=6)


@given(PREFIX, st.integers(1, 5), st.lists(st.integers(0, 9999), min_size=1, max_size=12))
def test_what_was_put_together_comes_apart_again(prefix, width, numbers):
    names = [f"{prefix}{str(n).zfill(width)}" for n in numbers]
    listed = f"{prefix}[{','.join(str(n).zfill(width) for n in numbers)}]"

    assert slurm.expanded(listed) == names
    assert slurm.expanded(",".join(names)) == names


@given(PREFIX, st.integers(0, 500), st.integers(0, 500), st.integers(1, 5))
def test_a_range_has_every_number_once_and_as_wide_as_it_is_written(prefix, first, more, width):
    listed = f"{prefix}[{str(first).zfill(width)}-{str(first + more).zfill(width)}]"
    found = slurm.expanded(listed)

    assert [int(name.removeprefix(prefix)) for name in found] == [*range(first, first + more + 1)]
    assert len(found[0]) == len(prefix) + max(width, len(str(first)))


@given(st.text("abn012[]-, .;$", max_size=20))
def test_any_text_is_names_of_hosts_or_refused(text):
    try:
        found = slurm.expanded(text)
    except DvfdError:
        return
    assert found
    assert all(slurm.HOST.fullmatch(name) for name in found)


@pytest.mark.parametrize(
    "listed",
    ["", ",", "n[1-", "n]1[", "n[]", "n[3-1]", "n[a-b]", "n[1-3]]", "n 1", "n[0-99999999]",
     ",".join(["n[0-65535]"] * 2), "n[0-255][0-255][0-255]", "n[" + "0-60000," * 9 + "1]"],
)  # fmt: skip
def test_what_is_no_list_or_too_many_is_refused(listed):
    with pytest.raises(DvfdError):
        slurm.expanded(listed)


def test_slurms_own_tool_is_asked_first_and_where_there_is_none_the_list_is_read():
    def scontrol(argv: list[str]) -> str:
        assert argv == ["scontrol", "show", "hostnames", "n[1-2]"]
        return "real1\nreal2"

    def none(_argv: list[str]) -> str:
        raise ToolError("scontrol: cannot be started")

    assert slurm.hostnames(scontrol)("n[1-2]") == ["real1", "real2"]
    assert slurm.hostnames(none)("n[1-2]") == ["n1", "n2"]


# --- A job ----------------------------------------------------------------------------------------


def test_without_a_job_there_is_no_allocation():
    assert slurm.allocation({}, slurm.expanded, "n2") is None


def test_a_step_of_srun_is_its_own_nodes_and_its_own_rendezvous():
    assert allocation(JOB | STEP) == slurm.Allocation("slurm-42-1", ("n2", "n3"), "n2")
    assert allocation(JOB) == slurm.Allocation("slurm-42", ("n1", "n2", "n3", "n4"), "n2")


@pytest.mark.parametrize("step", [0xFFFFFFFA, 0xFFFFFFFB])
def test_the_shell_of_salloc_and_a_batch_script_are_no_steps(step):
    inside = JOB | {"SLURM_STEP_ID": str(step), "SLURM_STEP_NODELIST": "n1"}

    assert allocation(inside).hosts == ("n1", "n2", "n3", "n4")


def test_a_node_knows_itself_by_name_and_not_by_the_number_that_a_batch_script_hands_on():
    handed_on = JOB | {"SLURM_NODEID": "0", "SLURMD_NODENAME": "n3"}

    assert allocation(handed_on, "something").me == "n3"
    assert allocation(JOB, "n4.example.org").me == "n4"


def test_who_is_none_of_the_nodes_is_told_to_come_as_a_task():
    with pytest.raises(DvfdError, match=r"login is none of the nodes .* srun dvfd"):
        allocation(JOB, "login")


def test_a_count_that_does_not_fit_the_list_is_refused():
    with pytest.raises(DvfdError, match="4 nodes, SLURM_JOB_NUM_NODES says 5"):
        allocation(JOB | {"SLURM_JOB_NUM_NODES": "5"})


def test_a_job_without_a_list_is_refused():
    with pytest.raises(DvfdError, match="SLURM_JOB_NODELIST is not"):
        allocation({"SLURM_JOB_ID": "42"})


# --- With the configuration -----------------------------------------------------------------------

CONFIGURED = Cluster(
    lead="n3",
    nodes=(
        Member(name="n2.example.org", address="10.0.0.2"),
        Member(name="n3", address="10.0.0.3"),
    ),
    port=4711,
)


def test_nodes_of_a_job_have_the_addresses_and_the_lead_that_the_site_gave_them():
    settings = Config(node={"name": "n2"}, cluster=CONFIGURED)
    made, run = slurm.configured(settings, JOB, slurm.expanded)

    assert run == "slurm-42"
    assert [node.address for node in made.cluster.nodes] == ["n1", "10.0.0.2", "10.0.0.3", "n4"]
    assert cluster.here(made).address == "10.0.0.2"
    assert (made.node.name, made.cluster.lead, made.cluster.port) == ("n2.example.org", "n3", 4711)


def test_the_first_node_leads_where_the_sites_lead_is_not_in_the_job():
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "a,b"}
    made, _ = slurm.configured(Config(node={"name": "b"}, cluster=CONFIGURED), job, slurm.expanded)

    assert (made.cluster.lead, cluster.here(made).name) == ("a", "b")


def test_outside_of_a_job_the_configuration_stays_as_it_is():
    settings = Config(cluster=CONFIGURED)

    assert slurm.configured(settings, {}, slurm.expanded) == (settings, "")

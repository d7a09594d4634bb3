"""A test between the nodes of a real Slurm, hosts in network namespaces, started by one srun."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hosts import hosts
from slurm_cluster import slurm
from test_latency_between import ALONE, agent

ROOT = Path(__file__).parents[2]

WRAPPER = """#!/bin/sh
here={place}/$SLURMD_NODENAME
export DVFD_CONFIG="$here/dvfd.toml" DVFD_STATE_DIR="$here/state" PYTHONPATH={root}
export XDG_RUNTIME_DIR="$here/runtime" DVFD_SOCKET="$here/runtime/ingest.sock"
exec {python} {place}/alone.py "$@"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with hosts(2, "[profile]\nprocesses_per_node = 1\n") as lan:
        place = tmp_path_factory.mktemp("srun")
        rsh = agent(lan, place)
        for host in lan:
            text = host.config.read_text().replace("wait = 60", f"wait = 60\nrsh = '{rsh}'")
            host.config.write_text(text)
        there = lan.hosts[0].directory.parent
        (there / "alone.py").write_text(ALONE)
        dvfd = place / "dvfd"
        dvfd.write_text(WRAPPER.format(place=there, root=ROOT, python=sys.executable))
        dvfd.chmod(0o755)
        within = [["ip", "netns", "exec", host.namespace] for host in lan]
        addresses = [host.address for host in lan]
        with slurm(names=("n1", "n2"), addresses=addresses, within=within) as up:
            yield SimpleNamespace(slurm=up, dvfd=dvfd)


def by_task(said: str, task: int) -> str:
    """What one task said, of all that `srun --label` hands on."""
    head = f"{task}: "
    return "\n".join(line[len(head) :] for line in said.splitlines() if line.startswith(head))


def test_each_task_of_a_step_knows_its_node_and_all_know_the_same_lead(cluster):
    told = ("cluster", "env", "-o", "json")
    said = cluster.slurm.run("srun", "-N2", "--label", cluster.dvfd, *told)
    first, second = (json.loads(by_task(said, task)) for task in (0, 1))

    assert (first["node"], second["node"]) == ("n1", "n2")
    assert (first["source"], first["lead"], second["lead"]) == ("Slurm", "n1", "n1")
    ours, theirs = first["variables"], second["variables"]
    assert ours["PET_RDZV_ID"] == theirs["PET_RDZV_ID"]
    assert (ours["PET_LOCAL_ADDR"], theirs["PET_LOCAL_ADDR"]) == ("10.77.0.1", "10.77.0.2")


@pytest.mark.torch
@pytest.mark.long
@pytest.mark.slow
def test_one_srun_tests_what_lies_between_the_nodes_of_a_job(cluster):
    """MPI, too: mpirun must not take the step around it for its own allocation."""
    asked = ("check", "network", "--nodes", 2, "--duration", 1, "--force", "-o", "json")
    said = cluster.slurm.run("srun", "-N2", "--label", cluster.dvfd, *asked, code=None)

    for task in (0, 1):
        report = json.JSONDecoder().raw_decode(by_task(said, task))[0]
        rows = {row["criterion"]: row for row in report["results"]}
        for name in ("latency", "latency_tcp", "latency_mpi"):
            assert rows[f"network.{name}"]["samples"], rows[f"network.{name}"]["reason"]

"""What Slurm says of the job that we are in: its nodes, and which of them this is. Pure.

Slurm gives every task of `srun` its variables: https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dvfd.config import Cluster, Config, Member
from dvfd.errors import DvfdError, ToolError

MOST = 65536
"""Nodes of one list: several times as many as the largest clusters have."""

STEPS = 0xFFFFFFF0
"""Ids from here on are no steps of srun: the batch script (0xfffffffb), the shell of `salloc`
(0xfffffffa), whose list of nodes is only its own one."""

HOST = re.compile(r"[A-Za-z0-9_.-]+")

PARTS = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
"""Names between commas, of which those in brackets are the range's."""

RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes that a job, or a step of it, runs on; `me` is one of them, `run` its id."""

    run: str
    hosts: tuple[str, ...]
    me: str


def allocation(
    environ: Mapping[str, str], expand: Callable[[str], Sequence[str]], own: str
) -> Allocation | None:
    """The job around us, or None where Slurm says nothing; *own* is this host's name.

    Raises DvfdError where what Slurm says does not fit together.
    """
    if "SLURM_JOB_ID" not in environ:
        return None
    step = _step(environ)
    kind = "SLURM_STEP" if step else "SLURM_JOB"
    listed = environ.get(f"{kind}_NODELIST") or environ.get("SLURM_NODELIST", "")
    if not listed:
        raise DvfdError(f"SLURM_JOB_ID is set and {kind}_NODELIST is not: wanted both, as of srun")
    hosts = tuple(expand(listed))
    said = environ.get(f"{kind}_NUM_NODES", "")
    if said.isdecimal() and int(said) != len(hosts):
        raise DvfdError(f"{listed} is {len(hosts)} nodes, {kind}_NUM_NODES says {said}")
    run = "-".join(("slurm", environ["SLURM_JOB_ID"], *([step] if step else [])))
    return Allocation(run, hosts, _me(environ, hosts, own))


def _step(environ: Mapping[str, str]) -> str:
    """The id of srun's step that we are a task of, or an empty string."""
    step = environ.get("SLURM_STEP_ID", "")
    inside = step.isdecimal() and int(step) < STEPS and bool(environ.get("SLURM_STEP_NODELIST"))
    return step if inside else ""


def _me(environ: Mapping[str, str], hosts: Sequence[str], own: str) -> str:
    """Which of *hosts* this is: by its name, since a batch script hands its own SLURM_NODEID on."""
    names = {host.partition(".")[0]: host for host in hosts}
    for name in (environ.get("SLURMD_NODENAME", ""), own):
        if found := names.get(name.partition(".")[0]):
            return found
    raise DvfdError(
        f"{own} is none of the nodes of Slurm's job {environ['SLURM_JOB_ID']} "
        f"({', '.join(hosts[:8])}): call this in a task of it, srun dvfd ..."
    )


def configured(
    settings: Config, environ: Mapping[str, str], expand: Callable[[str], Sequence[str]]
) -> tuple[Config, str]:
    """*settings* with the nodes of the job around us, this node under its name there, and the job's
    id; as they are, and an empty string, outside of any. Raises DvfdError.
    """
    found = allocation(environ, expand, settings.node.name)
    if found is None:
        return settings, ""
    nodes = clustered(found, settings.cluster)
    me = nodes.nodes[found.hosts.index(found.me)]
    named = settings.node.model_copy(update={"name": me.name})
    return settings.model_copy(update={"node": named, "cluster": nodes}), found.run


def clustered(found: Allocation, known: Cluster) -> Cluster:
    """The cluster that a job runs on: its nodes, each as it is *known* where it is.

    The known lead leads if it is among them, else the first.
    """
    members = [_member(host, known) for host in found.hosts]
    names = [member.name for member in members]
    lead = known.lead if known.lead in names else names[0]
    return known.model_copy(update={"nodes": tuple(members), "lead": lead})


def _member(host: str, known: Cluster) -> Member:
    short = host.partition(".")[0]
    same = (node for node in known.nodes if node.name.partition(".")[0] == short)
    return next(same, Member(name=host, address=host))


# --- Lists of nodes -------------------------------------------------------------------------------


def hostnames(run: Callable[[list[str]], str]) -> Callable[[str], Sequence[str]]:
    """How a list becomes names: Slurm's own tool, by *run*; where there is none, `expanded`."""

    def expand(listed: str) -> Sequence[str]:
        try:
            return run(["scontrol", "show", "hostnames", listed]).split()
        except ToolError:  # no Slurm on this side of a container
            return expanded(listed)

    return expand


def expanded(listed: str) -> list[str]:
    """The names that a list like `a[001-003,7],b` stands for, in its order.

    Raises DvfdError for what is no such list, or stands for more than MOST.
    """
    pieces = PARTS.findall(listed)
    if not pieces or ",".join(pieces) != listed:
        raise DvfdError(f"{listed!r:.80} is no list of nodes: wanted one like n[01-04,7],m1")
    names: list[str] = []
    for piece in pieces:
        for name in _names(piece, listed):
            if not HOST.fullmatch(name):
                raise DvfdError(f"{listed!r:.80}: {name!r} is no name of a node")
            names.append(name)
            if len(names) > MOST:
                raise DvfdError(f"{listed!r:.80} stands for more than {MOST} nodes")
    return names


def _names(piece: str, listed: str) -> Iterator[str]:
    """Every name of one piece: a product, where it has several brackets."""
    texts = re.split(r"\[([^\]]*)\]", piece)
    choices = [
        [text] if number % 2 == 0 else _range(text, listed) for number, text in enumerate(texts)
    ]
    return ("".join(chosen) for chosen in product(*choices))


def _range(text: str, listed: str) -> list[str]:
    """`001-003,7` as its numbers, as wide as they are written."""
    found = []
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if match is None:
            raise DvfdError(f"{listed!r:.80}: {part!r} is no range of numbers")
        first, last = match[1], match[2] or match[1]
        if not int(first) <= int(last) < int(first) + MOST:
            raise DvfdError(f"{listed!r:.80}: {part!r} is no range of at most {MOST} numbers")
        found += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        if len(found) > MOST:
            raise DvfdError(f"{listed!r:.80} stands for more than {MOST} nodes")
    return found

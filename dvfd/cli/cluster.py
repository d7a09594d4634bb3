"""`dvfd cluster`: what the nodes that train together need to meet, and whether they would."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.cluster_check import check
from dvfd.cli.common import output_option, show
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from dvfd.config import Member

RUN = "dvfd"
"""What a rendezvous is called where nobody names it: the same on all nodes."""


@click.group()
def cluster() -> None:
    """The nodes that train together."""


cluster.add_command(check)


@cluster.command(
    "env",
    short_help="What torchrun must be told to find the other nodes.",
    context_settings={"allow_interspersed_args": False},  # what follows COMMAND is its own
)
@click.option("--id", "run", default="", metavar="NAME", help="Of the rendezvous, on all nodes.")
@click.option("--unset", is_flag=True, help="Print what takes the variables away again.")
@output_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def env(run: str, output: str, *, unset: bool, command: tuple[str, ...]) -> None:
    """Print the variables with which a bare torchrun line meets those of the other nodes.

    With them `torchrun --nnodes=2 --nproc_per_node=4 SCRIPT` works as it is typed, on each node;
    without them it waits and says nothing. Type eval "$(dvfd cluster env)" first. With a COMMAND
    that is run with them instead, as env(1) does: srun dvfd cluster env torchrun ...

    Within a job of Slurm its nodes are taken, with the addresses that [cluster] gives them, and its
    id; otherwise the nodes of [cluster]. Remarks go to stderr.

    Example: dvfd cluster env torchrun --nnodes=2 --nproc_per_node=4 train.py
    """
    from dvfd.cluster import VARIABLES

    if unset:
        show({"unset": list(VARIABLES)}, output, lambda found: f"unset {' '.join(found['unset'])}")
        return
    told = _told(run)
    for line in told.missing:
        click.echo(f"dvfd: {line}", err=True)
    if command:
        _become(command, told.variables)
    show(asdict(told), output, _exports)


@dataclass(frozen=True, slots=True)
class Told:
    """Who this node is, what torchrun is told, and what could not be said for want of it."""

    node: str
    lead: str
    nodes: tuple[str, ...]
    source: str
    variables: Mapping[str, str]
    missing: tuple[str, ...]


def _told(run: str) -> Told:
    from dvfd import cluster, config
    from dvfd.cli.here import around
    from dvfd.drills.interface import interfaces

    settings, job = around(config.load())
    nodes, me = settings.cluster, cluster.here(settings)
    there = interfaces()
    addresses, missing = _addresses(me)
    over = cluster.interface(nodes, addresses, there)
    missing += tuple(cluster.unfit(over, me, addresses, there))
    return Told(
        node=me.name,
        lead=nodes.lead,
        nodes=tuple(node.name for node in nodes.nodes),
        source="Slurm" if job else settings.origin,
        variables=cluster.environment(nodes, me, run=run or job or RUN, over=over),
        missing=missing,
    )


def _addresses(me: Member) -> tuple[list[str], tuple[str, ...]]:
    """The addresses of this node, or why there are none."""
    from dvfd.cluster import resolved

    try:
        return resolved(me.address), ()
    except DvfdError as error:
        return [], (f"{error}: wanted an address, or a name that resolves, for {me.name}",)


def _become(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Be *command* from here on. Raises DvfdError if there is none."""
    try:
        os.execvpe(command[0], list(command), {**os.environ, **variables})  # noqa: S606
    except OSError as error:
        raise DvfdError(f"{command[0]}: cannot be started: {error.strerror or error}") from None


def _exports(found: Mapping[str, Any]) -> str:
    """Lines for `eval`. Quoted whatever they hold: to zsh a value like `=eth0` is a command."""
    quoted = {name: value.replace("'", "'\\''") for name, value in found["variables"].items()}
    return "\n".join(f"export {name}='{value}'" for name, value in quoted.items())

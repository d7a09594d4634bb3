"""`dvfd fleet`: the verdicts of all nodes of the cluster as one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli import fleet_list
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.formats import EXIT
from dvfd.cli.text import MARK, columns, paint, wrapped
from dvfd.words import NONE

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.fleet import Seen
    from dvfd.model import Catalogue

MEASURES = {
    "dvfd_rank_compute_seconds": "compute section",
    "dvfd_job_throughput_samples_per_second": "throughput",
}


@click.command(short_help="The verdicts of all nodes of the cluster as one.")
@click.argument("names_", metavar="[CHECK]...", nargs=-1, shell_complete=names("checks"))
@click.option(
    "--list",
    "list_",
    type=click.Choice(["weekly", "monthly"]),
    help="Judge this list over all nodes, on what the engine of [history] has of its days.",
)
@output_option
def fleet(names_: tuple[str, ...], output: str, list_: str | None) -> None:
    """Read the verdicts of every node of [cluster] and say the worst, of the watch or each CHECK.

    They are read from the engine that [history] names, else from each node's /metrics. A node
    that is missing, was not seen for three minutes, is itself in trouble or judges by another
    catalogue is unknown, and so are all of them together. What only the lead judges is its word.

    Exit code: 0 all pass, 1 a warning of the list is breached, 2 one fails, 3 one is not known.

    Example: dvfd fleet daily; dvfd fleet --list monthly
    """
    from dvfd.catalogue import load as load_catalogue
    from dvfd.cluster import here
    from dvfd.config import load
    from dvfd.fleet import document
    from dvfd.query import known

    if list_ and names_:
        raise click.UsageError("--list is of one list: leave out the CHECKs")
    settings = load()
    if not settings.cluster.nodes:  # whoever knows them may ask: it need be none of them
        here(settings)
    for notice in settings.outdated:
        click.echo(f"dvfd: {notice}", err=True)
    catalogue = load_catalogue(settings)
    if list_:
        days = fleet_list.listed(settings, catalogue, list_)
        show(days, output, fleet_list.text)
        sys.exit(fleet_list.exit_code(days))
    watched = [check.id for check in catalogue.checks.values() if check.watch]
    chosen = [known({"check": name}, "check", catalogue.checks) for name in names_] or watched
    nodes, source = _seen(settings, catalogue)
    lead = settings.cluster.lead
    found = document(nodes, catalogue, chosen, lead=lead, at=time.time(), source=source)
    show(found, output, text)
    sys.exit(EXIT[found["verdict"]])


def _seen(settings: Config, catalogue: Catalogue) -> tuple[list[Seen], str]:
    from dvfd import remote
    from dvfd.fleet import mixed
    from dvfd.history.engine import Engine
    from dvfd.sighted import by_engine
    from dvfd.sighting import by_nodes

    if not settings.engine.url:
        access = remote.Access.of(settings.cluster)
        return by_nodes(settings.cluster.nodes, partial(remote.get, access=access)), "the nodes"
    checks = [check.id for check in catalogue.checks.values() if mixed(check)]
    engine = Engine(settings.engine)
    return by_engine(engine, settings, checks, at=time.time()), engine.words


def text(found: Mapping[str, Any]) -> str:
    """The verdict, a line for each node, for each check that anybody judged, and for each job."""
    nodes, decided = found["nodes"], ", ".join(found["decided_by"])
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    lines = wrapped(f"{count} by {decided}: {paint(found['verdict'])}   (from {found['source']})")
    lines += ["", *_nodes(nodes), "", *_checks(found["checks"], found["decided_by"])]
    lines += [line for what, values in found["differences"].items() for line in _odd(what, values)]
    lines += [line for each in found["balance"] for line in _balance(each)]
    return "\n".join(lines)


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    widest = max(len(node["node"]) for node in nodes)
    for node in nodes:
        about = f"dvfd {node['version'] or NONE}, catalogue {node['catalogue'] or NONE}"
        first, *more = wrapped(
            f"{node['node'].ljust(widest)}  {node['reason'] or about}", MARK, columns()
        )
        yield paint(node["verdict"], MARK) + first[MARK:]
        yield from more


def _checks(checks: Sequence[Mapping[str, Any]], decided: Sequence[str]) -> Iterable[str]:
    """Every check that decides, or that at least one node judged; the names of the others."""
    blind = [c["check"] for c in checks if set(c["nodes"].values()) <= {"UNKNOWN"}]
    unjudged = [name for name in blind if name not in decided]
    for check in checks:
        if check["check"] not in unjudged:
            line = f"{check['check']}: {_who(check['nodes'])}"
            first, *more = wrapped(line, MARK, columns())
            yield paint(check["verdict"], MARK) + first[MARK:]
            yield from more
    if unjudged:
        yield from wrapped(f"UNKNOWN on every node: {', '.join(unjudged)}")


ORDER = ("FAIL", "UNKNOWN", "WAIVED", "PASS", "NOT_APPLICABLE")


def _who(nodes: Mapping[str, str]) -> str:
    """Which nodes have which verdict, worst first; the most common one last and without names."""
    by = {verdict: [n for n, v in nodes.items() if v == verdict] for verdict in ORDER}
    parts = [f"{v} {', '.join(who)}" for v, who in by.items() if who and v in {"FAIL", "UNKNOWN"}]
    rest = [f"{v} {len(who)}" for v, who in by.items() if who and v not in {"FAIL", "UNKNOWN"}]
    return "; ".join([*parts, *rest])


def _odd(what: str, values: Mapping[str, Sequence[str]]) -> list[str]:
    told = "; ".join(f"{value or NONE} on {', '.join(who)}" for value, who in values.items())
    return wrapped(f"{what} differs: {told}")


def _balance(each: Mapping[str, Any]) -> list[str]:
    what = f"balance of job {each['job']}, {MEASURES.get(each['metric'], each['metric'])}"
    missing = f"; not seen of {', '.join(each['missing'])}" if each["missing"] else ""
    if each["spread"] is None:
        return wrapped(f"{what}: {len(each['nodes'])} node has it, wanted 2{missing}")
    held = f", wanted at most {each['limit']:.1%} over a run" if each["limit"] is not None else ""
    far = f"{each['spread']:.1%} from the mean is {each['furthest']}, the furthest"
    return wrapped(f"{what}: {far}{held}{missing}")

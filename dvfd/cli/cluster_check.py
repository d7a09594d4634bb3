"""`dvfd cluster check`: what would stop a test between the nodes, seen from this one."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.common import output_option, show
from dvfd.cli.text import columns, tint, wrapped
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.model import Check
    from dvfd.preflight import Heard, Own, World
    from dvfd.remote import Access

EXCHANGES = 3
"""Questions to each dvfd: the first waits for what it looks up, the others show the way alone."""

WIDTH = 9
"""Columns of a mark and the gap behind it."""


@click.command(short_help="What would stop a test between the nodes, node by node.")
@output_option
def check(output: str) -> None:
    """Look from this node at every node of [cluster], and say what would stop a test between them.

    Names, ports and firewalls are tried from here; versions, catalogue, torch, interface, clock
    and jobs are what the dvfd at each node's `url` tells. Run it on every node: the way back may
    differ. Nothing is started or opened. What could not be looked at is unknown.

    Exit code: 0 all is well, 1 something could be better, 2 something is broken, 3 something could
    not be told.

    Example: dvfd cluster check
    """
    from dvfd.doctor import exit_code
    from dvfd.preflight import document, examine

    world = _world()
    findings = examine(world)
    show(document(world, findings), output, text)
    sys.exit(exit_code(findings))


MARKS = {"broken": "red", "unknown": "yellow", "improve": "yellow", "ok": "green"}
"""In the order in which a person wants to know of them."""


def text(found: Mapping[str, Any]) -> str:
    """A row for each node, then what is not ok and what to do about it, the worst first."""
    rows = found["nodes"]
    widest = max(len(row["node"]) for row in rows)
    lines = [line for row in rows for line in _row(row, widest)]
    for mark in (mark for mark in MARKS if mark != "ok"):
        for row in rows:
            for group in _groups(row["findings"], mark):
                lines += _told(row["node"], group)
    return "\n".join(lines)


def _row(row: Mapping[str, Any], widest: int) -> list[str]:
    by = {mark: [f["subject"] for f in row["findings"] if f["mark"] == mark] for mark in MARKS}
    parts = [f"{tint(m, colour)} {', '.join(by[m])}" for m, colour in MARKS.items() if by[m]]
    return wrapped(f"{row['node'].ljust(widest)}  {'; '.join(parts)}")


def _groups(findings: Sequence[Mapping[str, Any]], mark: str) -> list[list[Mapping[str, Any]]]:
    """The findings of that mark; what has one reason is told once."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        if finding["mark"] == mark:
            groups.setdefault((finding["text"], finding["do"]), []).append(finding)
    return list(groups.values())


def _told(node: str, group: Sequence[Mapping[str, Any]]) -> list[str]:
    first, subjects = group[0], ", ".join(finding["subject"] for finding in group)
    head, *more = wrapped(f"{node} {subjects}: {first['text']}", WIDTH, columns())
    lines = [tint(first["mark"].ljust(WIDTH), MARKS[first["mark"]]) + head[WIDTH:], *more]
    return [*lines, *(wrapped(f"do: {first['do']}", WIDTH, columns()) if first["do"] else [])]


def _world() -> World:
    from dvfd import config, remote
    from dvfd.cli.here import around
    from dvfd.cluster import here, resolved
    from dvfd.drills.interface import interfaces
    from dvfd.knocking import knock
    from dvfd.preflight import World

    settings, _ = around(config.load())
    return World(
        cluster=settings.cluster,
        me=here(settings),
        own=_own(settings),
        there=interfaces(),
        resolve=resolved,
        knock=knock,
        ask=partial(_heard, remote.Access.of(settings.cluster)),
    )


def _own(settings: Config) -> Own:
    """What this node would bring to a test."""
    from dvfd import __version__, log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.preflight import Own

    log.setup("error")
    catalogue = load_catalogue(settings)
    torch, missing = _torch(settings, catalogue.checks["pytorch"])
    return Own(
        version=__version__,
        catalogue=catalogue.hash,
        profile=settings.profile_hash,
        torch=torch,
        torch_missing=missing,
        training=_training(),
        listening=_listening(),
    )


def _training() -> str | None:
    """What trains here, in words; None where the daemon is there and does not answer."""
    from dvfd.cli.here import training_here

    try:
        return training_here()
    except DvfdError:
        return None


def _torch(settings: Config, check: Check) -> tuple[str | None, str]:
    """The version that the job's interpreter loads, or why there is none."""
    from dvfd.clock import SystemClock
    from dvfd.drills.drill import Task
    from dvfd.drills.interpreter import MEND, torch

    with tempfile.TemporaryDirectory(prefix="dvfd-cluster-") as scratch:
        place = Path(scratch)
        task = Task(check=check, config=settings, clock=SystemClock(), scratch=place, state=place)
        try:
            version = torch(task).version
        except DvfdError as error:
            return None, str(error)
    return (version, "") if version else (None, f"{task.python} has no torch: {MEND}")


def _listening() -> dict[int, str]:
    """The TCP ports of this host that somebody listens on, and who, as far as we may see."""
    import psutil

    found = {}
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN:
            name = ""
            with contextlib.suppress(psutil.Error):
                name = psutil.Process(each.pid).name() if each.pid else ""
            assert each.laddr  # what listens has an address
            found[each.laddr.port] = (
                f"{name}, pid {each.pid}" if name else "somebody else's process"
            )
    return found


def _heard(access: Access, url: str) -> Heard:
    """What the dvfd at *url* tells of itself; its clock by the quickest of a few answers."""
    from dvfd import remote
    from dvfd.preflight import Heard

    best: Heard | None = None
    for _ in range(EXCHANGES):
        said, answer = remote.data(f"{url}/api/v1/node", access)
        give = (answer.answered - answer.asked) / 2
        at = said.get("at") if isinstance(said, dict) else None
        if not isinstance(at, int | float):
            raise DvfdError(f"{url}: what it tells of itself has no time: {said!r:.80}")
        if best is None or give < best.give:
            best = Heard(said, at - (answer.asked + answer.answered) / 2, give)
    assert best is not None
    return best

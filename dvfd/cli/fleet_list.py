"""`dvfd fleet --list`: the weekly or monthly list over all nodes, from the engine of [history]."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dvfd.cli.formats import EXIT
from dvfd.cli.text import MARK, columns, finding, paint, wrapped
from dvfd.errors import ConfigError
from dvfd.model import WORST_FIRST
from dvfd.words import NONE, minute

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.model import Catalogue

PATIENCE = 120.0
"""Seconds for all questions: of 16 nodes and 30 days they take two."""

NO_ENGINE = (
    "no engine is named, wanted one that scrapes all nodes for as long as the list looks back: "
    '[history] url = "http://prometheus:9090"'
)


def listed(settings: Config, catalogue: Catalogue, name: str) -> dict[str, Any]:
    """The list *name* over all nodes, now. Raises ConfigError where no engine is named."""
    from dvfd.fleet import mixed
    from dvfd.history.engine import Engine
    from dvfd.reviews.gather import gathered
    from dvfd.reviews.nodes import Judging
    from dvfd.sighted import by_engine

    if not settings.engine.url:
        raise ConfigError([NO_ENGINE])
    engine = Engine(settings.engine, end=time.monotonic() + PATIENCE)
    at, check = time.time(), catalogue.checks[name]
    own = {check.id, *(each.id for each in catalogue.checks.values() if mixed(each))}
    nodes = gathered(
        engine, settings, catalogue, check, by_engine(engine, settings, own, at=at), at=at
    )
    excused = [(m.since.timestamp(), m.until.timestamp()) for m in settings.maintenance]
    judging = Judging(check, catalogue, lead=settings.cluster.lead, at=at, excused=excused)
    return judging.document(nodes, source=engine.words)


def exit_code(found: Mapping[str, Any]) -> int:
    """0 pass, 1 pass with a breached warning, 2 fail, 3 unknown."""
    breached = any(row["verdict"] == "FAIL" for row in found["results"])
    return EXIT[found["verdict"]] or int(breached)


def text(found: Mapping[str, Any]) -> str:
    """The verdict, a line for each criterion with the worst node, a line for each node."""
    nodes, reach = found["nodes"], ", ".join(found["periods"])
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    until = f"{reach} until {minute(found['at'])}, from {found['source']}"
    head = wrapped(f"{found['check']} list of {count}: {paint(found['verdict'])}   ({until})")
    below = {node["node"]: node["reason"] for node in nodes if node["reason"]}
    rows = [line for row in found["results"] for line in _criterion(row, below)]
    return "\n".join([*head, "", *rows, "", *_table(found), *_reasons(nodes)])


def _criterion(row: Mapping[str, Any], below: Mapping[str, str]) -> list[str]:
    """One criterion; what stands *below* of its worst node is not said at each of them."""
    mark = "" if row["severity"] == "critical" else f" ({row['severity']})"
    name = f"{row['criterion']}{mark}: {_who(row['nodes'])}"
    verdict = row["verdict"]
    if verdict in {"PASS", "NOT_APPLICABLE"}:
        name = f"{name}; nearest its limit {row['worst']}" if _figured(row) else name
        first, *more = wrapped(name, MARK, columns())
        return [paint(verdict, MARK) + first[MARK:], *more]
    own = below.get(row["worst"])
    known = bool(own) and own in row["reason"]
    return finding(verdict, name, "see below" if known else f"{row['worst']}: {row['reason']}")


def _figured(row: Mapping[str, Any]) -> bool:
    return any(cell["margin"] is not None for cell in row["nodes"].values())


def _who(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Who fails and who is not known by name, of the others how many."""
    parts = []
    for verdict in WORST_FIRST:
        who = [name for name, cell in nodes.items() if cell["verdict"] == verdict]
        named = ", ".join(who) if verdict in {"FAIL", "UNKNOWN"} else str(len(who))
        parts += [f"{verdict} {named}"] if who else []
    return "; ".join(parts)


def _table(found: Mapping[str, Any]) -> Iterable[str]:
    """A line for each node: how much of each period was observed, and its figures."""
    figures = [row for row in found["results"] if _figured(row)]
    head = ["node", *(f"seen of {name}" for name in found["periods"])]
    head += [row["criterion"].partition(".")[2] for row in figures]
    rows = [head, *(_line(node, figures) for node in found["nodes"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    yield " " * MARK + _spread(head, widths)
    for node, row in zip(found["nodes"], rows[1:], strict=True):
        yield paint(node["verdict"], MARK) + _spread(row, widths)


def _line(node: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [row["nodes"].get(node["node"], {}).get("observed") for row in figures]
    return [
        node["node"],
        *(NONE if share is None else f"{share:.2%}" for share in node["coverage"].values()),
        *(NONE if value is None else f"{value:.4%}" for value in cells),
    ]


def _spread(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip()


def _reasons(nodes: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Why nodes do not count as they are."""
    told = [node for node in nodes if node["reason"]]
    yield from [""] if told else []
    for node in told:
        yield from wrapped(f"{node['node']}: {node['reason']}")

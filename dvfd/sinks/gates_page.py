"""Draw /gates: what a director signs on. One gate in full, the way of all four, the table.

Without a script, like the page. Recomputes no verdict.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from dvfd.gates import words
from dvfd.sinks.http import SECURITY, Response
from dvfd.sinks.page import MARKS, TEMPLATES, clock
from dvfd.template import template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

    from dvfd.state import Snapshot

    Document = Mapping[str, Any]

REFRESH = 30
"""Seconds until the page asks for a newer one: after a minute it says that it is old."""

VETOES = {"PASS": "not so", "FAIL": "VETO"}
"""What is said of a No-Go line, of which PASS would say that it holds."""

KINDS = (
    ("go", "GO lines", "Each must stand."),
    ("veto", "No-Go lines", "Each must be measured, and not so."),
    ("test", "Tests", "What the framework's table ticks for this phase."),
    ("condition", "Order", "What the framework asks of every phase."),
)
"""The sections of a gate."""


def response(snapshot: Snapshot, query: str = "") -> Response:
    """The page as an answer; `gate=ID` in *query* chooses the gate that is shown in full, `hold=1`
    stops it from asking again.
    """
    given = {name: values[0] for name, values in parse_qs(query).items()}
    hold = given.get("hold") == "1"
    text = render(snapshot, given.get("gate", ""), hold=hold)
    policy = SECURITY["Content-Security-Policy"] + f"; style-src '{_style()[1]}'"
    headers = {"Content-Security-Policy": policy}
    if not hold:
        headers["Refresh"] = f"{REFRESH}; url={link(given.get('gate', ''))}"
    return Response(HTTPStatus.OK, text.encode(), "text/html; charset=utf-8", headers)


def render(snapshot: Snapshot, chosen: str = "", *, hold: bool = False) -> str:
    """The page as HTML: the gate of that id, else the first that is not authorised."""
    found = snapshot.gates
    gates = {gate["gate"]: gate for gate in found.get("gates", ())}
    waiting = [id_ for id_, gate in gates.items() if not gate["authorised"]]
    last = list(gates)[-1] if gates else ""
    shown = chosen if chosen in gates else next(iter(waiting), last)
    return _template().render(
        s=snapshot,
        found=found,
        gates=gates,
        g=gates.get(shown),
        current=next(iter(waiting), ""),
        hold=hold,
        chosen=chosen if chosen in gates else "",
        style=_style()[0],
        kinds=KINDS,
    )


def link(gate: str, *, hold: bool = False) -> str:
    """The address of this page."""
    query = urlencode({k: v for k, v in {"gate": gate, "hold": "1" if hold else ""}.items() if v})
    return f"/gates?{query}" if query else "/gates"


def of(lines: Sequence[Document], kind: str) -> list[Document]:
    """The lines of a kind, those that keep the gate shut first."""
    mine = [line for line in lines if line["kind"] == kind]
    return [*words.lacking(mine), *(line for line in mine if line["verdict"] in words.STANDS)]


def word(line: Document) -> str:
    """The verdict of a line, as it is said of its kind."""
    verdict = str(line["verdict"])
    return VETOES.get(verdict, verdict) if line["kind"] == "veto" else verdict


@cache
def _template() -> Template:
    helpers: dict[str, Any] = {
        "marks": {str(verdict): mark for verdict, mark in MARKS.items()},
        "w": words,
        "of": of,
        "word": word,
        "state": words.state,
        "clock": clock,
        "link": link,
    }
    return template(TEMPLATES / "gates.html.j2", helpers)


@cache
def _style() -> tuple[str, str]:
    """The page's style sheet and what gates have besides, with its hash for the policy."""
    style = "".join((TEMPLATES / name).read_text("utf-8") for name in ("page.css", "gates.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return style, f"sha256-{digest}"

"""Make a projection's page: one file, no script, nothing from outside. Pure."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.people.attestations import moment
from dvfd.scaling import plot
from dvfd.scaling.points import of
from dvfd.sinks.page import TEMPLATES as PAGE
from dvfd.template import template
from dvfd.words import NONE

if TYPE_CHECKING:
    from jinja2 import Template

    from dvfd.scaling.view import View

TEMPLATES = Path(__file__).parent / "templates"


def html(view: View, frozen: str = "") -> str:
    """The page; *frozen* says under which hash it was frozen, if it was."""
    figures = [plot.throughput(view), plot.efficiency(view)]
    return _template().render(
        v=view,
        figures=[figure for figure in figures if figure],
        largest=max(point.processes for point in view.points),
        typed=any(point.proves for point in view.points),
        frozen=frozen,
        style=_style(),
    )


def figure(value: float | None) -> str:
    """Five digits, which is more than was measured; a dash for none."""
    return NONE if value is None else f"{value:.5g}"


def percent(share: float | None) -> str:
    """A share as people read it."""
    return NONE if share is None else f"{share:.1%}".replace("%", " %")


@cache
def _template() -> Template:
    helpers: dict[str, Any] = {"figure": figure, "percent": percent, "of": of, "moment": moment}
    return template(TEMPLATES / "projection.html.j2", helpers)


@cache
def _style() -> str:
    """The status page's style sheet, and what a projection has besides."""
    page = (PAGE / "page.css").read_text(encoding="utf-8")
    return page + (TEMPLATES / "projection.css").read_text(encoding="utf-8")

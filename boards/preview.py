"""A dashboard as one page, drawn from its panels' queries: `python -m boards.preview --help`.

Not Grafana's picture: ours, of the same queries, units, colours and places. It is for looking at
what a panel says of real values, and says so on itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boards.ask import Look, Prometheus, duration
from boards.draw import FAINT, INK, Box, panel, text

PLACE = Path(__file__).resolve().parents[1] / "dashboards"
ORIGIN = "drawn by dvfd from the panels' queries, not by Grafana"

CELL, UNIT, GAP = 46, 26, 6
"""Pixels: width of a column, height of a row, and what lies between panels."""

MARGIN, HEAD, COLUMNS = 10, 44, 24

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ margin: 0; background: #F4F5F7 }}
svg {{ display: block; font-family: "DejaVu Sans", "Liberation Sans", sans-serif }}
</style>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">
{marks}
</svg>
</html>
"""


def read(name: str) -> dict[str, Any]:
    """A dashboard as delivered, by its short name."""
    return dict(json.loads((PLACE / f"dvfd-{name}.json").read_text(encoding="utf-8")))


def write(path: Path, board: dict[str, Any], server: Prometheus, look: Look) -> tuple[int, int]:
    """Write the page; its width and height."""
    bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    width, height = COLUMNS * CELL + 2 * MARGIN, bottom * UNIT + HEAD + MARGIN
    marks = "\n".join(_marks(board, server, look))
    page = PAGE.format(title=board["title"], width=width, height=height, marks=marks)
    path.write_text(page, encoding="utf-8")
    return width, height


def _marks(board: dict[str, Any], server: Prometheus, look: Look) -> Iterator[str]:
    yield text(MARGIN, 20, board["title"], INK, 16, weight=600)
    said = f"{ORIGIN} · {time.strftime('%Y-%m-%d %H:%M', time.gmtime(look.end))} UTC"
    chosen = ", ".join(f"{name} {value}" for name, value in look.chosen.items())
    yield text(MARGIN, 36, f"{said} · {chosen or 'all nodes'}", FAINT)
    for one in board["panels"]:
        box = _box(one["gridPos"])
        if one["type"] == "row":
            yield text(box.x, box.y + 17, one["title"], INK, 13, weight=600)
        else:
            yield from panel(one, server.panel(one, board, look), look, box)


def _box(place: dict[str, int]) -> Box:
    x, y = MARGIN + place["x"] * CELL, HEAD + place["y"] * UNIT
    return Box(x, y, place["w"] * CELL - GAP, place["h"] * UNIT - GAP)


def main() -> None:
    """Write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("board", choices=("node", "job", "fleet", "trends", "validation"))
    parser.add_argument("--url", default="http://127.0.0.1:9090", help="of a Prometheus")
    parser.add_argument("--range", default="", help="as 6h or 90d; the dashboard's own if unsaid")
    parser.add_argument("--scrape", default="15s", help="Prometheus' scrape interval")
    parser.add_argument("--choose", action="append", default=[], metavar="NAME=REGEX")
    parser.add_argument("--page", type=Path, required=True, help="HTML file to write")
    options = parser.parse_args()
    board = read(options.board)
    seconds = duration(options.range or board["time"]["from"].removeprefix("now-"))
    chosen = dict(choice.split("=", 1) for choice in options.choose)
    look = Look(time.time(), seconds, duration(options.scrape), chosen)
    write(options.page, board, Prometheus(options.url), look)


if __name__ == "__main__":
    main()

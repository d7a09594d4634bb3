"""Previews say what the queries found: no more, and plainly when that is nothing."""

from __future__ import annotations

import re
import struct
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grafana_foundation_sdk")
from bench.png import shrink
from boards import colours
from boards.ask import Look, Series, filled
from boards.draw import Box, panel, ticks, unbroken
from boards.preview import ORIGIN, read, write
from boards.units import worded

LOOK = Look(end=1000.0, seconds=600.0, scrape=10.0)
BOX = Box(0, 0, 400, 200)


def found(*values: float, name: str = "one") -> Series:
    return Series(name, {}, tuple((400 + 10.0 * n, v) for n, v in enumerate(values)), 0)


def of(board: str, title: str, kind: str = "timeseries") -> dict[str, Any]:
    each = (p for p in read(board)["panels"] if (p["title"], p["type"]) == (title, kind))
    return next(each)


class Silent:
    """A Prometheus that has nothing."""

    def panel(self, *_: object) -> list[Series]:
        return []


def test_a_panel_without_data_says_unknown_in_its_colour() -> None:
    drawn = "".join(panel(of("node", "Memory"), [], LOOK, BOX))
    assert "UNKNOWN: no data" in drawn
    assert colours.UNKNOWN in drawn


@pytest.mark.parametrize("name", ["node", "job", "fleet", "trends", "validation"])
def test_a_page_of_silence_says_unknown_in_every_panel_and_who_drew_it(
    tmp_path: Path, name: str
) -> None:
    board = read(name)
    write(tmp_path / "page.html", board, Silent(), LOOK)  # type: ignore[arg-type]
    page = unescape((tmp_path / "page.html").read_text("utf-8"))
    panels = [p for p in board["panels"] if p["type"] != "row"]
    assert page.count(">UNKNOWN: no data<") == len(panels)
    assert ORIGIN in page
    assert colours.PASS not in page


def test_a_gap_is_not_bridged() -> None:
    points = [(0.0, 1.0), (10.0, 2.0), (60.0, 3.0), (70.0, float("nan")), (80.0, 4.0)]
    assert list(unbroken(points, 10)) == [points[:2], points[2:3], points[4:]]


def test_a_state_is_a_strip_with_its_word_and_colour() -> None:
    drawn = "".join(
        panel(of("node", "Links", "state-timeline"), [found(*[1.0] * 20, *[0.0] * 20)], LOOK, BOX)
    )
    assert re.findall(r">(yes|no)<", drawn) == ["yes", "no"]
    assert colours.PASS in drawn
    assert colours.FAIL in drawn


def test_names_that_others_chose_are_words_and_no_marks() -> None:
    drawn = "".join(panel(of("node", "Memory"), [found(1.0, name="<b>&")], LOOK, BOX))
    assert "<b>" not in drawn
    assert "&lt;b&gt;&amp;" in drawn


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.98434, "percentunit", "98.4 %"),
        (3.76e9, "short", "3.76 Bil"),
        (0.0164, "s", "16.4 ms"),
        (7200.0, "s", "2 h"),
        (60 * 2**20, "bytes", "60 MiB"),
        (66100.0, "watt", "66.1 kW"),
        (float("nan"), "watt", "nan"),
    ],
)
def test_values_have_their_units(value: float, unit: str, words: str) -> None:
    assert worded(value, unit) == words


def test_ticks_are_round() -> None:
    assert list(ticks(0, 940)) == [0, 200, 400, 600, 800]


def test_variables_open_as_the_dashboard_does() -> None:
    asked = filled('up{job=~"$job", x=~"$instance"}[$__rate_interval]', read("fleet"), LOOK, 10)
    assert asked == 'up{job=~"dvfd", x=~".+"}[40s]'
    with pytest.raises(KeyError):
        filled("$nobody", read("fleet"), LOOK, 10)


@pytest.mark.parametrize("how", [0, 1, 2, 3, 4], ids=["none", "sub", "up", "average", "paeth"])
def test_a_picture_with_few_colours_is_the_same_with_a_palette(tmp_path: Path, how: int) -> None:
    rows = [[(9 * x % 256, y % 7 * 30, 128) for x in range(8)] for y in range(6)]
    path = tmp_path / "a.png"
    path.write_bytes(picture(rows, how))
    shrink(path)
    assert pixels(path.read_bytes()) == rows


def picture(rows: list[list[tuple[int, int, int]]], how: int) -> bytes:
    """An RGB picture whose rows have all the same filter."""
    raw, above = b"", bytes(3 * len(rows[0]))
    for row in rows:
        line = bytes(value for pixel in row for value in pixel)
        raw += bytes([how]) + bytes(
            (v - guess(how, line, above, at)) & 255 for at, v in enumerate(line)
        )
        above = line
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + b"\0\0\0\0" for name, body in parts
    )


def guess(how: int, line: bytes, above: bytes, at: int) -> int:
    a = line[at - 3] if at >= 3 else 0
    b, c = above[at], above[at - 3] if at >= 3 else 0
    by_distance = sorted([(abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c)])
    return (0, a, b, (a + b) // 2, by_distance[0][2])[how]


def pixels(data: bytes) -> list[list[tuple[int, int, int]]]:
    """Of a PNG with a palette and no filters."""
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    width, height = struct.unpack(">II", found[b"IHDR"][:8])
    raw, palette = zlib.decompress(found[b"IDAT"]), found[b"PLTE"]
    lines = [raw[y * (width + 1) + 1 : (y + 1) * (width + 1)] for y in range(height)]
    return [[tuple(palette[3 * n : 3 * n + 3]) for n in line] for line in lines]  # type: ignore[misc]

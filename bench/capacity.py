"""What a fleet takes, computed from what bench.fleet measured: the tables of docs/fleet.md. Pure.

Each number is a product of measured ones; the table's own head says of which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.record import number

FLEETS = (100, 1000, 10_000)
INTERVALS = (15.0, 30.0, 60.0)
DAY = 86_400.0
RETENTION = 15
"""Days: Prometheus' own default."""

BLOCK = 2 * 3600.0
"""Seconds of Prometheus' smallest block: one index serves so long."""

GIB = 2.0**30


def table(fleet: Mapping[str, Any]) -> str:
    """The arithmetic to ten thousand nodes in Markdown."""
    found = {figure["name"]: float(figure["value"]) for figure in fleet["figures"]}
    per_node = found["head"] / found["nodes"]
    rows = [_row(found, per_node, nodes, interval) for nodes in FLEETS for interval in INTERVALS]
    head = (
        "| nodes | every | series | samples/s | memory | processor | disk, a day | disk, {} days |"
    )
    return "\n".join([head.format(RETENTION), "|---:|---:|---:|---:|---:|---:|---:|---:|", *rows])


def _row(found: Mapping[str, float], per_node: float, nodes: int, interval: float) -> str:
    series = per_node * nodes
    rate = series / interval
    memory = series * found["rss_series"] * 1024 / GIB
    # Scrapes and rules both cost in proportion to series and to how often they are looked at.
    measured = found["head"] / found["interval"]
    cores = found["cpu"] / 100 * rate / measured
    a_sample = found["chunks"] + found["index"] * interval / BLOCK
    disk = rate * DAY * a_sample / GIB
    cells = (
        f"{nodes:,}", f"{interval:g} s", number(round(series)), number(round(rate)),
        f"{number(memory)} GiB", f"{number(cores)} cores", f"{number(disk)} GiB",
        f"{number(disk * RETENTION)} GiB",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def measured(fleet: Mapping[str, Any]) -> str:
    """What was measured, on what, and with which command."""
    on = fleet["machine"]
    head = (
        f"`{fleet['command']}`, {fleet['at'][:10]}: {on['cpu']}, {on['cpus']} CPUs, "
        f"{on['memory_gib']} GiB.\n\n| measured | value | wanted |\n|---|---:|---|\n"
    )
    return head + "\n".join(
        f"| {figure['text']} | {number(figure['value'])} {figure['unit']} | {figure['wanted']}"
        f"{': **outside**' if figure['reached'] is False else ''} |"
        for figure in fleet["figures"]
    )

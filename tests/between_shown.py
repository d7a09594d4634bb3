"""What tests between nodes say of real hosts, all well or spoilt: `python tests/between_shown.py`.

It takes half an hour, needs root, and prints a table for docs/validation.md. Arguments choose:
`network`, `topology_3node`, `halved`, `2` and so on. The hosts are namespaces of this machine with
cables of 200 Mbit/s; flows of a few seconds are short, so what holds is UNKNOWN ("passes so far").
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import DEVICE, Host, Lan, hosts, together

ROOT = Path(__file__).parents[1]

SOME = """
import os
from dvfd import cli, drills
names = set(os.environ["PARTS"].split())
drills.PARTS = {
    check: tuple(part for part in parts if part.rpartition(":")[2] in names)
    for check, parts in drills.PARTS.items()
}
cli.main()
"""
"""`dvfd` with some parts of its tests."""


# --- What is spoilt -------------------------------------------------------------------------------


def healthy(_lan: Lan, _rate: int) -> None:
    """Nothing."""


def halved(lan: Lan, rate: int) -> None:
    """What the last host sends has half of the rate."""
    half = ["root", "tbf", "rate", f"{rate // 2}mbit", "burst", "256kb", "latency", "50ms"]
    lan.hosts[-1].tool("tc", "qdisc", "replace", "dev", DEVICE, *half)


def lossy(lan: Lan, _rate: int) -> None:
    """Of what comes to each host one packet in a hundred is lost."""
    for host in lan:
        host.drop(f"ip saddr {host.address}/24", 1)


def parted(lan: Lan, _rate: int) -> None:
    """Nothing goes between the last two hosts."""
    lan.part(lan.hosts[-1], lan.hosts[-2])


SPOILT: Mapping[str, Callable[[Lan, int], None]] = {
    each.__name__: each for each in (healthy, halved, lossy, parted)
}


@contextlib.contextmanager
def spoilt(lan: Lan, how: str, rate: int) -> Iterator[None]:
    """The network with one thing wrong with it, then mended."""
    SPOILT[how](lan, rate)
    try:
        yield
    finally:
        for host in lan:
            host.heal()
        lan.shape(f"{rate}mbit")


# --- Asking ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def network(nodes: int, rate: int, *, ranks: int = 1) -> Iterator[Lan]:
    """So many hosts with cables of *rate* Mbit/s, which the profile knows of, and without MPI."""
    profile = (
        f"[profile]\nnodes = {nodes}\nprocesses_per_node = {ranks}\n"
        f"link_gbps = {rate / 1000}\nlink_gbps_reason = 'shaped cables'\nopenmpi = 'optional'\n"
    )
    with hosts(nodes, profile) as lan:
        lan.shape(f"{rate}mbit")
        yield lan


def ask(
    lan: Lan, check: str, seconds: int, *, parts: Sequence[str] = (), timeout: float = 560
) -> dict[str, Any]:
    """Each host's report of *check*, by its name; of *parts* of the test where any are given."""
    node = [sys.executable, "-c", SOME] if parts else [sys.executable, "-m", "dvfd"]
    how = ["check", check, "--nodes", len(lan.hosts), "--duration", seconds, "--force"]
    env = {"PYTHONPATH": str(ROOT), "PARTS": " ".join(parts)}

    def start(host: Host) -> Any:
        return host.popen([*node, *how, "-o", "json"], env=env)

    ended = together({host.name: start(host) for host in lan}, timeout)
    assert all(e.out for e in ended.values()), {name: e.err[-2000:] for name, e in ended.items()}
    return {name: json.loads(e.out) for name, e in ended.items()}


def results(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report's rows by the last part of their criterion's name."""
    return {row["criterion"].partition(".")[2]: row for row in report["results"]}


def failing(report: Mapping[str, Any]) -> set[str]:
    """The criteria that fail."""
    return {name for name, row in results(report).items() if row["verdict"] == "FAIL"}


# --- All of it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    check: str
    nodes: int
    how: str
    ranks: int = 1
    seconds: int = 3


CASES = (
    *(Case("network", nodes, how) for nodes in (2, 3, 4) for how in SPOILT),
    Case("topology_3node", 3, "healthy", 4, 5),
    Case("topology_4node", 4, "healthy", 4, 5),
    Case("topology_4node", 4, "halved", 4, 5),
)

RATE = 200

ALIKE = {"speed_verified", "link"}
"""As speed is, and unknown of cables that are virtual."""


def main(*chosen: str) -> None:
    """Print a row for each case, as soon as there is one."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")
    print("\n| hosts | test | network | seconds | load | fails | unknown, but for passes so far |")
    print("|---:|---|---|---:|---:|---|---|")
    for case in CASES:
        if not chosen or {case.check, case.how, str(case.nodes)} & set(chosen):
            print(row(case), flush=True)


def row(case: Case) -> str:
    """One case, done."""
    with network(case.nodes, RATE, ranks=case.ranks) as lan, spoilt(lan, case.how, RATE):
        began = time.monotonic()
        report = ask(lan, case.check, case.seconds)["n1"]
        took = time.monotonic() - began
    rows = results(report)
    fails = [f"{name}: {told(rows[name])}" for name in sorted(failing(report) - ALIKE)]
    unknown = [
        f"{name}: {cut(each['reason'])}"
        for name, each in rows.items()
        if each["verdict"] == "UNKNOWN" and "passes so far" not in each["reason"]
        if name not in ALIKE
    ]
    cells = [
        case.nodes, case.check, case.how, f"{took:.0f}", f"{os.getloadavg()[0]:.1f}",
        "<br>".join(fails) or "nothing", "<br>".join(unknown) or "nothing",
    ]  # fmt: skip
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def told(found: Mapping[str, Any]) -> str:
    """What a criterion that fails saw and who is named."""
    notes = str(found.get("note") or "").partition("; Reading")[0].split("; ")
    named = [note for note in notes if note.startswith(("named: ", "smallest: ", "pair by pair: "))]
    where = ", ".join(f"{key} {value}" for key, value in found["labels"].items())
    return f"{found['observed']:.4g} ({where}); {cut('; '.join(named or notes))}"


def cut(text: str) -> str:
    """A line's worth of it."""
    return text if len(text) < 180 else f"{text[:180]}..."


if __name__ == "__main__":
    main(*sys.argv[1:])

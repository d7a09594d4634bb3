"""A monthly list over 16 nodes from two engines, and what it says beside the nodes' own stores.

`python -m bench.fleet_lists`, half an hour of a busy machine. The nodes are those of bench.hall.
What takes time is the command as people type it; `--compare 0` measures that alone and keeps the
comparison of the last run that was kept. What is compared is one truth, looked at every 15 s by the
daemon's own writer and scraped every minute.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.hall import DAY, HOUR, Hall, Node
from bench.harness import chosen, cpu_seconds, finish, testbed
from bench.record import RESULTS, Figure, at_most, exactly
from dvfd import log
from dvfd.catalogue import load
from dvfd.config import Config, parse
from dvfd.fleet import Seen
from dvfd.history.engine import Engine
from dvfd.model import Catalogue
from dvfd.people.attestations import moment
from dvfd.reviews.gather import Node as Gathered
from dvfd.reviews.gather import gathered
from dvfd.reviews.nodes import Judging
from dvfd.reviews.period import Period
from dvfd.reviews.review import OBSERVED, job_of
from dvfd.sighted import by_engine
from dvfd.store import Store

engines = importlib.import_module("engines")  # harness put tests/ on the path
fakes = importlib.import_module("fakes")

STARTS = {"prometheus": engines.prometheus_of, "victoria": engines.victoria_of}
NAMES = {"prometheus": "Prometheus", "victoria": "VictoriaMetrics"}

SCRAPE, LOOK = 60.0, 15.0
AHEAD = 1800
"""Seconds of the data that lie ahead when it is written: the measurement reads it up to now."""

LIMIT = 5.0
FATES = 8
"""Nodes of bench.hall until they come round again."""

LISTS = {"weekly": "7d", "monthly": "30d"}

ANEW = "node-05"
"""Of bench.hall: its counters began anew within an hour, of which a store keeps one value."""

TOLERANCES = {
    "uptime": ("s", SCRAPE * 3 + LOOK),
    "trend_floor": ("%", 0.1),
    "gradient_sync": ("%", 1e-4),
}
"""A scrape at both ends of a period and where a counter began anew, and a look of the daemon; a
twentieth of the margin of 2 %; a thousandth of the 0.1 % that may differ."""

CATALOGUE: Catalogue = load(Config())


def main() -> None:
    """Measure and keep."""
    log.setup("error")
    options = chosen(__doc__, nodes=16, tries=7, compare=1, fastest=LOOK)
    if options.short:
        options.nodes, options.tries, options.fastest = 4, 2, SCRAPE
    scrapes = dict.fromkeys([SCRAPE, options.fastest])
    kept = RESULTS / "fleet_lists.json"
    before = {} if options.compare else json.loads(kept.read_text(encoding="utf-8"))
    times = {
        f"{name} {scrape:g}": timed(name, scrape, options.nodes, options.tries)
        for scrape in scrapes
        for name in STARTS
    }
    if before:
        table, at = before["raw"]["compared"], before["raw"].get("compared_at", before["at"])
    else:
        table, at = compared(2 if options.short else FATES), moment(time.time())
    found = {"times": times, "nodes": options.nodes, "compared": table, "compared_at": at}
    finish("fleet_lists", options, [*spent(found), *agreed(table)], found)


def settings(url: str, hall: Hall) -> str:
    """A configuration of somebody who looks at all nodes."""
    text = f'node.name = "elsewhere"\n[history]\nurl = "{url}"\n[cluster]\nlead = "node-01"\n'
    for number, node in enumerate(hall.nodes, 1):
        text += f'[[cluster.nodes]]\nname = "{node.name}"\naddress = "10.0.0.{number}"\n'
        text += f'url = "http://{node.instance}"\n'
    return text


@contextmanager
def engine(name: str, place: Path, hall: Hall, scrape: float) -> Iterator[Any]:
    """One that has scraped *hall*."""

    def write(out: Any, milliseconds: bool) -> object:
        return hall.write(out, scrape, milliseconds=milliseconds, catalogue=CATALOGUE)

    with STARTS[name](place, write) as server:
        yield server


# --- What it takes ------------------------------------------------------------------------------


def timed(name: str, scrape: float, count: int, tries: int) -> list[tuple[float, float]]:
    """Of each try of the command, over a month that ends now: seconds, and seconds of processors
    that it, its child and the engine used.
    """
    hall = Hall(int(time.time()) + AHEAD, days=30, count=count)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "dvfd.toml"
        with engine(name, Path(place), hall, scrape) as server:
            file.write_text(settings(server.url, hall), encoding="utf-8")
            typed(file, count)  # once for whatever is read from the disk
            return [measured(file, count, server.process.pid) for _ in range(tries)]


def measured(file: Path, count: int, engine: int) -> tuple[float, float]:
    """One try: what the clock and what processors say."""
    before = processors(engine)
    return typed(file, count), processors(engine) - before


def processors(engine: int) -> float:
    """Seconds that our children and the *engine*'s process have used so far."""
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    own, _ = cpu_seconds(engine)
    return ours.ru_utime + ours.ru_stime + own


def typed(file: Path, count: int) -> float:
    """Seconds of `dvfd fleet --list monthly`. Raises RuntimeError unless it saw every node."""
    command = [sys.executable, "-m", "dvfd", "fleet", "--list", "monthly", "-o", "json"]
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "DVFD_CONFIG": str(file)}, capture_output=True, check=False
    )
    took = time.perf_counter() - began
    found = json.loads(done.stdout)
    shares = [node["coverage"]["30d"] for node in found["nodes"]]
    if len(shares) != count or not all(node["seen"] for node in found["nodes"]) or None in shares:
        raise RuntimeError(f"the list did not see all of {count} nodes: {found['nodes']}")
    return took


def spent(found: dict[str, Any]) -> Iterator[Figure]:
    """Medians and their ends."""
    for name, tries in found["times"].items():
        who, scrape = name.split()
        clock, used = ([pair[place] for pair in tries] for place in (0, 1))
        text = f"`dvfd fleet --list monthly`, {found['nodes']} nodes, {NAMES[who]}, scraped every"
        text += f" {scrape} s"
        ends = f"median of {len(tries)} (least, most)"
        yield at_most(
            f"{who}_{scrape}", f"{text}, {ends}", statistics.median(clock), "s", LIMIT,
            interval=(min(clock), max(clock)),
        )  # fmt: skip
        yield Figure(
            f"{who}_{scrape}_used", f"{text}: processor time, the engine's included, {ends}",
            statistics.median(used), "s", low=min(used), high=max(used),
        )  # fmt: skip
    local = [row["seconds"] for row in found["compared"]["store"]]
    yield Figure(
        "store", "A monthly list of one node from its own store, the slowest", max(local), "s"
    )


# --- What it says -------------------------------------------------------------------------------


def compared(count: int) -> dict[str, Any]:
    """By source and node: the figures and verdicts of both lists."""
    hall = Hall(int(time.time()) // HOUR * HOUR - DAY + 1500, days=30, count=count)
    at = float(hall.end)
    found: dict[str, Any] = {name: from_engine(name, hall, at) for name in STARTS}
    found["store"] = [from_store(hall, node, at) for node in hall.nodes]
    return found


def from_engine(name: str, hall: Hall, at: float) -> list[dict[str, Any]]:
    """What one engine has of each node."""
    with tempfile.TemporaryDirectory() as place, engine(name, Path(place), hall, SCRAPE) as server:
        config = parse(settings(server.url, hall))
        asking = Engine(config.engine)
        seen = by_engine(asking, config, LISTS, at=at)
        lists = {
            check: gathered(asking, config, CATALOGUE, CATALOGUE.checks[check], seen, at=at)
            for check in LISTS
        }
        told = {check: judged(check, nodes, at) for check, nodes in lists.items()}
    return [
        {"node": node.name, **{check: told[check][node.name] for check in LISTS}}
        for node in hall.nodes
    ]


def from_store(hall: Hall, node: Node, at: float) -> dict[str, Any]:
    """What a node's own store has of it, through the daemon's writer."""
    seen = Seen(node=node.name, catalogue=CATALOGUE.hash)
    with tempfile.TemporaryDirectory() as place, filled(Path(place), hall, node) as store:
        found: dict[str, Any] = {"node": node.name}
        for check, name in LISTS.items():
            began, period = time.perf_counter(), Period.ending(name, at)
            jobs = {name: [job_of(store, s, period) for s in store.latest(OBSERVED)]}
            told = judged(check, [Gathered(seen, jobs, store)], at)
            found |= {check: told[node.name], "seconds": time.perf_counter() - began}
    return found


@contextmanager
def filled(place: Path, hall: Hall, node: Node) -> Iterator[Store]:
    """A store with all that the node's daemon saw every LOOK seconds, rolled up."""
    path, clock = place / "dvfd.db", fakes.FakeClock(float(hall.begin))

    def opened() -> Store:
        made = Store(path, metrics=CATALOGUE.metrics, clock=clock)
        made.start()
        return made

    first, batch = opened(), []
    for sample in hall.samples(node, LOOK):
        batch.append(sample)
        if len(batch) == 20_000:
            first.write(batch)
            first.flush(60)
            batch = []
    first.write(batch)
    first.flush(60)
    first.stop()
    clock.advance(hall.end - hall.begin + 10.0)
    second = opened()
    wanted = hall.end // HOUR * HOUR - HOUR
    rows = importlib.import_module("fakes_store").rows
    testbed.eventually(
        lambda: len(rows(path, f"SELECT 1 FROM hours WHERE start = {wanted}")) >= 6, 300, every=0.5
    )
    try:
        yield second
    finally:
        second.stop()


def judged(check: str, nodes: Sequence[Gathered], at: float) -> dict[str, dict[str, Any]]:
    """By node: figure and verdict of each criterion that an engine's series make."""
    judging = Judging(CATALOGUE.checks[check], CATALOGUE, lead=nodes[0].name, at=at)
    rows = [r for r in judging.document(nodes, source="")["results"] if r["from"] == "engine"]
    return {
        node.name: {
            row["criterion"].partition(".")[2]: [
                row["nodes"][node.name]["observed"], row["nodes"][node.name]["verdict"]
            ]
            for row in rows
        }
        for node in nodes
    }  # fmt: skip


def apart(table: dict[str, Any], source: str, check: str, figure: str) -> dict[str, float | None]:
    """By node: how far *source* is from the store, in the unit of the tolerance."""
    unit, _ = TOLERANCES[figure]
    factor = float(LISTS[check].removesuffix("d")) * DAY if unit == "s" else 100.0
    found: dict[str, float | None] = {}
    for ours, theirs in zip(table["store"], table[source], strict=True):
        here, there = ours[check][figure][0], theirs[check][figure][0]
        known = here is not None and there is not None
        found[ours["node"]] = abs(there - here) * factor if known else None
    return found


def agreed(table: dict[str, Any]) -> Iterator[Figure]:
    """The furthest of each figure, and how many verdicts are others."""
    for check in LISTS:
        for figure, (unit, most) in TOLERANCES.items():
            if figure not in table["store"][0][check]:
                continue
            for source in STARTS:
                far = apart(table, source, check, figure)
                anew = far.pop(ANEW, None) if unit == "s" else None
                text = f"{check}.{figure} by {NAMES[source]} less that of the store"
                known = [value for value in far.values() if value is not None]
                yield at_most(
                    f"{check}_{figure}_{source}", f"{text}, furthest of {len(known)} nodes",
                    max(known), unit, most,
                )  # fmt: skip
                if anew is not None:
                    yield at_most(
                        f"{check}_{figure}_{source}_anew",
                        f"{text}, of the node whose counters began anew: the store forgets up to "
                        "an hour, the engine does not", anew, unit, most + HOUR,
                    )  # fmt: skip
    told = [pair for check in LISTS for source in STARTS for pair in verdicts(table, check, source)]
    against = sum(set(pair) == {"PASS", "FAIL"} for pair in told)
    seen = [pair for pair in told if pair[0] == "UNKNOWN" != pair[1]]
    blind = [pair for pair in told if pair[1] == "UNKNOWN" != pair[0]]
    yield exactly("against", f"Of {len(told)} verdicts PASS by the one and FAIL by the other",
                  against, "verdicts", 0)  # fmt: skip
    yield exactly("blind", "UNKNOWN by an engine, known to the store", len(blind), "verdicts", 0)
    yield Figure("known", "UNKNOWN by the store, known to an engine", len(seen), "verdicts")


def verdicts(table: dict[str, Any], check: str, source: str) -> Iterator[tuple[str, str]]:
    """By the store and by *source*, of every criterion of every node."""
    for ours, theirs in zip(table["store"], table[source], strict=True):
        for figure in ours[check]:
            yield ours[check][figure][1], theirs[check][figure][1]


if __name__ == "__main__":
    main()

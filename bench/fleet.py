"""What a fleet asks of one Prometheus: scrapes, series, rules, dashboards, alerts.

A thousand simulated nodes (bench.player: recordings of real daemons, each node its own) scraped
every 15 s by a real Prometheus that evaluates alert_rules/. A few nodes are ill in a declared way:
the alerts that name them are held against those that should. Rules are timed by Prometheus' own
metrics over the second half of the run, dashboards by asking what their panels ask. At the end what
is in memory is written as a block, for the bytes that a sample takes.

`--nodes 50 --ill 1 --interval 5 --minutes 2` is a small one; an ill node in each of five ways.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import panels
from bench.engine import Prometheus, prometheus
from bench.harness import chosen, finish, quantile, testbed
from bench.illness import Found, compare
from bench.player import Node, fleet
from bench.record import Figure, at_most, exactly
from bench.tape import load

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "alert_rules"

RARELY = re.compile(r"^( *interval: *)\d+[mhd]\b", re.MULTILINE)

HEALTHY = 'up{job="dvfd"} == 1'
RULE_SECONDS = "prometheus_rule_group_last_duration_seconds"

DASHBOARD_LIMIT = 1.0
"""Seconds that a panel may take before a person calls it slow."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, nodes=1000, ill=3, minutes=9.0, interval=15.0)
    if options.short:
        options.nodes, options.ill, options.minutes, options.interval = 50, 1, 2.0, 5.0
    nodes = fleet(options.nodes, options.ill)
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), nodes, 60 * options.minutes, options.interval, options.ill)
    finish("fleet", options, figures(found), found)


def measure(
    place: Path,
    nodes: Sequence[Node],
    seconds: float,
    interval: float,
    ill: int,
    *,
    source: Path = RULES,
) -> dict[str, Any]:
    """Everything that a run of *seconds* shows, with the rules of *source*."""
    targets, rules = place / "targets.json", copied_rules(source, place)
    played = playing(targets, len(nodes), ill, seconds + 600)
    with played, prometheus(place, targets, interval=interval, rules=rules) as server:
        time.sleep(seconds / 2)
        cpu, since = server.cpu(), time.monotonic()
        time.sleep(seconds / 2)
        percent = 100 * (server.cpu() - cpu) / (time.monotonic() - since)
        found = {
            "nodes": len(nodes),
            "seconds": seconds,
            "interval": interval,
            "cpu_percent": percent,
            **_scrapes(server, nodes, seconds),
            **_rules(server, seconds / 2, interval),
            "illness": asdict(_alerts(server, nodes, seconds)),
            "queries": _dashboards(server, interval, seconds),
            "rss_mib": server.memory(),
            "peak_mib": server.memory("VmHWM"),
            "per_node": per_node(),
        }
        return found | _disk(place / "data", server.snapshot())


def copied_rules(source: Path, place: Path) -> list[Path]:
    """The rules as delivered, but evaluated twice a minute where they would be more rarely: what an
    evaluation takes is the question, and a group that did not come round would seem to take none.
    Nor does Prometheus write ALERTS before a group's third round.
    """
    copies = []
    for path in sorted(source.glob("*.rules.yml")):
        text = RARELY.sub(r"\g<1>30s", path.read_text(encoding="utf-8"))
        copies.append(place / path.name)
        copies[-1].write_text(text, encoding="utf-8")
    return copies


@contextlib.contextmanager
def playing(targets: Path, nodes: int, ill: int, seconds: float) -> Iterator[None]:
    """The simulated nodes, in a process of their own."""
    command = [
        *(sys.executable, "-m", "bench.player", f"--nodes={nodes}", f"--ill={ill}"),
        *(f"--seconds={seconds:g}", f"--targets={targets}"),
    ]
    process = subprocess.Popen(command)
    try:
        testbed.eventually(targets.exists, 30, every=0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _scrapes(server: Prometheus, nodes: Sequence[Node], seconds: float) -> dict[str, Any]:
    window = f"[{seconds:.0f}s]"
    silent = {node.instance for node in nodes if node.condition == "silent"}
    failed = server.query(f'sum by (instance) (count_over_time(up{{job="dvfd"}}{window})'
                          f' - sum_over_time(up{{job="dvfd"}}{window}))')  # fmt: skip
    counts = {one["metric"]["instance"]: float(one["value"][1]) for one in failed}
    return {
        "series": server.value("prometheus_tsdb_head_series"),
        "series_of_nodes": server.value('sum(scrape_samples_scraped{job="dvfd"})'),
        "samples_per_second": server.value(
            "sum(rate(prometheus_tsdb_head_samples_appended_total[1m]))"
        ),
        "scrape_p50": server.value(f"quantile(0.5, scrape_duration_seconds and ({HEALTHY}))"),
        "scrape_p99": server.value(f"quantile(0.99, scrape_duration_seconds and ({HEALTHY}))"),
        "scrapes": server.value(f'sum(count_over_time(up{{job="dvfd"}}{window}))'),
        "silent": len(silent),
        "failed_answering": sum(n for instance, n in counts.items() if instance not in silent),
        "answered_silent": sum(
            float(one["value"][1])
            for one in server.query(f'max_over_time(up{{job="dvfd"}}{window})')
            if one["metric"]["instance"] in silent
        ),
    }


def _rules(server: Prometheus, seconds: float, interval: float) -> dict[str, Any]:
    window, steps = f"[{seconds:.0f}s]", f"[{seconds:.0f}s:{interval:g}s]"
    groups = server.query(f"avg_over_time({RULE_SECONDS}{window})")
    if not groups:
        return {"groups": {}, "rules": 0, "alerts": 0}
    rules = [rule for group in server.rules() for rule in group["rules"]]
    return {
        "groups": {_group(one): float(one["value"][1]) for one in groups},
        "rules": len(rules),
        "alerts": sum(rule["type"] == "alerting" for rule in rules),
        "rules_median": server.value(f"quantile_over_time(0.5, sum({RULE_SECONDS}){steps})"),
        "rules_worst": server.value(f"max_over_time(sum({RULE_SECONDS}){steps})"),
        "missed": server.value("sum(prometheus_rule_group_iterations_missed_total)"),
        "idle": sorted(g["name"] for g in server.rules() if g["lastEvaluation"].startswith("0001")),
        "failures": server.value("sum(prometheus_rule_evaluation_failures_total)"),
    }


def _group(series: dict[str, Any]) -> str:
    file, _, name = str(series["metric"]["rule_group"]).partition(";")
    return f"{Path(file).stem}: {name}"


def _alerts(server: Prometheus, nodes: Sequence[Node], seconds: float) -> Found:
    """What fired at the end of the run, and for healthy nodes at any time in it."""
    waits = {
        rule["name"]: float(rule["duration"])
        for group in server.rules()
        for rule in group["rules"]
        if rule["type"] == "alerting"
    }
    now = server.query("ALERTS")
    ever = server.query(f"last_over_time(ALERTS[{seconds:.0f}s])")
    return compare(nodes, _labels(now), _labels(ever), waits, seconds=seconds)


def _labels(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [series["metric"] for series in found]


def _dashboards(server: Prometheus, interval: float, seconds: float) -> list[dict[str, Any]]:
    """Every panel's query as a graph of the run, and the time that it took."""
    found = []
    for path in sorted(panels.PLACE.glob("*.json")):
        for query in panels.queries(path, server.query, interval=interval, seconds=seconds):
            span = 0.0 if query.instant else seconds
            took, series = server.query_range(query.expression, span, interval)
            found.append({**asdict(query), "seconds": took, "series": series})
    return found


def _disk(data: Path, snapshot: str) -> dict[str, Any]:
    """Bytes of the block that holds the run, and of the log that is written ahead."""
    blocks = list((data / "snapshots" / snapshot).glob("*/meta.json"))
    stats = [json.loads(path.read_text(encoding="utf-8"))["stats"] for path in blocks]
    return {
        "block_samples": sum(one["numSamples"] for one in stats),
        "block_series": sum(one["numSeries"] for one in stats),
        "chunk_bytes": sum(_size(path.parent / "chunks") for path in blocks),
        "index_bytes": sum((path.parent / "index").stat().st_size for path in blocks),
        "wal_bytes": _size(data / "wal"),
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def per_node() -> dict[str, float]:
    """Series of the recorded nodes: all of them, and how many carry a label of parts."""
    cpu, gpu = load("cpu-4").series(), load("gpu-8").series()
    return {
        "cpu_4": len(cpu),
        "gpu_8": len(gpu),
        "per_rank": sum("rank=" in name for name in cpu) / 4,
        "per_gpu": sum("gpu=" in name for name in gpu) / 8,
        "per_interface": sum("interface=" in name for name in cpu)
        / len({name.partition('interface="')[2] for name in cpu if "interface=" in name}),
        "per_job": sum("training_job=" in name and "rank=" not in name for name in cpu),
        "verdicts": sum("_verdict{" in name for name in cpu),
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The numbers, with what was wanted of them."""
    return [
        *_load_figures(found),
        # Where there are no rules none of them is fast, and without alerts nobody is found ill.
        *(_rule_figures(found) if found["rules"] else []),
        *(_alert_figures(found["illness"]) if found["alerts"] else []),
        *_query_figures(found["queries"]),
    ]


def _load_figures(found: dict[str, Any]) -> list[Figure]:
    per, answering = found["per_node"], found["nodes"] - found["silent"]
    samples, series = found["block_samples"], found["block_series"]
    return [
        Figure("nodes", "Simulated nodes", found["nodes"], "nodes"),
        Figure("interval", "Scraped and rules evaluated every", found["interval"], "s"),
        Figure("series_cpu", "Series of a node with 4 ranks", per["cpu_4"], "series"),
        Figure("series_verdicts", "Series of a node: verdicts", per["verdicts"], "series"),
        Figure("series_gpu", "Series of a node with 8 ranks and 8 GPUs", per["gpu_8"], "series"),
        Figure("series_job", "Series of a job", per["per_job"], "series"),
        at_most("series_rank", "Series of a further rank", per["per_rank"], "series", 60),
        Figure("series_card", "Series of a GPU", per["per_gpu"], "series"),
        Figure("series_interface", "Series of an interface", per["per_interface"], "series"),
        Figure("head", "Prometheus: series", found["series"], "series"),
        Figure("rate", "Prometheus: samples a second", found["samples_per_second"], "samples/s"),
        Figure("rss", "Prometheus: resident memory, peak", found["peak_mib"], "MiB"),
        Figure("rss_series", "Prometheus: resident memory, peak, for each series",
               found["peak_mib"] * 1024 / found["series"], "KiB"),
        Figure("cpu", "Prometheus: of one core", found["cpu_percent"], "%"),
        Figure("chunks", "Block: chunks, for each sample", found["chunk_bytes"] / samples, "B"),
        Figure("index", "Block: index, for each series", found["index_bytes"] / series, "B"),
        Figure("wal", "Write-ahead log, for each sample", found["wal_bytes"] / samples, "B"),
        Figure("scrape", "Scrape of a node, median", 1e3 * found["scrape_p50"], "ms"),
        at_most("scrape_p99", "Scrape of a node, p99", 1e3 * found["scrape_p99"], "ms", 1000),
        exactly("failed", f"Failed scrapes of the {answering} nodes that answer",
                found["failed_answering"], "scrapes", 0),
    ]  # fmt: skip


def _rule_figures(found: dict[str, Any]) -> list[Figure]:
    groups = sorted(found["groups"].items(), key=lambda one: -one[1])
    return [
        Figure("rules", "Rules loaded", found["rules"], "rules"),
        at_most("rules_median", "All rule groups once, median", found["rules_median"], "s", 1),
        Figure("rules_worst", "All rule groups once, worst", found["rules_worst"], "s"),
        *(
            Figure(f"group_{name}", f"Rule group {name}, mean", 1e3 * seconds, "ms")
            for name, seconds in groups
        ),
        exactly("idle", "Rule groups that never came round", len(found["idle"]), "groups", 0),
        exactly("failures", "Rule evaluations failed", found["failures"], "evaluations", 0),
        exactly("missed", "Rule evaluations missed", found["missed"], "evaluations", 0),
    ]


def _alert_figures(ill: dict[str, Any]) -> list[Figure]:
    return [
        exactly("unnoticed", f"Silent and stale nodes: of {ill['demanded']} without an alert",
                len(ill["unnoticed"]), "nodes", 0),
        exactly("slandered", f"Healthy nodes: of {ill['well']} with an alert",
                len(ill["slandered"]), "nodes", 0),
    ]  # fmt: skip


def _query_figures(queries: list[dict[str, Any]]) -> list[Figure]:
    if not queries:
        return []
    took = [query["seconds"] for query in queries]
    slowest = max(queries, key=lambda query: float(query["seconds"]))
    where = f"{slowest['dashboard']}: {slowest['panel']}"
    return [
        Figure("queries", "Dashboards: queries", len(queries), "queries"),
        Figure("query_median", "Dashboards: a query, median", quantile(took, 0.5), "s"),
        at_most("query_worst", f"Dashboards: the slowest query ({where})", max(took), "s",
                DASHBOARD_LIMIT),
        Figure("query_empty", "Dashboards: queries without data",
               sum(not query["series"] for query in queries), "queries"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

"""Mute every source of a real daemon in every way, and read its criteria in all four places.

Every metric of every probe has a criterion here: those of the continuous watch, and one of a site's
own for each of the rest. All are PASS before anything is muted: a mute of what never passed shows
nothing. Many sources are muted at once, each in another way; then each is healed and passes again.
Seconds count from the mute until the criterion is UNKNOWN on /metrics, page, status and API.

The machine is a tree of files and NVML is a file (bench.muted_node): no hardware is needed. The
criteria of the lists, tests, runs and gates are muted in process (bench.silences, run_silences).
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog

from bench import four_places, run_silences, silences
from bench.harness import chosen, finish, quantile, testbed
from bench.harness import node as tests_node
from bench.mute_table import SOURCES, Way
from bench.muted_machine import INTERFACE, Machine
from bench.record import Figure, exactly
from bench.simulated import simulated
from dvfd import config as configuration
from dvfd.catalogue import load as load_catalogue
from dvfd.model import Catalogue, Kind, Metric

INTERVAL = 2.0
"""Seconds between samples here; a sample may be three of them old, as it may be 15 s at the 5 s of
a node as delivered."""

GUARD = 60.0
"""Seconds after which a mute that nobody has seen is one that nobody sees."""

SLOW = {"plugin": 5.0}
"""Seconds between the samples of what does not follow the sampling interval."""

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root reads every file: without these it is refused like anybody."""


@dataclass(frozen=True, slots=True)
class Found:
    """One criterion whose source was muted in one way."""

    criterion: str
    source: str
    way: str
    seconds: float | None  # until UNKNOWN everywhere
    intervals: float | None
    after: str  # what the places said at the end
    ready: str  # what `dvfd ready` said then
    gates: str  # outcomes of the gates then


class Scene:
    """A node under a hand that mutes its sources."""

    def __init__(self, node: Any, machine: Machine, catalogue: Catalogue) -> None:
        self.node, self.machine, self.catalogue = node, machine, catalogue
        self.found: list[Found] = []
        self.blind: dict[str, bool] = {}
        self.address = node.address
        self.baseline: dict[str, str] = {}

    def establish(self) -> None:
        """Wait until all pass that can; what passes then is what can be lost. On a machine that is
        busy with much else ranks fall out of step, say: that FAILs, and is no mute.
        """
        wanted = {c for c in self._live() if self._source(c)}
        self._await(wanted - self.idle())
        self.baseline = {c: self._source(c) for c in self._passing() if self._source(c)}

    def idle(self) -> set[str]:
        """What cannot pass here, by the node's own word: it does not apply, or has no limit."""
        return {
            name
            for name, r in self.node.results().items()
            if r["verdict"] == "NOT_APPLICABLE" or "not set" in r["reason"] or name in UNDONE
        }

    def phase(self, hands: Mapping[str, Way], *, blind: bool = False) -> None:
        """Mute each source in a way, see it, heal it, see it pass again."""
        named = {
            c: s
            for c, s in self.baseline.items()
            if s in hands and hands[s] not in BESIDE.get(c, ())
        }
        since = {}
        for source, way in hands.items():
            self.machine.mute(source, way)
            since[source] = time.monotonic()
        seen = self._until_unknown(named, since)
        places = self._agreeing(named)
        ready, gates = self._ready(), self._gates()
        for name, source in named.items():
            interval = SLOW.get(source.partition(".")[0], INTERVAL)
            took = seen.get(name)
            self.found.append(
                Found(
                    name, source, hands[source].value, took,
                    None if took is None else took / interval,
                    " and ".join(sorted(four_places.told(places, name))), ready, gates,
                )
            )  # fmt: skip
        if blind:
            self._alerts({self.catalogue.criteria[c].source for c in named})
        for source, way in hands.items():
            self.machine.heal(source, way)
        self._await(set(named))
        passing = self._passing()
        self.baseline = {c: s for c, s in self.baseline.items() if c in passing or c not in named}

    def _await(self, wanted: set[str]) -> None:
        """Until all of *wanted* pass, or for GUARD seconds: what does not is not muted then."""
        end = time.monotonic() + GUARD
        while not self._passing() >= wanted and time.monotonic() < end:
            time.sleep(0.3)

    def _until_unknown(
        self, named: Mapping[str, str], since: Mapping[str, float]
    ) -> dict[str, float]:
        """Seconds until each was UNKNOWN, and stayed so while it was looked at. A look lasts: what
        it brings was so when it began.
        """
        seen: dict[str, float] = {}
        end = time.monotonic() + GUARD
        while time.monotonic() < end and len(seen) < len(named):
            looked, results = time.monotonic(), self.node.results()
            for name, source in named.items():
                if results[name]["verdict"] == "UNKNOWN":
                    seen.setdefault(name, looked - since[source])
                else:
                    seen.pop(name, None)
            time.sleep(0.1)
        return seen

    def _agreeing(self, named: Iterable[str]) -> dict[str, four_places.Verdicts]:
        """The four places, read anew where a pass came in between."""
        for _ in range(5):
            places = four_places.read(self._get, self.node.ask("status"))
            if all(four_places.told(places, name) == {"UNKNOWN"} for name in named):
                break
        return places

    def _get(self, path: str) -> bytes:
        return bytes(testbed.fetch(f"http://{self.address}{path}", timeout=60))

    def _ready(self) -> str:
        return str(self.node.ask("ready")["verdict"])

    def _gates(self) -> str:
        gates = self.node.ask("gates")["gates"]
        return " ".join(sorted({gate["outcome"] for gate in gates}))

    def _alerts(self, sources: set[str]) -> None:
        """Whether the loss of each source calls somebody."""
        end = time.monotonic() + GUARD
        while time.monotonic() < end and not all(self.blind.get(s) for s in sources):
            keys = {alert["key"] for alert in self.node.ask("status")["alerts"]}
            self.blind |= {s: f"blind:{s}" in keys for s in sources}
            time.sleep(0.3)

    def _passing(self) -> set[str]:
        return {c for c, r in self.node.results().items() if r["verdict"] == "PASS"}

    def _live(self) -> list[str]:
        return [c.id for c in self.catalogue.checks["live"].criteria]

    def _source(self, criterion: str) -> str:
        """The probe that a criterion rests on."""
        found = self.catalogue.criteria.get(criterion)
        if found is None or found.check != "live":
            return ""
        metric = self.catalogue.metrics[found.metric]
        if metric.origin:
            return f"{metric.origin.source}.{metric.origin.input}"
        return f"plugin.{PLUGIN}" if metric.source == "plugin" else metric.source


PLUGIN, TEXTFILE, SCRAPE = "check", "cron", "exporter"

UNDONE = frozenset({
    "live.checkpoint_intact", "live.checkpoint_loadable", "live.checkpoint_missing",
    "live.site.job_validation_loss", "live.inodes_free",
})  # fmt: skip
"""Nothing saves or validates here: these are muted in process. Some file systems have no inodes."""


BY_FILE = (Way.GONE, Way.DENIED, Way.GARBAGE, Way.FROZEN)

BESIDE: dict[str, tuple[Way, ...]] = {
    # wall clock less uptime: there is no file to take away
    "live.site.node_boot_timestamp_seconds": BY_FILE,
    # the ticks of /proc/stat are those of the node; a rank's own are FAIL where they stand still
    "live.site.rank_cpu_ratio": (Way.FROZEN, Way.DENIED),
}
"""Criteria that do not rest on what is done to their source's files."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    # Hundreds of crashes on purpose: a log of them, with every frame, would take minutes.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    node_found, blind = on_a_node(short=options.short)
    in_process = silences.matrix()
    of_runs = list(
        run_silences.runs(run_silences.CHECKS[:1] if options.short else run_silences.CHECKS)
    )
    of_gates = list(run_silences.gates())
    finish(
        "mutes",
        options,
        figures(node_found, blind, in_process, of_runs, of_gates),
        {
            "node": [asdict(each) for each in node_found],
            "blind": blind,
            "in_process": dict(Counter(f"{f.way.name}" for f in in_process if f.seen)),
        },
    )


def figures(
    node: Sequence[Found], blind: Mapping[str, bool], in_process: Sequence[silences.Seen],
    of_runs: Sequence[run_silences.Muted], of_gates: Sequence[run_silences.Held],
) -> list[Figure]:  # fmt: skip
    """How many were muted, and how many nobody saw; none may be missed."""
    decided = [held for held in of_gates if held.decides]
    missed: dict[str, Sequence[object]] = {
        "node": [f for f in node if f.after != "UNKNOWN" or f.seconds is None],
        "in_process": [f for f in in_process if not f.shows or not f.seen],
        "runs": [f for f in of_runs if not f.seen],
        "gates": [f for f in decided if not f.seen],
    }
    whole = len(node) + len(in_process) + len(of_runs) + len(decided)
    lost = sum(len(some) for some in missed.values())
    intervals = [f.intervals for f in node if f.intervals is not None]
    return [
        exactly("seen", "Mutes seen, of all", 100.0 * (whole - lost) / whole, "%", 100.0),
        Figure("mutes", "Mutes of something that was PASS", whole, "mutes"),
        _none("node_missed", f"Real daemon: of {len(node)} missed", missed["node"]),
        Figure("median", "Until UNKNOWN, median", statistics.median(intervals), "intervals"),
        Figure("p95", "Until UNKNOWN, p95", quantile(intervals, 0.95), "intervals"),
        Figure("worst", "Until UNKNOWN, worst", max(intervals), "intervals",
               "<= 3 intervals", max(intervals) <= 3.0),
        _none("in_process_missed", f"Criteria in process: of {len(in_process)} missed",
              missed["in_process"]),
        _none("runs_missed", f"Runs: of {len(of_runs)} missed", missed["runs"]),
        _none("gates_missed", f"Gates: of {len(decided)} still GO", missed["gates"]),
        exactly("ready_passed", "`dvfd ready` said PASS while blind",
                sum(f.ready == "PASS" for f in node), "times", 0),
        exactly("gates_go", "A gate was GO while blind", sum("GO" in f.gates.split() for f in node),
                "times", 0),
        exactly("silent", f"Lost sources, of {len(blind)}, that called nobody",
                len(blind) - sum(blind.values()), "sources", 0),
    ]  # fmt: skip


def _none(name: str, text: str, missed: Sequence[object]) -> Figure:
    return exactly(name, text, len(missed), "mutes", 0)


def on_a_node(*, short: bool) -> tuple[list[Found], dict[str, bool]]:
    """Every source of a real daemon in the ways that there are for it."""
    with tempfile.TemporaryDirectory() as place, exporter() as (server, voice):
        directory = Path(place)
        machine = Machine(directory / "machine", voice)
        node = _node(directory, machine, server.server_address[1])
        catalogue = load_catalogue(configuration.load(directory / "node/dvfd.toml"))
        with machine.alive(), tests_node.running(node), simulated(node, "gpt", ranks=2) as ranks:
            machine.show([rank.pid for rank in ranks])
            scene = Scene(node, machine, catalogue)
            scene.establish()
            for number, hands in enumerate(phases(short=short)):
                scene.phase(hands, blind=number == 0)
    return scene.found, scene.blind


def phases(*, short: bool) -> Iterator[dict[str, Way]]:
    """Which source is muted how, together: all that raise or hang, then each in another way."""
    every = [s for s in SOURCES if SOURCES[s].ways]
    for way in (Way.RAISES, Way.HANG, Way.BACK) if short else (
        Way.RAISES, Way.HANG, Way.BACK, Way.FORWARD,
    ):  # fmt: skip
        yield {s: way for s in every if way in SOURCES[s].ways}
    for turn in range(1 if short else len(BY_FILE)):
        yield dict(_mixed(every, turn, any_way=short))


def _mixed(every: Sequence[str], turn: int, *, any_way: bool) -> Iterator[tuple[str, Way]]:
    """Each source in the way of its turn, or where it has none in the next that it has."""
    for place, source in enumerate(every):
        order = [BY_FILE[(place + turn + n) % len(BY_FILE)] for n in range(len(BY_FILE))]
        can = [way for way in order if way in SOURCES[source].ways]
        if can and (any_way or can[0] is order[0]):
            yield source, can[0]


def _node(directory: Path, machine: Machine, port: int) -> Any:
    """A node of the tests on that machine, with a criterion for every metric."""
    within = UNPRIVILEGED if os.geteuid() == 0 else ()
    node = MutedNode(directory / "node", [], within=within)
    node.environment["DVFD_BENCH_ROOT"] = str(machine.root)
    checks = directory / "checks.d"
    checks.mkdir()
    settings = f"""
[node]
name = "node-under-test"
[http]
port = 0
[sampling]
interval = {INTERVAL}
[profile]
accelerator = "gpu"
gpus = 1
expected_throughput = 1
interfaces = ["{INTERFACE}"]
[alerting]
storm_count = 1000
[site]
checks = "{checks}"
[[logs]]
name = "training"
path = "{machine.log}"
[[plugin]]
name = "{PLUGIN}"
command = ["{machine.plugin}"]
interval = 5
timeout = 1
[[textfile]]
name = "{TEXTFILE}"
directory = "{machine.textfiles}"
max_age = 6
interval = {INTERVAL}
[[scrape]]
name = "{SCRAPE}"
url = "http://127.0.0.1:{port}/metrics"
interval = {INTERVAL}
timeout = 1
"""
    (directory / "node/dvfd.toml").write_text(settings, encoding="utf-8")
    plain = load_catalogue(configuration.Config())
    (checks / "metrics.toml").write_text(SITE_METRICS, encoding="utf-8")
    (checks / "live.toml").write_text("".join(_site_criteria(plain)), encoding="utf-8")
    with (directory / "node/dvfd.toml").open("a", encoding="utf-8") as file:
        file.writelines(_overrides(plain))
    return node


class MutedNode(tests_node.Node):  # type: ignore[misc, name-defined]
    """A node of the tests whose daemon lives on a tree."""

    program = ("-m", "bench.muted_node")


SITE_METRICS = f"""
[site_written]
help = "Written by somebody's cron"
unit = "files"
from = {{ textfile = "{TEXTFILE}", series = "written" }}

[site_exported]
help = "Told by an exporter"
unit = "files"
from = {{ scrape = "{SCRAPE}", series = "exported" }}
"""


def _site_criteria(catalogue: Catalogue) -> Iterator[str]:
    """A criterion for each metric of a probe on which the watch has none. What is wanted of it any
    node has: it is about whether it is known.
    """
    yield 'clause = "everything that probes measure"\n'
    watched = {c.metric for c in catalogue.checks["live"].criteria}
    probes = {s for s in SOURCES if "." not in s}
    rest = [m for m in catalogue.metrics.values() if m.source in probes and m.name not in watched]
    for metric in rest:
        yield _line(metric.name, metric.unit, f"{_wanted(metric)}max_age = {3 * INTERVAL}\n")
    for name in ("site_written", "site_exported"):
        yield _line(name, "files", 'comparison = "<="\nlimit = 1000\n')
    where = f'where = {{ plugin = "{PLUGIN}" }}\n'
    yield _line("plugin_status", "status", f'{where}comparison = "<"\nlimit = 2\n')


def _wanted(metric: Metric) -> str:
    """Half of what is possible at most; of what only grows, in ten seconds no more than 1e9."""
    if metric.kind is Kind.COUNTER:
        return 'reduce = "increase"\nwindow = 10\ncomparison = "<="\nlimit = 1e9\n'
    high = 1e9 if metric.possible is None else 0.99 * metric.possible.high
    return f'comparison = "<="\nlimit = {high}\n'


def _line(name: str, unit: str, rest: str) -> str:
    return (
        f'[[criterion]]\nid = "{name}"\ntext = "{name} is known"\nmetric = "{name}"\n'
        f'unit = "{unit}"\n{rest}'
    )


def _overrides(catalogue: Catalogue) -> Iterator[str]:
    """Windows of seconds, so that what was healed passes again soon; three intervals of age."""
    for c in catalogue.checks["live"].criteria:
        window = "window = 10\n" if c.window else ""
        limit = "limit = 0.001\n" if c.id in {"live.disk_free", "live.gpu"} else ""
        age = 3 * SLOW.get(c.source, INTERVAL)
        yield f'[override."{c.id}"]\n{window}{limit}max_age = {age}\nreason = "tests wait less"\n'


# --- An exporter ----------------------------------------------------------------------------------


class Voice:
    """What the exporter says: well, garbage, a refusal, or nothing at all for as long as told."""

    def __init__(self) -> None:
        self.way: Way | None = None

    def answer(self) -> tuple[int, bytes]:
        """Status and body; waits while it is to hang."""
        while self.way is Way.HANG:
            time.sleep(0.05)
        if self.way is Way.DENIED:
            return 403, b"no\n"
        if self.way is Way.GARBAGE:
            return 200, b"<html>\x00"
        stamp = f" {int(1000 * time.time()) - 3_600_000}" if self.way is Way.FROZEN else ""
        name = "another" if self.way is Way.GONE else "exported"
        return 200, f"{name} 7{stamp}\n".encode()


@contextlib.contextmanager
def exporter() -> Iterator[tuple[ThreadingHTTPServer, Voice]]:
    """An exporter on loopback, ended afterwards."""
    voice = Voice()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = voice.answer()
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, voice
    finally:
        voice.way = None
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()

"""Seconds from a fault until a webhook behind a real Alertmanager is told, by dvfd and by scraping.

Eleven classes of faults (bench.faults) on one node with one real daemon, but for stragglers: those
have a node to themselves, since a straggler is over only once every job's first minute is, and jobs
begin here all the time. In every trial three ways
race to one Alertmanager and its webhook: dvfd, which pushes; and a real Prometheus with a plain
rule on the same raw metric, scraped and evaluated every 15 s and every second (bench.scraping).
Classes whose criteria differ run beside each other. A fault comes at a random moment, uniform over
15 s, after all three ways had said that the one before it is over.

Alertmanager tells each alert at once and by itself here, by a route with `group_wait: 0s`. The
first trial of each criterion is told by a second route too, which waits as long as our example
does: what that adds stands beside it, for dvfd and for scraping.

Time beyond the wait: some criteria wait by themselves, as checks/live.toml has it (a disk must be
full for 60 s, a straggler slow for half a minute of its median and 30 s more; a checkpoint is
missing once it was due). That wait is the framework's; it stands beside each class, and is taken
off where time beyond it is said. How often dvfd reads a source is not taken off.

The GPU is a fake behind the NVML seam, the network port a fixture behind the /sys root: there are
none here. All else is real; the full disk is a tmpfs in a mount namespace of the bench's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults import COOL, FAULTS, Fault, Stage
from bench.harness import chosen, clock_override, finish, quantile, testbed
from bench.harness import node as tests_node
from bench.record import Figure, at_most, exactly
from bench.resample import median_interval, ratio_of_medians
from bench.scraping import INTERVALS, node_exporter, scraping
from bench.seamed import PORT, Seams
from bench.simulated import simulated
from bench.told import DELIVERED, PROMPT, Ear, Labels, Spell, alertmanager_config, strays
from dvfd.catalogue import load as load_catalogue
from dvfd.config import Config
from dvfd.model import Criterion

TRIALS = 10

PHASE = 15.0
"""Seconds over which faults are spread: the longer of the two scrape intervals."""

PATIENCE = 75.0
"""Seconds beyond its wait after which a fault counts as missed: five of the longer intervals."""

OVER = 300.0
"""Seconds in which an alert must be over once its fault is mended: a window, and what scraping
adds to it, several times."""

SETTLE = 60.0
"""Longest group_wait and what telling takes."""

NODES = ("node", "node-apart")
"""The one of all lanes, and the one for faults that need a node to themselves."""

DISK_BYTES = 16 << 20
CHECKPOINT_BYTES = 64 << 10

OWN_NAMESPACE = "DVFD_BENCH_MOUNTS"

CONFIG = """
[node]
name = "{name}"
[http]
port = 0
[profile]
accelerator = "gpu"
gpus = 1
interfaces = ["{port}"]
[alerting]
urls = ["{url}"]
storm_count = 1000  # trials follow each other faster than faults do: each is told by itself
[[logs]]
name = "training"
path = "{log}"
[override."live.network_errors"]
window = 60
reason = "an alert of ten minutes would hide the next trial; it begins no earlier"
[override."live.cpu"]
limit = 0.01
reason = "ranks that only report are idle"
{clock}
"""
"""As delivered otherwise: 5 s sampling, every probe."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault: the seconds that the framework waits by itself, and those until each way had told
    of it, by each route; None where it never did.
    """

    fault: str
    wait: float
    prompt: dict[str, float | None]
    delivered: dict[str, float | None] = field(default_factory=dict)

    def beyond(self, way: str) -> float | None:
        """Seconds beyond the wait."""
        told = self.prompt[way]
        return None if told is None else told - self.wait


DVFD = "dvfd"
SLOW, FAST = INTERVALS
WAYS = {DVFD: "dvfd", SLOW: "scraping every 15 s", FAST: "scraping every 1 s"}


@dataclass(slots=True)
class Scene:
    """The daemon, what hears of its alerts and of Prometheus', and what has happened so far."""

    place: Path
    name: str
    node: Any
    ear: Ear
    seams: Seams
    criteria: dict[str, Criterion]
    spells: list[Spell] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def labels(self, fault: Fault) -> dict[str, dict[str, str]]:
        """By which labels each way's alert of *fault* is known."""
        scraped = {each: {"fault": fault.name, "scrape": each} for each in INTERVALS}
        return {DVFD: {"criterion": fault.criterion, "node": self.name}, **scraped}

    def shows(self, metric: str, label: str) -> bool:
        """Whether /metrics has a series of *metric* with *label*."""
        url = f"http://{self.node.address}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return any(line.startswith(f"dvfd_{metric}{{") and label in line for line in lines)


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, trials=TRIALS, only="")
    if OWN_NAMESPACE not in os.environ:
        os.environ[OWN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "bench.detection",
                              *sys.argv[1:]])  # fmt: skip  # the tmpfs is nobody else's
    began = time.monotonic()
    names = options.only.split(",") if options.only else [fault.name for fault in FAULTS]
    faults = [fault for fault in FAULTS if fault.name in names]
    with tempfile.TemporaryDirectory() as place:
        trials, false = measure(
            Path(place), faults, lambda fault: fault.short if options.short else options.trials
        )
    raw = {
        "trials": [asdict(trial) for trial in trials],
        "false": false,
        "seconds": round(time.monotonic() - began),
    }
    finish("detection", options, figures(trials, false), raw)


def measure(
    place: Path, faults: Sequence[Fault], count: Callable[[Fault], int]
) -> tuple[list[Trial], list[Labels]]:
    """All trials, and the labels of alerts that nobody had caused."""
    with contextlib.ExitStack() as stack:
        scene, apart = _scenes(stack, place)
        lanes: dict[str, list[Fault]] = {}
        for fault in faults:
            lanes.setdefault(fault.criterion, []).append(fault)
        with ThreadPoolExecutor(len(lanes)) as pool:
            runs = [
                pool.submit(_lane, apart if lane[0].apart else scene, lane, count)
                for lane in lanes.values()
            ]
            try:
                wait(runs, return_when=FIRST_EXCEPTION)
            finally:  # one that failed, or a signal, ends all: after the trial that each is at
                scene.over.set()
        trials = [trial for run in runs for trial in run.result()]
        return trials, [note.labels for note in strays(scene.ear.notes, scene.spells)]


def _scenes(stack: contextlib.ExitStack, place: Path) -> tuple[Scene, Scene]:
    """Everything up, and nothing wrong: the node, and the one for what needs a node to itself."""
    (disk := place / "disk").mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(disk)], check=True
    )
    stack.callback(subprocess.run, ["umount", str(disk)], check=True)
    seams = [Seams.lay(place / f"seams-{name}", COOL) for name in NODES]
    mounts = seams[0].directory / "proc" / "1"
    mounts.mkdir()
    (mounts / "mounts").write_text(f"none {disk} tmpfs rw 0 0\n", encoding="utf-8")

    ear = stack.enter_context(Ear())
    pager = stack.enter_context(
        testbed.alertmanager(place, ear.url, text=alertmanager_config(ear.url))
    )
    nodes = [_node(place, name, pager.url) for name in NODES]
    for node in nodes:
        stack.enter_context(tests_node.running(node))
    criteria = load_catalogue(Config()).criteria
    exporter = stack.enter_context(node_exporter(place, seams[0].directory / "proc"))
    rules = [fault.scraped(criteria[fault.criterion]) for fault in FAULTS]
    targets = [*(node.address for node in nodes), f"127.0.0.1:{exporter.port}"]
    server = stack.enter_context(scraping(place, targets, f"127.0.0.1:{pager.port}", rules))
    twice = f'count_over_time(up{{job="{SLOW}"}}[5m]) >= 2'  # what `increase` needs
    testbed.eventually(lambda: len(testbed.query(server, twice)) == len(targets), 90, every=1)
    scene, apart = (
        Scene(place, name, node, ear, own, dict(criteria))
        for name, node, own in zip(NODES, nodes, seams, strict=True)
    )
    apart.spells, apart.over = scene.spells, scene.over  # one account of what was caused
    return scene, apart


def _node(place: Path, name: str, pager: str) -> Any:
    """A node with seams and a log of its own, not yet started."""
    within = (sys.executable, "-m", "bench.seamed", str(place / f"seams-{name}"))
    node = tests_node.Node(place / name, [pager], within=within)
    text = CONFIG.format(
        name=name, url=pager, log=_log(place, name), port=PORT, clock=clock_override()
    )
    (node.directory / "dvfd.toml").write_text(text, encoding="utf-8")
    _log(place, name).touch()
    return node


def _log(place: Path, name: str) -> Path:
    """The log that the node's daemon follows."""
    return place / f"{name}.log"


# --- Trials ------------------------------------------------------------------------------------


def _lane(scene: Scene, faults: Sequence[Fault], count: Callable[[Fault], int]) -> list[Trial]:
    """Every trial of faults that the same criterion sees, one after the other."""
    stage = Stage([], scene.seams, _log(scene.place, scene.name), Path(), scene.place / "disk")
    found: list[Trial] = []
    for fault in faults:
        for number in range(count(fault)):
            if scene.over.is_set():
                return found
            trial = _trial(scene, stage, fault, number, first=not found)
            print(time.strftime("%X"), trial, file=sys.stderr)
            found.append(trial)
    _calm(scene, faults[-1])
    return found


def _trial(scene: Scene, stage: Stage, fault: Fault, number: int, *, first: bool) -> Trial:
    """One fault, in a fresh job if it is a job's; *first* is that of its criterion."""
    job = f"{fault.name}-{number}"
    with contextlib.ExitStack() as stack:
        if fault.job is not None:
            stack.callback(scene.node.ask, "forget", job=job)
            stage.checkpoint = _checkpoint(stage, fault, job)
            path = str(stage.checkpoint) if "--saves" in "".join(fault.job) else ""
            ranks = simulated(scene.node, job, ranks=fault.ranks, checkpoint=path, more=fault.job)
            stage.ranks = stack.enter_context(ranks)
        _await(scene, stage, fault, job)
        settled = time.monotonic() + fault.settle
        _calm(scene, fault)
        time.sleep(max(0.0, settled - time.monotonic()) + random.uniform(0, PHASE))
        stack.callback(fault.mend, stage)
        return _race(scene, stage, fault, first=first)


def _checkpoint(stage: Stage, fault: Fault, job: str) -> Path:
    """A small checkpoint for *job* to report: on the disk that will be full, or elsewhere."""
    folder = stage.disk if fault.name == "disk" else stage.log.parent / job
    folder.mkdir(exist_ok=True)
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [CHECKPOINT_BYTES // 4],
               "data_offsets": [0, CHECKPOINT_BYTES]}}
    ).encode()  # fmt: skip
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(CHECKPOINT_BYTES))
    return path


def _await(scene: Scene, stage: Stage, fault: Fault, job: str) -> None:
    """Wait until what is to be harmed is seen on /metrics."""
    if fault.needs:
        where = {"disk": f'path="{stage.disk}"', "gpu": "gpu="}
        label = where.get(fault.name, f'training_job="{job}"')
        until = time.monotonic() + OVER
        while not scene.shows(fault.needs, label):
            if time.monotonic() > until:
                raise SystemExit(f"{fault.name}: no {fault.needs} with {label} on /metrics")
            time.sleep(1)


def _calm(scene: Scene, fault: Fault) -> None:
    """Wait until no way says that *fault* is there: from then on nothing has caused an alert."""
    ways = scene.labels(fault)
    until = time.monotonic() + OVER
    while firing := [way for way, labels in ways.items() if not scene.ear.calm(labels)]:
        if time.monotonic() > until:
            raise SystemExit(f"{fault.name} is not over by {firing}, {OVER:g} s after its mending")
        time.sleep(0.2)
    for spell in scene.spells:
        if ways[DVFD] in spell.caused:
            spell.until = min(spell.until, time.monotonic())


def _race(scene: Scene, stage: Stage, fault: Fault, *, first: bool) -> Trial:
    """Make the fault, and see when each way has told of it."""
    ways = scene.labels(fault)
    caused = [*ways.values(), *fault.follows]
    scene.spells.append(Spell(time.monotonic(), tuple(caused)))
    begun = fault.inject(stage)
    own = fault.wait(scene.criteria[fault.criterion]) + begun.wait
    prompt = _told(scene, PROMPT, ways, begun.at, own + PATIENCE)
    more = own + PATIENCE + SETTLE
    delivered = _told(scene, DELIVERED, ways, begun.at, more) if first else {}
    return Trial(fault.name, own, prompt, delivered)


def _told(
    scene: Scene, route: str, ways: dict[str, dict[str, str]], since: float, patience: float
) -> dict[str, float | None]:
    """Seconds since *since* until each way had told by *route*."""
    while True:
        heard = {way: scene.ear.first(route, labels, since) for way, labels in ways.items()}
        now = time.monotonic()
        slow = heard[SLOW]  # by then the faster scrape, whose scrapes may fail, has had its chance
        enough = heard[DVFD] and slow and (heard[FAST] or now > slow + PHASE)
        if enough or now > since + patience:
            return {way: None if at is None else at - since for way, at in heard.items()}
        time.sleep(0.05)


# --- Figures -----------------------------------------------------------------------------------

PROMPT_LIMIT = 2.0
"""Seconds that 95 % of process and value faults may take."""

FASTER = 7.0
"""Times that dvfd must be faster than scraping every 15 s."""


def figures(trials: Sequence[Trial], false: Sequence[Labels]) -> list[Figure]:
    """All of them over all classes first, then class by class: those that were tried."""
    tried = {trial.fault for trial in trials}
    return [
        *_together(trials, false),
        *_group_waits(trials),
        *(f for fault in FAULTS if fault.name in tried for f in _of(fault, trials, false)),
    ]


def _together(trials: Sequence[Trial], false: Sequence[Labels]) -> Iterable[Figure]:
    for way in INTERVALS:
        at_once = [f for f in FAULTS if f.at_once]
        value, low, high = _times(at_once, trials, way)
        text = f"Process and value faults: median of {WAYS[way]} over dvfd's"
        wanted = {"wanted": f">= {FASTER:g}", "reached": low >= FASTER} if way == SLOW else {}
        yield Figure(f"ratio_{way}", text, value, "times", low=low, high=high, **wanted)  # type: ignore[arg-type]  # of two kinds
        value, low, high = _times(FAULTS, trials, way)
        text = f"All {len(trials)} faults, beyond their wait: median of {WAYS[way]} over dvfd's"
        yield Figure(f"ratio_all_{way}", text, value, "times", low=low, high=high)
    missed = sum(trial.prompt[DVFD] is None for trial in trials)
    yield exactly("missed", f"Faults that dvfd missed, of {len(trials)}", missed, "faults", 0)
    ours = [labels for labels in false if "scrape" not in labels]
    yield exactly("false", "Alerts of dvfd that no fault had caused", len(ours), "alerts", 0)
    theirs = len(false) - len(ours)
    yield Figure("false_scraped", "Alerts by scraping that no fault had caused", theirs, "alerts")


def _times(
    faults: Sequence[Fault], trials: Sequence[Trial], way: str
) -> tuple[float, float, float]:
    """How many times as long as by dvfd it took by *way*."""
    pairs = [_pairs(fault, trials, way) for fault in faults]
    return ratio_of_medians([each for each in pairs if each])


def _pairs(fault: Fault, trials: Sequence[Trial], way: str) -> list[tuple[float, float]]:
    """Seconds beyond the wait by dvfd and by *way*, of the trials that both told of."""
    own = [trial for trial in trials if trial.fault == fault.name]
    both = [(trial.beyond(DVFD), trial.beyond(way)) for trial in own]
    return [(a, b) for a, b in both if a is not None and b is not None]


def _group_waits(trials: Sequence[Trial]) -> Iterable[Figure]:
    """What the example's group_wait adds to both ways, of the first trial of each criterion."""
    for way in (DVFD, SLOW):
        added = [
            late - soon
            for trial in trials
            if (late := trial.delivered.get(way)) is not None
            and (soon := trial.prompt[way]) is not None
        ]
        if added:
            text = (
                f"group_wait of our example adds, to {WAYS[way]}, median of {len(added)} criteria"
            )
            value = statistics.median(added)
            yield Figure(f"group_wait_{way}", text, value, "s", low=min(added), high=max(added))


def _of(fault: Fault, trials: Sequence[Trial], false: Sequence[Labels]) -> Iterable[Figure]:
    """One class: both ways' whole time, dvfd's beyond the wait, and what was missed or false."""
    own = [trial for trial in trials if trial.fault == fault.name]
    wait = statistics.median(trial.wait for trial in own)
    yield Figure(f"{fault.name}_wait", f"{fault.text}: the framework's own wait", wait, "s")
    for way, words in WAYS.items():
        if told := [seconds for trial in own if (seconds := trial.prompt[way]) is not None]:
            low, high = median_interval(told)
            name, text = f"{fault.name}_{way}", f"{fault.text}: {words}"
            yield Figure(f"{name}_median", f"{text}, median of {len(told)}",
                         statistics.median(told), "s", low=low, high=high)  # fmt: skip
            yield Figure(f"{name}_p95", f"{text}, p95", quantile(told, 0.95), "s")
    if beyond := [seconds for trial in own if (seconds := trial.beyond(DVFD)) is not None]:
        every = f", read every {fault.read:g} s" if fault.read else ""
        name, text = f"{fault.name}_beyond", f"{fault.text}: dvfd beyond the wait, p95{every}"
        late = quantile(beyond, 0.95)
        yield (
            at_most(name, text, late, "s", PROMPT_LIMIT)
            if fault.prompt
            else Figure(name, text, late, "s")
        )
    if pairs := _pairs(fault, trials, SLOW):
        value, low, high = ratio_of_medians([pairs])
        yield Figure(f"{fault.name}_ratio", f"{fault.text}: {WAYS[SLOW]} over dvfd, beyond the "
                     "wait", value, "times", low=low, high=high)  # fmt: skip
    for way, words in WAYS.items():
        missed = sum(trial.prompt[way] is None for trial in own)
        text = f"{fault.text}: missed by {words}, of {len(own)}"
        name = f"{fault.name}_missed_{way}"
        yield (
            exactly(name, text, missed, "faults", 0)
            if way == DVFD
            else Figure(name, text, missed, "faults")
        )
    stray = sum(labels.get("criterion") == fault.criterion for labels in false)
    yield exactly(f"{fault.name}_false", f"{fault.text}: false alerts of {fault.criterion}", stray,
                  "alerts", 0)  # fmt: skip


if __name__ == "__main__":
    main()

"""Daemon and reference job for an hour and a half in one go: does it cry wolf, does it grow?

The daemon as delivered (5 s sampling, every probe, a watched log), four ranks that train over Gloo
and save checkpoints, a real Prometheus that scrapes every 15 s and has the rules of alert_rules/, a
real Alertmanager, and people who open the page, ask `dvfd status` and the daily list. In the first
half nothing is broken: every alert is a false alarm. In the second half faults come in an order
drawn from a seed (bench/soak_faults.py says which, and what must be told of each), one at a time.

Limits are those delivered but for what is about this machine and not about a node that trains. The
job is paced so that it leaves room: no limit on its processor use (live.cpu), an accepted
throughput of nine tenths of the pace, and none on which rank's few milliseconds come first on a
machine that others use (live.stragglers). There are no sensors of heat or power. The clock is not
judged (live.clock) where the kernel says that nothing disciplines it.

Memory is PSS. What counts begins after the warm-up of a life: the newest ten minutes are kept in
memory, so it grows until then. The wanted slope of 1 MiB/h is what three quarters of an hour can
show at all: it is half a MiB, some pages of a few arenas. Descriptors and threads must not grow.
A `--short` soak breaks three things within two minutes and says nothing of growth.

`--clean N` gives the first half N of the `--minutes`. Everything runs from a copy of the tree. With
the rights of root it has namespaces of its own, which end with it however it ends; without them no
file system can be filled, and that fault is left out. A soak that was broken off is judged by
`--of FILE`, where FILE is what it wrote on the way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import chosen, clock_override, descriptors, finish, quantile, status, testbed
from bench.harness import node as tests_node
from bench.record import Figure, at_most, exactly
from bench.soak_faults import (
    FAULTS,
    JOB,
    SHORT,
    TMPFS,
    TRIES,
    Fault,
    Scene,
    Switch,
    drawn,
    left_to_break,
    ports,
)
from bench.soak_record import (
    CLEAN,
    Asked,
    Begun,
    Ended,
    Heard,
    Note,
    Notes,
    Outcome,
    Sampled,
    Slope,
    Stretch,
    Tried,
    episodes,
    false_alarms,
    grown,
    lives,
    of_kind,
    outcomes,
    read,
    slope,
    stretches,
    to_end,
    unexplained,
)
from bench.soak_record import FAULTS as FAULTS_HALF
from bench.soaked_job import RANKS

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
RULES = tuple(sorted((ROOT / "alert_rules").glob("dvfd-*.rules.yml")))

STEP_TIME = 0.5
BATCH = 4
THROUGHPUT = 0.9 * RANKS * BATCH / STEP_TIME

SIZES = ("--width=32", "--layers=1", f"--batch={BATCH}", "--context=64", f"--step-time={STEP_TIME}",
         "--timeout=120", "--validate-every=120")  # fmt: skip
"""A few milliseconds of each rank's processor a step."""

START = 300.0
"""Seconds within which the job must train: a machine that does much else needs a minute or two."""

LONG = 450.0
"""Seconds: an alert that stands for longer is not waited for before something else is broken."""

WHOLE = 3600.0
"""Seconds below which a soak is a trial: its figures are kept only where that is asked for."""

STATE_MIB = 512
"""Of the store's own file system: it writes some ten MiB in the time."""

WATCHDOG = "DvfdWatchdog"
"""Fires for as long as Prometheus lives: its silence is the alert."""

CONFIG = """
[node]
name = "node-under-test"
[http]
port = {port}
[alerting]
urls = ["{pager}"]
[profile]
expected_throughput = {throughput}
temperature_sensors = false
power_meters = false
{interfaces}
[[logs]]
name = "training"
path = "{directory}/job.log"
[override."live.cpu"]
limit = 0.001
reason = "the job is paced: it leaves the machine to others"
[override."live.stragglers"]
limit = 0.01
reason = "a step is milliseconds on cores that others use: which rank comes first is chance"
{clock}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds: of each half, between two faults, of a life's warm-up, between two samples, at the
    end for what still fires. Steps between checkpoints. Whether alerts must end before what comes.
    """

    clean: float
    faults: float
    gap: tuple[float, float]
    warm_up: float
    sample: float
    saves: int
    drain: float
    settle_each: bool


def pace(options: Any) -> Pace:
    """As asked for on the command line."""
    if options.short:
        return Pace(
            clean=15, faults=120, gap=(0.5, 1.5), warm_up=5, sample=1, saves=20,
            drain=90, settle_each=False,
        )  # fmt: skip
    half = 60 * (options.minutes / 2 if options.clean < 0 else options.clean)
    return Pace(
        clean=half, faults=60 * options.minutes - half, gap=(20, 60),
        warm_up=min(900, half / 3), sample=10, saves=240, drain=300,
        settle_each=True,
    )  # fmt: skip


def main() -> None:
    """Soak and keep; or judge what an earlier soak left."""
    options = chosen(__doc__, minutes=90.0, clean=-1.0, seed=9, progress="", of="")
    path = Path(options.of or options.progress or _progress()).absolute()
    if INSIDE in os.environ:
        _soak(path, pace(options), seed=options.seed)
        return
    print(f"notes: {path}", file=sys.stderr)
    if not options.of and (code := _apart(path)):
        sys.exit(f"broken off with {code}; what there is: python -m bench.soak --of {path}")
    notes = as_known(read(path.read_text(encoding="utf-8")))
    begun = of_kind(notes, Begun)[0]
    options.short |= begun.clean + begun.faults < WHOLE
    finish("soak", options, figures(notes), raw(notes))


def as_known(notes: Sequence[Note]) -> list[Note]:
    """The notes with what is known of each fault now: the file says what happened, no more."""
    also = {fault.name: fault.also for fault in FAULTS}
    return [
        replace(note, also=also.get(note.fault, note.also)) if isinstance(note, Tried) else note
        for note in notes
    ]


def _progress() -> Path:
    return ROOT / "run" / time.strftime("soak-%Y%m%d-%H%M%S.jsonl", time.gmtime())


# --- A world of its own ---------------------------------------------------------------------------

INSIDE = "DVFD_SOAK_INSIDE"
"""Tells the process that soaks what it may: "mount", or nothing."""

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--")
DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2)."""

NOT_COPIED = shutil.ignore_patterns(".*", "run", "build", "dist", "__pycache__")


def _apart(path: Path) -> int:
    """Soak in a process of a copy of this tree, which somebody may change within the time: whatever
    is started anew is what was started first. Where it may, it has processes and mounts of its
    own: when it ends, all of them do. Its exit code.
    """
    may = os.geteuid() == 0 and shutil.which("unshare") is not None
    with tempfile.TemporaryDirectory(prefix="soak-tree-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(ROOT, tree, ignore=NOT_COPIED, symlinks=True)
        argv = [sys.executable, "-m", "bench.soak", *sys.argv[1:], f"--progress={path}"]
        environment = {
            **os.environ, INSIDE: "mount" if may else "",
            "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "tests"))),
        }  # fmt: skip
        process = subprocess.Popen(
            [*NAMESPACES, *argv] if may else argv, env=environment, cwd=tree,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(DEATH, signal.SIGKILL),  # noqa: PLW1509  # no thread yet
        )  # fmt: skip
        _hand_on(process.pid, inner=may)
        return process.wait()


def _hand_on(pid: int, *, inner: bool) -> None:
    """Signals go on to the process that soaks, which is the child of *pid* if it is an *inner*."""

    def pass_on(number: int, _frame: object) -> None:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for each in children.read_text("ascii").split() if inner else [str(pid)]:
            os.kill(int(each), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)


@contextlib.contextmanager
def _own_disk(state: Path) -> Iterator[bool]:
    """A file system for the store alone, where that may be mounted; it goes with its namespace."""
    state.mkdir(parents=True)
    if not os.environ.get(INSIDE):
        yield False
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m", "tmpfs", str(state)]
    subprocess.run(mount, check=True)
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


# --- The soak -------------------------------------------------------------------------------------


def _soak(path: Path, chosen_pace: Pace, *, seed: int) -> None:
    """Run it, noting into *path*; SIGTERM stops everything, and what was noted stays."""
    with contextlib.suppress(PermissionError):
        os.setsid()  # a terminal would make SIGHUP an end of the daemon
    notes = Notes(path)
    began = time.monotonic()
    why = "ended"
    soak: Soak | None = None
    try:
        with _everything(chosen_pace, seed) as (scene, hook, left_out):
            soak = Soak(scene, hook, notes, chosen_pace, began)
            soak.run(left_out, seed)
    except BaseException as error:
        why = f"broken off: {error!r}"
        raise
    finally:
        left = soak.left if soak else ()
        failed = soak.scrapes_failed if soak else None
        now = time.monotonic() - began
        notes.add(Ended(at=now, why=why, firing=left, scrapes_failed=failed))
        notes.close()


@contextlib.contextmanager
def _everything(chosen_pace: Pace, seed: int) -> Iterator[tuple[Scene, Any, tuple[str, ...]]]:
    """All that runs; and the faults that cannot be injected here."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        hook = stack.enter_context(testbed.Webhook())
        http, alerts = ports(2)
        node = _node(place / "node", http, f"http://127.0.0.1:{alerts}")
        own_disk = stack.enter_context(_own_disk(place / "node" / "state"))
        pager = Switch(lambda: testbed.alertmanager(place, hook.url, port=alerts))
        stack.callback(pager.off)
        pager.on()
        stack.enter_context(tests_node.running(node))
        prometheus = Switch(lambda: _prometheus(place, http, alerts))
        stack.callback(prometheus.off)
        prometheus.on()
        options = [*SIZES, f"--job={JOB}", f"--checkpoint-every={chosen_pace.saves}",
                   f"--checkpoint-dir={place / 'node' / 'checkpoints'}"]  # fmt: skip
        environment = {**node.environment, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
        job = tests_node.torchrun(
            "bench.soaked_job", str(place), *options,
            environment=environment, log=place / "node" / "job.log", restarts=1000,
        )  # fmt: skip
        stack.enter_context(job)
        scene = Scene(
            node=node, pager=pager, prometheus=prometheus, place=place,
            chance=random.Random(seed), stop=threading.Event(),
        )  # fmt: skip
        stack.callback(_let_go, scene)
        yield scene, hook, () if own_disk else (TMPFS,)


def _let_go(scene: Scene) -> None:
    """What is stopped could not end."""
    with contextlib.suppress(ProcessLookupError):
        scene.node.daemon.send_signal(signal.SIGCONT)


def _node(directory: Path, port: int, pager: str) -> Any:
    node = tests_node.Node(directory, [])
    text = CONFIG.format(
        port=port, pager=pager, directory=directory, throughput=THROUGHPUT,
        interfaces=_interfaces(), clock=clock_override(),
    )  # fmt: skip
    (directory / "dvfd.toml").write_text(text, encoding="utf-8")
    return node


def _interfaces() -> str:
    """The port that the machine uses: unused ones of a test machine are down, and would be told."""
    routes = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    names = [route.split()[0] for route in routes if route.split()[1] == "00000000"]
    return f'interfaces = ["{names[0]}"]' if names else ""


def _prometheus(place: Path, http: int, alerts: int) -> Any:
    return testbed.prometheus(
        place, f"127.0.0.1:{http}", interval="15s", rules=RULES, alerts_to=f"127.0.0.1:{alerts}"
    )


class Soak:
    """One run: the main thread samples, asks and notes, another one breaks and heals."""

    def __init__(
        self, scene: Scene, hook: Any, notes: Notes, chosen_pace: Pace, began: float
    ) -> None:
        """*began* is the monotonic time from which notes count."""
        self._scene = scene
        self._hook = hook
        self._notes = notes
        self._pace = chosen_pace
        self._began = began
        self._lock = threading.Lock()
        self._half = CLEAN
        self._heard = 0
        self._firing: dict[str, float] = {}
        self._failed: BaseException | None = None
        self._ready = 0.0
        self.scrapes_failed: int | None = None
        self.left: tuple[str, ...] = ()
        """The keys of what still fired at the end: what ending itself raises does not count."""

    def run(self, left_out: tuple[str, ...], seed: int) -> None:
        """Both halves, noted from the first to the last moment."""
        try:
            self._halves(left_out, seed)
        finally:
            self._listen()
            self.left = tuple(sorted(self._firing))

    def _halves(self, left_out: tuple[str, ...], seed: int) -> None:
        chosen_pace = self._pace
        self._note(Begun(
            at=self._now(), clean=chosen_pace.clean, faults=chosen_pace.faults, seed=seed,
            warm_up=chosen_pace.warm_up, left_out=left_out,
        ))  # fmt: skip
        testbed.eventually(lambda: len(self._scene.steps()) == RANKS, START, every=0.5)
        self._ready = self._now()
        rota = self._rota()
        self._go_round(rota, lambda: self._now() < self._ready + chosen_pace.clean)
        self.scrapes_failed = self._scrapes()
        self._half = FAULTS_HALF
        thread = threading.Thread(target=self._break, args=(left_out,), name="faults")
        thread.start()
        try:
            self._go_round(rota, thread.is_alive)
        finally:
            self._scene.stop.set()
            thread.join()
        self._scene.stop.clear()
        end = self._now() + chosen_pace.drain
        self._go_round(rota, lambda: bool(to_end(self._firing)) and self._now() < end)
        if self._failed:
            raise self._failed

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _note(self, note: Note) -> None:
        with self._lock:
            self._notes.add(note)

    # --- What is done again and again -------------------------------------------------------------

    def _rota(self) -> list[Turn]:
        fetch, command = self._fetch, self._command
        return [
            Turn(self._pace.sample, self._sample),
            Turn(30, lambda: fetch("/")),
            Turn(30, lambda: fetch("/healthz")),
            Turn(60, lambda: fetch("/api/v1/status")),
            Turn(120, lambda: command("status")),
            Turn(600, lambda: command("checklist", "daily")),
            Turn(900, lambda: command("history", "job_loss", "--hours", "1")),
        ]

    def _go_round(self, rota: Sequence[Turn], more: Callable[[], bool]) -> None:
        """Listen, and do what is due, for as long as there is *more*."""
        while more():
            self._listen()
            for turn in rota:
                turn.take(time.monotonic())
            time.sleep(0.25)
        self._listen()

    def _sample(self) -> None:
        node = self._scene.node
        if self._scene.away.is_set():
            return
        with contextlib.suppress(OSError, LookupError):  # killed in this moment
            self._note(self._sampled(node.daemon.pid, node.directory / "state"))

    def _sampled(self, pid: int, state: Path) -> Sampled:
        return Sampled(
            at=self._now(), half=self._half, life=self._scene.life,
            rss=status(pid, "VmRSS") / 1024, pss=_pss(pid) / 1024,
            descriptors=descriptors(pid), sockets=_sockets(pid), threads=status(pid, "Threads"),
            children=_children(pid), store=_size(state) / MIB, load=os.getloadavg()[0],
            step=max(self._scene.steps(), default=0),
        )  # fmt: skip

    def _listen(self) -> None:
        """Note what the webhook received since."""
        alerts = self._hook.alerts[self._heard :]
        self._heard += len(alerts)
        for alert in alerts:
            key = key_of(alert["labels"])
            if key == WATCHDOG:
                continue
            self._note(self._what(alert, key))
            if alert["status"] == "firing":
                self._firing[key] = alert["received"]
            else:
                self._firing.pop(key, None)

    def _what(self, alert: dict[str, Any], key: str) -> Heard:
        labels, words = alert["labels"], alert["annotations"]
        return Heard(
            at=alert["received"] - self._began, half=self._half, status=alert["status"], key=key,
            severity=labels.get("severity", ""), source=labels.get("source", ""),
            load=os.getloadavg()[0],
            words=f"{words.get('summary', '')}: {words.get('description', '')}",
        )  # fmt: skip

    def _fetch(self, path: str) -> None:
        port = re.search(r"port = (\d+)", (self._scene.node.directory / "dvfd.toml").read_text())
        assert port
        self._ask(path, lambda: bool(testbed.fetch(f"http://127.0.0.1:{port[1]}{path}", 30)))

    def _command(self, *words: str) -> None:
        argv = [sys.executable, "-m", "dvfd", *words]

        def run() -> bool:
            done = subprocess.run(
                argv,
                env=self._scene.node.environment,
                capture_output=True,
                timeout=120,
                check=False,
            )
            if done.returncode not in {0, 1, 2, 3} or b"Traceback" in done.stderr:
                raise OSError(f"exit {done.returncode}: {done.stderr.decode()[-500:]}")
            return True

        self._ask(" ".join(("dvfd", *words)), run)

    def _ask(self, what: str, ask: Callable[[], bool]) -> None:
        if self._scene.away.is_set():
            return
        began, why = time.monotonic(), ""
        try:
            ask()
        except (OSError, subprocess.TimeoutExpired) as error:
            why = f"{type(error).__name__}: {error}"
        if why and self._scene.away.is_set():  # it was taken away in this moment
            return
        took = time.monotonic() - began
        self._note(Asked(at=self._now(), half=self._half, what=what, seconds=took, why=why))

    def _scrapes(self) -> int | None:
        """Scrapes of the clean half that failed, as Prometheus counts them."""
        seconds = max(15, int(self._now() - self._ready))
        expression = f'count_over_time((up{{job="dvfd"}} == 0)[{seconds}s:15s])'
        for _ in range(TRIES):
            with contextlib.suppress(OSError):
                found = testbed.query(self._scene.prometheus.server, expression)
                return int(float(found[0]["value"][1])) if found else 0
        return None

    # --- What is broken ---------------------------------------------------------------------------

    def _break(self, left_out: tuple[str, ...]) -> None:
        """The other thread: a fault, its alerts, its healing, and a while of peace."""
        try:
            end = self._now() + self._pace.faults
            faults = tuple(fault for fault in FAULTS if fault.name not in left_out)
            for fault in self._order(faults, lambda: end - self._now()):
                self._scene.wait(self._scene.chance.uniform(*self._pace.gap))
                if self._scene.stop.is_set():
                    return
                self._try(fault)
        except BaseException as error:  # noqa: BLE001  # and what pytest.fail raises: told by `run`
            traceback.print_exc()
            self._failed = error

    def _order(self, faults: tuple[Fault, ...], left: Callable[[], float]) -> Iterator[Fault]:
        if not self._pace.settle_each:
            return iter(left_to_break(faults, SHORT))
        return drawn(faults, self._scene.chance, left)

    def _try(self, fault: Fault) -> None:
        scene = self._scene
        scene.until(lambda: not self._fires(fault.told), fault.settles + 60)
        at = time.monotonic()
        with fault.harm(scene):
            scene.wait(fault.least)
            scene.until(lambda: self._told(fault, at), fault.within - fault.least)
        healed = self._now()
        self._note(Tried(
            at=at - self._began, healed=healed, fault=fault.name, told=fault.told, also=fault.also,
        ))  # fmt: skip
        if self._pace.settle_each and fault.settles <= LONG:
            scene.until(lambda: self._told(fault, at), 90)
            scene.until(lambda: not self._fires(fault.told), fault.settles)

    def _told(self, fault: Fault, since: float) -> bool:
        return all(self._firing.get(key, 0.0) >= since for key in fault.told)

    def _fires(self, keys: Sequence[str]) -> bool:
        return any(key in self._firing for key in keys)


@dataclass(slots=True)
class Turn:
    """Something that is done every so many seconds."""

    every: float
    do: Callable[[], None]
    due: float = 0.0

    def take(self, now: float) -> None:
        """Do it if it is due; what was missed is not made up for."""
        if now >= self.due:
            self.due = now + self.every
            self.do()


def key_of(labels: dict[str, str]) -> str:
    """How a soak calls an alert: by its criterion, or by its name and what it is about."""
    name = labels.get("alertname", "")
    if name == "DvfdCriterionFailed":
        return labels.get("criterion", name)
    about = labels.get("criterion") or labels.get("probe") or labels.get("path") or ""
    return f"{name}:{about}" if about else name


def _pss(pid: int) -> int:
    """KiB, shared pages by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
    assert found
    return int(found[1])


def _sockets(pid: int) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(entry.readlink()).startswith("socket:")
    return count


def _children(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(len((task / "children").read_text(encoding="ascii").split()) for task in tasks)


def _size(directory: Path) -> int:
    """Bytes of the files below *directory*, the ballast of a full disk left out."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() and path.name != "ballast" else 0
    return total


# --- What follows ---------------------------------------------------------------------------------


def figures(notes: Sequence[Note]) -> list[Figure]:
    """What was wanted of the soak, as far as it came."""
    begun, ended = of_kind(notes, Begun)[0], of_kind(notes, Ended)
    return [
        *_ran(notes), *_clean(notes, ended), *_broken(notes, ended),
        *_growth(_stretches(notes, begun)), *_levels(notes),
    ]  # fmt: skip


def _stretches(notes: Sequence[Note], begun: Begun) -> list[Stretch]:
    """Those that say something: after the fault half's restarts lives are short."""
    least = max(60.0, min(600.0, begun.clean / 4))  # less shows nothing: so in a short form
    clean = stretches(notes, warm_up=begun.warm_up, least=least)
    later = stretches(notes, warm_up=begun.warm_up / 3, least=least)
    return [s for s in clean if s.half == CLEAN] + [s for s in later if s.half == FAULTS_HALF]


def _ran(notes: Sequence[Note]) -> list[Figure]:
    samples = of_kind(notes, Sampled)
    minutes = {
        half: (own[-1].at - own[0].at) / 60
        if (own := [s for s in samples if s.half == half])
        else 0.0
        for half in (CLEAN, FAULTS_HALF)
    }
    loads = [sample.load for sample in samples]
    return [
        Figure("clean_minutes", "Soak: without a fault", minutes[CLEAN], "min"),
        Figure("fault_minutes", "Soak: with faults", minutes[FAULTS_HALF], "min"),
        Figure("load", "Load of the machine, median (least, most)", median(loads), "",
               low=min(loads), high=max(loads)),
    ]  # fmt: skip


def _clean(notes: Sequence[Note], ended: Sequence[Ended]) -> list[Figure]:
    asked = [each for each in of_kind(notes, Asked) if each.half == CLEAN]
    failed = sum(bool(each.why) for each in asked)
    found = [
        exactly("false_alarms", "Without a fault: alerts", len(false_alarms(notes)), "alerts", 0),
        exactly("unanswered", f"Without a fault: of {len(asked)} questions not answered", failed,
                "questions", 0),
    ]  # fmt: skip
    if not ended or (missed := ended[0].scrapes_failed) is None:
        return [*found, Figure("scrapes", "Without a fault: scrapes failed, not told by Prometheus",
                               0, "known", "0 scrapes", reached=None)]  # fmt: skip
    return [*found, exactly("scrapes", "Without a fault: scrapes failed", missed, "scrapes", 0)]


def _broken(notes: Sequence[Note], ended: Sequence[Ended]) -> list[Figure]:
    tried, known = of_kind(notes, Tried), outcomes(notes)
    untold = [each for each in known if each.told is None]
    open_ = [each for each in known if each.told is not None and each.resolved is None]
    heard = sorted(each.told for each in known if each.told is not None)
    figures_ = [
        Figure("injected", f"Faults injected, of {len({each.fault for each in tried})} kinds",
               len(tried), "faults"),
        exactly("untold", f"Faults: of {len(known)} alerts due not told", len(untold), "alerts", 0),
        exactly("unresolved", "Faults: alerts told and never resolved", len(open_), "alerts", 0),
        exactly("unexplained", "Faults: alerts that none accounts for", len(unexplained(notes)),
                "alerts", 0),
    ]  # fmt: skip
    if not known:  # nothing that had to be told was tried: that is no success
        figures_ = [
            replace(f, reached=None) if f.name in {"untold", "unresolved"} else f for f in figures_
        ]
    if heard:
        figures_.append(
            Figure("told", "Faults: injection to the webhook, median (least, most)",
                   quantile(heard, 0.5), "s", low=heard[0], high=heard[-1])
        )  # fmt: skip
    left = ended[0].firing if ended else _never_over(notes)
    ending = to_end(left)
    return [
        *figures_,
        exactly("firing", "Alerts that fire at the end", len(ending), "alerts", 0),
        Figure("hourly", "Rules that look back an hour, and fire at the end for that",
               len(left) - len(ending), "alerts"),
    ]  # fmt: skip


def _never_over(notes: Sequence[Note]) -> list[str]:
    return [e.first.key for e in episodes(of_kind(notes, Heard)) if e.resolved is None]


SLOPE = 1.0
"""MiB/h. What 45 minutes can show at all: see above."""


def _growth(found: Sequence[Stretch]) -> list[Figure]:
    figures_: list[Figure] = []
    for half, name in ((CLEAN, "without a fault"), (FAULTS_HALF, "between faults")):
        own = [stretch for stretch in found if stretch.half == half]
        if not own:
            continue
        slopes = [slope(stretch) for stretch in own]
        steepest = max(slopes, key=lambda each: each.value)
        over = f"{name}: PSS, steepest of {len(own)} stretches" if len(own) > 1 else f"{name}: PSS"
        figures_.append(_slope_figure(f"slope_{half}", f"Daemon {over}", steepest))
        figures_ += [
            exactly(f"{what}_{half}", f"Daemon {name}: {what} more than at first",
                    max(grown(stretch, what) for stretch in own), what, 0)
            for what in ("descriptors", "threads")
        ]  # fmt: skip
    return figures_


def _slope_figure(name: str, text: str, found: Slope) -> Figure:
    """Reached where all of the interval is within; not known where it lies on both sides."""
    reached = True if found.high <= SLOPE else False if found.low > SLOPE else None
    wanted = f"<= {SLOPE:g} MiB/h" + ("; interval straddles it: unknown" if reached is None else "")
    return Figure(name, text, found.value, "MiB/h", wanted, reached, found.low, found.high)


def _levels(notes: Sequence[Note]) -> list[Figure]:
    samples = of_kind(notes, Sampled)
    clean = [s for s in samples if s.half == CLEAN]
    last = [s.pss for s in samples if s.at >= samples[-1].at - 300]
    settled = [s.pss for s in clean if s.at >= clean[-1].at - 300]
    grew = (clean[-1].store - clean[0].store) / max(1.0, clean[-1].at - clean[0].at) * 3600
    pages = [each.seconds * 1e3 for each in of_kind(notes, Asked) if each.what == "/"]
    return [
        at_most("rss", "Daemon: resident memory, peak", max(s.rss for s in samples), "MiB", 80),
        Figure("pss_clean", "Daemon: PSS, last five minutes without a fault, median",
               median(settled), "MiB"),
        Figure("pss_end", "Daemon: PSS, last five minutes of all, median", median(last), "MiB"),
        Figure("threads", "Daemon: threads, most", max(s.threads for s in samples), "threads"),
        Figure("descriptors", "Daemon: descriptors, most", max(s.descriptors for s in samples),
               "descriptors"),
        Figure("store", "Store without a fault, grows", grew, "MiB/h"),
        Figure("page", "Page as people ask for it, median", median(pages or [0.0]), "ms"),
    ]  # fmt: skip


def raw(notes: Sequence[Note]) -> dict[str, Any]:
    """What stands behind the figures."""
    begun = of_kind(notes, Begun)[0]
    return {
        "asked_for": asdict(begun),
        "faults": [asdict(each) for each in of_kind(notes, Tried)],
        "outcomes": [asdict(each) for each in outcomes(notes)],
        "alerts": [asdict(each) for each in of_kind(notes, Heard)],
        "false_alarms": [asdict(each) for each in false_alarms(notes)],
        "unexplained": [asdict(each) for each in unexplained(notes)],
        "unanswered": [asdict(each) for each in of_kind(notes, Asked) if each.why],
        "ended": [asdict(each) for each in of_kind(notes, Ended)],
        "lives": {str(life): at for life, at in lives(notes).items()},
        "slopes": [
            {"half": s.half, "life": s.life, "minutes": s.minutes, **asdict(slope(s))}
            for s in _stretches(notes, begun)
        ],
        "series": [asdict(each) for each in of_kind(notes, Sampled)],
    }


__all__ = ["Outcome", "figures", "main", "raw"]

if __name__ == "__main__":
    main()

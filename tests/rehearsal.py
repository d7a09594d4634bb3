"""A stability run rehearsed: real receiver, store, probes and conductor under a clock that is told.

Ranks are real Reporters on the same clock, what the machine measures is a tree of /proc and /sys.
Faults enter there. Only two things are not real: the child that verifies a checkpoint (it reads a
word from the file), and the pids, which are all this process's.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes import FakeClock
from fakes_sinks import snapshot
from testbed import free_port

from dvfd import probes
from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Http, parse
from dvfd.errors import DvfdError
from dvfd.model import NONE_YET, Check, Sample, Verdict
from dvfd.people.attestations import Attestations
from dvfd.probes.verifier import Verifier
from dvfd.runs import parts
from dvfd.runs.baselines import Baselines
from dvfd.runs.conductor import Order
from dvfd.runs.freezing import Frozen, judged_again
from dvfd.runs.saves import Manifestless
from dvfd.runs.served import Served
from dvfd.runs.tally import Context
from dvfd.runs.watched import Watched
from dvfd.shell import Output
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.store import Store
from dvfd.telemetry import receiver as receiving
from dvfd.telemetry import reporter as reporting
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.processes import Process
from dvfd.telemetry.receiver import Receiver

BEAT = 5
DURATION = 250.0
SEEN = 0.9
"""Of these minutes: a beat or two are nothing of a day and several percent here."""
SINGLE = 62.5
TICKS = os.sysconf("SC_CLK_TCK")
NODES = {"phase1": 1, "phase2a": 2, "phase2b": 3, "phase2c": 4}
RATES = {"phase1": 10, "phase2a": 5, "phase2b": 5, "phase2c": 5}


class Table:
    """A process table in which each line that connects is a process of its own."""

    def __init__(self) -> None:
        self._starts = itertools.count(1)
        self.dead: set[Process] = set()
        self.newest: Process | None = None

    def identify(self, pid: int) -> Process:
        self.newest = Process(pid, next(self._starts))
        return self.newest

    def state(self, process: Process) -> str:
        return "X" if process in self.dead else "S"

    def boot_id(self) -> str:
        return "this boot"


class Machine:
    """A tree of /proc and /sys: two packages, one NUMA node, one network card."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.cpu, self.memory, self.watts = 0.95, 0.5, 200.0
        self.errors = self.drops = self.again = 0
        self._written: dict[str, object] = {}
        self._busy = self._joules = 0.0
        self._segments = 0
        self.write("sys/devices/system/cpu/online", "0-3")
        self.write(f"proc/{os.getpid()}/status", "Cpus_allowed_list:\t0-3")
        self.write(f"proc/{os.getpid()}/cgroup", "0::/")
        for package in range(2):
            place = f"sys/class/powercap/intel-rapl:{package}"
            self.write(f"{place}/name", f"package-{package}")
            self.write(f"{place}/max_energy_range_uj", 262143328850)
        card = "sys/class/net/eth0"
        for name, text in (("operstate", "up"), ("carrier", 1), ("flags", "0x1003"),
                           ("speed", 100000), ("device/vendor", "0x8086")):  # fmt: skip
            self.write(f"{card}/{name}", text)
        self.advance(0)

    def write(self, path: str, text: object) -> None:
        if self._written.get(path) == text:
            return
        self._written[path] = text
        place = self.proc.parent / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")

    def advance(self, seconds: float) -> None:
        """Time goes on, and everything is used as it is set."""
        self._busy += self.cpu * 4 * seconds
        self._joules += self.watts * seconds
        self._segments += int(1e7 * seconds)
        ticks = int(self._busy * TICKS)
        self.write(f"proc/{os.getpid()}/stat", f"7 (py) S {'0 ' * 10}{ticks} 0 {'0 ' * 6}9 0 0")
        self.write("proc/stat", f"cpu {ticks} 0 0 1000 0 0 0 0 0 0")
        total = 10**9
        used = int(self.memory * total)
        self.write(
            "sys/devices/system/node/node0/meminfo",
            f"Node 0 MemTotal: {total} kB\nNode 0 MemFree: {total - used} kB\n"
            "Node 0 FilePages: 0 kB\nNode 0 Shmem: 0 kB\nNode 0 SReclaimable: 0 kB",
        )
        for package in range(2):
            place = f"sys/class/powercap/intel-rapl:{package}/energy_uj"
            self.write(place, int(self._joules * 1e6) % 262143328850)
        counts = {"rx_errors": self.errors, "rx_dropped": self.drops}
        for name in ("rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_crc_errors",
                     "rx_fifo_errors", "tx_fifo_errors", "rx_dropped", "tx_dropped",
                     "rx_missed_errors"):  # fmt: skip
            self.write(f"sys/class/net/eth0/statistics/{name}", counts.get(name, 0))
        self.write(
            "proc/net/snmp",
            f"Tcp: OutSegs RetransSegs\nTcp: {self._segments} {self.again}",
        )


class Rehearsal:
    """One run of one phase. `at` says what happens at which second of it.

    With a *place* it is one node of several, and Several rehearses them together.
    """

    def __init__(
        self, directory: Path, phase: str, *, clock: FakeClock | None = None,
        place: Place | None = None,
    ) -> None:  # fmt: skip
        self.phase, self.rate = phase, RATES[phase]
        self.clock = clock or FakeClock()
        self.place = place
        self.directory = directory
        self.machine = Machine(directory)
        self.table = Table()
        self.ranks: dict[int, reporting.Reporter] = {}
        self.processes: dict[int, Process | None] = {}
        self.step = 0
        self.moment = self.clock.boot()
        self.row: dict[str, Any] = {}
        self.of_rank: Callable[[int, int], Mapping[str, Any]] = lambda _rank, _step: {}
        self.silenced: set[str] = set()
        self.saving = self.stepping = True
        self.probing = 0.0045  # seconds of an all-reduce of 64 KiB; 0: nobody probes
        self.word = "whole"  # what the next checkpoints hold
        self.check = self._check()
        self.context = Context(
            single_process=SINGLE, link=5e10 if NODES[phase] > 1 else None,
            smaller_efficiency=1.1, baseline=self._baseline(),
            attested={"team_operational_confidence": 1.0, "production_readiness": 1.0},
        )  # fmt: skip
        self.verdicts: dict[str, Verdict] = {}
        self.reasons: dict[str, str] = {}

    def _check(self) -> Check:
        nodes = NODES[self.phase]
        more = self.place.toml if self.place else ""
        self.config = parse(f"[profile]\nnodes = {nodes}\nlink_gbps = 400\n{more}")
        self.catalogue = load(self.config)
        found = self.catalogue.checks[f"stability_{self.phase}"]
        criteria = tuple(replace(c, coverage=SEEN) if c.coverage else c for c in found.criteria)
        # Without a place all ranks report here, as if there were one node.
        over = found.nodes if self.place else 1
        check = replace(found, nodes=over, duration=DURATION, criteria=criteria)
        self.catalogue = replace(self.catalogue, checks={**self.catalogue.checks, check.id: check})
        return check

    def _baseline(self) -> tuple[tuple[float, float], ...]:
        world = self.check.processes
        each = self.samples() * world
        return tuple((each * n, self.loss(n)) for n in range(0, int(DURATION * self.rate) + 500, 5))

    def samples(self) -> float:
        """Of one rank and step: 112 % of linear scaling."""
        return 1.12 * SINGLE / self.rate

    @staticmethod
    def loss(step: float) -> float:
        return 2.0 + 0.3 / (1.0 + step / 2000.0)

    # --- The run --------------------------------------------------------------------------------

    def run(self, at: Mapping[int, Callable[[Rehearsal], None]]) -> None:
        """Rehearse it from the order to the report."""
        with self._daemon(), told(lambda: self.moment, self.clock.now):
            self.begin()
            due = dict(at)
            for second in range(0, int(DURATION) + 60, BEAT):
                for moment in [m for m in due if m <= second]:
                    due.pop(moment)(self)
                self._beat()
                if self.conductor.run().frozen:
                    break
            self.end()

    def begin(self) -> None:
        """Arm it, and let the ranks of this node come."""
        self.conductor.arm(Order(check=self.check.id, job="gpt", force=True), by="test")
        here = self.check.processes // self.check.nodes
        first = self.place.number * here if self.place else 0
        for rank in range(first, first + here):
            self.join(rank)

    def end(self) -> None:
        """Take note of what every criterion is worth."""
        results = self.conductor.results(self.check, self.clock.now())
        found = {r.criterion.id.partition(".")[2]: r for r in results}
        self.verdicts = {
            n: self._worth(n) for n, r in found.items() if r.criterion.source != NONE_YET
        }
        self.reasons = {n: r.reason for n, r in found.items()}

    def _worth(self, name: str) -> Verdict:
        """The verdict, as if ranks that share this process's cores were well placed."""
        judged = self.conductor._found[self.check.id]
        return next(j.so_far for j in judged if j.result.criterion.id == f"{self.check.id}.{name}")

    @contextmanager
    def _daemon(self) -> Iterator[None]:
        receiving.GATHER, receiving.STUCK = 0.0, 1e9  # real time, and the clock here runs ahead
        sys.setswitchinterval(0.0002)
        self.book = JobBook(self.config.jobs, self.clock, processes=self.table)
        self.store = Store(
            self.directory / "dvfd.db", metrics=self.catalogue.metrics, clock=self.clock
        )
        self.receiver = Receiver(
            self.directory / "ingest.sock", self.book, self.store, self.clock, lambda _: None,
            processes=self.table,
        )  # fmt: skip
        self.probes = probes.build(
            self.config, book=self.book, store=self.store, clock=self.clock,
            state=self.directory, publish=self.receiver.publish, proc=self.machine.proc,
            sys=self.machine.sys,
        )  # fmt: skip
        self.conductor = parts.conduct(
            self.config, self.catalogue, store=self.store, book=self.book, clock=self.clock,
            directory=self.directory / "runs", judge=self._judge, freezes=_frozen,
            attestations=Attestations(self.catalogue, self.store, self.clock),
            verifier=self._verifier, held_against=lambda _run: self.context,
            baselines=Baselines(self.directory / "runs", self.store, self.clock),
        )  # fmt: skip
        self.store.start()
        self.receiver.start()
        try:
            yield
        finally:
            self.receiver.stop()
            self.conductor.stop()
            self.store.stop()

    def _judge(self, check: Check) -> None:
        self.conductor.results(check, self.clock.now())

    def _verifier(self) -> Verifier:
        return Verifier(
            self.config.checkpoints, records=Manifestless(), run=verified, start=lambda work: work()
        )

    def join(self, rank: int) -> None:
        world = self.check.processes
        here = world // self.check.nodes
        self.ranks[rank] = reporting.Reporter(
            job="gpt", run="r", rank=rank, world_size=world, local_rank=rank % here,
            local_world_size=here, socket=str(self.directory / "ingest.sock"),
            checkpoint_every=self.check.checkpoint_every, interval=3600.0,
        )  # fmt: skip

    def _beat(self) -> None:
        """Five seconds: steps, checkpoints, a look of the probes, a look of the conductor."""
        self.clock.advance(BEAT)
        began = self.clock.boot() - BEAT
        for n in range(BEAT * self.rate if self.stepping else 0):
            self.moment = began + (n + 1) / self.rate
            self.work()
        self.look()

    def work(self) -> None:
        """One step of every rank."""
        self.step += 1
        for rank, reporter in list(self.ranks.items()):
            reporter.step(self.step, **{**self._row(rank), **self.of_rank(rank, self.step)})
        if self.probing and self.step % self.check.every == 0:
            for reporter in self.ranks.values():
                reporter.collective("64KiB", self.probing)
        if self.saving and 0 in self.ranks and self.step % self.check.checkpoint_every == 0:
            self.save(self.step, self.word)

    def look(self) -> None:
        """What the daemon does after five seconds."""
        self.machine.advance(BEAT)
        now = self.moment = self.clock.boot()
        for reporter in self.ranks.values():
            reporter._flush(now)
        self._settle()
        at, samples = self.clock.now(), list[Sample]()
        for probe in self.probes.all:
            with suppress(DvfdError):  # what came before the error is kept
                samples.extend(s for s in probe.sample(at) if s.metric not in self.silenced)
        self.conductor.sampled(samples)
        self.conductor.tick()

    def _settle(self) -> None:
        """Wait until everything that was sent is committed."""
        until = time.monotonic() + 5.0
        for attempt in itertools.count():
            for reporter in self.ranks.values():
                away = not reporter.stats()["connected"]
                reporter._flush(self.clock.boot() + attempt * away)  # it waits between attempts
            stats = [reporter.stats() for reporter in self.ranks.values()]
            if time.monotonic() > until:
                return
            if all(s["committed"] >= s["sent"] for s in stats):
                return
            time.sleep(0.0005)

    def _row(self, rank: int) -> dict[str, Any]:
        step = 1.0 / self.rate
        row = {
            "samples": self.samples(), "loss": self.loss(self.step), "grad_norm": 1.0,
            "compute": 0.8 * step, "communication": 0.1 * step, "allreduce": 0.0045,
            "bytes": 110e6,
        }  # fmt: skip
        if self.step % 10 == 0:
            row |= {"grad_hash": self.step, "param_hash": self.step}
        return {**row, **self.row}

    # --- What may happen ------------------------------------------------------------------------

    def save(self, step: int, word: str = "whole") -> None:
        """A checkpoint of rank 0."""
        path = self.directory / f"checkpoint-{step}"
        self.ranks[0].checkpoint_begin(str(path), step)
        path.write_text(word)
        self.ranks[0].checkpoint_saved(str(path), step)

    def die(self, rank: int) -> None:
        """A rank's process is gone without a word."""
        with self.book.lock:
            for job in self.book.all():
                if rank in job.ranks and job.ranks[rank].process:
                    self.table.dead.add(job.ranks[rank].process)
        self.ranks.pop(rank)._close()


def _frozen(on: Watched) -> Frozen:
    """The last judgement, from the file alone, and no report."""
    return Frozen((), "frozen", judged_again(on.file.path, on.run, on.check))


@dataclass(frozen=True)
class Place:
    """Where a node stands among several: which it is, and the ports of all daemons."""

    number: int
    ports: tuple[int, ...]

    @property
    def toml(self) -> str:
        nodes = (
            f'[[cluster.nodes]]\nname = "n{n}"\naddress = "127.0.0.{n + 1}"\n'
            f'url = "http://127.0.0.1:{port}"\n'
            for n, port in enumerate(self.ports)
        )
        return f'[node]\nname = "n{self.number}"\n[cluster]\nlead = "n0"\n{"".join(nodes)}'


class Several:
    """One run over all its nodes: a rehearsal of each, one clock, and real HTTP between them."""

    def __init__(self, directory: Path, phase: str) -> None:
        clock = FakeClock()
        ports = tuple(free_port() for _ in range(NODES[phase]))
        self.nodes = [
            Rehearsal(directory / f"n{n}", phase, clock=clock, place=Place(n, ports))
            for n in range(NODES[phase])
        ]
        self.lead = self.nodes[0]
        self.servers: list[HttpServer] = []

    def run(self, at: Mapping[int, Callable[[Several], None]]) -> None:
        """Rehearse it from the order to the leader's report."""
        lead, due = self.lead, dict(at)
        with ExitStack() as stack, told(lambda: lead.moment, lead.clock.now):
            for node in self.nodes:
                stack.enter_context(node._daemon())
                self.servers.append(self._serve(node))
                stack.callback(self.servers[-1].stop)
                node.begin()
            for second in range(0, int(DURATION) + 150, BEAT):
                for moment in [m for m in due if m <= second]:
                    due.pop(moment)(self)
                self._beat()
                if lead.conductor.run().frozen:
                    break
            lead.end()

    @staticmethod
    def _serve(node: Rehearsal) -> HttpServer:
        assert node.place
        runs = Served(node.conductor, node.directory / "runs", node.clock)
        site = Site(snapshot, runs=runs)
        port = node.place.ports[node.place.number]
        server = HttpServer(site, Http(port=port), clock=SystemClock())
        server.start()
        return server

    def _beat(self) -> None:
        lead = self.lead
        lead.clock.advance(BEAT)
        for n in range(BEAT * lead.rate):
            lead.moment = lead.clock.boot() - BEAT + (n + 1) / lead.rate
            for node in self.nodes:
                node.work()
        for node in self.nodes:
            node.look()
        for node in self.nodes[::-1]:
            if node.conductor._on is not None:
                node.conductor._on.company.poll()

    def cut(self, number: int) -> None:
        """Nobody reaches that node's daemon any more."""
        self.servers[number].stop()


def verified(argv: Any, *, timeout: float, stdin: bytes = b"") -> Output:
    """The child that verifies, read from the file: `whole` is, anything else is not."""
    word = Path(argv[-1]).read_text()
    whole = word == "whole"
    said = {"intact": whole, "loadable": whole, "reason": "" if whole else f"it holds {word!r}"}
    return Output(0, json.dumps(said), "", 0.0)


@contextmanager
def told(moment: Callable[[], float], wall: Callable[[], float]) -> Iterator[None]:
    """Reporters whose time is what they are told."""
    before = dict(vars(reporting))
    fake = SimpleNamespace(
        time=wall, monotonic=moment, clock_gettime=lambda _which: moment(),
        CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
    )  # fmt: skip
    vars(reporting).update(_monotonic=moment, time=fake)
    try:
        yield
    finally:
        vars(reporting).update(_monotonic=before["_monotonic"], time=before["time"])

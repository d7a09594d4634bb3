"""A test on several nodes: this node's ranks, started to meet those of the others, and the answer.

The same command runs on every node. Each starts its ranks by torchrun and gets the same answer, so
each judges the same evidence and keeps a report of its own. What the ranks do, and how they keep
step, stands in `dvfd.drills.workers.fleet`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dvfd import __version__, cluster, drills
from dvfd.drills import inside
from dvfd.drills.drill import Fact
from dvfd.drills.interface import interfaces
from dvfd.drills.interpreter import (
    BARE,
    LOADING,
    ended,
    first_to_fall,
    last_words,
    read_answer,
)
from dvfd.drills.launchers import TORCHRUN
from dvfd.drills.processors import allotted
from dvfd.errors import DvfdError, ProbeError, ToolError

if TYPE_CHECKING:
    from dvfd.config import Config, Member
    from dvfd.drills.drill import Task

WORKER = "dvfd.drills.workers.fleet"

FINISHED = "dvfd-fleet: finished"
"""How a worker's line begins that says that this node's answer is written; torchrun's pid follows.
The worker has the same words."""

LEAVING = 5.0
"""Seconds for torchrun to end after that. Where a node is lost it would wait for it: 300 s."""

SPARE = 120.0
"""Seconds beyond all exercises: who they are, a silent rank noticed, the answer fetched."""

FELL = "ended first"
"""In the words of `first_to_fall` and of a torchrun that was killed: no question of who came."""

PLAN, ANSWER = "fleet-plan.json", "fleet.json"


class NotMet(ProbeError):
    """The ranks of the nodes did not find each other, so nothing was measured between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """What all ranks are to do: `run(crew, options)` of *module*, for *seconds* at the most."""

    name: str
    module: str
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Met:
    """A node that came, and the ranks that ran on it."""

    name: str
    address: str
    interface: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the ranks said of one exercise, by rank: what they found, or why they could not."""

    values: Mapping[int, Any]
    failures: Mapping[int, str]

    @property
    def why(self) -> str:
        """Every reason of a failure once."""
        return "; ".join(dict.fromkeys(self.failures.values()))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a test on several nodes."""

    nodes: tuple[Met, ...]
    heard: Mapping[str, Heard]
    torch: str

    def of(self, exercise: str) -> Heard:
        """What was said of *exercise*. Raises ProbeError if it was not done."""
        if exercise not in self.heard:
            raise ProbeError(f"{exercise} was not done on the nodes")
        return self.heard[exercise]

    def node(self, rank: int) -> str:
        """The name of the node that *rank* ran on. Raises ProbeError."""
        found = next((node.name for node in self.nodes if rank in node.ranks), None)
        if found is None:
            raise ProbeError(f"rank {rank} is of no node that came")
        return found


@runtime_checkable
class Between(Protocol):
    """A part whose figures come of exercises that all nodes do together."""

    def exercises(self, task: Task) -> Sequence[Exercise]:
        """What it needs done, known before anything is."""
        ...


def answer(task: Task) -> Answer:
    """What came of all exercises of this check, which are done once for all of its parts.

    Raises NotMet, ProbeError, ToolError, ConfigError.
    """
    return task.memo.once(("fleet", task.check.id), lambda: _answer(task, asked(task), ranks(task)))


def tell(task: Task, name: str, carried: Mapping[str, Any]) -> Answer:
    """What each node told the others, *carried* by this one, as the exercise *name*.

    Raises NotMet, ProbeError, ToolError, ConfigError.
    """
    each = Exercise(name=name, module="dvfd.drills.workers.fleet_told", seconds=60.0)
    return task.memo.once(("fleet", task.check.id), lambda: _answer(task, [each], 1, carried))


def came(task: Task) -> tuple[Met, ...]:
    """The nodes that came to a test which was done; asks for nothing."""
    found = task.memo.seen(("fleet", task.check.id))
    return found.nodes if isinstance(found, Answer) else ()


def nodes(task: Task) -> int:
    """How many nodes are to take part."""
    return task.options.nodes or task.check.nodes


def ranks(task: Task) -> int:
    """How many ranks each node has in the test: as many as in training, where the check counts."""
    return task.processes if task.check.processes else 1


def asked(task: Task) -> list[Exercise]:
    """The exercises of all parts of the check, each once, in the order of the parts."""
    parts = (p for p in drills.build(task.check.id) if isinstance(p, Between))
    found = {each.name: each for part in parts for each in part.exercises(task)}
    return list(found.values())


def _answer(
    task: Task, todo: Sequence[Exercise], each: int, carried: Mapping[str, Any] | None = None
) -> Answer:
    me = cluster.here(task.config)
    _resolved(task.config)
    place = inside.shared() if task.options.inside else task.scratch
    path = place / ANSWER
    path.unlink(missing_ok=True)
    plan = _plan(task, me, path, todo) | {"ranks": each, "carried": carried}
    _write(place / PLAN, plan)
    why = _join(task, place / PLAN) if task.options.inside else _launch(task, me, place / PLAN)
    if not path.exists():
        raise ProbeError(why) if FELL in why else NotMet(_alone(task, why))
    return read(read_answer(path), task.check.id)


def _write(path: Path, plan: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(plan), encoding="utf-8")
    beside.replace(path)


def _plan(task: Task, me: Member, path: Path, exercises: Sequence[Exercise]) -> dict[str, Any]:
    todo = [asdict(each) for each in exercises]
    return {
        "check": task.check.id,
        "answer": str(path),
        "node": me.name,
        "lead": task.config.cluster.lead,
        "kept": str(task.state),
        "processors": sorted(allotted(task)),
        "nodes": [{"name": n.name, "address": n.address} for n in task.config.cluster.nodes],
        "count": nodes(task),
        "ports": task.config.cluster.ports,
        "interface": _interface(task.config, me),
        "objection": _objection(task),
        "facts": {
            "dvfd": __version__,
            f"the criteria of {task.check.id}": _digest(repr(task.check)),
            "what is to be done": _digest(json.dumps(todo)),
        },
        "exercises": todo,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _objection(task: Task) -> str:
    """What on this node speaks against a test, in words that the other nodes are told."""
    if task.training and not task.options.force:
        return f"a training job runs: {task.training}; --force runs it all the same"
    return ""


def _interface(config: Config, me: Member) -> str:
    """The interface of the training network. Raises ProbeError if it cannot be one."""
    there = interfaces()
    found = cluster.interface(config.cluster, cluster.resolved(me.address), there)
    if not found:
        known = "; ".join(f"{i.name}: {', '.join(i.addresses)}" for i in there.values())
        raise ProbeError(
            f"{me.address}, the address of {me.name} by [[cluster.nodes]], is on no interface: "
            f"there are {known}"
        )
    if found not in there or not there[found].up:
        how = "is down" if found in there else f"is none of {', '.join(sorted(there))}"
        raise ProbeError(f"cluster.interface {found!r} {how}")
    return found


def _resolved(config: Config) -> None:
    """Raises ProbeError naming the nodes whose address does not resolve."""
    wrong = []
    for node in config.cluster.nodes:
        try:
            cluster.resolved(node.address)
        except DvfdError as error:
            wrong.append(f"{node.name}: {error}")
    if wrong:
        raise ProbeError("; ".join(wrong))


# --- Starting -------------------------------------------------------------------------------------


def _launch(task: Task, me: Member, plan: Path) -> str:
    """Run this node's ranks; in words why they ended before their end, or an empty string."""
    told = json.loads(plan.read_text(encoding="utf-8"))
    lead = cluster.lead(task.config.cluster)
    if me == lead:
        _free(task.config.cluster.port)
    if nodes(task) > len(told["nodes"]):
        raise ProbeError(f"{nodes(task)} nodes wanted, [[cluster.nodes]] has {len(told['nodes'])}")
    argv = [
        task.python, "-m", "torch.distributed.run", f"--nnodes={nodes(task)}",
        f"--nproc_per_node={told['ranks']}", "--max-restarts=0", str(BARE), WORKER, str(plan),
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k not in TORCHRUN}
    env |= {"OMP_NUM_THREADS": "1", **_rendezvous(task, me, told["interface"])}
    task.say(f"{task.check.id}: waiting for {nodes(task)} nodes at {lead.name}, {lead.address}")
    limit = task.config.cluster.wait + 2 * LOADING + SPARE
    limit += sum(each["seconds"] for each in told["exercises"])
    with _leaving(task.say) as tell:
        try:
            done = task.run(argv, timeout=limit, env=env, on_line=tell)
        except ToolError as error:
            return str(error)
    if done.code == 0:
        return ""
    if done.code < 0:  # not even it could say why
        return f"this node's torchrun {FELL}: {ended(done.code)}"
    return first_to_fall(done.stderr) or _said(done.stderr) or last_words(done)


def _rendezvous(task: Task, me: Member, interface: str) -> dict[str, str]:
    run = f"dvfd-{task.check.id}"
    return cluster.environment(task.config.cluster, me, run=run, over=interface)


def _free(port: int) -> None:
    """Raises ProbeError if the rendezvous cannot be on *port*."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise ProbeError(
                f"port {port} of the rendezvous: {error.strerror}: `ss -tlnp` names who has it; "
                "end that, or set cluster.port on every node"
            ) from None


@contextlib.contextmanager
def _leaving(say: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Hands lines on to *say*, and ends torchrun where it outlives its ranks' answer."""
    timers: list[threading.Timer] = []

    def tell(line: str) -> None:
        if not line.startswith(FINISHED):
            say(line)
        elif (pid := line.rpartition(" ")[2]).isdigit():
            timers.append(threading.Timer(LEAVING, _kill, [int(pid)]))
            timers[-1].start()

    try:
        yield tell
    finally:
        for timer in timers:
            timer.cancel()


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _said(stderr: str) -> str:
    """What torchrun says of a rendezvous that failed."""
    found = re.findall(
        r"^\S*(?:Rendezvous\w*Error|DistNetworkError|DistStoreError).*$", stderr, re.MULTILINE
    )
    return found[-1].rpartition("rendezvous.")[2] if found else ""


def _alone(task: Task, why: str) -> str:
    """Why there is no answer, for whoever has to mend it."""
    lead = cluster.lead(task.config.cluster)
    where = cluster.endpoint(lead.address, task.config.cluster.port)
    others = [n.name for n in task.config.cluster.nodes if n.name != task.config.node.name]
    missed = others[0] if len(others) == 1 else f"one or more of {', '.join(others)}"
    return (
        f"{nodes(task)} nodes did not meet at {lead.name}, {where}, within "
        f"{task.config.cluster.wait:g} s: {missed} did not come to {task.config.node.name}: "
        "start the same command on each of them; "
        f"`dvfd cluster check` says what stops them ({why or 'the ranks left no answer'})"
    )


def _join(task: Task, plan: Path) -> str:
    """Be one of the ranks that a person's torchrun started."""
    given, wanted = inside.world(), nodes(task) * ranks(task)
    if given != wanted:
        raise ProbeError(
            f"torchrun started {given} ranks, wanted {wanted}: "
            f"give --nnodes={nodes(task)} --nproc_per_node={ranks(task)}"
        )
    from dvfd.drills.workers import fleet  # noqa: PLC0415  # torch, in a rank only

    fleet.main(str(plan))
    return ""


def follow(*, patience: float = LOADING) -> None:
    """Be a rank beside the one that runs the check on this node: wait for its plan, and take part.

    Raises ProbeError if there comes none.
    """
    from dvfd.drills.workers import fleet  # noqa: PLC0415  # torch, in a rank only

    plan, until = inside.shared() / PLAN, time.monotonic() + patience
    while not plan.exists():
        if time.monotonic() > until:
            raise ProbeError(f"no plan came within {patience:g} s from this node's first rank")
        time.sleep(0.05)
    fleet.main(str(plan))


# --- What the ranks said --------------------------------------------------------------------------


def read(said: Mapping[str, Any], check: str) -> Answer:
    """An answer that may be believed. Raises ProbeError: in its words if the test was not made."""
    try:
        against = [str(each) for each in said["objections"]]
        met = tuple(_met(row) for row in said["nodes"])
        heard = {str(name): _heard(rows, met) for name, rows in said["exercises"].items()}
        torch = ", ".join(sorted({str(row["torch"]) for row in said["nodes"]}))
        about = said["check"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"answer of the ranks: {error!r}: wanted what they write") from None
    if about != check:
        raise ProbeError(f"answer of the ranks: it is about {about!r}, not {check!r}")
    if against:
        raise ProbeError(f"not done: {'; '.join(against)}")
    return Answer(met, heard, torch)


def _met(row: Mapping[str, Any]) -> Met:
    numbers = tuple(int(rank) for rank in row["ranks"])
    return Met(str(row["name"]), str(row["address"]), str(row["interface"]), numbers)


def _heard(rows: Mapping[str, Any], met: Sequence[Met]) -> Heard:
    wanted = {rank for node in met for rank in node.ranks}
    if {int(rank) for rank in rows} != wanted:
        raise ValueError(f"ranks {sorted(map(int, rows))} answered, wanted {sorted(wanted)}")
    return Heard(
        {int(rank): row["value"] for rank, row in rows.items() if "failed" not in row},
        {int(rank): str(row["failed"])[:500] for rank, row in rows.items() if "failed" in row},
    )


def facts(found: Answer) -> Iterator[Fact]:
    """Who took part."""
    for node in found.nodes:
        count = f"{len(node.ranks)} ranks" if len(node.ranks) > 1 else "1 rank"
        yield Fact(f"node {node.name}", f"{node.address} by {node.interface}, {count}")

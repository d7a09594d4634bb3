"""A real Slurm on this machine: two nodes, with munge, ports and files of its own.

Needs root, as slurmd does. Its daemons and what they ran are gone when the test ends; each process
of it carries the path of its configuration in its environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from testbed import eventually, free_port, need

NODES = ("node1", "node2")
PREFIX = "dvfd-slurm"

CONFIG = """
ClusterName=dvfdtest
SlurmctldHost={host}({control})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/%n.pid
SlurmdSpoolDir={place}/spool-%n
StateSaveLocation={place}/state
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
PlugStackConfig=/dev/null
SlurmdParameters=config_overrides
KillWait={kill_wait}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""
"""Nothing that needs cgroups: a container has none to give away."""


@dataclass
class Slurm:
    """A cluster that is up; what its clients say comes as text."""

    place: Path
    given: dict[str, str] = field(default_factory=dict)  # to its clients, and so to jobs
    within: tuple[str, ...] = ()  # where they run
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What clients are started with."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        return {**outside, **self.given, "SLURM_CONF": str(self.place / "slurm.conf")}

    def run(self, *argv: object, code: int | None = 0) -> str:
        """What a command printed; *code* is its exit code, None for any."""
        done = subprocess.run(
            [*self.within, *map(str, argv)], env=self.environment, capture_output=True, text=True,
            timeout=240, check=False, cwd=self.place,
        )  # fmt: skip
        assert code in {None, done.returncode}, f"{argv}: {done.returncode}: {done.stderr}"
        return (done.stdout + done.stderr).strip()

    def node(self, name: str) -> tuple[str, str]:
        """State and reason, as `drained` and `disk`."""
        state, _, reason = self.run("sinfo", "-hn", name, "-o", "%T %E").partition(" ")
        return state.strip("*"), reason

    def submit(self, *words: object) -> str:
        """The id of a batch job."""
        return self.run("sbatch", "--parsable", *words)

    def job(self, job: str) -> str:
        """Its state: PENDING, RUNNING, COMPLETED and so on; empty once Slurm has dropped it."""
        return self.run("squeue", "-hj", job, "-t", "all", "-o", "%T", code=None)

    def wait(self, job: str, *states: str) -> None:
        eventually(lambda: self.job(job).split("\n")[0] in states, 90, every=0.2)

    def idle(self, node: str) -> None:
        """Wait until *node* runs nothing and would take something."""
        seen: list[str] = []
        try:
            eventually(
                lambda: seen.append(str(self.node(node))) or "idle" in seen[-1], 60, every=0.2
            )
        except pytest.fail.Exception:
            pytest.fail(f"{node} is not idle: {seen[-1]}")


@contextlib.contextmanager
def slurm(
    more: str = "",
    *,
    names: Sequence[str] = NODES,
    addresses: Sequence[str] = ("127.0.0.1", "127.0.0.1"),
    within: Sequence[Sequence[str]] = ((), ()),
    kill_wait: int = 30,
    prepare: Callable[[Path], object] = bool,
) -> Iterator[Slurm]:
    """A cluster with *more* in slurm.conf; each node at its address, started *within* a command
    such as `ip netns exec NAME`, the controller within that of the first. *prepare* is told where
    slurm.conf lies before anything is started.
    """
    if os.geteuid() != 0:
        message = "slurmd needs root"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        need(program)
    _sweep()
    place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-"))
    made = Slurm(place, within=tuple(within[0]))
    try:
        _configure(made, more, dict(zip(names, addresses, strict=True)), kill_wait)
        prepare(made.place / "slurm.conf")
        _start(made, dict(zip(names, within, strict=True)))
        yield made
    finally:
        _stop(made)
        shutil.rmtree(made.place, ignore_errors=True)


def _configure(made: Slurm, more: str, nodes: Mapping[str, str], kill_wait: int) -> None:
    place = made.place
    place.chmod(0o755)  # munged wants everybody to reach its socket
    (place / "state").mkdir()
    (place / "munge.key").write_bytes(os.urandom(128))
    (place / "munge.key").chmod(0o400)
    (place / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    host = socket.gethostname().partition(".")[0]
    rows = ""
    for name, address in nodes.items():
        (place / f"spool-{name}").mkdir()
        rows += (
            f"NodeName={name} NodeHostname={host} NodeAddr={address} Port={free_port()} CPUs=2\n"
        )
    control = next(iter(nodes.values()))
    head = CONFIG.format(
        host=host, control=control, place=place, port=free_port(), kill_wait=kill_wait
    )
    (place / "slurm.conf").write_text(rows + head + more)


def _start(made: Slurm, within: Mapping[str, Sequence[str]]) -> None:
    place, conf = made.place, made.place / "slurm.conf"
    files = [f"--{name}={place}/munge.{name}" for name in ("pid-file", "log-file", "seed-file")]
    files += [f"--socket={place}/munge.sock", f"--key-file={place}/munge.key"]
    _spawn(made, "munged", "--foreground", "--force", *files)  # whatever the rights of /tmp
    eventually((place / "munge.sock").exists, 60)
    first = next(iter(within.values()))
    _spawn(made, *first, "slurmctld", "-D", "-f", conf)
    for name, inside in within.items():
        _spawn(made, *inside, "slurmd", "-D", "-N", name, "-f", conf)
    for name in within:
        eventually(partial(_registered, made, name), 60, every=0.2)


def _registered(made: Slurm, name: str) -> bool:
    """Whether the controller has heard of *name*, whatever it thinks of it."""
    state = made.run("sinfo", "-hn", name, "-o", "%T", code=None)
    return state.startswith(("idle", "drain")) and not state.endswith("*")


def _spawn(made: Slurm, *argv: object) -> None:
    name = next(str(word) for word in argv if str(word).startswith(("munged", "slurm")))
    with (made.place / f"{name}.out").open("ab") as out:
        made.processes.append(subprocess.Popen(
            [*map(str, argv)], env=made.environment, stdout=out, stderr=out, cwd=made.place
        ))  # fmt: skip


def _stop(made: Slurm) -> None:
    """Kill the daemons and whatever they ran: nothing of it is worth a farewell."""
    eventually(lambda: not _killed(f"SLURM_CONF={made.place}/"), 60)
    for process in made.processes:
        process.wait()


def _sweep() -> None:
    """Kill what a test run that is gone left."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*"):
        if not Path("/proc", place.name.split("-")[2]).exists():
            _killed(f"SLURM_CONF={place}/")
            shutil.rmtree(place, ignore_errors=True)


def _killed(mark: str) -> list[int]:
    """Kill what carries *mark* in its environment, but this process; which that was."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    found.append(int(entry.name))
    return found

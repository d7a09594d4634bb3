"""iperf3 as processes of one rank: servers that are seen to listen, clients, and what both say.

Runs without -i's reports, so an hour's answer is as short as a second's, but for flows that are to
be summed: those leave out their last seconds, in which another may have ended. What an end says is
parsed with distrust: a tool that was killed leaves half a document.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeGuard

from dvfd.drills.rounds import TCP, UDP, Flow

INSTALL = "apt-get install iperf3, or dnf install iperf3"

THREADS = (3, 16)
"""The first version that gives each stream a thread."""

CONNECTING = 5.0
"""Seconds for a client to reach its server."""

ENDING = 20.0
"""Seconds beyond its flow after which a process is killed: the two ends exchange results."""

LISTENING = 10.0
"""Seconds for a server to listen: a busy machine starts a process in one."""

LATE = "iperf3 did not end in time and was killed"

EVERY = 1.0
"""Seconds of an interval of iperf3's reports."""

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Said:
    """What one end of a process says: rates in bits a second, or why there are none."""

    sent: float = 0.0
    received: float = 0.0
    again: int = 0  # TCP segments
    lost: int = 0  # datagrams
    datagrams: int = 0
    failed: str = ""


def version() -> tuple[int, ...]:
    """Of the iperf3 that is found; empty if there is none."""
    if not (tool := shutil.which("iperf3")):
        return ()
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"iperf (\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


# --- What it says ---------------------------------------------------------------------------------


def read(text: str, kind: str, course: Course | None = None) -> Said:
    """The end of iperf3's JSON, of a client or a server; of a *course* with a tail what counts."""
    try:
        document, _ = json.JSONDecoder().raw_decode(text.lstrip())  # it adds "iperf3: exiting"
        if why := document.get("error"):
            return Said(failed=str(why).removeprefix("error - "))
        found = _sums(document["end"], kind)
        return replace(found, received=_within(document, course)) if _tailed(course) else found
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        last = text.strip().rpartition("\n")[2][:200]
        return Said(failed=f"iperf3 said nothing that can be read: {last!r}")


def _sums(end: dict[str, Any], kind: str) -> Said:
    sent, received = end["sum_sent"], end["sum_received"]
    rates = _rate(sent), _rate(received)
    if kind == UDP:
        return Said(*rates, 0, int(received["lost_packets"]), int(received["packets"]))
    return Said(*rates, int(sent.get("retransmits", 0)))


def _tailed(course: Course | None) -> TypeGuard[Course]:
    return course is not None and course.tail > 0


def _within(document: dict[str, Any], course: Course) -> float:
    """Bits a second over the intervals that count; a client says of them what it sent, which is
    what arrived but for a socket's buffer. Raises ValueError where a busy node left out too many.
    """
    rows = [each["sum"] for each in document["intervals"] if not each["sum"]["omitted"]]
    rows = [row for row in rows if float(row["end"]) <= course.seconds + EVERY / 4]
    seconds = sum(float(row["seconds"]) for row in rows)
    if seconds < course.seconds / 2:
        raise ValueError(f"intervals of {seconds:g} s, wanted {course.seconds:g}")
    return 8 * sum(float(row["bytes"]) for row in rows) / seconds


def _rate(row: dict[str, Any]) -> float:
    """Bits over the seconds in which they counted: of receivers too, which run a little longer."""
    seconds = float(row["seconds"])
    return 8 * float(row["bytes"]) / seconds if seconds > 0 else 0.0


def together(parts: Sequence[Said]) -> Said:
    """Several processes of one flow as one; the first failure is that of all."""
    failed = next((part.failed for part in parts if part.failed), "")
    rows = [asdict(part) for part in parts]
    return Said(**{k: sum(row[k] for row in rows) for k in rows[0] if k != "failed"}, failed=failed)


# --- Processes ------------------------------------------------------------------------------------


class Tool:
    """One running iperf3. It ends with us."""

    def __init__(self, argv: Sequence[str], kind: str, course: Course | None = None) -> None:
        self._kind, self._course = kind, course
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        self._process = subprocess.Popen(
            ["iperf3", *argv],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            preexec_fn=_mortal,  # noqa: PLW1509  # one system call
        )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Leave nothing of it."""
        if self.alive:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def end(self, until: float) -> Said:
        """What it says, once it has ended; killed at monotonic time *until*."""
        late = False
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
            self._process.kill()
            self._process.wait()
        with self._out:
            self._out.seek(0)
            text = self._out.read().decode(errors="replace")
        return Said(failed=LATE) if late else read(text, self._kind, self._course)


def _mortal() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Serving:
    """The servers of one flow; `failed` says why they do not listen."""

    tools: tuple[Tool, ...]
    failed: str = ""

    def stop(self) -> None:
        """Leave none of them running."""
        _stop(self.tools)

    def end(self, until: float) -> Said:
        """What they say together."""
        if self.failed:
            return Said(failed=self.failed)
        return together([tool.end(until) for tool in self.tools])


def serve(flow: Flow, address: str, ports: Sequence[int], course: Course | None = None) -> Serving:
    """Servers of *flow* on *ports* of *address*, each for one client; waits until they listen."""
    where = f"server on {address} port {_span(ports)}"
    if taken := sorted(set(ports) & listening()):
        return Serving((), f"{where}: somebody listens on {taken[0]} already: `ss -tlnp` names who")
    every = f"{EVERY:.0f}" if _tailed(course) else "0"
    each = [["-s", "-1", "-J", "-i", every, "-B", address, "-p", str(port)] for port in ports]
    tools = tuple(Tool(argv, flow.kind, course) for argv in each)
    if _wait(lambda: not all(t.alive for t in tools) or set(ports) <= listening(), LISTENING):
        if all(tool.alive for tool in tools):
            return Serving(tools)
        said = (tool.end(time.monotonic() + LISTENING) for tool in tools if not tool.alive)
        why = next((each.failed for each in said), "")
    else:
        why = f"no listener after {LISTENING:g} s"
    _stop(tools)
    return Serving((), f"{where}: {why}")


def _stop(tools: Iterable[Tool]) -> None:
    for tool in tools:
        tool.stop()


def _span(ports: Sequence[int]) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"


def _wait(met: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not met():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def listening(proc: Path = Path("/proc/self")) -> set[int]:
    """The TCP ports that somebody listens on here: state 0A of /proc/net/tcp."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A":
                    found.add(int(local.rpartition(":")[2], 16))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long flows run: seconds that count, and whole seconds before and after that do not.

    Processes start a little apart, and who runs alone at the end has more. With an *omit* and a
    *tail* longer than that, all of them run in the seconds of each that count: so these add up.
    """

    seconds: float
    omit: int
    tail: int = 0

    @property
    def longest(self) -> float:
        """Seconds after which every process of it has ended or hangs."""
        return self.seconds + self.omit + self.tail + CONNECTING + ENDING


def send(flow: Flow, course: Course, ends: tuple[str, str], ports: Sequence[int]) -> list[Tool]:
    """Clients of *flow* between the addresses *ends*, one for each of *ports*."""
    return [Tool(client(flow, course, ends, port), flow.kind, course) for port in ports]


def client(flow: Flow, course: Course, ends: tuple[str, str], port: int) -> list[str]:
    """The arguments of one."""
    source, destination = ends
    argv = [
        "-c", destination, "-B", source, "-p", str(port), "-J",
        "-i", f"{EVERY:.0f}" if course.tail else "0",
        "-t", f"{course.seconds + course.tail:.0f}", "-P", str(flow.streams),
        "--connect-timeout", f"{1000 * CONNECTING:.0f}",
    ]  # fmt: skip
    if flow.kind == UDP:
        argv.append("-u")
    elif course.omit:
        argv += ["-O", str(course.omit)]
    if flow.rate:  # of each stream
        each = f"{flow.rate / flow.processes / flow.streams:.0f}"
        argv += ["-b", each]
        if flow.kind == TCP:  # -b alone sends in bursts, which shallow queues drop
            argv += ["--fq-rate", each]
    return argv

"""Round trips between nodes: echoes, 64 bytes over TCP, and MPI's; each pair alone on the network.

`run` is an exercise of a crew; only the first rank of each node acts. Times are in microseconds, in
the order in which they were taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dvfd import shell
from dvfd.drills import bare, rounds
from dvfd.drills.workers.fleet import Crew
from dvfd.errors import ToolError

GAP = 0.01
"""Seconds between two echoes: the least that ping gives to everybody is 0.002."""

PAYLOAD = 64
"""Bytes of a message over TCP: below what any library gathers."""

WARM_UP = 100
"""Round trips before the first that counts; of echoes one, which asks for the other's address."""

PATIENCE = 5.0
"""Seconds of silence after which a line is broken."""

LAUNCHING = 60.0
"""Seconds for mpirun to reach two nodes, beside the round trips."""

ECHO = re.compile(r"icmp_seq=(\d+) .*\btime=([\d.]+) ms")

AROUND = ("OMPI_COMM_", "OMPI_UNIV", "SLURM_")
"""Variables of what we run in: in a step of Slurm mpirun takes that for its nodes, not --host."""

ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(crew: Crew, options: Mapping[str, Any]) -> Any:
    """By name of the other node: `icmp` and `tcp` of this one; at the first rank also `mpi`."""
    if not crew.head:
        return None
    found: dict[str, Any] = {"icmp": {}, "tcp": {}, "mpi": {}}
    with _served(crew) as door:
        doors = crew.gather("doors", door, heads=True)
        for a, b in rounds.ordered(len(crew.nodes)):
            if crew.node == a:
                other = crew.nodes[b]
                found["icmp"][other.name] = echoes(other.address, options["echoes"])
                there = (other.address, doors[other.head])
                found["tcp"][other.name] = trips(there, crew.me.address, options["trips"])
            crew.step(f"{a}-{b}", heads=True, timeout=_most(options))
        if options["mpi"]:
            for a, b in rounds.ordered(len(crew.nodes)):
                if crew.leads and a < b:
                    pair = (crew.nodes[a].address, crew.nodes[b].address)
                    names = f"{crew.nodes[a].name} {crew.nodes[b].name}"
                    found["mpi"][names] = mpi(pair, crew.interface, options["mpi"])
                crew.step(f"mpi {a}-{b}", heads=True, timeout=LAUNCHING + 30)
    return found


def _most(options: Mapping[str, Any]) -> float:
    """Seconds that a pair takes at the most: slow ones lose every echo."""
    return float(options["echoes"]) * GAP + 60.0 + 4 * PATIENCE


def failed(why: object) -> dict[str, Any]:
    """No times, and why."""
    return {"times": [], "sent": 0, "why": " ".join(str(why).split())[:300]}


# --- Echoes -----------------------------------------------------------------------------------


def echoes(address: str, count: int) -> dict[str, Any]:
    """Times of *count* echoes of ping."""
    argv = ["ping", "-n", "-i", str(GAP), "-c", str(count + 1), "-W", "1", address]
    try:
        output = shell.run(argv, timeout=count * GAP + 60.0)
    except ToolError as error:
        return failed(error)
    times = parsed(output.stdout)
    if not times:
        said = (output.stderr or output.stdout).strip().splitlines()
        return failed(f"no echo of {count} came back: {said[-1] if said else 'silence'}")
    return {"times": times, "sent": count, "why": ""}


def parsed(text: str) -> list[float]:
    """The times that ping printed, but for the first: that one waited for an address, too."""
    return [1e3 * float(ms) for number, ms in ECHO.findall(text) if number != "1"]


# --- TCP --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _served(crew: Crew) -> Iterator[int]:
    """A port of this node on which every message comes back."""
    family = socket.AF_INET6 if ":" in crew.me.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in crew.ports:
            with contextlib.suppress(OSError):
                server.bind((crew.me.address, port))
                break
        else:
            raise OSError(f"every port of {crew.ports[0]} to {crew.ports[-1]} is taken")
        server.listen()
        answering = threading.Thread(target=_answer_all, args=(server,), daemon=True)
        answering.start()
        try:
            yield server.getsockname()[1]
        finally:
            # A thread that waits in accept holds the port, however closed it is.
            server.shutdown(socket.SHUT_RDWR)
            answering.join(PATIENCE)


def _answer_all(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed: the exercise is over
        while True:
            line, _ = server.accept()
            with line, contextlib.suppress(OSError):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line.settimeout(PATIENCE)
                while message := received(line):
                    line.sendall(message)


def trips(door: tuple[str, int], source: str, count: int) -> dict[str, Any]:
    """Times of *count* messages to *door* and back, from our address on the training network."""
    times = []
    message = os.urandom(PAYLOAD)
    try:
        with socket.create_connection(door, PATIENCE, (source, 0)) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(-WARM_UP, count):
                began = time.perf_counter_ns()
                line.sendall(message)
                back = received(line)
                took = time.perf_counter_ns() - began
                if back != message:
                    return failed(f"{door[0]} port {door[1]}: another message came back")
                if number >= 0:
                    times.append(took / 1e3)
    except OSError as error:
        return failed(f"{door[0]} port {door[1]}: {error.strerror or error}")
    return {"times": times, "sent": count, "why": ""}


def received(line: socket.socket) -> bytes:
    """A whole message, nothing at the end."""
    message = b""
    while len(message) < PAYLOAD:
        piece = line.recv(PAYLOAD - len(message))
        if not piece:
            return b""
        message += piece
    return message


# --- MPI --------------------------------------------------------------------------------------


def mpi(pair: tuple[str, str], interface: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Round trips between two nodes as MPI makes them, started by mpirun over the site's agent."""
    if any(":" in address for address in pair):  # Open MPI 4.1 reads the colon as that of slots
        return failed(
            f"mpirun takes no IPv6 address, {pair[1]}: give [[cluster.nodes]] address names of them"
        )
    if shutil.which("mpirun") is None:
        return failed("mpirun is not on the PATH: apt-get install openmpi-bin")
    argv = [
        "mpirun", "--host", ",".join(f"{address}:1" for address in pair), "-n", "2",
        "--map-by", "node", "--bind-to", "none", "--mca", "plm_rsh_agent", options["rsh"],
        "--mca", "btl_tcp_if_include", interface, "--mca", "oob_tcp_if_include", interface,
        options["python"], bare.__file__, "dvfd.drills.workers.mpi_pingpong",
        str(options["trips"]),
    ]  # fmt: skip
    ours = {k: v for k, v in os.environ.items() if not k.startswith(AROUND)}
    try:
        output = shell.run(argv, timeout=LAUNCHING, env=ours | (ROOT if os.geteuid() == 0 else {}))
    except ToolError as error:
        return failed(f"{error}: does `{options['rsh']} {pair[1]} true` work without a password?")
    times = [line for line in output.stdout.splitlines() if line.startswith("[")]
    if output.code or not times:
        return failed(_words(output, options["rsh"], pair[1]))
    return {"times": json.loads(times[-1]), "sent": options["trips"], "why": ""}


def _words(output: shell.Output, rsh: str, address: str) -> str:
    lines = [line.strip() for line in f"{output.stdout}\n{output.stderr}".splitlines()]
    said = [line for line in lines if line and not set(line) <= set("-=")]
    first = "; ".join(said[:3]) or "silent"
    return (
        f"mpirun: exit code {output.code}: {first}: `{rsh} {address} true` has to work without a "
        "password, [cluster] rsh says by what"
    )

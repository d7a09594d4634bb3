"""Several hosts on one machine: network namespaces, each with a cable to a bridge in one more.

Nothing outside of these namespaces is touched. They are gone when the test ends, and what a run
that was killed left is removed by the next. Hosts share processes, files and clock.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed import need

from dvfd.cluster import endpoint

PREFIX = "dvfdtest"
NETWORK = "10.77.0."
IPV6 = "fd77:77::"
DEVICE = "eth0"


@dataclass
class Host:
    """One of them; `name` is its node's, `directory` has its configuration and its state."""

    name: str
    address: str
    namespace: str
    directory: Path
    port: str  # the bridge's end of its cable

    @property
    def config(self) -> Path:
        return self.directory / "dvfd.toml"

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this host gets besides our own."""
        return {
            "DVFD_CONFIG": str(self.config),
            "DVFD_STATE_DIR": str(self.directory / "state"),
            "XDG_RUNTIME_DIR": str(self.directory / "runtime"),
            "DVFD_SOCKET": str(self.directory / "runtime/ingest.sock"),
        }

    def popen(self, argv: Sequence[object], **more: Any) -> subprocess.Popen[str]:
        """Start *argv* here, its streams as text."""
        env = {**os.environ, **self.environment, **more.pop("env", {})}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
        command = ["ip", "netns", "exec", self.namespace, *map(str, argv)]
        return subprocess.Popen(command, env=env, **streams)

    def run(self, argv: Sequence[object], timeout: float = 60, **more: Any) -> Ended:
        """Run *argv* here to its end."""
        with self.popen(argv, **more) as child:
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        return Ended(child.returncode, out, err)

    def tool(self, *argv: object) -> str:
        """The output of a tool that has to work."""
        ended = self.run(argv)
        assert ended.code == 0, f"{argv}: {ended.err}"
        return ended.out

    def drop(self, match: str, percent: int = 100) -> None:
        """Lose so many of the packets that come in and *match* (nft): `ip saddr ADDRESS`."""
        chance = f"numgen random mod 100 < {percent}" if percent < 100 else ""
        self.tool("nft", "add", "table", "inet", "test")
        hook = "{ type filter hook input priority 0; }"
        self.tool("nft", f"add chain inet test input {hook}")
        self.tool("nft", f"add rule inet test input {match} {chance} drop")

    def heal(self) -> None:
        """Lose nothing more."""
        self.run(["nft", "delete", "table", "inet", "test"])


@dataclass
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass
class Lan:
    """The hosts, and what can be done to the cables between them."""

    hosts: tuple[Host, ...]
    switch: str

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def shape(self, rate: str, *which: Host) -> None:
        """Give the cables of *which*, by default of all, *rate* in both directions: `200mbit`."""
        for host in which or self.hosts:
            shape = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            _ip("tc", "-n", host.namespace, "qdisc", "replace", "dev", DEVICE, *shape)
            _ip("tc", "-n", self.switch, "qdisc", "replace", "dev", host.port, *shape)

    def cut(self, host: Host) -> None:
        """Pull its cable."""
        _ip("ip", "-n", self.switch, "link", "set", host.port, "down")

    def mend(self, host: Host) -> None:
        """Plug it in again, and let it lose nothing."""
        _ip("ip", "-n", self.switch, "link", "set", host.port, "up")
        host.heal()

    def silence(self, sender: Host, receiver: Host) -> None:
        """What *sender* sends to *receiver* is lost, not what comes back."""
        receiver.drop(f"ip saddr {sender.address}")

    def part(self, one: Host, other: Host) -> None:
        """Nothing goes between these two, in either direction."""
        self.silence(one, other)
        self.silence(other, one)


@contextlib.contextmanager
def hosts(count: int, toml: str = "", network: str = NETWORK) -> Iterator[Lan]:
    """So many hosts, n1 the lead, with *toml* in the configuration of each, all on *network*."""
    if os.geteuid() != 0:
        message = "network namespaces need root"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    for program in ("ip", "tc", "nft", "ping", "iperf3"):
        need(program)
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-") as place:
        lan = _plan(count, Path(place), network)
        try:
            _build(lan, toml)
            yield lan
        finally:
            _remove([host.namespace for host in lan] + [lan.switch])


def _plan(count: int, place: Path, network: str) -> Lan:
    base = f"{PREFIX}-{os.getpid()}-{place.name.rpartition('-')[2]}"
    made = tuple(
        Host(f"n{i}", f"{network}{i}", f"{base}-n{i}", place / f"n{i}", f"p{i}")
        for i in range(1, count + 1)
    )
    return Lan(made, f"{base}-switch")


def _build(lan: Lan, toml: str) -> None:
    _ip("ip", "netns", "add", lan.switch)
    _ip("ip", "-n", lan.switch, "link", "add", "br0", "type", "bridge")
    _ip("ip", "-n", lan.switch, "link", "set", "br0", "up")
    for host in lan:
        _ip("ip", "netns", "add", host.namespace)
        cable = ["link", "add", host.port, "type", "veth", "peer", "name", DEVICE]
        _ip("ip", "-n", lan.switch, *cable, "netns", host.namespace)
        _ip("ip", "-n", lan.switch, "link", "set", host.port, "master", "br0", "up")
        wide = ["64", "dev", DEVICE, "nodad"] if ":" in host.address else ["24", "dev", DEVICE]
        where = [f"{host.address}/{wide[0]}", *wide[1:]]
        _ip("ip", "-n", host.namespace, "address", "add", *where)
        _ip("ip", "-n", host.namespace, "link", "set", DEVICE, "up")
        _ip("ip", "-n", host.namespace, "link", "set", "lo", "up")
        # All hosts share this machine's processors. Where they are busy an acknowledgement comes
        # later than TCP waits for the tail of a flow, which it then sends twice: none was lost.
        _ip("ip", "netns", "exec", host.namespace, "sysctl", "-qw", "net.ipv4.tcp_early_retrans=0")
        (host.directory / "runtime").mkdir(parents=True)
        host.config.write_text(settings(lan, host) + toml, encoding="utf-8")


def settings(lan: Lan, host: Host) -> str:
    """The head of a host's configuration: who it is, and all of them."""
    nodes = "".join(
        f"[[cluster.nodes]]\nname = '{each.name}'\naddress = '{each.address}'\n"
        f"url = 'http://{endpoint(each.address, 9109)}'\n"
        for each in lan
    )
    return f"node.name = '{host.name}'\n[cluster]\nlead = 'n1'\nwait = 60\n{nodes}"


def _ip(*argv: str) -> None:
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(argv)}: {ended.stderr}"


def _sweep() -> None:
    """Remove what a test run that is gone left."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in listed.splitlines() if line.startswith(f"{PREFIX}-")]
    _remove([name for name in names if not Path("/proc", name.split("-")[1]).exists()])


def _remove(namespaces: Sequence[str]) -> None:
    for name in namespaces:
        for pid in inside(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def inside(namespace: str) -> list[int]:
    found = subprocess.run(
        ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def together(commands: Mapping[str, subprocess.Popen[str]], timeout: float) -> dict[str, Ended]:
    """Wait for all of *commands*, by name; what is left after *timeout* seconds is killed."""
    found = {}
    try:
        for name, child in commands.items():
            out, err = child.communicate(timeout=timeout)
            found[name] = Ended(child.returncode, out, err)
    finally:
        for child in commands.values():
            if child.poll() is None:
                child.kill()
                child.communicate()
    return found

"""What a node tells the others of itself, so that they know before a test what would stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dvfd import cluster, shell
from dvfd.errors import ConfigError, DvfdError

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.drills.interface import Interface
    from dvfd.shell import Output

STANDS = 60.0
"""Seconds that the version of torch is not looked for again: each look is a process."""

LOOKING = 5.0
"""Seconds for it: nothing is loaded, only the list of what is installed is read."""

RESOLVING = 2.0
"""Seconds for the own address, where that is a name."""

LOOK = """
from importlib.metadata import PackageNotFoundError, version
try:
    print(version("torch"))
except PackageNotFoundError:
    print()
"""

Run = Callable[[list[str]], "Output"]


class Identity:
    """Asked by threads of the listener; costs a process once a minute at most."""

    def __init__(
        self,
        config: Config,
        *,
        interfaces: Callable[[], dict[str, Interface]] | None = None,
        run: Run = lambda argv: shell.run(argv, timeout=LOOKING, bound=True),
        boot: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._interfaces = interfaces
        self._run = run
        self._boot = boot
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._torch: tuple[str | None, str] = (None, "not looked for yet")

    def __call__(self) -> dict[str, Any]:
        """The job's interpreter and its torch, the cluster as configured here, our interface."""
        version, missing = self._newest()
        here = self._config.cluster
        return {
            "python": str(self._config.drills.interpreter),
            "torch": version,
            "torch_missing": missing,
            "cluster": {
                "lead": here.lead,
                "nodes": [node.name for node in here.nodes],
                "port": here.port,
                "ports": list(here.ports),
            },
            "interface": self._interface(),
        }

    def _newest(self) -> tuple[str | None, str]:
        with self._lock:
            if self._looked is None or self._boot() - self._looked > STANDS:
                self._torch = self._look()
                self._looked = self._boot()
            return self._torch

    def _look(self) -> tuple[str | None, str]:
        """The version, empty where there is none and None where nobody could say; and why."""
        python = str(self._config.drills.interpreter)
        try:
            output = self._run([python, "-c", LOOK])
        except DvfdError as error:
            return None, str(error)
        if output.code:
            return None, f"{python}: exit code {output.code}: {output.stderr.strip()[-200:]}"
        version = output.stdout.strip()
        return version, "" if version else f"{python} has no torch"

    def _interface(self) -> dict[str, Any] | None:
        """The one that we would train over, or None where there is none."""
        try:
            me = cluster.here(self._config)
            addresses = cluster.resolved(me.address, within=RESOLVING)
        except (ConfigError, DvfdError):
            return None
        there = self._there()
        found = there.get(cluster.interface(self._config.cluster, addresses, there))
        if found is None:
            return None
        carries = bool(set(addresses) & set(found.addresses))
        return {"name": found.name, "up": found.up, "carries": carries, "loopback": found.loopback}

    def _there(self) -> dict[str, Interface]:
        from dvfd.drills.interface import interfaces  # noqa: PLC0415  # few nodes are ever asked

        return (self._interfaces or interfaces)()

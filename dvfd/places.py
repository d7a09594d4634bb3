"""Where things lie on a node: packaged data, sockets, the store. Imports nothing that is slow.

A command that only asks the daemon must start at once, so this stands apart from dvfd.config.
"""

from __future__ import annotations

import os
from pathlib import Path

from dvfd.errors import ConfigError, DvfdError

NODES_RUNTIME = Path("/run/dvfd")
"""Of the daemon that runs as a service."""


def data_dir(name: str) -> Path:
    """Where packaged data (`checks`, `systemd`, ...) lies: in the wheel, else in the checkout."""
    here = Path(__file__).resolve().parent
    for place in (here / name, here.parent / name):
        if place.is_dir():
            return place
    raise ConfigError([f"{name}: not found in {here} or {here.parent}: reinstall dvfd"])


def runtime_dir() -> Path:
    """Where sockets live: /run/dvfd for the system daemon, else the user's runtime directory."""
    system = Path(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or "/run/dvfd")
    if system.is_dir() and os.access(system, os.W_OK | os.X_OK):
        return system
    user = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/dvfd-{os.getuid()}"  # noqa: S108  # 0700
    return Path(user) / "dvfd" if "XDG_RUNTIME_DIR" in os.environ else Path(user)


def state_dir() -> Path:
    """Where the store lives; see the environment in README.md. Raises DvfdError if nothing says."""
    for variable in ("DVFD_STATE_DIR", "STATE_DIRECTORY"):
        if value := os.environ.get(variable, "").partition(":")[0]:
            return Path(value)
    system = Path("/var/lib/dvfd")
    if system.is_dir() and os.access(system, os.W_OK | os.X_OK):
        return system
    return users_state()


def users_state() -> Path:
    """Where the user's own state lies. Raises DvfdError for one without a home, as in containers.

    XDG_STATE_HOME takes the place of the home's.
    """
    if own := os.environ.get("XDG_STATE_HOME"):
        return Path(own) / "dvfd"
    try:
        return Path.home() / ".local" / "state" / "dvfd"
    except RuntimeError:
        raise DvfdError(
            f"user {os.getuid()} has no home: set HOME, or DVFD_STATE_DIR to a directory of yours"
        ) from None


def control_path() -> Path:
    """Where the daemon's control socket is: the user's own, else the node's, which all may ask."""
    own, nodes = runtime_dir() / "control.sock", NODES_RUNTIME / "control.sock"
    return nodes if nodes.exists() and not own.exists() else own

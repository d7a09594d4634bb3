"""An order to run one drill: a small file that a command leaves for dvfd-drill@RUN.service.

Whoever may write the file decides what runs and as whom, so only the launcher's own user (root,
under systemd) may.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DIRECTORY = Path("/run/dvfd-drill")
"""Gone after a reboot, as the drill is."""

RUN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,63}")
"""A run's name is an instance of a unit, where `-` stands for `/`."""

RESTARTS_WORK = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it a killed rank does not come back: pytorch#135712."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run, as which user, where, and with what besides the unit's environment."""

    argv: tuple[str, ...]
    user: str
    directory: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)


def reference_job(
    python: str, *, user: str, processes: int, directory: str = "/", options: Sequence[str] = ()
) -> Order:
    """The order for the reference training job under torchrun, in an interpreter with torch."""
    argv = (
        python, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--max-restarts=3",
        "-m", "dvfd.drills.reference_job", *options,
    )  # fmt: skip
    return Order(argv=argv, user=user, directory=directory, environment=RESTARTS_WORK)


def leave(run: str, order: Order, directory: Path = DIRECTORY) -> Path:
    """Write *order* for the unit. Raises ConfigError for a name that no unit can have, OSError."""
    path = place(run, directory)
    beside = path.with_suffix(".part")
    beside.unlink(missing_ok=True)
    private = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it may hold secrets
    with os.fdopen(private, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(order), indent=1) + "\n")
    beside.replace(path)
    return path


def read(run: str, directory: Path = DIRECTORY) -> Order:
    """The order left for *run*. Raises ConfigError if there is none that may be trusted."""
    path = place(run, directory)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise ConfigError([f"{path}: {cause}: wanted the order that a command leaves"]) from None
    with os.fdopen(descriptor, encoding="utf-8") as file:
        _trust(path, os.fstat(file.fileno()))
        return _parse(path, file.read())


def place(run: str, directory: Path = DIRECTORY) -> Path:
    """Where the order of *run* lies. Raises ConfigError for a name that no unit can have."""
    if not RUN.fullmatch(run):
        raise ConfigError([f"run {run[:80]!r}: wanted up to 64 of A-Z a-z 0-9 _ ."])
    return directory / f"{run}.json"


def _trust(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        said = f"belongs to uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}"
        raise ConfigError([f"{path}: {said}; wanted uid {os.geteuid()}, writable for no other"])


def _parse(path: Path, text: str) -> Order:
    try:
        raw: dict[str, Any] = json.loads(text)
        if unknown := set(raw) - {each.name for each in fields(Order)}:
            raise ConfigError([f"{path}: no such key: {', '.join(sorted(unknown))}"])
        environment = {str(k): str(v) for k, v in raw.get("environment", {}).items()}
        argv = tuple(map(str, raw["argv"]))
        order = Order(argv=argv, user=str(raw["user"]), directory=str(raw.get("directory", "/")),
                      environment=environment)  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError([f"{path}: no order: {error!r}: wanted argv and user"]) from None
    if not order.argv or not order.user or isinstance(raw["argv"], str):
        raise ConfigError([f"{path}: argv has to be a list and user a name"])
    return order

"""Write the files that come with dvfd out of the package, without harming what a site changed.

A list of what was written lies beside them: a file that is still as it was written follows the
package, one that somebody changed is theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.config import data_dir
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GROUPS = ("systemd", "alert_rules", "dashboards")
"""Data directories of the package that people install elsewhere."""

JOB = "job"
"""What a training job's image needs that has no dvfd: the reporter, and one file a framework."""

LIST = ".dvfd-assets.json"
"""SHA-256 of each file as we wrote it, by name."""


class Action(StrEnum):
    """What becomes of one file."""

    WRITE = "write"
    UPDATE = "update"
    OVERWRITE = "overwrite"
    KEEP = "keep"
    NOTHING = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """One file: its name below the directory, its content, and what to do with it."""

    name: str
    content: bytes
    action: Action


def packaged() -> dict[str, bytes]:
    """Every file of the package by its name below the directory, such as systemd/dvfd.service."""
    data = {
        f"{group}/{path.relative_to(top).as_posix()}": path.read_bytes()
        for group in GROUPS
        for top in (data_dir(group),)
        for path in sorted(top.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return data | {f"{JOB}/dvfd_{path.name}": path.read_bytes() for path in _for_jobs()}


def _for_jobs() -> list[Path]:
    """The files that work without dvfd; their copies' names keep clear of the frameworks' own."""
    here = Path(__file__).resolve().parent
    integrations = (p for p in (here / "integrations").glob("*.py") if p.name != "__init__.py")
    names = ("reporter.py", "gradient_hook.py")
    return [*(here / "telemetry" / name for name in names), *sorted(integrations)]


def plan(directory: Path, files: Mapping[str, bytes], *, force: bool = False) -> list[Step]:
    """What it takes to have *files* below *directory*. Raises DvfdError if that is impossible."""
    ours = _list(directory)
    return [Step(name, content, _action(directory / name, content, ours.get(name), force=force))
            for name, content in files.items()]  # fmt: skip


def carry_out(directory: Path, steps: Iterable[Step]) -> None:
    """Write what *steps* say, each file whole or not at all. Raises OSError."""
    ours = _list(directory)
    for step in steps:
        if step.action is Action.KEEP:
            continue
        if step.action is not Action.NOTHING:
            _write(directory / step.name, step.content)
        ours[step.name] = _hash(step.content)
    document = json.dumps(ours, indent=1, sort_keys=True).encode() + b"\n"
    if _content(directory / LIST) != document:
        _write(directory / LIST, document)


def _action(path: Path, content: bytes, written: str | None, *, force: bool) -> Action:
    found = _content(path)
    if found is None:
        return Action.WRITE
    if found == content:
        return Action.NOTHING
    if _hash(found) == written:
        return Action.UPDATE
    return Action.OVERWRITE if force else Action.KEEP


def _content(path: Path) -> bytes | None:
    """What is in the file; None where there is none. Raises DvfdError for what is no file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DvfdError(f"{path}: is there and is no plain file: move it away")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DvfdError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _list(directory: Path) -> dict[str, str]:
    found = _content(directory / LIST)
    try:
        said = json.loads(found or b"{}")
        return {str(name): str(digest) for name, digest in said.items()}
    except (ValueError, AttributeError):
        return {}  # damaged: then every file that differs counts as changed


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

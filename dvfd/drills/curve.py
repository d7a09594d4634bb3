"""One training run's losses as a file, under the hash of what it was a run of. Standard library.

Runs of another model, text, optimiser, precision, length or torch have another hash and are never
compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "dvfd-curve-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that two runs must share to be compared; lengths in samples, over all processes.

    `torch` and `text` (SHA-256 of what is learned) are empty and `samples` is 0 until known.
    """

    width: int = 128
    layers: int = 4
    context: int = 64
    batch: int = 16  # samples per step
    samples: int = 0
    warm_up: int = 800
    rate: float = 2e-3
    optimiser: str = "AdamW"
    clip: float = 1.0
    precision: str = "float32"
    torch: str = ""
    text: str = ""

    @property
    def steps(self) -> int:
        """Optimiser steps of a whole run."""
        return self.samples // self.batch

    @property
    def hash(self) -> str:
        """12 hexadecimal digits: enough to tell the configurations of one machine apart."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Configuration:
        """Of what `asdict` made. Raises ProbeError if it is something else."""
        kinds = {field: type(value) for field, value in asdict(cls()).items()}
        if set(document) != set(kinds):
            raise ProbeError(f"a configuration of {sorted(document)}, wanted {sorted(kinds)}")
        for field, kind in kinds.items():
            if type(document[field]) is not kind:
                raise ProbeError(f"{field} = {document[field]!r}, wanted {kind.__name__}")
        return cls(**document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A whole run: its loss in nats at every step, NaN where it was not finite; validation losses
    with the samples seen; non-finite losses and norms; seconds that it trained."""

    hash: str
    processes: int
    seed: int
    batch: int
    losses: tuple[float, ...]
    validation: tuple[tuple[float, float], ...] = ()
    nonfinite: int = 0
    seconds: float = 0.0


def write(path: Path, curve: Curve) -> None:
    """Put *curve* at *path*, whole or not at all. Raises OSError."""
    document = {"format": FORMAT, **asdict(curve), "losses": [_plain(v) for v in curve.losses]}
    document["validation"] = [[at, _plain(value)] for at, value in curve.validation]
    put(path, document)


def put(path: Path, document: Mapping[str, Any]) -> None:
    """Put *document* at *path* as JSON, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(document, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def document(path: Path) -> dict[str, Any]:
    """The JSON object at *path*. Raises ProbeError with words."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeError(f"{path.name}: {error.strerror or error}") from None
    except ValueError as error:
        raise ProbeError(f"{path.name}: cut or damaged: {error}") from None
    if not isinstance(found, dict):
        raise ProbeError(f"{path.name}: {type(found).__name__}, wanted an object")
    return found


def read(path: Path) -> Curve:
    """The curve at *path*. Raises ProbeError with words where it is none."""
    found = document(path)
    try:
        return _curve(found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProbeError(f"{path.name}: no curve of ours: {error!r}") from None


def _curve(found: Mapping[str, Any]) -> Curve:
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']!r}, wanted {FORMAT}")
    numbers = {name: int(found[name]) for name in ("processes", "seed", "batch", "nonfinite")}
    if min(numbers["processes"], numbers["batch"]) < 1 or numbers["nonfinite"] < 0:
        raise ValueError(f"{numbers}: wanted counts")
    seconds = _number(found["seconds"])
    if not math.isfinite(seconds) or not found["losses"]:
        raise ValueError("no losses, or no time that they took")
    return Curve(
        hash=str(found["hash"]),
        losses=tuple(map(_number, found["losses"])),
        validation=tuple((_number(at), _number(value)) for at, value in found["validation"]),
        seconds=seconds,
        **numbers,
    )


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)

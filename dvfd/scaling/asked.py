"""Ask the child process that fits, and read its answer with distrust."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dvfd import shell
from dvfd.errors import ProbeError, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dvfd.drills.drill import Runner
    from dvfd.scaling.points import Point

FITTING = 60.0
"""Seconds: it takes one or two."""

Ends = tuple[float, float] | None

NAMES = {
    "usl": "USL",
    "usl bounded": "USL bounded",
    "amdahl": "Amdahl",
    "gustafson": "Gustafson",
    "power": "power law",
}
LETTERS = ("lambda", "sigma", "kappa", "alpha", "exponent")
"""Models and parameters as people are told of them, and in which order."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A model through the points; `values` lie along `Projection.along`, None where it has none."""

    name: str
    parameters: dict[str, float]
    physical: bool
    error: float  # root mean square of value over measured, less 1
    peak: float | None  # the count from which more processes do less
    values: tuple[float | None, ...]

    @property
    def title(self) -> str:
        """The model's name for people."""
        return NAMES.get(self.name, self.name)

    @property
    def words(self) -> str:
        """Its parameters."""
        found = [name for name in LETTERS if name in self.parameters]
        return ", ".join(f"{name} {self.parameters[name]:.4g}" for name in found)


@dataclass(frozen=True, slots=True)
class Target:
    """What is foretold of one count. `low` to `high` is the hull of all that could be."""

    processes: int
    value: float | None
    low: float | None
    high: float | None
    bootstrap: Ends
    lost: float  # share of refits that have no finite value there
    models: int
    finite: bool
    monotone: bool
    extrapolation: float
    communication: tuple[float, float, float] | None  # value, low, high

    @property
    def open(self) -> str:
        """Why the interval bounds nothing, though there is one; else empty."""
        if self.bootstrap is not None or not self.lost:
            return ""
        return (
            f"{self.lost:.0%} of the fits through resampled windows have no finite value: the "
            "measurements are too unsure to determine it"
        )

    @property
    def interval(self) -> str:
        """What the interval is made of."""
        models = f"the spread of {self.models} model{'s' * (self.models != 1)}"
        if self.open:
            return f"{models}; {self.open}"
        if self.bootstrap is None:
            return f"{models}; no point says how sure it is"
        low, high = self.bootstrap
        return f"{models}, and the fit through resampled windows ({low:.5g} to {high:.5g}, 95 %)"


@dataclass(frozen=True, slots=True)
class Projection:
    """Fits through points of different counts, and what the one that decides foretells."""

    superlinear: bool
    decides: str  # name of a fit, empty if none does
    lacks: dict[str, str]  # models that there is none of, and why
    fits: tuple[Fit, ...]
    left_out: tuple[tuple[int, float, float], ...]  # count, foretold without it, error
    not_left_out: str
    along: tuple[int, ...]
    targets: tuple[Target, ...]

    @property
    def worst(self) -> float | None:
        """The largest error for a count that was left out."""
        return max((abs(error) for _, _, error in self.left_out), default=None)

    def of(self, processes: int) -> Target | None:
        """What is foretold of that many."""
        return next((t for t in self.targets if t.processes == processes), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """Intervals of the points, of the pairs' ratios, and the projection if there were two points
    to fit; `text` is what the child said, byte for byte.
    """

    intervals: tuple[Ends, ...]
    pairs: tuple[Ends, ...]
    projection: Projection | None
    text: str


def ask(
    points: Sequence[Point],
    *,
    pairs: Sequence[tuple[int, int]] = (),
    fit: Sequence[int] = (),
    targets: Sequence[int] = (),
    run: Runner | None = None,
) -> Answer:
    """The child's answer about *points*; *pairs* and *fit* are places in them.

    Raises ToolError if it fails, ProbeError if its answer is none.
    """
    rows = [
        {
            "processes": p.processes,
            "throughput": p.throughput,
            "low": p.low,
            "high": p.high,
            "windows": list(p.windows),
            "communication": p.communication,
        }
        for p in points
    ]
    asked = {
        "points": rows,
        "pairs": [list(pair) for pair in pairs],
        "fit": list(fit),
        "targets": sorted(set(targets)),
    }
    argv = [sys.executable, "-P", "-m", "dvfd.scaling.fits"]
    done = (run or shell.run)(argv, timeout=FITTING, stdin=json.dumps(asked).encode())
    if done.code:
        said = done.stderr.strip().splitlines() or [f"exit code {done.code}"]
        raise ToolError(f"dvfd.scaling.fits: {said[-1][:300]}")
    return read(done.stdout)


def plain(text: str) -> dict[str, Any]:
    """The child's answer as JSON. Raises ValueError if it is none."""
    said: dict[str, Any] = json.loads(text, parse_constant=_no_number)
    return said


def read(text: str) -> Answer:
    """What the child answered. Raises ProbeError if it is something else."""
    try:
        said = plain(text)
        found = said["projection"]
        return Answer(
            intervals=tuple(map(_ends, said["intervals"])),
            pairs=tuple(map(_ends, said["pairs"])),
            projection=None if found is None else projection(found),
            text=text.strip(),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"dvfd.scaling.fits: its answer cannot be read: {error!r:.200}") from None


def projection(found: Mapping[str, Any]) -> Projection:
    """Of the child's JSON. Raises KeyError, TypeError, ValueError."""
    return Projection(
        superlinear=bool(found["superlinear"]),
        decides=str(found["decides"] or ""),
        lacks={str(name): str(why) for name, why in found["lacks"].items()},
        fits=tuple(map(_fit, found["fits"])),
        left_out=tuple(
            (int(e["processes"]), _number(e["foretold"]), _number(e["error"]))
            for e in found["left_out"]
        ),
        not_left_out=str(found["not_left_out"]),
        along=tuple(map(int, found["along"])),
        targets=tuple(map(_target, found["targets"])),
    )


def _fit(row: Mapping[str, Any]) -> Fit:
    return Fit(
        name=str(row["name"]),
        parameters={str(name): _number(value) for name, value in row["parameters"].items()},
        physical=bool(row["physical"]),
        error=_number(row["error"]),
        peak=_known(row["peak"]),
        values=tuple(map(_known, row["values"])),
    )


def _target(row: Mapping[str, Any]) -> Target:
    said = row["communication"]
    shares = None if said is None else tuple(_number(said[k]) for k in ("value", "low", "high"))
    value, low, high = (_known(row[key]) for key in ("value", "low", "high"))
    if value is not None and (low is None or high is None or not low <= value <= high):
        raise ValueError(f"{value} is not within {low} to {high}")
    return Target(
        processes=int(row["processes"]),
        value=value,
        low=low,
        high=high,
        bootstrap=_ends(row["bootstrap"]),
        lost=_number(row["lost"]),
        models=int(row["models"]),
        finite=bool(row["finite"]),
        monotone=bool(row["monotone"]),
        extrapolation=_number(row["extrapolation"]),
        communication=None if shares is None else (shares[0], shares[1], shares[2]),
    )


def _ends(row: Any) -> Ends:
    if row is None:
        return None
    low, high = map(_number, row)
    if low > high:
        raise ValueError(f"an interval from {low} to {high}")
    return low, high


def _known(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no finite number")
    return float(value)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")

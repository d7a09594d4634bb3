"""Fit throughput by process count, in a process of its own: JSON in, JSON out. Judges nothing.

`python -m dvfd.scaling.fits`; nobody imports this file but its tests. Models (procedures, 8), least
squares in samples/second but for the power law, which is a line in logarithms:

    usl        X = l n / (1 + s (n - 1) + k n (n - 1))    as it comes, and with s, k >= 0
    amdahl     X = l n / (1 + s (n - 1))
    gustafson  X = l (a + (1 - a) n)
    power      X = l n^e

The same question gives the same bytes: draws are seeded by it, and numbers have 12 digits.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = NDArray[np.float64]

DRAWS = 2000
REFITS = 200
"""Resamples of a mean, and of a fit: their 95 % ends move by a few hundredths
of the interval, and by a tenth."""

TAILS = (2.5, 97.5)
Z = 1.96
"""Of a 95 % interval: percentiles of draws, and standard deviations of a normal one."""

FEWEST = 8
"""Windows without which their own spread says nothing; an interval that was given counts then."""

DIGITS = 12

END: Mapping[str, Any] = {"xtol": 1e-13, "ftol": 1e-13, "gtol": 1e-13, "max_nfev": 1000}
"""Where a search ends: parameters to more digits than any measurement has."""

NOTHING = 1e-9
"""A parameter that a bound of 0 holds back stops this near it."""

LOST = 0.05
"""Share of refits that may have no finite value: with more, nothing bounds what they would say."""

CURVE = 64
"""Counts at which a fit's curve is told one by one; beyond, at 33 of them."""


class Undetermined(Exception):
    """The points do not determine the model, and the message says why."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A model with its parameters."""

    model: str
    bounded: bool
    parameters: tuple[float, ...]

    def at(self, n: Array) -> Array:
        """Throughput of *n* processes; not finite beyond a pole."""
        return _MODELS[self.model].value(np.asarray(self.parameters), np.asarray(n, dtype=float))

    @property
    def name(self) -> str:
        """As answers call it."""
        return f"{self.model} bounded" if self.bounded else self.model


@dataclass(frozen=True, slots=True)
class Model:
    """A formula, its parameters' names, and what they may be for it to mean something."""

    names: tuple[str, ...]
    value: Callable[[Array, Array], Array]
    physical: Callable[[Array], bool]


def _usl(p: Array, n: Array) -> Array:
    below = 1.0 + p[1] * (n - 1.0) + p[2] * n * (n - 1.0)
    with np.errstate(all="ignore"):
        return np.where(below > 0.0, p[0] * n / below, np.inf)


def _amdahl(p: Array, n: Array) -> Array:
    return _usl(np.array([p[0], p[1], 0.0]), n)


def _gustafson(p: Array, n: Array) -> Array:
    return np.asarray(p[0] * (p[1] + (1.0 - p[1]) * n))


def _power(p: Array, n: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(p[0] * n ** p[1])


_MODELS: Mapping[str, Model] = {
    "usl": Model(("lambda", "sigma", "kappa"), _usl, lambda p: bool(p[1] >= 0 and p[2] >= 0)),
    "amdahl": Model(("lambda", "sigma"), _amdahl, lambda p: bool(0 <= p[1] <= 1)),
    "gustafson": Model(("lambda", "alpha"), _gustafson, lambda p: bool(0 <= p[1] <= 1)),
    "power": Model(("lambda", "exponent"), _power, lambda _p: True),
}


# --- Fitting --------------------------------------------------------------------------------------


def fitted(model: str, n: Array, x: Array, *, bounded: bool = False) -> Fit:
    """*model* through the points. Raises Undetermined for too few, or where it finds no end."""
    wanted = len(_MODELS[model].names)
    if len(n) < wanted:
        raise Undetermined(f"{len(n)} process counts determine no {wanted} parameters")
    found = {"usl": _fit_usl, "amdahl": _fit_amdahl, "gustafson": _fit_line, "power": _fit_power}
    parameters = found[model](n, x, bounded)
    if not np.isfinite(parameters).all() or parameters[0] <= 0.0:
        raise Undetermined("the fit comes to no finite throughput of one process")
    return Fit(model, bounded, tuple(map(float, parameters)))


def _fit_usl(n: Array, x: Array, bounded: bool) -> Array:
    columns = np.stack([np.ones_like(n), n - 1.0, n * (n - 1.0)], axis=1)
    start = _inverse(columns, n / x)
    if len(n) == columns.shape[1] and not bounded:
        return start  # as many points as parameters: it goes through all of them
    return _search(_usl, start, n, x, bounded=bounded)


def _fit_amdahl(n: Array, x: Array, bounded: bool) -> Array:
    start = _inverse(np.stack([np.ones_like(n), n - 1.0], axis=1), n / x)
    return start if len(n) == len(start) else _search(_amdahl, start, n, x, bounded=bounded)


def _inverse(columns: Array, times: Array) -> Array:
    """n / X is linear in (1, s, k) / l."""
    line = np.linalg.lstsq(columns, times, rcond=None)[0]
    if line[0] <= 0.0:
        raise Undetermined("the fit has no throughput of one process above 0")
    return np.asarray(np.concatenate(([1.0], line[1:])) / line[0])


def _search(
    value: Callable[[Array, Array], Array], start: Array, n: Array, x: Array, *, bounded: bool
) -> Array:
    """Least squares from *start*, in units in which all parameters are about one."""
    unit = np.concatenate(([start[0]], np.full(len(start) - 1, 1e-2)))

    def missed(p: Array) -> Array:
        return np.asarray(np.nan_to_num((value(p * unit, n) - x) / x.max(), posinf=1e6))

    if not bounded:
        found = optimize.least_squares(missed, start / unit, method="lm", **END)
        return np.asarray(found.x * unit)
    low = np.concatenate(([1e-9], np.zeros(len(start) - 1)))
    begin = np.maximum(start / unit, low + 1e-6)
    found = optimize.least_squares(missed, begin, bounds=(low, np.inf), **END)
    made = found.x * unit
    return np.asarray(np.where(np.abs(made) < NOTHING, 0.0, made))


def _fit_line(n: Array, x: Array, _bounded: bool) -> Array:
    base, slope = np.linalg.lstsq(np.stack([np.ones_like(n), n], axis=1), x, rcond=None)[0]
    one = float(base + slope)
    return np.array([one, base / one if one else math.inf])


def _fit_power(n: Array, x: Array, _bounded: bool) -> Array:
    base, slope = np.linalg.lstsq(
        np.stack([np.ones_like(n), np.log(n)], axis=1), np.log(x), rcond=None
    )[0]
    return np.array([math.exp(base), slope])


TRIED = (("usl", False), ("usl", True), ("amdahl", False), ("gustafson", False), ("power", False))


def superlinear(n: Array, x: Array) -> bool:
    """Whether some count does more than its share of what the smallest does."""
    return bool((x[1:] / n[1:] > x[0] / n[0]).any())


def deciding(n: Array, x: Array) -> tuple[str, bool]:
    """The model that decides (reading 41): USL, bounded unless data are super-linear. Two counts
    determine two parameters: the power law.
    """
    return ("power", False) if len(n) < 3 else ("usl", not superlinear(n, x))


def left_out(model: str, n: Array, x: Array, *, bounded: bool) -> list[dict[str, Any]]:
    """What the model makes of each count that it was not shown. Raises Undetermined."""
    found = []
    for place in range(len(n)):
        rest = np.arange(len(n)) != place
        made = float(fitted(model, n[rest], x[rest], bounded=bounded).at(n[[place]])[0])
        if not math.isfinite(made):
            raise Undetermined(f"without {n[place]:.0f} processes the fit is not finite there")
        found.append({"processes": int(n[place]), "foretold": made, "error": made / x[place] - 1.0})
    return found


# --- Resampling -----------------------------------------------------------------------------------


def block(windows: Array) -> int:
    """Windows in a block: no fewer than the integrated autocorrelation time (procedures, 8)."""
    centred = windows - windows.mean()
    power = float(centred @ centred)
    time, count = 1.0, len(windows)
    for lag in range(1, count // 3):
        share = float(centred[:-lag] @ centred[lag:]) / power if power > 0 else 0.0
        if share <= 0.0:
            break
        time += 2.0 * share
    return int(min(count // 3, max(math.ceil(time), round(count ** (1 / 3)))))


def drawn(point: Mapping[str, Any], draws: int, rng: np.random.Generator) -> Array | None:
    """Resampled throughputs of a point: circular blocks of its windows, else a normal of the
    interval that was given; None if nothing says how sure it is.
    """
    windows, mean = np.array(point["windows"], dtype=float), float(point["throughput"])
    if len(windows) >= FEWEST:
        size = block(windows)
        pieces = math.ceil(len(windows) / size)
        starts = rng.integers(0, len(windows), (draws, pieces))
        places = (starts[:, :, None] + np.arange(size)) % len(windows)
        means = windows[places.reshape(draws, -1)[:, : len(windows)]].mean(axis=1)
        return np.asarray(means * mean / windows.mean())
    if point["low"] is None or point["high"] is None:
        return None
    deviation = (point["high"] - point["low"]) / (2 * Z)
    return np.asarray(np.maximum(rng.normal(mean, deviation, draws), mean * 1e-3))


def ends(draws: Array | None) -> list[float] | None:
    """Their 95 % interval."""
    return None if draws is None else [float(v) for v in np.percentile(draws, TAILS)]


@dataclass(frozen=True, slots=True)
class Refits:
    """Fits through resampled points: the 95 % interval of each target, and the share of them that
    has no finite value there. With more than one in twenty of those there is no interval.
    """

    ends: Mapping[int, list[float]]
    lost: Mapping[int, float]


def refitted(
    fit: Fit, points: Sequence[Mapping[str, Any]], targets: Sequence[int], rng: np.random.Generator
) -> Refits:
    """Empty where no point says how sure it is."""
    n = np.array([point["processes"] for point in points], dtype=float)
    tries = [drawn(point, REFITS, rng) for point in points]
    if all(each is None for each in tries):
        return Refits({}, {})
    fixed = [np.full(REFITS, p["throughput"]) for p in points]
    table = np.stack([f if t is None else t for t, f in zip(tries, fixed, strict=True)], axis=1)
    aims = np.array(targets, dtype=float)
    made = np.stack([_tried(fit, n, x, aims) for x in table])
    whole = np.isfinite(made) & (made > 0.0)
    lost = {t: 1.0 - float(whole[:, place].mean()) for place, t in enumerate(targets)}
    ends_of = {
        t: [float(v) for v in np.percentile(made[whole[:, place], place], TAILS)]
        for place, t in enumerate(targets)
        if lost[t] <= LOST
    }
    return Refits(ends_of, lost)


def _tried(fit: Fit, n: Array, x: Array, aims: Array) -> Array:
    """The targets of one refit; not finite where there is none."""
    try:
        return fitted(fit.model, n, x, bounded=fit.bounded).at(aims)
    except Undetermined:
        return np.full(len(aims), np.nan)


# --- The answer -----------------------------------------------------------------------------------


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals of all points, of the ratios of `pairs`, and the fits through those of `fit`."""
    points = asked["points"]
    seed = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, dtype=np.uint32))
    draws = [drawn(point, DRAWS, rng) for point in points]
    chosen = sorted((points[place] for place in asked["fit"]), key=lambda p: int(p["processes"]))
    counts = [point["processes"] for point in chosen]
    if len(set(counts)) < len(counts):
        raise Undetermined(f"process counts {counts}: each may stand once")
    return {
        "intervals": [ends(each) for each in draws],
        "pairs": [_ratio(draws[over], draws[under]) for over, under in asked["pairs"]],
        "projection": _projection(chosen, asked["targets"], rng) if len(chosen) > 1 else None,
    }


def _ratio(over: Array | None, under: Array | None) -> list[float] | None:
    return None if over is None or under is None else ends(over / under)


def _projection(
    points: Sequence[Mapping[str, Any]], targets: Sequence[int], rng: np.random.Generator
) -> dict[str, Any]:
    n = np.array([point["processes"] for point in points], dtype=float)
    x = np.array([point["throughput"] for point in points], dtype=float)
    chosen = deciding(n, x)
    fits, lacks = {}, {}
    for model, bounded in TRIED:
        name = Fit(model, bounded, ()).name
        try:
            fits[name] = fitted(model, n, x, bounded=bounded)
        except Undetermined as error:
            lacks[name] = str(error)
    name = Fit(*chosen, ()).name
    along = curve_counts(targets, int(n[-1]))
    return {
        "superlinear": superlinear(n, x),
        "decides": name if name in fits else None,
        "lacks": lacks,
        "fits": [_told(fit, n, x, along) for fit in fits.values()],
        **_error(name, fits, n, x),
        "along": along,
        "targets": _targets(fits.get(name), fits, points, targets, rng),
    }


def curve_counts(targets: Sequence[int], largest: int) -> list[int]:
    """Counts at which curves are told: all of the first 64, some of those beyond."""
    top = max([*targets, largest])
    some = np.geomspace(CURVE, top, 33).round().astype(int).tolist() if top > CURVE else []
    return sorted({*range(1, min(top, CURVE) + 1), *some, *targets})


def _told(fit: Fit, n: Array, x: Array, along: Sequence[int]) -> dict[str, Any]:
    values = fit.at(np.array(along, dtype=float))
    kind = _MODELS[fit.model]
    return {
        "name": fit.name,
        "parameters": dict(zip(kind.names, fit.parameters, strict=True)),
        "physical": kind.physical(np.asarray(fit.parameters)),
        "error": float(np.sqrt(np.mean((fit.at(n) / x - 1.0) ** 2))),
        "peak": _peak(fit),
        "values": [float(v) if math.isfinite(v) and v > 0.0 else None for v in values],
    }


def _peak(fit: Fit) -> float | None:
    """The count from which more processes do less."""
    if fit.model != "usl" or fit.parameters[2] <= 0.0:
        return None
    return math.sqrt(max(0.0, (1.0 - fit.parameters[1]) / fit.parameters[2]))


def _error(name: str, fits: Mapping[str, Fit], n: Array, x: Array) -> dict[str, Any]:
    if name not in fits:
        return {"left_out": [], "not_left_out": "no fit decides"}
    fit = fits[name]
    try:
        return {
            "left_out": left_out(fit.model, n, x, bounded=fit.bounded),
            "not_left_out": "",
        }
    except Undetermined as error:
        why = f"{len(n)} process counts, of which none can be left out: {error}"
        return {"left_out": [], "not_left_out": why}


def _targets(
    fit: Fit | None,
    fits: Mapping[str, Fit],
    points: Sequence[Mapping[str, Any]],
    targets: Sequence[int],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    sure = refitted(fit, points, targets, rng) if fit else Refits({}, {})
    return [_target(fit, fits, points, target, sure) for target in targets]


def _target(
    fit: Fit | None,
    fits: Mapping[str, Fit],
    points: Sequence[Mapping[str, Any]],
    target: int,
    refits: Refits,
) -> dict[str, Any]:
    """What is foretold of one count: the value, and the hull of the refits and of all models that
    can be: a negative serial fraction cannot, except where the data themselves are super-linear
    and its model decides.
    """
    value = float(fit.at(np.array([float(target)]))[0]) if fit else math.nan
    spread = [
        float(each.at(np.array([float(target)]))[0])
        for each in fits.values()
        if each is fit or _MODELS[each.model].physical(np.asarray(each.parameters))
    ]
    sure = refits.ends.get(target)
    hull = [v for v in (*spread, *(sure or ())) if math.isfinite(v) and v > 0.0]
    largest = points[-1]["processes"]
    finite, rises = _shape(fit, min(points[0]["processes"], target), target)
    return {
        "processes": target,
        "value": value if math.isfinite(value) and value > 0.0 else None,
        "low": min(hull, default=None),
        "high": max(hull, default=None),
        "bootstrap": sure,
        "lost": refits.lost.get(target, 0.0),
        "models": len(spread),
        "finite": finite,
        "monotone": rises,
        "extrapolation": target / largest,
        "communication": _communication(points, target),
    }


def _shape(fit: Fit | None, first: int, last: int) -> tuple[bool, bool]:
    """Whether the fit is finite and above 0 from *first* to *last*, and whether it rises."""
    if fit is None:
        return False, False
    values = fit.at(np.linspace(first, last, max(2, min(4096, 16 * (last - first) + 2))))
    finite = bool(np.isfinite(values).all() and (values > 0.0).all())
    return finite, finite and bool((np.diff(values) > 0.0).all())


def _communication(points: Sequence[Mapping[str, Any]], target: int) -> dict[str, Any] | None:
    """The share of exposed communication, on a line over processes, which decides, and on one over
    their logarithm: the interval is what lies between. One process has none to exchange with.
    """
    told = [p for p in points if p["communication"] is not None and p["processes"] > 1]
    if len(told) < 2:
        return None
    n = np.array([p["processes"] for p in told], dtype=float)
    shares = np.array([p["communication"] for p in told], dtype=float)
    lines = [_line(n, shares, float(target)), _line(np.log(n), shares, math.log(target))]
    return {"value": lines[0], "low": min(lines), "high": max(lines)}


def _line(at: Array, shares: Array, target: float) -> float:
    base, slope = np.linalg.lstsq(np.stack([np.ones_like(at), at], axis=1), shares, rcond=None)[0]
    return float(min(1.0, max(0.0, base + slope * target)))


def rounded(value: Any) -> Any:
    """*value* with its floats to 12 digits: the last ones differ between processors."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main() -> int:
    """Answer the question on stdin; what cannot be answered is said on stderr."""
    try:
        said = json.dumps(rounded(answer(json.load(sys.stdin))), allow_nan=False, sort_keys=True)
    except Undetermined as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(said + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Hold the reports of two runs together: what differs, by how much, and what forbids it. Pure.

A difference has a direction only where more or less of it is better whatever else was so: a longer
run is no worse one. Losses are held together at the same step.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dvfd import __version__
from dvfd.derive import MAD_SIGMA
from dvfd.reporting.document import named, over, tenths
from dvfd.reporting.shares import hours, money, shown
from dvfd.runs.report import iso
from dvfd.runs.run import WARM_UP_BATCHES, WARM_UP_SECONDS
from dvfd.words import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Report = Mapping[str, Any]
    Points = Sequence[Sequence[float]]

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

SAME = 5e-3
"""Relative difference below which two figures are told as the same: half a percent."""

FAR = 10.0
"""A ratio from which percents say less than the ratio itself."""

BATCH_LOOKED = 0.1
"""The same for a run whose ends were not kept: ranks are not at the same step at a look."""

BATCH = 0.01
"""Relative difference of the samples of a step from which the two trained with other batches."""

LEAST = 0.9
"""Share of the time that somebody must have watched for its parts to be held together."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: where it stands in a report, and which way is better: 1 more, -1 less, 0 neither."""

    id: str
    words: str
    unit: str
    of: Callable[[Report], float | None]
    better: int = 0


def _share(part: str) -> Callable[[Report], float | None]:
    def share(report: Report) -> float | None:
        found = (p["share"] for p in report["time"]["parts"] if p["part"] == part)
        return next(found, None)

    return share


def _per(report: Report, amount: float | None) -> float | None:
    seconds = report["period"]["seconds"]
    return None if amount is None or seconds <= 0 else amount / seconds


def throughput(report: Report) -> float | None:
    """The median of the course, samples a second: how fast it is while it goes."""
    return _middle(_course(report, "throughput"))


def _middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return sorted(values)[(len(values) - 1) // 2] if values else None


def _spread(values: Sequence[float]) -> float:
    """How far values lie from their median, as a standard deviation, whatever few of them do."""
    middle = _middle(values) or 0.0
    return MAD_SIGMA * (_middle([abs(value - middle) for value in values]) or 0.0)


def _course(report: Report, name: str) -> list[float]:
    lines = [line for s in report["series"] if s["id"] == name for line in s["lines"]]
    return [value for line in lines for value in line["mean"] if value is not None]


def _cost(key: str) -> Callable[[Report], float | None]:
    return lambda report: report["cost"][key] if report["cost"] else None


FIGURES = (
    Figure("seconds", "time", "s", lambda r: r["period"]["seconds"]),
    Figure("goodput", "productive", "share", lambda r: r["time"]["goodput"], 1),
    Figure("throughput", "throughput, median", "samples/s", throughput, 1),
    Figure("samples_per_second", "throughput over all of the time", "samples/s",
           lambda r: r["work"]["samples_per_second"], 1),
    Figure("steps", "steps", "", lambda r: r["work"]["steps"]),
    Figure("steps_per_second", "steps a second over all of the time", "1/s",
           lambda r: _per(r, r["work"]["steps"]), 1),
    Figure("data", "waiting for data", "share", _share("data"), -1),
    Figure("recovery", "recovery", "share", _share("recovery"), -1),
    Figure("stragglers", "held up by stragglers, at most", "share",
           lambda r: _per(r, r["stragglers"]["seconds"]), -1),
    Figure("restarts", "restarts", "", lambda r: r["restarts"]["count"]),
    Figure("joules_per_sample", "energy of a sample", "J",
           lambda r: r["energy"]["joules_per_sample"], -1),
    Figure("kwh", "energy", "kWh", lambda r: r["energy"]["kwh"]),
    Figure("per_million_samples", "cost of a million samples", "money",
           _cost("per_million_samples"), -1),
    Figure("cost", "cost", "money", _cost("total")),
)  # fmt: skip
"""In the order of the page."""


def comparison(a: Report, b: Report, *, sums: tuple[str, str]) -> dict[str, Any]:
    """The two as JSON types; *sums* are the SHA-256 of their documents."""
    rows = [_row(figure, a, b) for figure in FIGURES]
    rows.insert(6, _losses(a, b))
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "job comparison",
        "headline": "",
        "a": _which(a, sums[0]),
        "b": _which(b, sums[1]),
        "against": list(against(a, b)),
        "rows": rows,
        "time": {"a": a["time"], "b": b["time"]},
        "curves": [
            {
                "id": name,
                "title": title,
                "unit": unit,
                "a": a["by_step"].get(name, []),
                "b": b["by_step"].get(name, []),
            }
            for name, title, unit in (
                ("loss", "Training loss by step", ""),
                ("throughput", "Throughput by step", "samples/s"),
            )
        ],
        "dvfd": __version__,
    }
    found["headline"] = headline(found)
    return found


def _which(report: Report, sha256: str) -> dict[str, Any]:
    currency = report["cost"]["currency"] if report["cost"] else ""
    return {
        "name": named(dict(report)),
        "job": report["job"],
        "node": report["node"],
        "since": report["period"]["since"],
        "until": report["period"]["until"],
        "iso": iso(report["period"]["since"]),
        "headline": report["headline"],
        "currency": currency,
        "sha256": sha256,
    }


def _row(figure: Figure, a: Report, b: Report) -> dict[str, Any]:
    row = _held(figure.id, figure.words, figure.unit, figure.of(a), figure.of(b), figure.better)
    alike = _alike(row["a"], row["b"], row["unit"])
    if figure.id == "goodput" and _overlap(a, b) and not alike:
        row["better"], row["remark"] = "", "what nobody saw may be the difference"
    if figure.id == "throughput" and row["better"]:
        _doubt(row, _course(a, "throughput"), _course(b, "throughput"))
    currencies = {r["cost"]["currency"] for r in (a, b) if r["cost"]}
    if figure.unit == "money" and len(currencies) > 1:
        row |= {"difference": None, "ratio": None, "better": "", "remark": "in two currencies"}
    return row


def _doubt(row: dict[str, Any], one: Sequence[float], other: Sequence[float]) -> None:
    """Take the direction from a difference that may be noise."""
    if _within(one, other):
        row["better"], row["remark"] = "", "within how much it varies"


def _held(  # noqa: PLR0917  # a row's columns in their order
    name: str, words: str, unit: str, a: float | None, b: float | None, better: int
) -> dict[str, Any]:
    """One row; the ratio is that of B to A."""
    difference = None if a is None or b is None else b - a
    ratio = None if a is None or b is None or a <= 0 else b / a
    way = 0 if difference is None or _alike(a, b, unit) else math.copysign(1, difference) * better
    return {
        "id": name,
        "words": words,
        "unit": unit,
        "a": a,
        "b": b,
        "difference": difference,
        "ratio": ratio,
        "better": {1: "b", -1: "a"}.get(int(way), ""),
        "remark": "" if difference is not None else "not known of both",
    }


def _alike(a: float | None, b: float | None, unit: str) -> bool:
    """Whether two figures are told as the same; shares are if half a point lies between them."""
    if a is None or b is None:
        return False
    near = SAME if unit == "share" else 1e-12
    return math.isclose(a, b, rel_tol=0.0 if unit == "share" else SAME, abs_tol=near)


def _overlap(a: Report, b: Report) -> bool:
    """Whether the bounds of the productive shares overlap."""
    bounds = [(r["time"]["goodput"], r["time"]["goodput_at_most"]) for r in (a, b)]
    if any(low is None for low, _ in bounds):
        return False
    (one, most), (two, more) = bounds
    return bool(max(one, two) <= min(most, more))


def _within(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two courses differ by less than they vary by themselves."""
    apart = abs((_middle(one) or 0.0) - (_middle(other) or 0.0))
    return apart <= max(_spread(one), _spread(other))


# --- At the same step ---------------------------------------------------------------------------


APART = 4.0
"""Times the usual distance of two points from which nothing is drawn between them: looks are lost
one at a time on a busy machine.
"""

TAILS = (0.9, 0.75, 0.5)
"""From which share of the common steps on losses are held together: the least that both tell of."""


def _losses(a: Report, b: Report) -> dict[str, Any]:
    """The row of the losses up to the last step that both told one of: medians of the last part."""
    curves = [r["by_step"].get("loss", []) for r in (a, b)]
    until = min((curve[-1][0] for curve in curves if curve), default=0.0)
    tails: list[list[float]] = [[], []]
    since = until
    for share in TAILS:
        since = share * until
        tails = [[y for x, y in curve if since <= x <= until] for curve in curves]
        if all(tails):
            break
    words = f"loss, median of steps {since:,.0f} to {until:,.0f}"
    row = _held("loss", words, "", _middle(tails[0]), _middle(tails[1]), -1)
    if row["better"]:
        _doubt(row, *tails)
    return row


def parts(points: Points) -> list[list[Sequence[float]]]:
    """*points* cut where the next one is far away: nobody looked there."""
    steps = [b[0] - a[0] for a, b in pairwise(points)]
    far = APART * (_middle(steps) or 0.0)
    found: list[list[Sequence[float]]] = [[points[0]]] if points else []
    for step, point in zip(steps, points[1:], strict=True):
        if step > far:
            found.append([])
        found[-1].append(point)
    return found


def at(points: Points, x: float) -> float | None:
    """The value at *x* between two points; None where nobody looked."""
    for part in parts(points):
        if part[0][0] <= x <= part[-1][0]:
            return _between(part, x)
    return None


def _between(points: Points, x: float) -> float:
    place = bisect_left(points, x, key=lambda point: point[0])
    if points[place][0] == x:
        return float(points[place][1])
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return float(y0 + (y1 - y0) * (x - x0) / (x1 - x0))


# --- What speaks against it ---------------------------------------------------------------------


def against(a: Report, b: Report) -> Iterator[str]:
    """Why the two cannot be held together, or not in everything."""
    for name in ("profile", "catalogue", "environment"):
        yield from _hashes(name, a["made"]["hashes"].get(name), b["made"]["hashes"].get(name))
    if a["work"]["processes"] != b["work"]["processes"]:
        yield f"other world sizes: {a['work']['processes']} and {b['work']['processes']} processes"
    if a["node"] != b["node"]:
        yield f"other nodes: {a['node']} and {b['node']}"
    yield from _who(a, b)
    batches = [_batch(r) for r in (a, b)]
    near = BATCH if all(map(_counted, (a, b))) else BATCH_LOOKED
    if None not in batches and not math.isclose(batches[0] or 0, batches[1] or 0, rel_tol=near):
        yield f"other batches: {batches[0]:.4g} and {batches[1]:.4g} samples a step"
    for which, report in (("A", a), ("B", b)):
        yield from _weak(which, report)
    if a["by_step"]["numbered"] != b["by_step"]["numbered"]:
        yield "steps are the job's own numbers in one and counts in the other"


def _who(a: Report, b: Report) -> Iterator[str]:
    """What the two are: one and the same, or jobs of two names."""
    if a["job"] != b["job"]:
        yield (
            f"other jobs: {a['job']} and {b['job']}; whether they train the same model on the same "
            "data, nothing here tells"
        )
    elif (a["node"], a["period"]["since"]) == (b["node"], b["period"]["since"]):
        yield "A and B are one and the same run"


def _hashes(name: str, a: str | None, b: str | None) -> Iterator[str]:
    if a and b and a != b:
        yield f"other {name}: its hash is {a[:12]} in A and {b[:12]} in B"
    elif not (a and b):
        missing = "both" if not (a or b) else "A" if not a else "B"
        yield f"whether the {name} was the same is not known: no check kept its hash in {missing}"


def _counted(report: Report) -> bool:
    """Whether steps and samples are of the same time: all of the run's."""
    return (
        bool(report.get("ending"))
        and not report["restarts"]["count"]
        and not any(
            part["seconds"] for part in report["time"]["parts"] if part["part"] == "unobserved"
        )
    )


def _batch(report: Report) -> float | None:
    """Samples of a step, of the ranks here."""
    samples, steps = report["work"]["samples"], report["work"]["steps"]
    return samples / steps if samples and steps else None


def _weak(which: str, report: Report) -> Iterator[str]:
    """Why a run says little even of itself."""
    seconds, steps = report["period"]["seconds"], report["work"]["steps"]
    steps = 0 if steps is None else steps
    if seconds < WARM_UP_SECONDS and steps < WARM_UP_BATCHES:
        yield (
            f"{which} is too short: {hours(seconds)} and {steps} steps are inside of a warm-up, "
            f"which takes {WARM_UP_SECONDS / 60:g} min or {WARM_UP_BATCHES} steps"
        )
    ending = report.get("ending")
    if ending and ending["how"] != "ended":
        yield f"{which} did not come to its end: it {over(ending)}"
    observed = report["coverage"]["observed"]
    if observed is not None and observed < LEAST:
        yield f"{which} was watched {tenths(observed)} of its time only"
    if not report["by_step"]["numbered"] and report["restarts"]["count"]:
        yield f"the steps of {which} count those done again after a restart"


# --- In one sentence ----------------------------------------------------------------------------

HEADLINED = ("samples_per_second", "goodput", "loss", "per_million_samples")


def headline(found: Mapping[str, Any]) -> str:
    """What the two differ in most plainly."""
    rows = {row["id"]: row for row in found["rows"]}
    told = [text for name in HEADLINED if (text := _told(rows[name]))]
    first = "B beside A: " + ("; ".join(told) if told else "nothing that could be held together")
    count = len(found["against"])
    but = (
        f", but {count} thing{'s' if count > 1 else ''} speak{'' if count > 1 else 's'} against it"
    )
    return f"{first}{but if count else ''}."


def _told(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    if row["unit"] == "share":
        points = 100 * row["difference"]
        return f"{row['words']} {tenths(row['a'])} and {tenths(row['b'])} ({points:+.1f} points)"
    return f"{row['words']} {size(row)}"


def size(row: Mapping[str, Any]) -> str:
    """How far B is from A, in words."""
    if row["difference"] is None:
        return "not known"
    if row["id"] == "restarts":
        return f"{row['difference']:+d}"
    if _alike(row["a"], row["b"], row["unit"]):
        return "the same"
    if row["unit"] == "share":
        return f"{100 * row['difference']:+.1f} points"
    if row["ratio"] is None:
        return f"{row['difference']:+.4g}"
    return _times(row["ratio"])


def _times(ratio: float) -> str:
    if ratio >= FAR or 0 < ratio <= 1 / FAR:
        return f"{ratio:.2g} times A"
    return f"{100 * (ratio - 1):+.1f} %"


def figure(row: Mapping[str, Any], value: float | None) -> str:
    """One side of a row as people read it."""
    if value is None:
        return NONE
    match row["unit"]:
        case "share":
            return tenths(value)
        case "s":
            return hours(value)
        case "money":
            return money(value)
        case _:
            return f"{value:,.0f}" if isinstance(value, int) else f"{value:.4g}"


def unit(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What stands behind the words of a row; nothing where its values say it."""
    if row["unit"] == "money":
        return " and ".join(dict.fromkeys(filter(None, (found[w]["currency"] for w in "ab"))))
    return "" if row["unit"] in {"share", "s"} else str(row["unit"])


def side_by_side(time: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Part, its words, and the percents of A and B, as each is told on its own page."""
    sides = [{p.part: p for p in shown(time[side])} for side in ("a", "b")]
    found = []
    for part in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (side.get(part) for side in sides)
        words = (a or b).words if a or b else part  # type: ignore[union-attr]
        found.append((part, words, a.percent if a else 0.0, b.percent if b else 0.0))
    return found

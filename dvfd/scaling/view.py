"""One projection as people look at it: points, models, targets, floors, and what speaks against.

Words come from here, so that terminal and page say the same. Limits are those of the catalogue.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.scaling import asked, floors
from dvfd.scaling.points import doubts, of
from dvfd.scaling.series import series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.model import Catalogue
    from dvfd.scaling.asked import Projection, Target
    from dvfd.scaling.floors import Floor
    from dvfd.scaling.points import Point
    from dvfd.scaling.reading import Known

LEFT_OUT, STRETCH = "scaling_projection.left_out", "scaling_projection.extrapolation"


@dataclass(frozen=True, slots=True)
class Model:
    """A fit: `values` at the targets, `curve` along `View.along`."""

    name: str
    decides: bool
    physical: bool
    error: float
    parameters: str
    values: tuple[float | None, ...]
    curve: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """A process count that is asked about."""

    processes: int
    value: float | None
    low: float | None
    high: float | None
    efficiency: float | None
    interval: str  # what it is made of
    words: str
    against: tuple[str, ...]  # why the data do not support it
    floors: str


@dataclass(frozen=True, slots=True)
class View:
    """All of it."""

    configuration: str
    points: tuple[Point, ...]
    single: float | None
    models: tuple[Model, ...]
    targets: tuple[Aim, ...]
    along: tuple[int, ...]
    limits: tuple[tuple[int, Floor], ...]  # which floor binds at each count that has one
    left_out: tuple[tuple[int, float, float], ...]
    notes: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        points = [{**p.to_document(), "windows": len(p.windows)} for p in self.points]
        return {**asdict(self), "points": points}


def view(
    known: Known,
    configuration: str,
    targets: Sequence[int],
    catalogue: Catalogue,
    *,
    below: int | None = None,
) -> View:
    """The projection of *configuration* to *targets*, from counts smaller than *below* if given.

    Raises DvfdError if fewer than two are known.
    """
    mine = series(known.points, configuration)
    points = tuple(p for p in mine.points if below is None or p.processes < below)
    answer = asked.ask(points, fit=range(len(points)), targets=targets)
    found = answer.projection
    if found is None:
        have = ", ".join(of(p.processes) for p in points) or "nothing"
        raise DvfdError(f"known of configuration {configuration[:12]}: {have}; two counts wanted")
    single = next((p.throughput for p in points if p.processes == 1), None)
    aims = tuple(_aim(found, target, single, points, catalogue) for target in found.targets)
    return View(
        configuration=configuration,
        points=points,
        single=single,
        models=tuple(_models(found)),
        targets=aims,
        along=found.along,
        limits=tuple(_limits(points, targets, single, catalogue)),
        left_out=found.left_out,
        notes=tuple(_notes(found, points, mine.left_out)),
    )


def _models(found: Projection) -> Iterator[Model]:
    for fit in found.fits:
        values = tuple(fit.values[found.along.index(t.processes)] for t in found.targets)
        yield Model(
            fit.title, fit.name == found.decides, fit.physical, fit.error, fit.words,
            values, fit.values,
        )  # fmt: skip


def _aim(
    found: Projection,
    target: Target,
    single: float | None,
    points: Sequence[Point],
    catalogue: Catalogue,
) -> Aim:
    limits = _floors(points, target.processes, single, catalogue)
    linear = None if single is None else target.processes * single
    efficiency = None if linear is None or target.value is None else target.value / linear
    if target.value is None:
        words = f"{of(target.processes)}: no finite value"
    else:
        share = "" if efficiency is None else f", {efficiency:.1%} of linear"
        words = (
            f"{of(target.processes)}: {target.value:.5g} samples/s "
            f"({target.low:.5g} to {target.high:.5g}){share}; the interval is {target.interval}"
        )
    return Aim(
        processes=target.processes,
        value=target.value,
        low=target.low,
        high=target.high,
        efficiency=efficiency,
        interval=target.interval,
        words=words,
        against=tuple(_against(found, target, catalogue)),
        floors=floors.told(limits) if limits else "",
    )


def _against(found: Projection, target: Target, catalogue: Catalogue) -> Iterator[str]:
    """Why the data do not support what is foretold of *target*, by the catalogue's limits."""
    most = catalogue.criteria[LEFT_OUT].limit.value
    if found.worst is None:
        yield f"how wrong the fit is cannot be said: {found.not_left_out}"
    elif most is not None and found.worst > most:
        count = max(found.left_out, key=lambda each: abs(each[2]))
        yield (
            f"{of(count[0])} left out, the fit misses them by {count[2]:+.1%}, wanted at most "
            f"{most:.0%}: the data do not support it"
        )
    far = catalogue.criteria[STRETCH].limit.value
    if far is not None and target.extrapolation > far:
        yield (
            f"an extrapolation: {target.extrapolation:.3g} times the largest measured count, "
            f"wanted at most {far:g}"
        )
    if target.open:
        yield target.open
    if not target.finite:
        yield "the fit is not finite up to there"
    elif not target.monotone:
        fit = next((fit for fit in found.fits if fit.name == found.decides), None)
        peak = f" beyond {fit.peak:.3g} processes" if fit and fit.peak else ""
        yield f"the fit falls{peak}: more processes would do less"


def _notes(found: Projection, points: Sequence[Point], left_out: Sequence[str]) -> Iterator[str]:
    if found.superlinear:
        yield "super-linear: verify the baseline; the unbounded USL decides, and has no physics"
    if why := doubts(points):
        yield f"nothing that rests on this can pass: {why}"
    yield from (f"{asked.NAMES.get(name, name)}: {why}" for name, why in found.lacks.items())
    yield from (f"left out: {words}" for words in left_out)


def _floors(
    points: Sequence[Point], processes: int, single: float | None, catalogue: Catalogue
) -> tuple[Floor, ...]:
    """The floors at *processes*, as far as *points* say what they are made of."""
    below = [p for p in points if 1 < p.processes < processes]
    smaller = max(below, key=lambda point: point.processes, default=None)
    share = smaller.throughput / (smaller.processes * single) if smaller and single else None
    return floors.floors(catalogue.checks, processes, floors.Known(single, share))


def _limits(
    points: Sequence[Point], targets: Sequence[int], single: float | None, catalogue: Catalogue
) -> Iterator[tuple[int, Floor]]:
    for count in sorted({*(point.processes for point in points), *targets}):
        if found := floors.binding(_floors(points, count, single, catalogue)):
            yield count, found

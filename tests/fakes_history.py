"""An engine of 40 lines that understands what dvfd asks one, and a store beside it."""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

from dvfd.errors import HistoryError
from dvfd.history.answer import Line, Point

QUESTION = re.compile(
    r"(?P<function>last|quantile|avg|min|max|count|resets)[a-z_(0.5, ]*dvfd_(?P<metric>\w+)"
    r"\{(?P<where>[^}]*)\}.*\[(?P<length>\w+?)(?::1m)?\]\)+"
)

LENGTHS = {"1h": 3600.0, "2m": 120.0, "1m": 60.0}

Values = Sequence[float]

FUNCTIONS: dict[str, Callable[[Sequence[Point], float], float]] = {
    "last": lambda points, _at: points[-1][1],
    "quantile": lambda points, _at: statistics.median(value for _, value in points),
    "avg": lambda points, _at: math.fsum(value for _, value in points) / len(points),
    "min": lambda points, _at: min(value for _, value in points),
    "max": lambda points, _at: max(value for _, value in points),
    "count": lambda points, at: float(len({(at - t) // 60 for t, _ in points})),
    "resets": lambda points, _at: float(sum(b[1] < a[1] for a, b in pairwise(points))),
}


class FakeEngine:
    """Series given as metric, labels and points; every question is answered from them."""

    words = "http://engine"
    longest = 32 * 86_400.0

    def __init__(self, *series: tuple[str, dict[str, str], Sequence[Point]]) -> None:
        self.series = series
        self.asked = 0
        self.off: HistoryError | None = None

    def in_time(self) -> float:
        if self.off:
            raise self.off
        return 0.0

    def _matching(
        self, metric: str, where: str
    ) -> Iterable[tuple[dict[str, str], Sequence[Point]]]:
        exact = dict(re.findall(r'(\w+)="([^"]*)"', where))
        patterns = [(n, p.replace("\\\\", "\\")) for n, p in re.findall(r'(\w+)=~"([^"]*)"', where)]
        for name, labels, points in self.series:
            called = all(re.fullmatch(p, labels.get(label, "")) for label, p in patterns)
            if name == metric and called and exact.items() <= labels.items():
                yield labels, points

    def _at(self, question: str, at: float) -> dict[int, tuple[dict[str, str], float]]:
        self.asked += 1
        found = QUESTION.fullmatch(question)
        assert found, question
        length = LENGTHS.get(found["length"]) or float(found["length"].removesuffix("s"))
        function = FUNCTIONS[found["function"]]
        values = {}
        for number, (labels, points) in enumerate(self._matching(found["metric"], found["where"])):
            begin, end = (bisect_right(points, t, key=itemgetter(0)) for t in (at - length, at))
            if inside := points[begin:end]:
                values[number] = labels, function(inside, at)
        return values

    def instant(self, question: str, *, at: float) -> list[Line]:
        return [Line(own, ((at, value),)) for own, value in self._at(question, at).values()]

    def range(
        self, question: str, *, since: float, until: float, step: float, **_keys: Any
    ) -> list[Line]:
        lines: dict[int, tuple[dict[str, str], list[Point]]] = {}
        for n in range(int((until - since) // step) + 1):
            at = since + n * step
            for number, (own, value) in self._at(question, at).items():
                lines.setdefault(number, (own, []))[1].append((at, value))
        return [Line(own, tuple(points)) for own, points in lines.values()]

    def raw(self, selector: str, *, since: float, until: float) -> list[Line]:
        metric, where = selector.removeprefix("dvfd_").removesuffix("}").split("{", 1)
        lines = [
            Line(own, tuple(p for p in points if since < p[0] <= until))
            for own, points in self._matching(metric, where)
        ]
        return [line for line in lines if line.points]

"""The HTTP API of the site's Prometheus. Asked in its own time, so that no clocks are compared."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dvfd import remote
from dvfd.errors import DvfdError, ProbeError
from dvfd.history.engine import access
from dvfd.masking import masked
from dvfd.scraped import answered

if TYPE_CHECKING:
    from dvfd.config import Config

UNITS = {
    "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0,
}  # fmt: skip
"""Seconds in a unit of Prometheus' durations."""

Get = Callable[..., remote.Answer]
"""remote.get, or a fake."""


class Prometheus:
    """A Prometheus. Every method raises ProbeError with its words."""

    def __init__(self, url: str, get: Get) -> None:
        self.name = masked(url)
        self._url = url
        self._get = get

    @classmethod
    def of(cls, config: Config, get: Get) -> Prometheus:
        """As [history] names it. The nodes' password is not for it: it has its own."""
        settings = config.engine
        if not settings.url:
            raise ProbeError(
                "no Prometheus is named, wanted the one that scrapes this node: "
                '[history] url = "http://prometheus:9090"'
            )
        try:
            return cls(settings.url, partial(get, access=access(settings)))
        except DvfdError as error:
            raise ProbeError(str(error)) from None

    def data(self, path: str) -> Any:
        """What a path of /api/v1 answers."""
        answer = self._asked(path)
        if answer.status != http.HTTPStatus.OK:
            raise ProbeError(f"{self.name}: {path} answers {answer.status}, wanted 200")
        try:
            return json.loads(answer.body)["data"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"{path} answers like no Prometheus: {error!r:.120}"
            raise ProbeError(f"{self.name}: {why}") from None

    def values(self, expression: str) -> list[tuple[float, Mapping[str, str]]]:
        """The series that PromQL gives now, each value with its labels."""
        answer = self._asked(f"query?query={quote(expression)}")
        return [(series.value, series.labels) for series in answered(answer.body)]

    def now(self) -> float:
        """Its own time, in Unix seconds."""
        match self.values("vector(time())"):
            case [(now, _)]:
                return now
        raise ProbeError(f"{self.name} does not say what time it is")

    def _asked(self, path: str) -> remote.Answer:
        url = f"{self._url}/api/v1/{path}"
        try:
            return self._get(url)
        except DvfdError as error:
            why = str(error).removeprefix(f"{masked(url)}: ")
            said = f"Prometheus at {self.name} does not answer: {why}"
            raise ProbeError(f"{said}; [history] url says where it is") from None


def duration(text: str) -> float | None:
    """Seconds of a duration as Prometheus writes them, 1h30m; None if *text* is none, as 5GiB."""
    if not re.fullmatch(r"(\d+(ms|[smhdwy]))+", text):
        return None
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def moment(stamp: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).timestamp()

"""Ask one engine in PromQL: who may ask, how much at once, and how far its clock is off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from dvfd import remote
from dvfd.config import credential
from dvfd.errors import DvfdError, HistoryError
from dvfd.history.answer import Asked, Line, read
from dvfd.masking import masked
from dvfd.remote import Access

if TYPE_CHECKING:
    from pathlib import Path

    from dvfd.config import History

Get = Callable[..., remote.Answer]
"""remote.get, or a fake."""

DAY = 86_400.0

LONG = 1500
"""Characters of a question above which it is posted: proxies cut addresses off at 2 to 8 KB."""

PLAIN = {"nocache": "1"}
"""VictoriaMetrics would else move the ends of a range to fit its cache, and answer 30 s before now.
Others ignore it."""

RAW = 100_000
"""Points of one series in an hour that are believed: it has 3600 seconds."""


class Engine:
    """One engine as [history] says. Any thread. All of it raises HistoryError."""

    def __init__(self, settings: History, get: Get = remote.get, *, end: float = math.inf) -> None:
        """Nothing is asked after *end* on the monotonic clock."""
        self._settings = settings
        self._get = get
        self._end = end
        self.asked = 0

    @property
    def words(self) -> str:
        """Which it is, without a password."""
        return masked(self._settings.url)

    def instant(self, question: str, *, at: float) -> list[Line]:
        """What *question* comes to at Unix time *at*: one point of each series."""
        return self._ask("query", {"query": question, "time": _text(at)}, Asked(at, at))

    def raw(self, selector: str, *, since: float, until: float) -> list[Line]:
        """The samples that were stored in (since, until], with their own times."""
        length = max(1, math.ceil(until - since))
        question = {"query": f"{selector}[{length}s]", "time": _text(until)}
        lines = self._ask("query", question, Asked(until - length, until, points=RAW))
        inside = [
            Line(line.labels, tuple(p for p in line.points if p[0] > since)) for line in lines
        ]
        return [line for line in inside if line.points]

    def range(
        self, question: str, *, since: float, until: float, step: float, inner: int = 1
    ) -> list[Line]:
        """What *question* comes to at since, since + step ... until; in pieces where those would
        be more points than one answer may have, or than a query within it may, which makes *inner*
        for each: VictoriaMetrics counts these too.
        """
        found: dict[tuple[tuple[str, str], ...], list[Line]] = {}
        for first, last in _pieces(since, until, step, self._most(step, inner)):
            times = {"start": _text(first), "end": _text(last), "step": _text(step)}
            count = round((last - first) / step) + 1
            for line in self._ask(
                "query_range", {"query": question, **times}, Asked(first, last, step, count)
            ):
                found.setdefault(tuple(sorted(line.labels.items())), []).append(line)
        return [
            Line(lines[0].labels, tuple(p for line in lines for p in line.points))
            for lines in found.values()
        ]

    @property
    def longest(self) -> float:
        """Seconds that one question may be about."""
        return self._settings.range_days * DAY

    def _most(self, step: float, inner: int) -> int:
        """Points of one answer."""
        return max(1, min(self._settings.points // inner, int(self.longest // step)))

    def ahead(self) -> float:
        """Seconds that its clock is ahead of ours, to about a second."""
        self.asked += 1
        answer = self._got("query", urlencode({"query": "time()", **PLAIN}))
        everything = Asked(-math.inf, math.inf)
        lines = self._read(answer, everything)
        if len(lines) != 1:
            raise HistoryError(f"{self.words}: answers {len(lines)} times of day, wanted 1")
        _, told = lines[0].points[0]
        return min(0.0, told - answer.asked) or max(0.0, told - answer.answered)

    def in_time(self) -> float:
        """Like `ahead`. Raises HistoryError if that is more than it may be."""
        off, most = self.ahead(), self._settings.clock
        if abs(off) > most:
            word = "ahead of" if off > 0 else "behind"
            raise HistoryError(
                f"{self.words}: its clock is {abs(off):.0f} s {word} this node's, wanted at most "
                f"{most:g} s: mend the one that is wrong (chronyc tracking), or [history] clock"
            )
        return off

    def _ask(self, path: str, question: dict[str, str], asked: Asked) -> list[Line]:
        self.asked += 1
        return self._read(self._got(path, urlencode({**question, **PLAIN})), asked)

    def _read(self, answer: remote.Answer, asked: Asked) -> list[Line]:
        try:
            return read(answer.status, answer.body, asked, self._hidden)
        except HistoryError as error:
            raise HistoryError(f"{self.words}: {error}") from None

    def _hidden(self, text: str) -> str:
        return remote.hidden(text, self._settings.url, access(self._settings))

    def _got(self, path: str, form: str) -> remote.Answer:
        settings, left = self._settings, self._end - time.monotonic()
        if left <= 0:
            raise HistoryError(
                f"{self.words}: {self.asked - 1} questions took all the time that there is for "
                "them: is it busy? recording rules, or fewer nodes or hours at once"
            )
        url = f"{settings.url}/api/v1/{path}"
        posted, asking = len(form) > LONG, access(settings)
        try:
            return self._get(
                url if posted else f"{url}?{form}",
                asking,
                within=min(settings.timeout, left),
                most=settings.answer_bytes,
                form=form if posted else None,
            )
        except DvfdError as error:
            said = str(error).replace(f"?{form}", "")
            raise HistoryError(f"{said}; asked of [history] url") from None


def access(settings: History) -> Access:
    """Who asks, read anew each time. Raises HistoryError where a secret cannot be read."""
    if settings.ca_file and not settings.ca_file.is_file():
        raise HistoryError(f"[history] ca_file {settings.ca_file} is no file")
    password = _secret("password", settings.password_file, settings.password_credential)
    token = _secret("token", settings.token_file, settings.token_credential)
    headers = {settings.tenant_header: settings.tenant} if settings.tenant else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    login = f"{settings.username}:{password}" if settings.username else ""
    return Access(login, settings.ca_file, headers)


def _secret(what: str, path: Path | None, name: str) -> str:
    """The one line of a file or a credential."""
    if path is None and not name:
        return ""
    try:
        text = (credential(name) if name or path is None else path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"the {what} of [history] cannot be read: {error}") from None
    found = text.strip()
    if not found.isprintable() or not found:
        raise HistoryError(f"the {what} of [history]: wanted one line of text in its file")
    if what == "token" and not found.isascii():  # a password is packed, a token goes as it is
        odd = next(n for n, character in enumerate(found, 1) if not character.isascii())
        raise HistoryError(f"the {what} of [history]: its character {odd} is none of ASCII")
    return found


def _pieces(since: float, until: float, step: float, points: int) -> Iterator[tuple[float, float]]:
    """First and last times of grids of at most *points* points."""
    whole = math.floor((until - since) / step + 1e-9) + 1
    for first in range(0, whole, points):
        last = min(first + points, whole) - 1
        yield since + first * step, since + last * step


def _text(number: float) -> str:
    return f"{number:.3f}".removesuffix(".000")

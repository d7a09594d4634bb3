"""Tell people in time what a list will ask of them, and that a list was not judged at all.

An item is told before its list is due, or before what was said of it expires, and until somebody
says it. A list is told when it was not judged for longer than its period.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dvfd.model import ATTESTATION
from dvfd.people.attestations import HOW, moment
from dvfd.reduce import seconds
from dvfd.sinks.alert import due_alert, overdue_alert
from dvfd.state import interval, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dvfd.model import Catalogue, Check, Clock
    from dvfd.people.attestations import Attestations
    from dvfd.sinks.alert import Alert
    from dvfd.sinks.pager import Pager
    from dvfd.store import StoredReport

DAY = 86_400.0

LEAD = 7 * DAY
"""Seconds before an end at which people are told: whoever reviews works by the week."""

EVERY = 3600.0
"""Seconds between looks. The first is after as long: a node that was just set up asks nobody."""

AHEAD = 64
"""Runs of a list that are looked through for one that does not lie in the future."""

KEYS = ("due:", "overdue:")
"""How the keys of our alerts begin; the item or the check follows."""

KIND = "list"
"""Kind of the records that say since when a list is in the calendar; their key is the check."""


class Lists(Protocol):
    """What is asked of the store."""

    def last_run(self, check_id: str) -> float | None:
        """When the last kept run was due."""
        ...

    def reports(self, check_id: str, limit: int) -> Sequence[StoredReport]:
        """The newest kept runs, newest first."""
        ...

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """Something that people state for a list."""

    name: str
    check: Check
    text: str


class Dues:
    """Looks once an hour. For one thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        attestations: Attestations,
        lists: Lists,
        pager: Pager,
        next_runs: Callable[[], Mapping[str, float]],
        clock: Clock,
        jitter: float = 0.0,
    ) -> None:
        """*next_runs* says when each list is due, in Unix seconds."""
        self._checks = [c for c in catalogue.checks.values() if c.schedule]
        self._attestations = attestations
        self._lists = lists
        self._pager = pager
        self._next_runs = next_runs
        self._clock = clock
        self._jitter = jitter
        self._due = clock.boot() + EVERY

    def tick(self) -> None:
        """Look, if it is time."""
        if self._clock.boot() >= self._due:
            self._due = self._clock.boot() + EVERY
            self.look()

    def look(self) -> None:
        """Raise what is due now, end what is not any more."""
        at = self._clock.now()
        wanted = {alert.key: alert for alert in (*self._items(at), *self._overdue(at))}
        for key in {k for k in self._pager.firing() if k.startswith(KEYS)} - set(wanted):
            self._pager.clear_alert(key, at, {})
        for alert in wanted.values():
            self._pager.raise_alert(alert, {})

    def _items(self, at: float) -> Iterator[Alert]:
        runs = self._next_runs()
        for item in items(self._checks):
            found = self._lacking(item, runs.get(item.check.id), at)
            if found:
                since, why = found
                yield due_alert(item.name, item.check.id, since, item.text, why)

    def _lacking(self, item: Item, due: float | None, at: float) -> tuple[float, str] | None:
        """Since when *item* is wanted, and why; None while it is not."""
        said, how = self._attestations.newest(item.name), HOW.format(item.name)
        if said is not None:
            if at < said.expires - LEAD:
                return None
            ends = "expires" if at < said.expires else "expired"
            return (
                said.expires - LEAD,
                f"what {said.by} said {ends} on {moment(said.expires)}: {how}",
            )
        if due is None:
            return None
        begins = due - min(LEAD, interval(item.check.schedule) / 2)
        missed = self._last(item.check.id, at)
        if missed is None and at < begins:
            return None
        since = begins if missed is None else missed
        return since, f"nobody has said it; the list is judged on {moment(due)}: {how}"

    def _overdue(self, at: float) -> Iterator[Alert]:
        for check in self._checks:
            last, limit = self._judged(check, at), standing(check, self._jitter)
            if limit is not None and at - last > limit:
                why = f"last judged {seconds(at - last)} ago, wanted every {seconds(limit)}"
                yield overdue_alert(check.id, last + limit, why)

    def _judged(self, check: Check, at: float) -> float:
        """When it was judged last, or since when it should be."""
        last = self._last(check.id, at)
        if last is not None:
            return last
        kept = self._lists.get(KIND, check.id)
        if kept is None or float(kept["since"]) > at:
            kept = {"since": at}
            self._lists.put(KIND, check.id, kept)
        return float(kept["since"])

    def _last(self, check_id: str, at: float) -> float | None:
        """When the list was judged last. What lies ahead was judged by a clock that was wrong."""
        last = self._lists.last_run(check_id)
        if last is None or last <= at:
            return last
        runs = self._lists.reports(check_id, AHEAD)
        past = (due for due in map(_due, runs) if due <= at)
        return next(past, None)


def _due(run: StoredReport) -> float:
    return run.at if run.scheduled is None else run.scheduled


def items(checks: list[Check]) -> list[Item]:
    """What *checks* rest on that people state, each once; nothing that does not apply here."""
    found: dict[str, Item] = {}
    for check in checks:
        for criterion in check.criteria:
            name = dict(criterion.where).get("item", "")
            if criterion.source == ATTESTATION and name and not criterion.inapplicable:
                found.setdefault(name, Item(name, check, criterion.text))
    return list(found.values())

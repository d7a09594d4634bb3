"""What people vouch for because nothing can measure it: who, in which role, until when.

Every statement is kept; the newest on an item is what stands, until it expires.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog

from dvfd.control import Operation
from dvfd.errors import DvfdError
from dvfd.evidence.chain import is_moment
from dvfd.judge import judge
from dvfd.model import ATTESTATION, Attestation, Sample, Verdict, labels
from dvfd.query import known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.control import Peer
    from dvfd.evidence.ledger import Record
    from dvfd.model import Catalogue, Clock, Criterion, Result

KIND = "attestation"
"""Kind of the records in the store; a key is the item and the number of the statement on it."""

METRIC = "attestation_value"

DAY = 86_400.0

DAYS = 90.0
"""How long a statement stands where nobody says: a quarter, in which teams and plans change."""

SKEW = 5.0
"""Seconds that a statement may lie ahead: more, and it was made while a clock was wrong, so nobody
knows when it ends."""

WORDS, NOTE = 100, 1000
"""Letters of a name or a role, and of a note, at most."""

HOW = "dvfd attest {} --yes --name NAME --role ROLE (or --no)"

log = structlog.get_logger()

T = TypeVar("T")


class Kept(Protocol):
    """What is asked of the store."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records of a kind by key."""
        ...


class Ledger(Protocol):
    """What is asked of the ledger of evidence."""

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, submitted: str) -> Record:
        """Write a record down. Raises StoreError."""
        ...

    def records(self, kind: str | None = None, subject: str | None = None) -> list[Record]:
        """The records of a kind."""
        ...


class Told(Mapping[str, T], Generic[T]):
    """What is to be said of each item at the moment of asking; an item without is not in it."""

    def __init__(self, names: tuple[str, ...], about: Callable[[str], T | None]) -> None:
        self._names = names
        self._about = about

    def __getitem__(self, item: str) -> T:
        found = self._about(item)
        if found is None:
            raise KeyError(item)
        return found

    def __iter__(self) -> Iterator[str]:
        return (item for item in self._names if self._about(item) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Attestations:
    """Every statement that was made here. Any thread."""

    def __init__(
        self, catalogue: Catalogue, store: Kept, clock: Clock, evidence: Ledger | None = None
    ) -> None:
        """With *evidence* each statement is written down there as well."""
        self._evidence = evidence
        self._answers = answers(catalogue)
        self._roles = roles(catalogue)
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def items(self) -> tuple[str, ...]:
        """What can be attested, in the order of the catalogue."""
        return tuple(self._answers)

    def attest(self, request: Mapping[str, Any], submitted: str) -> Attestation:
        """Keep the statement in *request*: item, value, name, role; note and expires if given.

        Raises DvfdError with what is wrong, StoreError if it could not be written down.
        """
        now = self._clock.now()
        item = known(request, "item", self.items)
        if not isinstance(value := request.get("value"), bool):
            raise DvfdError(f"value: true or false wanted, got {value!r:.40}")
        role = words(request, "role", WORDS)
        made = Attestation(
            item=item,
            value=value,
            by=words(request, "name", WORDS),
            role=self._roles.get(role.casefold(), role),
            at=now,
            expires=_end(request.get("expires"), now),
            note=words(request, "note", NOTE, empty=True),
            submitted=submitted,
        )
        with self._lock:
            if self._evidence:
                self._evidence.append(KIND, item, asdict(made), submitted=submitted)
            self._keep(made)
        log.info("attested", item=item, value=value, name=made.by, role=made.role, by=submitted)
        return made

    def enter(self) -> None:
        """Carry over what one of ledger and store lacks: people stated it before there was a
        ledger, or after the copy was made that the store is. Raises StoreError.

        What is older than the last word there is not: it would become the last word.
        """
        if self._evidence is None:
            return
        with self._lock:  # nobody says anything between the reading of the one and of the other
            records = self._evidence.records(KIND)
            written = [said for record in records if (said := _said(record.body))]
            for item in self.items:
                kept, told = self.history(item), [s for s in written if s.item == item]
                for said in _later(kept, told):
                    self._evidence.append(KIND, item, asdict(said), submitted=said.submitted)
                for said in _later(told, kept):
                    self._keep(said)

    def _keep(self, said: Attestation) -> None:
        key = f"{said.item}/{len(self.history(said.item)) + 1:06d}"
        self._store.put(KIND, key, asdict(said))

    def history(self, item: str) -> list[Attestation]:
        """Every statement on *item*, oldest first."""
        found = self._store.all(KIND)
        keys = sorted(key for key in found if key.rpartition("/")[0] == item)
        return [Attestation(**found[key]) for key in keys]

    def newest(self, item: str) -> Attestation | None:
        """The statement that stands, or stood last."""
        return next(reversed(self.history(item)), None)

    def standing(self, item: str, at: float) -> Attestation | None:
        """The statement on *item* that stands at Unix time *at*."""
        found = self.newest(item)
        return found if found and found.at <= at + SKEW and at < found.expires else None

    def judged(self, criterion: Criterion, at: float) -> Result:
        """*criterion* held against what people stated; the reason names who, or what to type."""
        item = dict(criterion.where).get("item", "")
        said = self.standing(item, at)
        samples = [Sample(METRIC, float(said.value), at, labels(item=item))] if said else []
        result = judge(criterion, samples, at=at)
        if result.absent:  # an alert on a no that expired is not over: nobody said yes
            never = self.newest(item) is None
            return replace(result, reason=self.lack(item, at), absent=never)
        if said and result.verdict is not Verdict.NOT_APPLICABLE:
            return replace(result, reason=f"{result.reason}; {statement(said)}")
        return result

    def lack(self, item: str, at: float) -> str:
        """Why nothing stands on *item* at *at*, and what to type; empty if something does."""
        last = self.newest(item)
        if last is None:
            return f"nobody has attested {item}: {HOW.format(item)}"
        who, when = f"{last.by} ({last.role})", moment(last.expires)
        if last.at > at + SKEW:
            return f"{who} said it in the future, at {moment(last.at)}: {HOW.format(item)}"
        if at < last.expires:
            return ""
        return f"the attestation of {who} expired on {when}: {HOW.format(item)}"

    # --- For a run: what is so at the moment of asking -----------------------------------------

    def values(self) -> Told[float]:
        """1 or 0 by item, while it stands."""
        return Told(self.items, lambda item: _value(self.standing(item, self._clock.now())))

    def lacks(self) -> Told[str]:
        """Why there is no value, by item."""
        return Told(self.items, lambda item: self.lack(item, self._clock.now()) or None)

    def vouchers(self) -> Told[str]:
        """Who stated it, by item, while it stands."""
        return Told(self.items, lambda item: _who(self.standing(item, self._clock.now())))

    # --- As JSON -------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Every item: what rests on it, what stands, what was ever said."""
        at = self._clock.now()
        return {"at": at, "items": [self._item(item, at) for item in self.items]}

    def _item(self, item: str, at: float) -> dict[str, Any]:
        said = self.history(item)
        state = "nobody"
        if said:
            stands = self.standing(item, at)
            state = ("yes" if stands.value else "no") if stands else "expired"
        return {
            "item": item,
            "state": state,
            "answers": list(self._answers[item]),
            "lack": self.lack(item, at),
            "history": [asdict(each) for each in said],
        }


def _said(body: Mapping[str, Any]) -> Attestation | None:
    """The statement that *body* is; None if dvfd did not write it."""
    words = (body.get(key) for key in ("item", "by", "role", "note", "submitted"))
    whole = body.keys() == {field.name for field in fields(Attestation)}
    typed = all(isinstance(each, str) for each in words) and isinstance(body.get("value"), bool)
    timed = is_moment(body.get("at")) and is_moment(body.get("expires"))
    return Attestation(**body) if whole and typed and timed else None


def _later(said: Sequence[Attestation], there: Sequence[Attestation]) -> list[Attestation]:
    """What of *said* was said after everything that is *there*, in its order."""
    last = max((each.at for each in there), default=-math.inf)
    return sorted((each for each in said if each.at > last), key=lambda each: each.at)


def answers(catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    """The items that *catalogue* asks for, each with the criteria and gate lines that need it."""
    found: dict[str, list[str]] = {}
    for criterion in catalogue.criteria.values():
        if criterion.source == ATTESTATION and (item := dict(criterion.where).get("item")):
            found.setdefault(item, []).append(criterion.id)
    for gate in catalogue.gates.values():
        for line in gate.requires:
            for item in line.attestations:
                found.setdefault(item, []).append(f"gate {gate.id}: {line.id}")
    return {item: tuple(by) for item, by in found.items()}


def statement(said: Attestation) -> str:
    """Who said what, in which role, and until when it stands."""
    answer = "yes" if said.value else "no"
    note = f": {said.note}" if said.note else ""
    return f"{said.by} ({said.role}) says {answer}, until {moment(said.expires)}{note}"


def moment(at: float) -> str:
    """A moment as reasons have it, which are read in more than one time zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def operations(attestations: Attestations) -> dict[str, Operation]:
    """What can be asked of a daemon."""

    def attest(request: Mapping[str, Any], peer: Peer) -> Any:
        return asdict(attestations.attest(request, peer.name))

    return {
        "attest": Operation(attest, changes=True),
        "attestations": Operation(lambda request, peer: attestations.document()),
    }


def _value(said: Attestation | None) -> float | None:
    return None if said is None else float(said.value)


def _who(said: Attestation | None) -> str | None:
    return None if said is None else statement(said)


def words(request: Mapping[str, Any], key: str, most: int, *, empty: bool = False) -> str:
    """The words under *key*, without the space around them. Raises DvfdError if they are none."""
    found = request.get(key, "")
    if not isinstance(found, str) or not found.isprintable():
        raise DvfdError(f"{key}: printable words wanted, got {found!r:.40}")
    found = found.strip()
    if not found and not empty:
        raise DvfdError(f"{key}: missing: who vouches for something does so by name")
    if len(found) > most:
        raise DvfdError(f"{key}: {len(found)} letters, wanted at most {most}")
    return found


def roles(catalogue: Catalogue) -> dict[str, str]:
    """The roles that decide at gates, as the framework writes them, by their small letters."""
    return {role.casefold(): role for gate in catalogue.gates.values() for role in gate.authority}


def _end(found: object, now: float) -> float:
    return now + DAYS * DAY if found is None else expiry(found, now)


def expiry(found: object, now: float) -> float:
    """Unix seconds at which a statement ends. Raises DvfdError if that is past or no time."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise DvfdError(f"expires: Unix seconds wanted, got {found!r:.40}")
    try:
        when = moment(found)
    except (OverflowError, ValueError, OSError):
        raise DvfdError(f"expires: {found!r:.40} is no moment before the year 10000") from None
    if found <= now:
        raise DvfdError(f"expires: {when} is past, it is {moment(now)}: nothing would be attested")
    return float(found)

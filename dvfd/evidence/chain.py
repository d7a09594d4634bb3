"""Records that hang together by their hashes, one on a line. Pure: bytes in, records and words out.

A line is the record as canonical JSON without its hash, and that hash put in as the last key: who
takes it out again has the very bytes that were hashed. docs/evidence.md has it for people.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from dvfd.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ORIGIN = "0" * 64
"""What the first record has for the hash of the one before it."""

FOUNDED = "ledger"
"""Kind of the first record; its subject is the id of the cluster."""

RECORD = 1 << 20
"""Bytes of a record at most: a run with all its criteria is some 10 KB."""

SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"\}$')

NAMED = 20
"""Problems that are named one by one; of a file that is no ledger there are as many as lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened, as it stands in the ledger. `at` is when it was written down."""

    number: int
    at: float
    kind: str
    subject: str
    body: Mapping[str, Any]
    node: str
    submitted: str
    previous: str
    sha256: str

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


WANTED = {f.name for f in fields(Record)}

WORDS = ("kind", "subject", "node", "submitted", "previous")

YEAR_10000 = 253_402_300_800.0
"""Unix seconds from which on a moment has no name."""


def canonical(document: object) -> bytes:
    """JSON of which there is one form: keys in order, no spaces. Raises StoreError for a number
    that is none and for what JSON has no form for.
    """
    try:
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"this cannot be kept as evidence: {error}") from None


def sealed(parts: Mapping[str, Any]) -> tuple[Record, bytes]:
    """The record of *parts*, all but its hash, and its line. Raises StoreError if it is too large
    or no JSON.
    """
    text = canonical(parts)
    if len(text) > RECORD:
        raise StoreError(f"a record of {len(text)} bytes: wanted at most {RECORD}")
    sha256 = hashlib.sha256(text).hexdigest()
    line = text[:-1] + f',"sha256":"{sha256}"}}\n'.encode()
    return Record(**json.loads(text), sha256=sha256), line


def read(line: bytes) -> Record:
    """The record on *line*. Raises StoreError that says what is wrong with it."""
    seal = SEAL.search(line)
    if seal is None:
        raise StoreError(f"no record: {line[:40]!r}")
    said = seal[1].decode()
    is_so = hashlib.sha256(line[: seal.start()] + b"}").hexdigest()
    if said != is_so:
        raise StoreError(f"edited: its content has the hash {is_so[:12]}, it says {said[:12]}")
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise StoreError(f"no record: {line[:40]!r}") from None
    if document.keys() != WANTED:
        raise StoreError(f"no record of this ledger: it has {', '.join(sorted(document))}")
    if wrong := next(_wrong(document), ""):
        raise StoreError(f"no record of this ledger: its {wrong} is {document[wrong]!r:.40}")
    return Record(**document)


def is_moment(value: object) -> bool:
    """Whether *value* is Unix seconds of a moment that has a name."""
    return type(value) in {int, float} and 0 <= value < YEAR_10000  # type: ignore[operator]


def _wrong(document: Mapping[str, Any]) -> Iterator[str]:
    """What of *document* is not what a record has there: its hash is right, whoever made it."""
    if type(document["number"]) is not int:
        yield "number"
    if not is_moment(document["at"]):
        yield "at"
    yield from (key for key in WORDS if not isinstance(document[key], str))
    if not isinstance(document["body"], dict):
        yield "body"


class Chain:
    """Follows lines in their order, and says where they do not hang together."""

    def __init__(self) -> None:
        self.number = 0
        self.sha256 = ORIGIN
        self.cluster = ""
        self._line = 0
        self._broken = False  # the line before is no record: what follows it is not known
        self._problems: list[str] = []
        self._further = 0

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; nothing if all is as it was written."""
        more = [f"and {self._further} more"] if self._further else []
        return [*self._problems, *more]

    def take(self, line: bytes) -> Record | None:
        """The record on *line*, without its newline; None if it is none, or was edited."""
        self._line += 1
        try:
            record = read(line)
        except StoreError as error:
            self.note(f"line {self._line}: {error}")
            self._broken = True
            return None
        self._link(record)
        if self._line == 1:
            self._begin(record)
        self.number, self.sha256 = record.number, record.sha256
        self._broken = False
        return record

    def note(self, problem: str) -> None:
        """Something else is wrong."""
        if len(self._problems) < NAMED:
            self._problems.append(problem)
        else:
            self._further += 1

    def _begin(self, record: Record) -> None:
        if record.kind == FOUNDED:
            self.cluster = record.subject
        else:
            self.note(f"line 1: record {record.number} of kind {record.kind}: the first is missing")

    def _link(self, record: Record) -> None:
        """Note unless *record* follows the one before it."""
        here = f"line {self._line}: record {record.number}"
        wanted = self.number + 1
        if self._broken and record.number == wanted + 1:
            return  # the one between was told of
        if record.number > wanted:
            self.note(f"{here}: wanted {wanted}: {_between(wanted, record.number - 1)} removed")
        elif record.number < wanted:
            self.note(f"{here}: wanted {wanted}: records were repeated or their order was changed")
        elif record.previous != self.sha256:
            self.note(
                f"{here}: it was written after a record with the hash {record.previous[:12]}, the "
                f"one before it has {self.sha256[:12]}: that one was exchanged"
            )


def _between(first: int, last: int) -> str:
    return f"record {first} was" if first == last else f"records {first} to {last} were"

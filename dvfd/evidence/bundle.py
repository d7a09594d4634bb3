"""Evidence for somebody else: the ledger and the reports it names, checked by their hashes alone.

A bundle is a tar file. Nothing of it is unpacked, and nothing that it says is believed unread.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.errors import StoreError
from dvfd.evidence.chain import Chain, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Held = Callable[[str, int, Container[str]], list[str]]

LEDGER, README = "ledger.jsonl", "README"

REPORT = re.compile(r"(runs|evidence/reports)/[A-Za-z0-9_][A-Za-z0-9_.-]*\.json")
"""Where a report may lie, below the state directory and in a bundle."""

LARGEST = 1 << 30
"""Bytes of one file of a bundle at most: two days of sixteen ranks are reported in some 2 MB."""

SPOILT = (EOFError, zlib.error, lzma.LZMAError)
"""What comes of a packed file that was cut off or changed."""

WORDS = """Evidence of a dvfd ledger, cluster {cluster}.
Its last record is {number}, with the SHA-256 {sha256}.

Check it with dvfd:          dvfd evidence verify THIS_FILE --cluster {cluster} --head {sha256}
or with nothing but Python:  see "By hand" in dvfd's docs/evidence.md
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of checking a ledger. `problems` speak against it, `notices` do not."""

    where: str
    cluster: str = ""
    records: int = 0
    number: int = 0
    sha256: str = ""
    at: float | None = None  # of the last record
    reports: int = 0
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """Exit code: 0 whole, 2 not, 3 there is nothing to check."""
        if self.problems:
            return 2
        return 0 if self.records else 3


def checked(
    lines: Iterable[bytes],
    fetch: Callable[[str], bytes | None],
    *,
    where: str,
    cluster: str = "",
    head: str = "",
    held: Held | None = None,
) -> Checked:
    """Check the *lines* of a ledger and the reports that its records name, which *fetch* gives.

    It must be of *cluster* and have a record with the hash *head*, where they are given, and lack
    nothing that who holds it knows: *held* is Evidence.held().
    """
    head = head.strip().lower()
    chain = Chain()
    problems: list[str] = []
    count = reports = 0
    at, heads = None, set[str]()
    for line in lines:
        if not line.endswith(b"\n"):
            problems.append(f"{len(line)} bytes of a record at the end: it was cut off")
            break
        record = chain.take(line[:-1])
        if record is None:
            continue
        count, at = count + 1, record.at
        heads.add(record.sha256)
        if (named := record.body.get("report")) is not None:
            reports += 1
            problems += _report(record, named, fetch)
    if count and cluster and chain.cluster != cluster:
        problems.insert(0, f"of cluster {chain.cluster or 'nobody'}, wanted {cluster}")
    if head and head not in heads:
        problems.insert(0, f"no record has the hash {head}: history was written anew, or it ended")
    if held:
        problems += held(chain.cluster, chain.number, heads)
    return Checked(
        where=where,
        cluster=chain.cluster,
        records=count,
        number=chain.number,
        sha256=chain.sha256 if count else "",
        at=at,
        reports=reports,
        problems=(*problems[:1], *chain.problems, *problems[1:]),
    )


def _report(record: Record, named: object, fetch: Callable[[str], bytes | None]) -> Iterator[str]:
    """What is wrong with the report that *record* names."""
    where, wanted = (
        (named.get("where"), named.get("sha256")) if isinstance(named, dict) else ("", "")
    )
    what = f"record {record.number}: its report {where}"
    if not isinstance(where, str) or not REPORT.fullmatch(where):
        yield f"{what}: no place of a report"
        return
    data = fetch(where)
    if data is None:
        yield f"{what} is not there"
    elif (found := hashlib.sha256(data).hexdigest()) != wanted:
        yield f"{what} has the SHA-256 {found[:12]}, it was written down with {str(wanted)[:12]}"


def named(lines: Iterable[bytes]) -> list[str]:
    """Where the reports lie that the records on *lines* name, each once."""
    chain = Chain()
    records = filter(None, (chain.take(line.rstrip(b"\n")) for line in lines))
    reports = (record.body.get("report") for record in records)
    places = (each.get("where") for each in reports if isinstance(each, dict))
    return list(dict.fromkeys(p for p in places if isinstance(p, str) and REPORT.fullmatch(p)))


def write(
    path: Path,
    lines: Sequence[bytes],
    fetch: Callable[[str], bytes | None],
    held: Held | None = None,
) -> Checked:
    """Write the ledger of *lines*, and the reports that it names, as one file at *path*, whole or
    not at all. What is wrong with them is in the answer: it is carried as it is.

    Raises StoreError if there is a file already, or no room.
    """
    found = checked(lines, fetch, where=str(path), held=held)
    parts = {README: _readme(found).encode(), LEDGER: b"".join(lines)}
    reports = {where: fetch(where) for where in named(lines)}
    parts |= {where: data for where, data in reports.items() if data is not None}
    beside = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise FileExistsError(17, "there is a file already")
        with tarfile.open(beside, "w") as tar:
            for name, data in parts.items():
                _add(tar, name, data, found.at or 0.0)
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(f"{path}: not written: {error.strerror or error}") from None
    return found


def _add(tar: tarfile.TarFile, name: str, data: bytes, at: float) -> None:
    """Nobody's, and as old as the last record: the same ledger gives the same file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), int(at), 0o644
    tar.addfile(entry, io.BytesIO(data))


def _readme(found: Checked) -> str:
    return WORDS.format(cluster=found.cluster, number=found.number, sha256=found.sha256)


def opened(path: Path, *, cluster: str = "", head: str = "") -> Checked:
    """Check the bundle at *path*. Raises StoreError if it is none."""
    try:
        with tarfile.open(path) as tar:
            members = {each.name: each for each in tar.getmembers() if each.isfile()}

            def fetch(name: str) -> bytes | None:
                return _read(tar, members.get(name))

            ledger = fetch(LEDGER)
            if ledger is None:
                raise StoreError(f"{path}: no bundle of evidence: it has no {LEDGER}")
            lines = split(ledger)
            return checked(lines, fetch, where=str(path), cluster=cluster, head=head)
    except (tarfile.TarError, *SPOILT) as error:
        raise StoreError(f"{path}: no bundle of evidence: {error}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes | None:
    if member is None or member.size > LARGEST:
        return None
    file = tar.extractfile(member)
    return None if file is None else file.read()


def row(record: Record) -> Mapping[str, Any]:
    """A record without what would fill a screen."""
    document = record.to_document()
    body = dict(document.pop("body"))
    for long in ("results", "hashes", "fingerprint", "lines"):
        body.pop(long, None)
    return document | {"body": body}


def as_text(record: Record) -> str:
    """A record as a person reads it, whole."""
    return json.dumps(record.to_document(), indent=2, sort_keys=True, ensure_ascii=False)


def split(ledger: bytes) -> list[bytes]:
    """Its lines, by the newline alone."""
    return [line for line in re.split(rb"(?<=\n)", ledger) if line]

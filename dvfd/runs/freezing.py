"""Freeze a run: close its file, judge it once more from that alone, write the report beside it.

A child process judges and renders: two days of sixteen ranks would leave tens of MiB behind in
the daemon. `python -m dvfd.runs.freezing` reads an Evidence from our own pipe, nothing else, and
hands back what it judged: the daemon tells what the report says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import shell
from dvfd.environment import environment_facts, environment_hash
from dvfd.errors import DvfdError
from dvfd.runs.goodput import account
from dvfd.runs.report import as_text, document
from dvfd.runs.run import Run
from dvfd.runs.tally import Context, Tally
from dvfd.runs.verdicts import judged
from dvfd.store.run_reading import Reading, digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from dvfd.config import Config
    from dvfd.model import Catalogue, Check
    from dvfd.runs.rows import Row, Rows
    from dvfd.runs.verdicts import Judged
    from dvfd.runs.watched import Watched

FREEZING = 300.0
"""Seconds that judging and rendering may take; a run of 48 h and 16 ranks takes well below 60."""


CONTEXT, FACTS, ENVIRONMENT = "context", "facts", "environment"
"""Keys of a run's document in its file: what it was held against at its end, what the node was, in
words and as a hash.
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A run's file, and the catalogue that it is judged by."""

    path: Path
    check: Check
    hashes: Mapping[str, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frozen:
    """The files of a report, the SHA-256 of its JSON, and what it says of every criterion."""

    paths: tuple[Path, ...]
    sha256: str
    judged: tuple[Judged, ...]


def freeze(on: Watched, *, config: Config, catalogue: Catalogue) -> Frozen:
    """Close the file of *on* for good, judge it from that, and write the report beside it.

    What the run is held against stands in the file already; what the node was is added, so that
    the file can be judged again without us. Raises OSError, StoreError, DvfdError.
    """
    here = {FACTS: environment_facts(), ENVIRONMENT: environment_hash()}
    on.file.put_document(Reading(on.file.path).document() | here)
    on.file.freeze()
    return by_child(evidence(on.file.path, on.check, config=config, catalogue=catalogue))


def evidence(path: Path, check: Check, *, config: Config, catalogue: Catalogue) -> Evidence:
    """The run's file at *path*, to be judged by this site's catalogue. Raises OSError."""
    hashes = {"catalogue": catalogue.hash, "profile": config.profile_hash, "evidence": digest(path)}
    return Evidence(path, check, hashes, catalogue.overrides)


def by_child(given: Evidence) -> Frozen:
    """`frozen` in a process of its own. Raises DvfdError with what that said."""
    argv = [sys.executable, "-P", "-m", "dvfd.runs.freezing"]
    done = shell.run(argv, timeout=FREEZING, stdin=pickle.dumps(given), nice=5, bound=True)
    if done.code != 0:
        said = done.stderr.strip().splitlines()
        raise DvfdError(f"the report could not be made: {said[-1] if said else done.code}")
    answer = json.loads(done.stdout)
    judged = pickle.loads(base64.b64decode(answer["judged"]))  # noqa: S301  # of our own child
    return Frozen(tuple(map(Path, answer["paths"])), answer["sha256"], judged)


def frozen(given: Evidence) -> Frozen:
    """Judge the file and write its report beside it: JSON, HTML, JUnit, and sums of all of them.

    The JSON comes last: where it is, all is whole. Raises DvfdError rather than take the place of
    another report, StoreError, OSError.
    """
    from dvfd.cli.formats import junit  # noqa: PLC0415  # the daemon only asks us for a child
    from dvfd.runs.render import html  # noqa: PLC0415  # jinja2

    found = _judged(given)
    report = _report(given, found)
    text = as_text(report)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    parts = {
        ".html": html(report, sha256).encode(),
        ".xml": f"{junit(report)}\n".encode(),
        ".json": text.encode(),
    }
    _spare(given.path.with_suffix(".json"), parts[".json"])
    named = {given.path.with_suffix(suffix): data for suffix, data in parts.items()}
    sums = {path.name: hashlib.sha256(data).hexdigest() for path, data in named.items()}
    sums[given.path.name] = given.hashes["evidence"]
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    whole = {given.path.with_suffix(".sha256"): lines.encode(), **named}
    for path, data in whole.items():
        _write(path, data)
    return Frozen(tuple(sorted(whole)), sha256, found)


def judged_again(path: Path, run: Run, check: Check) -> tuple[Judged, ...]:
    """A run that is over, judged from its file alone, on what it was held against at its end.

    Raises StoreError.
    """
    file = Reading(path)
    tally = Tally(run.plan, Context.from_document(file.document().get(CONTEXT) or {}))
    tally.read(file)
    return judged(check, run, tally, t=_end(run), at=run.ended_at or run.seen_at)


def report_of(given: Evidence) -> dict[str, Any]:
    """The report of a run's file, judged from that alone. Raises StoreError, DvfdError."""
    return _report(given, _judged(given))


def _judged(given: Evidence) -> tuple[Judged, ...]:
    run = Run.from_document(Reading(given.path).document())
    return judged_again(given.path, run, given.check)


def _end(run: Run) -> float:
    return run.seen_t if run.ended_t is None else run.ended_t


def _report(given: Evidence, found: Sequence[Judged]) -> dict[str, Any]:
    file = Reading(given.path)
    kept = file.document()
    run = Run.from_document(kept)
    return document(
        run,
        given.check,
        file,
        found,
        where_time_went(run, file, _end(run)),
        hashes={**given.hashes, ENVIRONMENT: kept.get(ENVIRONMENT) or ""},
        overrides=given.overrides,
        environment=kept.get(FACTS) or {},
    )


def where_time_went(run: Run, file: Rows, until: float) -> dict[str, Any] | None:
    """The parts of the run's own time, from its first step to its end; None without a step."""
    if run.began_t is None:
        return None
    told: Iterator[Row] = chain(file.windows(), file.events())
    return account(told, since=run.began_t, until=until, plan=run.plan, run=run.id).to_document()


def _spare(path: Path, data: bytes) -> None:
    """Raises DvfdError if another report lies at *path*; the same one may be written again."""
    if path.exists() and path.read_bytes() != data:
        raise DvfdError(f"{path}: there is another report of this run: move it away first")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also through a power cut."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):  # it must not keep the room that others wait for
            beside.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def main() -> int:
    """Freeze what the daemon hands over; where the files are, on standard output."""
    try:
        given = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
        found = frozen(given)
    except (DvfdError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    judged_here = base64.b64encode(pickle.dumps(found.judged)).decode()
    paths = [str(path) for path in found.paths]
    print(json.dumps({"paths": paths, "sha256": found.sha256, "judged": judged_here}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

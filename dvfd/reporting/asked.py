"""Answer what is asked of a report: which job, which run of it, which period.

The daemon hands the question to a child process (`python -m dvfd.reporting.asked`), since a week of
sixteen ranks takes seconds and tens of MiB; where no daemon runs, the command answers itself.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd import shell
from dvfd.errors import DvfdError, StoreError
from dvfd.query import near
from dvfd.reporting.accounts import known_jobs
from dvfd.reporting.document import document
from dvfd.reporting.from_run import story as story_of_run
from dvfd.reporting.from_store import story
from dvfd.runs.run import Run
from dvfd.runs.shelf import documents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dvfd.config import Cost
    from dvfd.model import Clock, Metric
    from dvfd.reporting.story import Story

PATIENCE = 120.0
"""Seconds that a report may take; a week of sixteen ranks takes about two."""

QUEUE = 10.0
"""Seconds that one waits for the report of another: the daemon makes one at a time."""

HOURS_LIMIT = 1e6
"""Hours that a report looks back at most, as history does."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. `number` is that of a run in the period; None is the newest. `run` names a
    stability run, whose own file tells more.
    """

    job: str
    since: float
    until: float
    number: int | None = None
    run: str = ""

    @classmethod
    def of(cls, request: Mapping[str, Any], now: float) -> Question:
        """Of a request: `job`, `number` or `run`, and `hours` or `since` and `until`.

        Raises DvfdError.
        """
        job, run = str(request.get("job") or ""), str(request.get("run") or "")
        if run:
            return cls(job=job, since=0.0, until=now, run=run)
        number = request.get("number")
        if number is not None and (not isinstance(number, int) or number < 1):
            raise DvfdError(f"run {number!r}: wanted a number from 1 on")
        until = _moment(request.get("until"), now)
        hours = request.get("hours")
        if not isinstance(hours, int | float | None) or not 0 < (hours or 1.0) <= HOURS_LIMIT:
            raise DvfdError(f"hours {hours!r}: wanted a number above 0 and at most {HOURS_LIMIT:g}")
        since = _moment(request.get("since"), until - HOUR * (hours or 168.0))
        until = min(until, now)
        if since >= until:
            raise DvfdError("the period ends before it begins, or begins in the future")
        return cls(job=job, since=since, until=until, number=number)


def _moment(value: object, otherwise: float) -> float:
    if value is None:
        return otherwise
    if isinstance(value, int | float) and 0 <= value < 1e11:
        return float(value)
    raise DvfdError(f"{value!r} is no moment: wanted Unix seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A request and what it is answered from: the store's file and whatever the configuration says
    of this node.
    """

    request: Mapping[str, Any]
    path: Path
    metrics: Mapping[str, Metric]
    node: str
    cost: Cost


def answer(given: Given, clock: Clock) -> dict[str, Any]:
    """The report that is asked for. Raises DvfdError."""
    from dvfd.store import Store  # noqa: PLC0415  # SQL is for the child

    now = clock.now()
    question = Question.of(given.request, now)
    if question.run:
        return document(_of_run(question, given.path.parent / "runs"), given.cost, made_at=now)
    if not given.path.exists():
        raise StoreError(f"{given.path}: not there, so nothing is remembered")
    store = Store.read_only(given.path, given.metrics, clock)
    try:
        known, ran = known_jobs(store)
        told = story(
            store,
            question.job or _only(known),
            known=known,
            node=given.node,
            since=question.since,
            until=question.until,
            now=now,
            ran=ran,
            number=question.number,
        )
        return document(told, given.cost, made_at=now)
    finally:
        store.stop()


def _of_run(question: Question, directory: Path) -> Story:
    """The story of a stability run, from its file. Raises DvfdError if there is none."""
    from dvfd.store.run_reading import Reading  # noqa: PLC0415

    known = {str(found["id"]): found for found in documents(directory)}
    if question.run not in known:
        meant = near(question.run, known)
        hint = f"; did you mean {meant!r}?" if meant else ": dvfd stability list shows its runs"
        raise DvfdError(f"no run {question.run!r} lies in {directory}{hint}")
    run = Run.from_document(known[question.run])
    if question.job not in {"", run.plan.job}:
        raise DvfdError(f"run {run.id} is one of job {run.plan.job!r}, not of {question.job!r}")
    return story_of_run(run, Reading(directory / f"{run.id}.db"))


def _only(known: set[str]) -> str:
    """The one job that there is. Raises DvfdError if there is none, or several."""
    if not known:
        raise DvfdError("no job was looked at on this node yet: nothing to report")
    if len(known) > 1:
        raise DvfdError(f"which job? There are {', '.join(map(repr, sorted(known)[:10]))}")
    return next(iter(known))


def by_child(given: Given) -> dict[str, Any]:
    """`answer` in a process of its own. Raises DvfdError with what that said."""
    argv = [sys.executable, "-P", "-m", "dvfd.reporting.asked"]
    done = shell.run(argv, timeout=PATIENCE, stdin=pickle.dumps(given), nice=5, bound=True)
    if done.code != 0:
        said = done.stderr.strip().splitlines()
        raise DvfdError(said[-1] if said else f"the report could not be made: {done.code}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    """Answer what the daemon hands over."""
    from dvfd import log  # noqa: PLC0415
    from dvfd.clock import SystemClock  # noqa: PLC0415

    log.setup("error")
    try:
        given = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
        found = answer(given, SystemClock())
    except (DvfdError, OSError) as error:
        print(" ".join(str(error).splitlines()), file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(found))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

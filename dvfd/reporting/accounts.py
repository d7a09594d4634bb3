"""Where the time of jobs that no run watches went, run by run, as `dvfd goodput` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.reporting.from_store import accounts
from dvfd.reporting.ran import runs_of
from dvfd.spent import OBSERVED, jobs
from dvfd.telemetry.chronicle import KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.reporting.ran import Ran
    from dvfd.store import Store


def known_jobs(store: Store) -> tuple[set[str], tuple[Ran, ...]]:
    """The names of all jobs that the store knows, and the runs whose ends were kept."""
    ran = runs_of(store.all(KIND).values())
    looked = {dict(own).get("job", "") for name, own in store.lived(0.0) if name == OBSERVED}
    return looked | {each.job for each in ran}, ran


def document(store: Store, *, job: str, since: float, until: float) -> Mapping[str, Any]:
    """The runs of *job* in [since, until], or, unnamed, the newest of each job that has not ended,
    as JSON. Raises DvfdError if there is none.
    """
    known, ran = known_jobs(store)
    names = [job] if job else jobs(store)
    if not names:
        raise DvfdError("no job that has not ended was looked at; --job NAME names one that has")
    found: list[dict[str, Any]] = []
    for name in names:
        runs = accounts(store, name, known=known, since=since, until=until, now=until, ran=ran)
        count = runs[-1][0]
        for number, account in runs if job else runs[-1:]:
            found.append({**account.to_document(), "number": number, "of": count})
    return {"jobs": found}

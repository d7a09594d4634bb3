"""Runs as their own files tell of them, where no daemon answers. Changes nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError, StoreError
from dvfd.runs.run import Run
from dvfd.store.run_reading import Reading

if TYPE_CHECKING:
    from pathlib import Path


def documents(directory: Path) -> list[dict[str, Any]]:
    """The runs whose files lie in *directory*, oldest first. Raises DvfdError if it is closed."""
    try:
        files = [path for path in directory.iterdir() if path.suffix == ".db"]
    except FileNotFoundError:
        return []
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DvfdError(f"{directory}: {cause}, and no daemon answers") from None
    found = []
    for path in files:
        with suppress(StoreError):
            found.append(Reading(path).document())
    return sorted((each for each in found if each), key=lambda each: each["armed_at"])


def answer(directory: Path, run_id: str | None) -> dict[str, Any]:
    """What the daemon would answer about a run, the newest if none is named, from its file, and
    from its report once that is frozen. Raises DvfdError if there is none.
    """
    found = [each for each in documents(directory) if run_id in {None, each["id"]}]
    if not found:
        what = "no run" if run_id is None else f"no run {run_id!r}"
        raise DvfdError(f"no daemon answers, and {what} lies in {directory}")
    run = Run.from_document(found[-1])
    seen = Reading(directory / f"{run.id}.db").last_heartbeat()
    t = run.ended_t or (seen[0] if seen else run.seen_t)
    left = run.left(t)
    return {
        "run": run.to_document(),
        "t": t,
        "elapsed": run.elapsed(t),
        "left": left,
        "ends_at": None,
        "judged": (report(directory, run.id) or {"results": []})["results"],
        "trouble": "",
        "peers": [],
        "led_by": None,
    }


def report(directory: Path, run_id: str) -> dict[str, Any] | None:
    """The frozen report of a run; None where there is none, or none that may be read."""
    try:
        found: dict[str, Any] = json.loads((directory / f"{run_id}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found

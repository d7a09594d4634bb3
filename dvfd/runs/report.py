"""The report of a run, frozen at its end: what it was, and what every criterion was worth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dvfd.model import Verdict, worst
from dvfd.store.run_file import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.config import Config
    from dvfd.model import Catalogue
    from dvfd.runs.run import Run
    from dvfd.runs.verdicts import Judged
    from dvfd.runs.watched import Watched

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def freeze(on: Watched, found: Sequence[Judged], *, config: Config, catalogue: Catalogue) -> str:
    """Close the run's file for good and write its report beside it; the report's SHA-256.

    Raises OSError, StoreError.
    """
    hashes = {"catalogue": catalogue.hash, "profile": config.profile_hash}
    evidence = on.file.freeze()
    text = as_text(document(on.run, found, hashes | {"evidence": evidence}, catalogue.overrides))
    path = on.file.path.with_suffix(".json")
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return digest(path)


def document(
    run: Run, found: Sequence[Judged], hashes: dict[str, str], overrides: Sequence[str]
) -> dict[str, Any]:
    """The report as JSON types."""
    verdict = worst(j.result.verdict for j in found if j.result.criterion.severity == "critical")
    return {
        "schema": SCHEMA,
        "run": run.to_document() | {"frozen": ""},
        "verdict": verdict.value,
        "counts": not run.plan.uncounted and verdict is not Verdict.UNKNOWN,
        "uncounted": list(run.plan.uncounted),
        "results": [judged.to_document() for judged in found],
        "hashes": hashes,
        "overrides": list(overrides),
    }


def as_text(report: dict[str, Any]) -> str:
    """Byte by byte the same for the same report."""
    return json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

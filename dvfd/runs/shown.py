"""The run that is on, as page and /metrics show it, from what its conductor answers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.model import Verdict
from dvfd.runs.run import Run
from dvfd.state import RunLine, RunState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.model import Check


def shown(answer: Mapping[str, Any], checks: Mapping[str, Check]) -> RunState | None:
    """*answer* of `Conductor.status`, or None once that run is over.

    Raises DvfdError if it is none of ours.
    """
    run = Run.from_document(answer["run"])
    if run.stage.over:
        return None
    check = checks.get(run.plan.check)
    return RunState(
        id=run.id,
        check=run.plan.check,
        title=check.title if check else run.plan.check,
        job=run.plan.job,
        stage=run.stage.value,
        elapsed=answer["elapsed"],
        duration=run.plan.duration,
        ends_at=answer["ends_at"],
        uncounted=run.plan.uncounted,
        trouble=answer["trouble"],
        lines=tuple(map(_line, answer["judged"])),
    )


def _line(row: Mapping[str, Any]) -> RunLine:
    outlook = row["outlook"]
    return RunLine(
        criterion=row["criterion"],
        text=row["text"],
        verdict=Verdict(row["verdict"]),
        so_far=Verdict(row["so_far"]),
        reason=row["reason"],
        margin=row["margin"],
        unit=row["unit"],
        left=outlook["words"],
        burn_rate=outlook["burn_rate"],
        lost=outlook["lost"],
        severity=row["severity"],
    )

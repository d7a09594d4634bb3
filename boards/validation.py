"""Criteria, checks and checklists by verdict and phase: what stands between here and GO."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import colours
from boards.limits import catalogue, phases
from boards.parts import Row, asked, bars, board, lines, number, rows, states, verdict
from boards.promql import Query, coded, of, or_unknown

NEVER = "no node answers: UNKNOWN. A check that never ran is UNKNOWN too, and says so."
NAMES = {
    "phase1": "Phase 1, one node",
    "phase2a": "Phase 2a, two nodes",
    "phase2b": "Phase 2b, three nodes",
    "phase2c": "Phase 2c, four nodes",
    "production": "Production checklists",
}


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "dvfd-validation",
        "dvfd: validation",
        "The framework's checks by phase. A check is as good as its worst critical criterion; one "
        "that was never run is UNKNOWN. dvfd recommends: the named authority signs.",
        (
            Row("All checks", _all()),
            *(Row(NAMES[phase], _phase(checks)) for phase, checks in phases().items()),
            Row("Criteria", _criteria()),
        ),
        since="now-7d",
        refresh="1m",
        variables=(
            asked(
                "check",
                "Check",
                'label_values(dvfd_check_verdict{job=~"$job", instance=~"$instance"}, check)',
            ),
        ),
    )


def _some(checks: list[str]) -> str:
    return f'check=~"{"|".join(checks)}"'


def _all() -> tuple[object, ...]:
    return (
        *(
            verdict(
                NAMES[phase].partition(",")[0],
                "The worst verdict of the phase's checks on any chosen node. This is no gate: "
                "gates ask for attestations and No-Go lines too.",
                Query(f"max({coded('dvfd_check_verdict', ['instance'], _some(checks))})"),
                blank=NEVER,
            )
            for phase, checks in phases().items()
        ),
        number(
            "Criteria judged",
            "Criteria of all checks on the chosen nodes.",
            Query(f"count({of('dvfd_criterion_verdict')})"),
            unit="none",
            blank=NEVER,
        ),
        lines(
            "Criteria by verdict",
            "All criteria of the chosen checks on the chosen nodes.",
            *(
                Query(
                    "count("
                    + of("dvfd_criterion_verdict", 'check=~"$check"', f'verdict="{name}"')
                    + ")",
                    name,
                )
                for name in reversed(colours.VERDICTS)
                if name != "WAIVED"
            ),
            unit="short",
            stacked=True,
            colour=colours.VERDICTS,
            blank=NEVER,
        ),
        bars(
            "Criteria by check that are not settled",
            "Criteria that fail or are UNKNOWN, by check.",
            Query(
                "sort_desc(count by (check) ("
                + of("dvfd_criterion_verdict", 'check=~"$check"', 'verdict=~"FAIL|UNKNOWN"')
                + "))",
                "{{check}}",
            ),
            unit="none",
            colour=colours.UNKNOWN,
            blank="every criterion is settled, if criteria are judged at all: see above.",
        ),
    )


def _phase(checks: list[str]) -> tuple[object, ...]:
    by = ["instance", "check"]
    some = _some(checks)
    scheduled = [c for c in checks if catalogue().checks[c].schedule]
    panels: tuple[object, ...] = (
        states(
            "Checks",
            "Each check's verdict over time, on each chosen node: "
            + "; ".join(f"{c}: {catalogue().checks[c].title}" for c in checks)
            + ".",
            Query(
                or_unknown(
                    coded("dvfd_check_verdict", by, some), by, of("dvfd_check_verdict", some)
                ),
                "{{check}} on {{instance}}",
            ),
            span=16 if scheduled else 24,
            height=3 + len(checks),
            blank=NEVER,
        ),
    )
    return (*panels, _runs(_some(scheduled), 3 + len(checks))) if scheduled else panels


def _runs(some: str, height: int) -> object:
    return rows(
        "Last run",
        "Time since each checklist last ran, whatever came out.",
        Query(f"time() - {of('dvfd_check_last_run_timestamp_seconds', some)}"),
        columns={"instance": "Node", "check": "Checklist", "Value": "Ago"},
        unit="s",
        span=8,
        height=height,
        blank="none was ever run: UNKNOWN.",
    )


def _criteria() -> tuple[object, ...]:
    return (
        rows(
            "Criteria of the chosen checks",
            "Every criterion and its verdict now. The node's page shows what was observed.",
            Query(of("dvfd_criterion_verdict", 'check=~"$check"')),
            columns={
                "instance": "Node",
                "check": "Check",
                "criterion": "Criterion",
                "verdict": "Verdict",
            },
            texts=colours.VERDICTS,
            height=16,
            links=(
                ("Node", "The node's page", "${scheme}://${__data.fields.Node}/"),
                ("Criterion", "Runbook", "${runbooks}/DvfdCriterionFailed.md"),
            ),
            blank=NEVER,
        ),
    )

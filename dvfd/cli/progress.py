"""A stability run in words: where it stands, when it ends, what looks worst. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from dvfd.cli.text import causes, paint
from dvfd.masking import masked
from dvfd.model import Severity, Verdict, worst
from dvfd.words import counted, lasting

Document = Mapping[str, Any]

OVER = {"complete", "aborted"}


def document(answer: dict[str, Any], *, running: bool) -> dict[str, Any]:
    """What the daemon, or a run's own files, tell of a run, as every format wants it."""
    answer = masked(answer)
    run, results = answer["run"], answer["judged"]
    decisive = (row["verdict"] for row in results if row["severity"] == Severity.CRITICAL)
    return {
        "running": running or over(run),  # what is over needs nobody to watch it
        "check": run["plan"]["check"],
        "node": run["node"],
        "at": run["ended_at"] or run["seen_at"],
        "verdict": str(worst(map(Verdict, decisive))),
        **{key: value for key, value in answer.items() if key != "judged"},
        "results": results,
    }


def over(run: Document) -> bool:
    """Whether nothing of the run follows."""
    return run["stage"] in OVER


def settled(found: Document) -> bool:
    """Whether the run is over and judged for good: its last checkpoints are verified by then."""
    return over(found["run"]) and bool(found["run"]["frozen"] or found["trouble"])


def text(found: Document) -> str:
    """A run for people: where it stands, then every criterion, worst first."""
    run, plan = found["run"], found["run"]["plan"]
    lines = [f"{run['id']}: {paint(found['verdict'])}, {standing(found)}"]
    if not found["running"]:
        lines.append("no daemon runs here: nobody watches this run")
    if found["trouble"]:
        lines.append(f"it is not watched as it should be: {found['trouble']}")
    lines += nodes(found)
    lines += [f"job {plan['job']}: {' '.join(plan['argv'])}"] if plan["argv"] else []
    if found["results"]:
        lines += [f"Of {len(found['results'])} criteria, {tally(found)}.", ""]
    return "\n".join([*lines, *causes(found["results"])])


def nodes(found: Document) -> list[str]:
    """The other nodes of a run: how old their newest rows are, or who leads and was heard when."""
    lines = []
    if led := found.get("led_by"):
        heard = "not heard yet" if led["heard"] is None else f"heard {_ago(led['heard'])}"
        lines.append(f"part of {led['run'] or 'a run'} at {led['node']}, which leads: {heard}")
    peers = [peer for peer in found.get("peers") or [] if peer["run"] or peer["trouble"]]
    return [*lines, *(f"{peer['node']}: {_peer(peer)}" for peer in peers)]


def _peer(peer: Document) -> str:
    """`newest row 2 s ago, clock +0.001 s`, and what is wrong."""
    parts = ["no row yet" if peer["age"] is None else f"newest row {_ago(peer['age'])}"]
    if peer["clock"] is not None:
        parts.append(f"clock {peer['clock']:+.3f} s")
    return ", ".join([*parts, *filter(None, [peer["trouble"]])])


def _ago(age: float) -> str:
    return f"{lasting(age)} ago"


def standing(found: Document) -> str:
    """`running, 3 h 12 min of 24 h, ends Thu 21:04 (20 h 48 min left)`."""
    run = found["run"]
    words = [run["stage"], f"{lasting(found['elapsed'])} of {lasting(run['plan']['duration'])}"]
    if over(run):
        return ": ".join(filter(None, [", ".join(words), run["reason"]]))
    if run["began_t"] is None:
        return f"{run['stage']}, waits for the first step of all ranks of job {run['plan']['job']}"
    if found["ends_at"] is None:
        return ", ".join(words)
    moment = time.strftime("%a %H:%M:%S", time.localtime(found["ends_at"]))
    return f"{', '.join(words)}, ends {moment} ({lasting(found['left'])} left)"


def tally(found: Document) -> str:
    """How many criteria stand how; of a run that is on, how they would if it ended now."""
    rows = found["results"]
    if over(found["run"]):
        return counted((row["verdict"], row["severity"]) for row in rows)
    return f"{counted((row['so_far'], row['severity']) for row in rows)} so far"


def line(found: Document) -> str:
    """Where it stands, on one line, with the criterion that looks worst."""
    parts = [standing(found)]
    if found["results"]:
        parts.append(tally(found))
    if row := pressing(found["results"]):
        parts.append(f"worst: {row['criterion'].partition('.')[2]} {_figures(row)}")
    return "; ".join(parts)


def pressing(rows: Iterable[Document]) -> Document | None:
    """The criterion nearest to a failure, or beyond; none where nothing can be said of any."""
    found = [row for row in rows if row["so_far"] != Verdict.NOT_APPLICABLE]
    return min(found, key=_need, default=None)


def _need(row: Document) -> tuple[int, float]:
    """How much a criterion needs a look, the least first: lost, failing, burning, unknown, near."""
    outlook, limit, margin = row["outlook"], row["limit"], row["margin"]
    near = margin / (abs(limit) or 1.0) if margin is not None and limit is not None else 0.0
    if outlook["lost"]:
        return 0, near
    if row["so_far"] == Verdict.FAIL:
        return 1, near
    if (outlook["burn_rate"] or 0.0) > 1:
        return 2, -outlook["burn_rate"]
    return (3, 0.0) if row["so_far"] == Verdict.UNKNOWN else (4, near)


def _figures(row: Document) -> str:
    """`FAIL, 12.3 samples/second, wanted < 10, margin -2.3`, as far as it is known."""
    said = "can no longer be met" if row["outlook"]["lost"] else row["so_far"]
    parts = [said]
    if row["observed"] is not None and row["limit"] is not None:
        wanted = f"wanted {row['comparison']} {row['limit']:.4g}"
        parts += [f"{row['observed']:.4g} {row['unit']}", wanted]
    if row["margin"] is not None:
        parts.append(f"margin {row['margin']:.3g}")
    return ", ".join([*parts, *filter(None, [row["outlook"]["words"]])])


def listed(found: Document) -> str:
    """Every run on a line, the newest last."""
    rows = [
        (run["id"], run["stage"], lasting(run["plan"]["duration"]), run["reason"])
        for run in found["runs"]
    ]
    if not rows:
        return "no run is known here: dvfd stability start phase1 --reference"
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(part.ljust(w) for part, w in zip(row[:3], widths, strict=True)), row[3]])
        .rstrip()
        for row in rows
    )  # fmt: skip

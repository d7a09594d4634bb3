"""The report of a job as a document: its story with prices, in the order of a page. Pure.

Page, text and Markdown are made of it alone. Its parts of time add up to the whole, and so do
those of its money; what is not known is null, and `unknown` says why.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dvfd import __version__
from dvfd.jsonable import jsonable
from dvfd.masking import masked
from dvfd.reporting.courses import thinned
from dvfd.reporting.shares import SMALL, hours
from dvfd.runs.goodput import Part, ordered
from dvfd.runs.report import iso
from dvfd.spent import OF_STORE
from dvfd.words import minute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dvfd.config import Cost
    from dvfd.reporting.story import Line, Story, Stragglers

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

HOUR = 3600.0
KILOWATT_HOUR = 3.6e6

LISTED = 50
"""Restarts and ranks that are listed: the worst; all are in the sums."""

TURNS = 1.5
"""Times the mean cost of all ranks up to which ranks take turns at being the slowest."""

SHORT = 3600.0
"""Seconds of a run up to which its ends are told to the second."""

FULL = 0.999
"""A share of the time from which on a meter was read all the time: a look is missed at each end."""

STORED_PAUSES = "pauses between steps, checkpoints among them"
"""What `other` is where the times of checkpoints are not kept."""

STORED_NOTE = (
    "saving and loading checkpoints and announced pauses are among the pauses between steps: the "
    "store keeps no times of them, the file of a stability run does"
)


def document(story: Story, cost: Cost, *, made_at: float) -> dict[str, Any]:
    """The report as JSON types. *cost* is what an hour of one node costs; Unix seconds."""
    money = _Money(story, cost)
    found = {
        "schema": SCHEMA,
        "kind": "job report",
        "job": story.job,
        "node": story.node,
        "run": {
            "id": story.run,
            "number": story.number,
            "runs": [{"since": a, "until": b} for a, b in story.spans],
        },
        "period": {
            "since": story.since,
            "until": story.until,
            "seconds": story.seconds,
            "asked_since": story.asked[0],
            "asked_until": story.asked[1],
            "live": story.live,
        },
        "ending": _ending(story),
        "headline": "",
        "time": _time(story, money),
        "work": {
            "processes": story.world or None,
            "ranks": story.ranks,
            "nodes": story.nodes,
            "steps": _steps(story),
            "steps_again": story.goodput.again if story.numbered else None,
            "samples": story.samples,
            "samples_per_second": _rate(story),
            "loss": _last(story, "loss"),
        },
        "series": [_line(line) for line in story.lines],
        "by_step": {
            "numbered": story.numbered,
            **{name: [list(p) for p in thinned(points)] for name, points in story.by_step.items()},
        },
        "marks": {
            "checkpoints": list(story.checkpoints.times),
            "gaps": [list(span) for span in story.gaps],
        },
        "checkpoints": {
            "seen": len(story.checkpoints.times),
            "saved": story.checkpoints.saved,
            "all": story.checkpoints.whole,
            "seconds": story.checkpoints.seconds,
            "longest": story.checkpoints.longest,
            "failed": story.checkpoints.failed,
        },
        "restarts": _restarts(story),
        "stragglers": _stragglers(story, money),
        "energy": _energy(story),
        "cost": money.to_document(),
        "coverage": {"observed": story.observed, "grain": story.grain, "source": story.source},
        "unknown": list(_unknown(story, cost)),
        "made": {"at": made_at, "iso": iso(made_at), "dvfd": __version__, "hashes": story.hashes},
    }
    found["headline"] = headline(found)
    masked_: dict[str, Any] = jsonable(masked(found))
    return masked_


def _ending(story: Story) -> dict[str, Any] | None:
    """How the run ended; None if it goes on, or nobody knows."""
    ran = story.ran
    if ran is None or not ran.how:
        return None
    return {
        "how": ran.how,
        "why": ran.why,
        "at": ran.ended,
        "iso": iso(ran.ended or 0.0),
        "seen": not ran.blind,
        "ranks": len(ran.ranks),
        "of": ran.here or None,
    }


def _steps(story: Story) -> int | None:
    """None where no rank could be heard: that is not the same as no step."""
    told = story.ran.steps if story.ran and story.since <= story.ran.first else None
    if told is not None:
        return told
    return story.goodput.steps if story.ranks else None


class _Money:
    """What seconds of the job cost; all nodes that are in its story, at the price of this one."""

    def __init__(self, story: Story, cost: Cost) -> None:
        self._story = story
        self._cost = cost

    def of(self, seconds: float) -> float | None:
        """Money for so many seconds."""
        if self._cost.per_hour is None:
            return None
        return seconds * self._story.nodes * self._cost.per_hour / HOUR

    def to_document(self) -> dict[str, Any] | None:
        """None without a price."""
        total = self.of(self._story.seconds)
        if total is None:
            return None
        samples = self._story.samples
        return {
            "currency": self._cost.currency,
            "per_node_hour": self._cost.per_hour,
            "node_hours": self._story.nodes * self._story.seconds / HOUR,
            "total": total,
            "productive": self.of(self._story.goodput.parts[Part.PRODUCTIVE]),
            "per_million_samples": total / samples * 1e6 if samples else None,
        }


def _time(story: Story, money: _Money) -> dict[str, Any]:
    ratio = story.goodput.ratio
    whole = story.seconds
    return {
        "seconds": whole,
        "goodput": ratio[0] if ratio else None,
        "goodput_at_most": ratio[1] if ratio else None,
        "parts": [
            {
                "part": part.name.lower(),
                "words": _words(story, part),
                "seconds": seconds,
                "share": seconds / whole if whole > 0 else None,
                "money": money.of(seconds),
            }
            for part, seconds in ordered(story.goodput.parts)
        ],
        "notes": [STORED_NOTE if note == OF_STORE else note for note in story.notes],
    }


def _words(story: Story, part: Part) -> str:
    return STORED_PAUSES if part is Part.OTHER and story.source == "store" else part.value


def _rate(story: Story) -> float | None:
    """Samples a second of all hours, of the ranks that are in the story."""
    if not story.samples or story.seconds <= 0:
        return None
    return story.samples / story.seconds


def _last(story: Story, name: str) -> float | None:
    """The newest value of a course."""
    for line in story.lines:
        if line.id == name:
            return next((v for v in reversed(line.mean) if v is not None), None)
    return None


def _line(line: Line) -> dict[str, Any]:
    """As the charts of a run's report have it."""
    known = any(value is not None for value in line.mean)
    course = {"name": "all ranks", "mean": list(line.mean), "low": list(line.low),
              "high": list(line.high)}  # fmt: skip
    return {
        "id": line.id,
        "title": line.title,
        "unit": line.unit,
        "since": 0.0,
        "step": line.step,
        "comparison": "",
        "limit": None,
        "expected": None,
        "lines": [course] if known else [],
        "lines_left_out": 0,
    }


def _restarts(story: Story) -> dict[str, Any]:
    """How often, and each of the costliest by time."""
    found = story.restarts
    cost = [r.lost for r in found if r.lost is not None]
    again = [r.again for r in found if r.again is not None]
    worst = sorted(found, key=lambda r: (-(r.lost or 0.0), r.t))[:LISTED]
    return {
        "count": len(found),
        "ranks": sum(restart.ranks for restart in found),
        "seconds": math.fsum(cost) if len(cost) == len(found) else None,
        "steps_again": sum(again) if found and len(again) == len(found) else None,
        "listed": [
            {
                "t": r.t,
                "at": story.since + r.t,
                "ranks": r.ranks,
                "seconds": r.lost,
                "at_most": r.most,
                "steps_again": r.again,
            }
            for r in sorted(worst, key=lambda r: r.t)
        ],
        "left_out": len(found) - len(worst),
    }


def _stragglers(story: Story, money: _Money) -> dict[str, Any]:
    found = story.stragglers
    return {
        "reason": found.reason,
        "compared": found.compared,
        "turns": _turns(found),
        "seconds": found.cost if found.paces else None,
        "money": money.of(found.cost) if found.paces else None,
        "ranks": [
            {
                "rank": pace.rank,
                "node": pace.node,
                "compute": pace.compute,
                "slowest": pace.slowest,
                "seconds": pace.cost,
            }
            for pace in found.paces[:LISTED]
        ],
        "left_out": max(0, len(found.paces) - LISTED),
    }


def _turns(found: Stragglers) -> bool:
    """Whether no rank cost much more than the mean of all: of two, one that does always costs twice
    that.
    """
    costs = [pace.cost for pace in found.paces]
    return bool(costs) and max(costs) <= TURNS * math.fsum(costs) / len(costs)


def _energy(story: Story) -> dict[str, Any]:
    """By source. No counter is a part of another; null is not measured."""
    joules = [meter.joules for meter in story.meters]
    total = math.fsum(joules) if joules else None
    samples = story.samples
    return {
        "joules": total,
        "kwh": None if total is None else total / KILOWATT_HOUR,
        "joules_per_sample": total / samples if total and samples else None,
        "covered": min((m.covered for m in story.meters), default=None),
        "meters": [
            {
                "source": meter.source,
                "name": meter.name,
                "node": meter.node,
                "kwh": meter.joules / KILOWATT_HOUR,
                "covered": meter.covered,
            }
            for meter in story.meters
        ],
    }


def _unknown(story: Story, cost: Cost) -> Iterator[str]:
    """What this report cannot say, and what would make it known."""
    yield from _unmeasured(story)
    yield from _unheard(story)
    if cost.per_hour is None:
        yield 'cost: [cost] per_hour = 12.5 and currency = "EUR" say what an hour of the node costs'
    if story.checkpoints.whole and story.checkpoints.seconds is None:
        yield "time of checkpoints: not every save told how long it took"
    if story.beside:
        yield (
            "energy and cost are of the whole node, and it was shared with "
            f"{', '.join(story.beside)}"
        )


def _unheard(story: Story) -> Iterator[str]:
    """What lies outside of the looks: the ends of a run that nobody kept."""
    ran = story.ran
    if story.source != "store":
        return
    if ran is None or ran.began is None or ran.first < story.since:
        yield "the beginning: what came before the first look is not in this report"
    if not story.live and (ran is None or not ran.how):
        yield "the end: nobody told how the job ended, nor what came after the last look"
    if ran is not None and ran.how and ran.blind:
        yield (
            f"the end: no daemon looked when it came; the job was found over at {moment(ran.last)}"
        )
    if ran is not None and ran.how and ran.samples is None and story.samples:
        yield (
            "samples after the last look: processes, or the daemon, were other ones than at the "
            "beginning, so only what the looks saw is counted"
        )
    if not story.ranks:
        yield "steps: no rank was heard to make one, which does not say that there was none"


def _unmeasured(story: Story) -> Iterator[str]:
    """What nothing was heard of."""
    sources = {meter.source for meter in story.meters}
    if "processor package" not in sources:
        yield "energy of the processors: not measured, for no RAPL counter is read here"
    if "GPU" not in sources:
        yield "energy of GPUs: not measured, for no NVML counter is read here"
    if sources:
        yield "energy of memory, fans, network and power supplies: no counter of theirs is read"
    if story.samples is None:
        yield "samples: no rank tells any, so there is no price of a sample"
    if not any(v is not None for line in story.lines if line.id == "loss" for v in line.mean):
        yield "loss: no rank told one"


# --- In one sentence ----------------------------------------------------------------------------


def headline(found: dict[str, Any]) -> str:
    """What a director needs: how long, how much of it was productive, what was lost, the bill."""
    time, period = found["time"], found["period"]
    ran = "has run" if period["live"] else "ran"
    first = f"{found['job']} {ran} {hours(time['seconds'])}{_how(found['ending'])}"
    if time["goodput"] is None:
        return f"{first}: too short to say where its time went."
    sentence = f"{first}, {_productive(time)} of it productive"
    return "; ".join([sentence, *_lost(time), *_bill(found)]) + "."


OVER = {
    "ended": "ended",
    "failed": "failed",
    "gone": "ended without a word",
    "forgotten": "was forgotten",
}
"""How a run ended, in words."""


def _how(ending: Mapping[str, Any] | None) -> str:
    if ending is None:
        return ""
    if ending["how"] == "ended":
        return " to its end"
    why = f" ({_shortened(ending['why'])})" if ending["why"] else ""
    when = "at" if ending["seen"] else "before"
    return f" and {OVER[ending['how']]} {when} {moment(ending['at'])}{why}"


def over(ending: Mapping[str, Any]) -> str:
    """How and when a run ended, and why, with its ranks."""
    when = "at" if ending["seen"] else "before"
    why = f", {' '.join(ending['why'].split())}" if ending["why"] else ""
    of = f" of {ending['of']}" if ending["of"] else ""
    ranks = f"; {ending['ranks']}{of} ranks here" if ending["ranks"] else ""
    return f"{OVER[ending['how']]} {when} {moment(ending['at'])}{why}{ranks}"


def _shortened(words: str, most: int = 90) -> str:
    line = " ".join(words.split()).rstrip(".;")
    return line if len(line) <= most else f"{line[: most - 3]}..."


def moment(at: float) -> str:
    """A moment to the second, for ends: `2026-07-01 08:49:03 UTC`."""
    return f"{iso(at)[:19].replace('T', ' ')} UTC"


def _productive(time: dict[str, Any]) -> str:
    low, high = time["goodput"], time["goodput_at_most"]
    if high - low < 5e-4:
        return tenths(low)
    return f"{tenths(low)} to {tenths(high)}"


def tenths(share: float) -> str:
    """A share in percent; all of it only if it is all of it."""
    return f"{min(round(1000 * share), 999 if share < 1 else 1000) / 10:g} %"


def _lost(time: dict[str, Any]) -> Iterator[str]:
    parts = [p for p in time["parts"] if p["part"] not in {"productive", "unobserved"}]
    unseen = next(p["seconds"] for p in time["parts"] if p["part"] == "unobserved")
    lost = math.fsum(part["seconds"] for part in parts)
    if lost >= min(1.0, max(0.05, SMALL * time["seconds"])):
        worst = parts[0]
        most = "all of it" if worst["seconds"] > 0.99 * lost else "most of it"
        most = most if worst["seconds"] > lost / 2 else "more than to anything else"
        yield f"{hours(lost)} were lost, {most} to {worst['words']}"
    else:
        yield "nothing was lost" if unseen < 1 else "nothing that was seen was lost"
    if unseen >= 1:
        yield f"for {hours(unseen)} nobody looked"


def _bill(found: dict[str, Any]) -> Iterator[str]:
    energy, cost = found["energy"], found["cost"]
    bill = []
    if energy["kwh"] is not None:
        least = "at least " if energy["covered"] < FULL else ""
        bill.append(f"{least}{energy['kwh']:.3g} kWh")
    else:
        bill.append("energy not measured")
    if cost is not None:
        bill.append(f"{cost['total']:,.2f} {cost['currency']}")
    yield ", ".join(bill)


def named(found: dict[str, Any]) -> str:
    """Which run of which job this is."""
    run, period = found["run"], found["period"]
    if run["id"]:
        return f"{found['job']}, run {run['id']}"
    count = len(run["runs"])
    which = f", run {run['number']} of {count}" if count > 1 else ""
    told = moment if period["seconds"] < SHORT else minute
    return f"{found['job']}{which}, from {told(period['since'])} to {told(period['until'])}"

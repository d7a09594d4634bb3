"""Run the parts of a drill one after the other. The one place that catches what goes wrong in one.

A part that breaks costs its own figures only: why is kept in its own words, and the next one runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from dvfd.drills.drill import About, Elsewhere, Fact, Ran, Remark, Trouble
from dvfd.drills.findings import SKEW, Findings
from dvfd.errors import DvfdError
from dvfd.model import Sample
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from dvfd.drills.drill import Part, Task

log = structlog.get_logger()

Yield = Sample | Remark | Trouble | Fact | Ran | About | Elsewhere


def supervise(task: Task, parts: Sequence[Part], *, by: str = "") -> Findings:
    """Run *parts* and put together what they yield; never raises for what a part does.

    An interruption (Ctrl-C) goes through: the parts' own processes have ended by then.
    """
    began, since = task.clock.now(), task.clock.boot()
    found: list[Yield] = []
    for number, part in enumerate(parts, 1):
        task.say(f"{task.check.id} {number}/{len(parts)}: {part.name}")
        found += _part(task, part)
    ended, elapsed = task.clock.now(), task.clock.boot() - since
    if abs(set_by := ended - began - elapsed) > SKEW:
        found = _on_the_new_clock(found, ended - elapsed, ended, set_by)
        began = ended - elapsed
    return Findings(
        check=task.check.id,
        began=began,
        ended=ended,
        planned=task.check.duration,
        ran=_ran(task, found, elapsed),
        samples=tuple(f for f in found if isinstance(f, Sample)),
        remarks=tuple(f for f in found if isinstance(f, Remark)),
        troubles=tuple(f for f in found if isinstance(f, Trouble)),
        facts=tuple(f for f in found if isinstance(f, Fact)),
        by=by,
        processes=max((f.processes for f in found if isinstance(f, About)), default=0),
        elsewhere=next((f.node for f in found if isinstance(f, Elsewhere)), ""),
    )


def _on_the_new_clock(
    found: Iterable[Yield], began: float, ended: float, set_by: float
) -> list[Yield]:
    """*found* between *began* and *ended*: a clock that was set meanwhile costs no run of hours."""
    return [
        Fact("clock", f"set by {set_by:+.0f} s while this ran: earlier times are approximate"),
        *(
            replace(f, at=min(max(f.at, began), ended)) if isinstance(f, Sample) else f
            for f in found
        ),
    ]


def _ran(task: Task, found: Iterable[Yield], elapsed: float) -> float:
    """Seconds of the check's duration that were really run."""
    told = [f.seconds for f in found if isinstance(f, Ran)]
    return min(told) if told else min(task.planned, elapsed)


def _part(task: Task, part: Part) -> list[Yield]:
    """What *part* yields, up to where it broke."""
    found: list[Yield] = []
    began = task.clock.boot()
    try:
        for each in part.run(task):
            found.append(each)  # noqa: PERF402  # what came before it broke is kept
    except DvfdError as error:
        found += _broken(part, str(error))
    except OSError as error:  # a full disk, a file that went: the world's, not a mistake of ours
        place = error.filename or task.scratch
        found += _broken(part, f"{part.name}: {place}: {error.strerror or error}")
    except Exception as error:  # a mistake of ours costs this part, not the drill
        log.exception("part of a drill crashed", check=task.check.id, part=part.name)
        found += _broken(part, f"{part.name}: crashed: {error!r}; see the log")
    log.debug("part of a drill ran", part=part.name, took=seconds(task.clock.boot() - began))
    return list(_sound(part, found))


def _broken(part: Part, why: str) -> list[Yield]:
    return [Trouble(metric, why) for metric in part.metrics]


def _sound(part: Part, found: Iterable[Yield]) -> Iterable[Yield]:
    """*found* without figures that cannot be: not finite, or of a metric that was not declared."""
    for each in found:
        if not isinstance(each, Sample):
            yield each
        elif each.metric not in part.metrics:
            yield Trouble(each.metric, f"{part.name} measured it without having declared it")
        elif not all(math.isfinite(v) for v in (each.value, each.low or 0.0, each.high or 0.0)):
            yield Trouble(
                each.metric, f"{part.name}: {each.value} is no finite number", each.labels
            )
        else:
            yield each

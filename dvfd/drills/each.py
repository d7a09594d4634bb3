"""A test of each node, on several: every node runs it by itself, then all tell each other.

Of each metric the node counts that is worst off, so that what passes has passed on every node. What
another node did not pass beside it is told as a trouble. Where the others cannot be heard, nothing
passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dvfd.drills import fleet
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError, ProbeError
from dvfd.judge import judge
from dvfd.model import Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.drills.drill import Part, Task
    from dvfd.model import Check, Result

TOLD = "what each node found"

GOOD = frozenset({Verdict.PASS, Verdict.NOT_APPLICABLE})


def wanted(task: Task, parts: Sequence[Part]) -> bool:
    """Whether this is a test of each node that is to be made on several."""
    own = task.check.nodes == 1 and bool(task.check.processes) and not task.options.inside
    return fleet.nodes(task) > 1 and own and not any(isinstance(p, fleet.Between) for p in parts)


def of_all(task: Task, own: Findings) -> Findings:
    """What this node found and what the others did, as one."""
    mine = replace(own, processes=task.processes)
    try:
        found = _heard(fleet.tell(task, TOLD, mine.to_dict()), task.check.id)
    except DvfdError as error:
        why = f"of {fleet.nodes(task)} nodes this one alone is known: {error}"
        metrics = dict.fromkeys(criterion.metric for criterion in task.check.criteria)
        return replace(own, troubles=(*own.troubles, *(Trouble(m, why) for m in metrics)))
    return together(task.check, found, at=task.clock.now())


def _heard(answer: fleet.Answer, check: str) -> dict[str, Findings]:
    """What each node found, by name. Raises ProbeError if one of them did not say."""
    heard = answer.of(TOLD)
    if heard.failures:
        raise ProbeError(heard.why)
    found = {}
    for node in answer.nodes:
        said = heard.values[node.ranks[0]]
        found[node.name] = Findings.from_dict(said if isinstance(said, Mapping) else {})
        if found[node.name].check != check:
            raise ProbeError(f"{node.name} tells of {found[node.name].check}, wanted {check}")
    return found


def together(check: Check, found: Mapping[str, Findings], *, at: float) -> Findings:
    """The findings of all nodes as one, of each metric those of the node that is worst off."""
    results = {name: _judged(check, each, at) for name, each in found.items()}
    metrics = dict.fromkeys(criterion.metric for criterion in check.criteria)
    verdicts = {metric: _verdicts(metric, results) for metric in metrics}
    chosen = {metric: _worst_off(told) for metric, told in verdicts.items()}
    beside = [
        Trouble(r.criterion.metric, f"{name}: {r.reason}", r.criterion.where)
        for name, rows in results.items()
        for r in rows
        if r.verdict not in GOOD and chosen[r.criterion.metric] != name
    ]
    return replace(
        _whole(found),
        samples=tuple(s for n, f in found.items() for s in f.samples if chosen.get(s.metric) == n),
        remarks=(*_said(found, chosen), *_compared(verdicts, chosen)),
        troubles=(*_missed(found, chosen), *beside),
    )


def _whole(found: Mapping[str, Findings]) -> Findings:
    """What is of the run: its times, its facts, all its processes."""
    every = found.values()
    return replace(
        next(iter(every)),
        began=min(each.began for each in every),
        ended=max(each.ended for each in every),
        planned=max(each.planned for each in every),
        ran=min(each.ran for each in every),
        facts=tuple(
            Fact(f.name, f"{n}: {f.text}") for n, each in found.items() for f in each.facts
        ),
        processes=sum(each.processes for each in every),
    )


def _said(found: Mapping[str, Findings], chosen: Mapping[str, str]) -> Iterator[Remark]:
    for name, each in found.items():
        for remark in each.remarks:
            if chosen.get(remark.metric) == name:
                yield replace(remark, text=f"{name}: {remark.text}")


def _missed(found: Mapping[str, Findings], chosen: Mapping[str, str]) -> Iterator[Trouble]:
    for name, each in found.items():
        for trouble in each.troubles:
            if chosen.get(trouble.metric) == name:
                yield replace(trouble, text=f"{name}: {trouble.text}")


def _compared(
    verdicts: Mapping[str, Mapping[str, Verdict]], chosen: Mapping[str, str]
) -> Iterator[Remark]:
    """Of what did not pass everywhere, how it is on each node, and whose figures are shown."""
    for metric, told in verdicts.items():
        if not GOOD.issuperset(told.values()):
            each = ", ".join(f"{name} {verdict}" for name, verdict in told.items())
            yield Remark(metric, f"{each}; the figures are those of {chosen[metric]}")


def _judged(check: Check, found: Findings, at: float) -> list[Result]:
    """Each criterion of *check* held against what one node found, as its own report would."""
    return [
        found.spoken(judge(each, found.samples, at=at, trouble=found.trouble(each)))
        for each in check.criteria
    ]


def _verdicts(metric: str, results: Mapping[str, Sequence[Result]]) -> dict[str, Verdict]:
    """The worst verdict on *metric* of each node."""
    return {
        name: worst(r.verdict for r in rows if r.criterion.metric == metric)
        for name, rows in results.items()
    }


def _worst_off(told: Mapping[str, Verdict]) -> str:
    """The first of the nodes whose verdict is the worst of all."""
    return next(name for name, verdict in told.items() if verdict is worst(told.values()))

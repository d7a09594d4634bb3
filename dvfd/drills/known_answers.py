"""Does every processor still compute right? The same work on each in turn, against known answers.

A hash after a reduction cannot see what was wrong before it: every rank gets the same wrong sum.
Where the right bits depend on the library, the processors of a node are compared with each other.
On several nodes those of all of them are examined, each node's by itself.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import bare, fleet, processors
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.workers import known_answers as worker
from dvfd.drills.workers.arithmetic import KNOWN
from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.drills.drill import Task

METRIC = "known_answer_failures"

START = 60.0
"""Seconds for the worker to begin: importing torch from a cold network disk."""

BETWEEN = "known answers"
"""The exercise of several nodes."""

MOST = 7200.0
"""Seconds for it at the most: 500 processors of which some hang. The same on every node, however
many processors each has."""


@dataclass(frozen=True, slots=True)
class CoreAnswer:
    """What one processor did: seconds of its own time for the fixed work, and what was wrong.

    `untested` says why nothing was computed there; then seconds is 0.
    """

    cpu: int
    seconds: float
    failures: tuple[str, ...] = ()
    untested: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of all processors, with what was done on each."""

    cores: tuple[CoreAnswer, ...]
    operations: tuple[str, ...]
    bytes: int
    software: str
    missing: Mapping[str, str] = field(default_factory=dict)  # operations that none could do

    @property
    def failures(self) -> list[str]:
        """Each with its processor's number."""
        return [f"processor {core.cpu}: {text}" for core in self.cores for text in core.failures]


@dataclass(frozen=True, slots=True)
class Right:
    """The result that an operation must have; `on` which processors, where that is how we know."""

    result: str
    on: tuple[int, ...] = ()


class KnownAnswers:
    """known_answer_failures, of all processors together."""

    name = "known answers"
    metrics = (METRIC,)

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """All of it, where it is on several nodes."""
        worker = "dvfd.drills.workers.fleet_known_answers"
        each = fleet.Exercise(name=BETWEEN, module=worker, seconds=MOST)
        return [each] if fleet.nodes(task) > 1 else []

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Raises ToolError, ProbeError if the worker gives no answer."""
        if fleet.nodes(task) > 1:
            yield from _told(task, of_nodes(fleet.answer(task)))
            return
        if task.training and not task.options.force:
            yield Trouble(
                METRIC, f"a training job runs: {task.training}; --force runs it all the same"
            )
            return
        yield from _told(task, {"": examine(task)})


def _told(task: Task, found: Mapping[str, Answers]) -> Iterator[Sample | Remark | Fact]:
    """One figure of all nodes, by name. Raises ProbeError where none of one's was tested."""
    failures = most = 0
    words: list[Remark | Fact] = []
    for name, answers in found.items():
        before = f"{name}: " if name else ""
        untested = [core for core in answers.cores if core.untested]
        if len(untested) == len(answers.cores):
            raise ProbeError(before + _untested(untested))
        failures += len(answers.failures)
        # A processor that was not looked at might have failed in everything.
        most += len(answers.failures) + len(untested) * len(answers.operations)
        if answers.failures:
            words.append(Remark(METRIC, before + "; ".join(answers.failures)))
        if untested:
            words.append(Remark(METRIC, before + _untested(untested)))
        words.append(Fact("known answers", before + _covered(answers)))
    yield Sample(METRIC, failures, task.clock.now(), low=failures, high=most)
    yield from words


def of_nodes(answer: fleet.Answer) -> dict[str, Answers]:
    """What each node's processors answered. Raises ProbeError if one of them left nothing."""
    heard = answer.of(BETWEEN)
    if heard.failures:
        raise ProbeError(heard.why)
    found = {}
    for node in answer.nodes:
        said: Mapping[str, Any] = next((heard.values[r] for r in node.ranks if heard.values[r]), {})
        try:
            wanted = [int(cpu) for cpu in said["processors"]]
            found[node.name] = _answers(said["document"], wanted)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProbeError(f"{node.name}: no sound known answers: {error!r}") from None
    return found


def measure(task: Task) -> list[CoreAnswer]:
    """Each processor's answer and speed. Raises ToolError, ProbeError."""
    return list(examine(task).cores)


def examine(task: Task) -> Answers:
    """Run the worker in the job's interpreter. Raises ToolError, ProbeError."""
    wanted = sorted(processors.allotted(task))
    place = task.scratch / "known_answers.json"
    argv = [
        task.python,
        str(bare.__file__),
        worker.__name__,
        str(place),
        ",".join(map(str, wanted)),
    ]
    patience = START + len(wanted) * worker.PATIENCE
    out = task.run(argv, timeout=patience, env=processors.alone(), on_line=task.say)
    if out.code:
        words = out.stderr.strip().rpartition("\n")[2] or f"exit code {out.code}"
        raise ToolError(f"known answers: {words}")
    return read(place, wanted)


def read(place: Path, wanted: Sequence[int]) -> Answers:
    """What the worker wrote. Raises ProbeError if that is not about the *wanted* processors."""
    try:
        return _answers(json.loads(place.read_text(encoding="utf-8")), wanted)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProbeError(f"known answers: the worker left no sound answer: {error!r}") from None


def _answers(document: Mapping[str, Any], wanted: Sequence[int]) -> Answers:
    cores = {int(core["cpu"]): core for core in document["cores"]}
    return compare(
        {cpu: cores[cpu] for cpu in wanted},
        tuple(map(str, document["operations"])),
        str(document["software"]),
    )


def compare(
    cores: Mapping[int, Mapping[str, Any]], operations: tuple[str, ...], software: str
) -> Answers:
    """Hold what came out against what is known, and against the other processors."""
    worked = {cpu: core for cpu, core in cores.items() if "results" in core}
    missing = _missing(worked, operations)
    wanted = [name for name in operations if name not in missing]
    if worked and not wanted:
        raise ValueError(f"nothing could be computed: {missing}")
    right = {name: _right(name, worked) for name in wanted}
    return Answers(
        tuple(_answer(cpu, core, right) for cpu, core in cores.items()),
        tuple(wanted),
        sum(int(core["bytes"]) for core in worked.values()),
        software,
        missing,
    )


def _missing(worked: Mapping[int, Any], operations: Sequence[str]) -> dict[str, str]:
    """What every processor refused with an error: a library without it, no broken processor."""
    raised = [core["raised"] for core in worked.values()]
    return {
        name: str(raised[0][name])
        for name in operations
        if raised and all(name in r for r in raised)
    }


def _right(name: str, worked: Mapping[int, Any]) -> Right:
    """What is known, or else the result that most processors gave in every round."""
    if name in KNOWN:
        return Right(KNOWN[name])
    votes: dict[str, list[int]] = {}
    for cpu, core in worked.items():
        came = core["results"].get(name, ())
        if len(came) == 1:
            votes.setdefault(came[0], []).append(cpu)
    usual = max(votes, key=lambda result: len(votes[result]), default="")
    return Right(usual, tuple(votes.get(usual, ())))


def _answer(cpu: int, core: Mapping[str, Any], right: Mapping[str, Right]) -> CoreAnswer:
    if "untested" in core:
        return CoreAnswer(cpu, 0.0, untested=str(core["untested"]))
    if "lost" in core:
        return CoreAnswer(cpu, 0.0, (str(core["lost"]),))
    seconds = float(core["seconds"])
    if not 0 < seconds < math.inf:
        raise ValueError(f"processor {cpu} took {seconds} s")
    said = (_wrong(name, core, known) for name, known in right.items())
    return CoreAnswer(cpu, seconds, tuple(filter(None, said)))


def _wrong(name: str, core: Mapping[str, Any], right: Right) -> str:
    """What is wrong with the results of one operation on one processor, or nothing."""
    if name not in core["results"]:
        return f"{name} raised {core['raised'][name]}, and not on all processors"
    came = core["results"][name]
    if len(came) != 1:
        return f"{name} gave {len(came)} different results of the same operands"
    if came[0] == right.result:
        return ""
    if name in KNOWN:
        return f"{name} gave {came[0][:16]}..., known is {right.result[:16]}..."
    words = f"{name} gave other bits than on processor {processors.listed(right.on)}"
    return f"{words}; of two alone either may be wrong" if len(right.on) == 1 else words


def _untested(cores: Sequence[CoreAnswer]) -> str:
    which = processors.listed(core.cpu for core in cores)
    return f"not tested: processor {which}: {cores[0].untested}"


def _covered(answers: Answers) -> str:
    """What was looked at: none detected is not none."""
    worked = [core for core in answers.cores if core.seconds]
    words = (
        f"{len(answers.operations)} operations on {len(worked)} processors "
        f"({processors.listed(core.cpu for core in worked)}), {answers.bytes / 1e9:.3g} GB of "
        f"results, with {answers.software}"
    )
    if len(worked) == 1:
        words += "; one processor alone: rounded results were compared with none"
    for name, why in answers.missing.items():
        words += f"; left out: {name}: {why}"
    return words

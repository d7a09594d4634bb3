"""Gradient synchronisation: runs the ranks that check it, and reads what they found.

The work is done by `dvfd.drills.workers.gradient` under torchrun, on one node or on several.
`collect` and `read` serve also who has run that worker by itself: `main(argv)` in every rank, then
`read(collect(path), at=now)`.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills import bare, fleet, inside, processors
from dvfd.drills.drill import Fact, Ran, Remark, Trouble
from dvfd.drills.interpreter import first_to_fall
from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dvfd.drills.drill import Task

    Found = Sample | Remark | Trouble | Fact | Ran

PRECISIONS = ("float32", "bfloat16")

OVERALL = ("gradient_agreement_ratio", "gradient_disagreements", "gradient_pairs_compared")
BY_PRECISION = ("gradient_norm_agreement_ratio", "gradient_bounded_ratio")
IN_FLOAT32 = ("gradient_close_ratio", "gradient_exact_ratio")
RECOMPUTED = "gradient_recomputed_differently"
FAILURES = "collective_failures"

START = 300.0
"""Seconds beyond the training that the ranks may take: torchrun on a busy node, reading the text,
a last collective that waits its minute out."""

BRIEF = 60.0
"""Seconds that a run may take where what takes minutes is left out."""

ANSWER = "gradient.json"

BETWEEN = "gradients"
"""The exercise of the ranks of several nodes."""

SHOWN = 3
"""Disagreements that a remark tells one by one."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """The part: agreement of the ranks, closeness to the truth, norms, failed collectives."""

    name: str = "gradients"
    metrics: tuple[str, ...] = (*OVERALL, *BY_PRECISION, *IN_FLOAT32, RECOMPUTED, FAILURES)

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """All of it, where it is on several nodes."""
        if fleet.nodes(task) < 2 or _left_out(task):
            return []
        told = {"arguments": _training(task.planned, task.config.profile.backend)}
        worker = "dvfd.drills.workers.fleet_gradient"
        long = task.planned + START
        return [fleet.Exercise(name=BETWEEN, module=worker, seconds=long, options=told)]

    def run(self, task: Task) -> Iterator[Found]:
        """Train for the planned time. Raises ProbeError if the ranks left no answer."""
        if why := _refusal(task):
            yield from (Trouble(metric, why) for metric in self.metrics)
            return
        answer, ended = _between(task) if fleet.nodes(task) > 1 else _here(task)
        if fleet.nodes(task) > 1:
            yield from fleet.facts(fleet.answer(task))
        judged = {criterion.metric for criterion in task.check.criteria}
        for found in read(answer, at=task.clock.now(), ended=ended):
            if not isinstance(found, Sample | Trouble) or found.metric in judged:
                yield found  # bits equal to one process's are judged where readings are off


def _refusal(task: Task) -> str:
    """Why nothing is run, or an empty string. On several nodes a training job is told to all."""
    if why := _left_out(task):
        return why
    if fleet.nodes(task) > 1:
        return ""
    if task.training and not task.options.force:
        return f"a training job runs: {task.training}; --force runs it all the same"
    if task.processes < 2:
        return "processes_per_node is 1: wanted at least two ranks to agree with each other"
    return ""


def _left_out(task: Task) -> str:
    return "left out: --no-soak" if not task.options.soak and task.planned > BRIEF else ""


def _here(task: Task) -> tuple[dict[str, Any], str]:
    """The answer of this node's ranks, and why they ended early. Raises ProbeError."""
    path = (inside.shared() if task.options.inside else task.scratch) / ANSWER
    ended = _join(task, path) if task.options.inside else _launch(task, path)
    return collect(path, ended), ended


def _between(task: Task) -> tuple[dict[str, Any], str]:
    """The same of the ranks of several nodes. Raises NotMet, ProbeError, ToolError, ConfigError."""
    return gathered(fleet.answer(task).of(BETWEEN))


def gathered(heard: fleet.Heard) -> tuple[dict[str, Any], str]:
    """The answer among what the ranks said, with the notes of those whose collective failed; and
    why they ended early. Raises ProbeError if there is none.
    """
    try:
        answers = [said["answer"] for said in heard.values.values() if "answer" in said]
        notes = [dict(said["note"]) for said in heard.values.values() if "note" in said]
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"answer of the ranks: {error!r}: wanted what they write") from None
    if not answers:
        raise ProbeError(f"the ranks left no answer: {heard.why or 'no word why'}")
    return _noted(answers[0], notes), heard.why or ("a collective failed" if notes else "")


def _launch(task: Task, path: Path) -> str:
    """Run the ranks to their end; why they ended before it, or an empty string."""
    argv = [
        task.python, "-m", "torch.distributed.run", "--standalone",
        f"--nproc_per_node={task.processes}", bare.__file__, "dvfd.drills.workers.gradient",
        *arguments(path, task.planned, task.config.profile.backend),
    ]  # fmt: skip
    threads = max(1, len(processors.allotted(task)) // task.processes)
    env = {"OMP_NUM_THREADS": str(threads), **os.environ}
    try:
        done = task.run(argv, timeout=task.planned + START, env=env, on_line=task.say)
    except ToolError as error:
        return str(error)
    return "" if done.code == 0 else last_words(done.stderr) or f"torchrun: exit code {done.code}"


def arguments(path: Path, seconds: float, backend: str) -> list[str]:
    """What the worker is told."""
    return [f"--answer={path}", *_training(seconds, backend)]


def _training(seconds: float, backend: str) -> list[str]:
    return [f"--seconds={seconds:g}", f"--backend={backend}"]


def _join(task: Task, path: Path) -> str:
    """Be rank 0 of the ranks that are there; why they ended before it, or an empty string."""
    if (given := inside.world()) != task.processes:
        raise ProbeError(
            f"torchrun started {given} ranks, profile.processes_per_node is {task.processes}: "
            f"give --nproc_per_node={task.processes}"
        )
    path.unlink(missing_ok=True)
    code = follow(path, task.planned, task.config.profile.backend)
    return "a collective failed" if code else ""


def follow(path: Path, seconds: float, backend: str) -> int:
    """Be one of the ranks; 0 if they came to their end."""
    from dvfd.drills.workers import gradient  # noqa: PLC0415  # torch, in a rank only

    return gradient.main(arguments(path, seconds, backend))


def last_words(stderr: str) -> str:
    """Which rank torchrun saw fail first, and what a rank said of it, else the last line."""
    if ended := first_to_fall(stderr):
        said = re.search(
            r"^(?:\[rank\d+\]: *)?(\w*(?:Error|error|Exception): .*)$",
            stderr.rpartition("Root Cause")[0],
            re.MULTILINE,
        )
        return f"{ended}: {said[1]}" if said else ended
    lines = [line.strip() for line in stderr.splitlines() if re.search(r"\w", line)]
    return lines[-1] if lines else ""


def collect(path: Path, ended: str = "") -> dict[str, Any]:
    """The answer at *path* with the notes of ranks whose collective failed, the first one first, as
    its `failures`.

    Raises ProbeError, in the words of *ended*, if there is none.
    """
    try:
        answer = _document(path)
    except FileNotFoundError:
        raise ProbeError(f"the ranks left no answer: {ended or 'no word why'}") from None
    return _noted(answer, map(_document, path.parent.glob(f"{path.name}.failed-*")))


def _noted(answer: Mapping[str, Any], notes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    first = sorted(notes, key=lambda note: (note.get("time", 0.0), note.get("rank")))
    return {**answer, "failures": first}


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProbeError(f"{path.name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ProbeError(f"{path.name}: {str(found)[:80]}: wanted an object")
    return found


# --- What the ranks found -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of one precision, each at least 0. The names are the worker's own."""

    steps: int
    pairs: int
    disagreements: int
    bytes: int
    norms_agreed: int
    nonfinite: int
    sampled: int
    elements: int
    close: int
    bounded: int
    replayed: int
    alone: int
    alone_equal: int
    alone_close: int
    recomputed: int
    recomputed_differently: int

    @classmethod
    def of(cls, ledger: Mapping[str, Any]) -> Counts:
        """Raises ProbeError where one is missing, no count, or more than what it is a part of."""
        try:
            given = {**ledger["tally"], "sampled": ledger["tally"]["pairs"], **_top(ledger)}
            found = cls(**{f.name: _count(f.name, given[f.name]) for f in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ProbeError(f"answer of the ranks: {error!r}: wanted what they write") from None
        for part, whole in _PARTS:
            if getattr(found, part) > getattr(found, whole):
                raise ProbeError(
                    f"answer of the ranks: {part} is {getattr(found, part)},"
                    f" more than {whole}, {getattr(found, whole)}"
                )
        return found


_PARTS = (
    ("disagreements", "pairs"), ("norms_agreed", "steps"), ("nonfinite", "steps"),
    ("close", "elements"), ("bounded", "elements"), ("replayed", "elements"),
    ("alone_equal", "alone"), ("alone_close", "alone"), ("recomputed_differently", "recomputed"),
)  # fmt: skip


def _top(ledger: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the tally. Both have `pairs`; here they are those that were hashed."""
    return {key: value for key, value in ledger.items() if key != "tally"}


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ProbeError(f"answer of the ranks: {name} is {value!r}, wanted a count")
    return value


def read(answer: Mapping[str, Any], *, at: float, ended: str = "") -> Iterator[Found]:
    """Samples of Unix time *at*, and words, from an answer; *ended* is why the ranks ended early.

    Raises ProbeError if it is not what the worker writes.
    """
    try:
        passes = {name: answer["passes"][name] for name in PRECISIONS}
        counts = {name: Counts.of(ledger) for name, ledger in passes.items()}
        seconds, world = float(answer["seconds"]), int(answer["world"])
        done, failures = answer["done"] is True, list(answer["failures"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"answer of the ranks: {error!r}: wanted what they write") from None
    if not math.isfinite(seconds) or world < 2:
        raise ProbeError(f"answer of the ranks: {seconds} seconds of {world} ranks, wanted two")
    early = "" if done else ended or "they ended early and did not say why"
    yield Ran(seconds)
    yield from _overall(counts, early, at)
    for name, each in counts.items():
        why = str(passes[name].get("error") or "") or early
        yield from _precise(name, each, why, at)
    yield from _in_float32(counts["float32"], early, at)
    yield from _recomputed(counts, passes, early, at)
    yield from _failures(failures, early, at)
    yield from _remarks(passes)
    yield from _facts(answer, passes, counts)


def _overall(counts: Mapping[str, Counts], early: str, at: float) -> Iterator[Found]:
    pairs = sum(c.pairs for c in counts.values())
    differ = sum(c.disagreements for c in counts.values())
    if not pairs and early:  # it did not come to comparing; after a whole run 0 is a finding
        yield from (Trouble(metric, early) for metric in OVERALL)
        return
    yield from _ratio("gradient_agreement_ratio", pairs - differ, pairs, "no bucket compared", at)
    yield Sample("gradient_disagreements", differ, at)
    yield Sample("gradient_pairs_compared", pairs, at)


def _precise(name: str, found: Counts, why: str, at: float) -> Iterator[Found]:
    where = {"precision": name}
    norms, bounded = BY_PRECISION
    yield from _ratio(norms, found.norms_agreed, found.steps, why or "no step", at, **where)
    yield from _ratio(
        bounded, found.bounded, found.elements, why or "no step was sampled", at, **where
    )


def _in_float32(found: Counts, early: str, at: float) -> Iterator[Found]:
    close, exact = IN_FLOAT32
    why = early or "no step was sampled"
    yield from _ratio(close, found.close, found.elements, why, at)
    yield from _ratio(exact, found.alone_equal, found.alone, why, at)


def _ratio(
    metric: str, part: int, whole: int, why: str, at: float, **where: str
) -> Iterator[Sample | Trouble]:
    if whole:
        yield Sample(metric, part / whole, at, labels(**where))
    else:
        yield Trouble(metric, why, labels(**where))


def _recomputed(
    counts: Mapping[str, Counts], passes: Mapping[str, Any], early: str, at: float
) -> Iterator[Found]:
    if any(c.recomputed for c in counts.values()):
        yield Sample(RECOMPUTED, sum(c.recomputed_differently for c in counts.values()), at)
    for name, found in counts.items():
        if found.recomputed or passes[name].get("error"):
            continue
        if found.steps and not passes[name].get("reproducible"):
            yield Trouble(
                RECOMPUTED,
                f"{name}: a rank that computes its gradient twice does not get the same bits here,"
                " so a difference between two ranks says nothing",
            )
        else:
            yield Trouble(RECOMPUTED, f"{name}: {early or 'no step was sampled'}")


def _failures(failures: list[Any], early: str, at: float) -> Iterator[Found]:
    if failures:
        yield Sample(FAILURES, len(failures), at)
        first = failures[0]
        words = f"rank {first.get('rank')}, {first.get('at')}: {first.get('error')}"
        yield Remark(FAILURES, "; ".join(filter(None, (early, words))))
    elif early:
        yield Trouble(FAILURES, f"the ranks did not come to their end: {early}")
    else:
        yield Sample(FAILURES, 0, at)


def _remarks(passes: Mapping[str, Any]) -> Iterator[Remark]:
    for name, ledger in passes.items():
        for step, bucket, ranks in ledger.get("examples", [])[:SHOWN]:
            who = ", ".join(map(str, ranks))
            text = f"{name}, step {step}, bucket {bucket}: rank {who} has other bits"
            yield Remark("gradient_disagreements", text)
        if ledger.get("norm_example"):
            text = f"norms of the ranks differ first at {ledger['norm_example']}"
            yield Remark("gradient_norm_agreement_ratio", text, labels(precision=name))
        if ledger.get("nonfinite"):
            text = f"{ledger['nonfinite']} steps whose norm is NaN or infinite: they never agree"
            yield Remark("gradient_norm_agreement_ratio", text, labels(precision=name))


def _facts(
    answer: Mapping[str, Any], passes: Mapping[str, Any], counts: Mapping[str, Counts]
) -> Iterator[Fact]:
    """The coverage: none detected is not none."""
    for name, found in counts.items():
        if not found.steps:
            continue
        ledger = passes[name]
        cores = processors.listed(ledger.get("cores", [])) or "not sampled"
        yield Fact(
            f"coverage, {name}",
            f"{found.steps} steps of {len(ledger.get('buckets', []))} buckets,"
            f" {found.bytes / 1e9:.3g} GB hashed in each of {answer['world']} ranks;"
            f" {found.sampled} buckets ({found.elements:.3g} elements) held against float64;"
            f" {found.recomputed} gradients computed again by another rank; processors {cores}",
        )
        if found.alone:
            yield Fact(
                f"one process, {name}",
                f"{_percent(found.alone_equal, found.alone)} of the reduced elements equal those"
                " of one process with the whole batch bit by bit,"
                f" {_percent(found.alone_close, found.alone)} by isclose(1e-5, 1e-7)",
            )
        if found.elements:
            yield Fact(
                f"order of the sum, {name}",
                f"{_percent(found.replayed, found.elements)} of the elements equal the sum in one"
                " of the orders of a ring",
            )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.4g} %"

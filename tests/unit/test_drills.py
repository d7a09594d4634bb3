"""Active tests: one part's trouble stays its own, and what is found is judged as one run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_drills import judged, task

from dvfd import drills
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drilled import Drilled
from dvfd.drills.drill import Fact, Options, Ran, Remark, Task, Trouble
from dvfd.drills.findings import Findings, strange
from dvfd.drills.supervise import supervise
from dvfd.errors import DvfdError, ProbeError, ToolError
from dvfd.judgements import Judgements
from dvfd.model import DRILL, Report, Sample, Verdict, labels

CATALOGUE = load(Config())
NOW = FakeClock().now()
AGREE = "gradient_agreement_ratio"
CHECK = CATALOGUE.checks["gradient_sync"]


class Says:
    """A part that yields what it was given; an exception among it is raised."""

    def __init__(self, *said: Any, metrics: tuple[str, ...] = (AGREE,)) -> None:
        self.name, self.metrics, self._said = "says", metrics, said

    def run(self, _task: Any) -> Any:
        for each in self._said:
            if isinstance(each, Exception):
                raise each
            yield each


def sync(directory: Path, **options: Any) -> Task:
    chosen = Options(**options)
    return task(CHECK.id, directory, check=drilling().checks[CHECK.id], options=chosen)


def found(*said: Any, directory: Path, **options: Any) -> Findings:
    chosen = sync(directory, **options)
    return supervise(chosen, [Says(*said, Ran(chosen.planned))])


def agreement(value: float = 1.0, at: float = NOW) -> Sample:
    return Sample(AGREE, value, at)


# --- Supervising --------------------------------------------------------------------------------


def test_a_part_that_breaks_keeps_its_words_and_what_it_had(tmp_path: Path) -> None:
    parts = [Says(agreement(), ToolError("gloo: no route")), Says(Fact("cpu", "two"))]
    findings = supervise(sync(tmp_path), parts)
    assert findings.samples == (agreement(),)
    assert findings.troubles == (Trouble(AGREE, "gloo: no route"),)
    assert findings.facts == (Fact("cpu", "two"),)


def test_a_full_disk_is_told_with_its_place_and_is_no_crash(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device", "/tmp/plan.json")
    [trouble] = supervise(sync(tmp_path), [Says(full)]).troubles
    assert trouble.text == "says: /tmp/plan.json: No space left on device"


def test_a_mistake_in_a_part_is_told_and_costs_nobody_else_anything(tmp_path: Path) -> None:
    parts = [Says(KeyError("rank")), Says(agreement())]
    findings = supervise(sync(tmp_path), parts)
    assert "crashed: KeyError('rank')" in findings.troubles[0].text
    assert findings.samples == (agreement(),)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_a_trouble(tmp_path: Path, value: float) -> None:
    findings = found(agreement(value), directory=tmp_path)
    assert not findings.samples
    assert "no finite number" in findings.troubles[0].text


def test_a_figure_that_was_not_declared_is_a_trouble(tmp_path: Path) -> None:
    findings = found(Sample("hardware_usable_cores", 4, NOW), directory=tmp_path)
    assert not findings.samples
    assert "without having declared" in findings.troubles[0].text


# --- Shortened ----------------------------------------------------------------------------------


def test_a_full_run_passes(tmp_path: Path) -> None:
    world = sync(tmp_path)
    assert judged(world, found(agreement(), directory=tmp_path))["agreement"].verdict == "PASS"


def test_a_shortened_run_cannot_pass(tmp_path: Path) -> None:
    findings = found(agreement(), directory=tmp_path, duration=60.0)
    result = judged(sync(tmp_path), findings)["agreement"]
    assert result.verdict == "UNKNOWN"
    assert result.reason.startswith("shortened, 60 s of 4 h: passes so far")


def test_a_shortened_run_can_fail(tmp_path: Path) -> None:
    findings = found(agreement(0.5), directory=tmp_path, duration=60.0)
    assert judged(sync(tmp_path), findings)["agreement"].verdict == "FAIL"


def test_a_run_that_ended_early_is_shortened_though_nobody_asked(tmp_path: Path) -> None:
    findings = supervise(sync(tmp_path), [Says(agreement())])
    assert findings.shortened == "nothing of 4 h"


def test_a_longer_run_is_not_shortened(tmp_path: Path) -> None:
    assert found(agreement(), directory=tmp_path, duration=20_000.0).shortened == ""


def test_what_was_measured_in_part_cannot_pass(tmp_path: Path) -> None:
    findings = found(agreement(), Trouble(AGREE, "rank 3 died"), directory=tmp_path)
    result = judged(sync(tmp_path), findings)["agreement"]
    assert result.verdict == "UNKNOWN"
    assert result.reason.startswith("not all of it was measured: rank 3 died; the rest passes")


def test_what_was_measured_in_part_can_fail(tmp_path: Path) -> None:
    findings = found(agreement(0.5), Trouble(AGREE, "rank 3 died"), directory=tmp_path)
    assert judged(sync(tmp_path), findings)["agreement"].verdict == "FAIL"


# --- Words --------------------------------------------------------------------------------------


def test_a_trouble_is_the_reason_of_an_unknown(tmp_path: Path) -> None:
    results = judged(sync(tmp_path), [Trouble(AGREE, "rank 2 died: signal 9")])
    assert results["agreement"].verdict == "UNKNOWN"
    assert "rank 2 died: signal 9" in results["agreement"].reason


def test_a_remark_stands_beside_the_result_it_is_about(tmp_path: Path) -> None:
    norms = Remark("gradient_norm_agreement_ratio", "half precision", labels(precision="bfloat16"))
    results = judged(sync(tmp_path), [norms])
    assert results["bfloat16_norms"].note == "half precision"
    assert not results["norms"].note


# --- Clocks -------------------------------------------------------------------------------------


class Sets:
    """A part during which the wall clock is set."""

    name, metrics = "sets", (AGREE,)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, task: Any) -> Any:
        yield agreement(at=task.clock.now())
        task.clock.advance(20)
        task.clock.step(self._seconds)
        yield agreement(at=task.clock.now())


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_during_a_run_costs_nothing_of_it(
    tmp_path: Path, seconds: float
) -> None:
    world = sync(tmp_path)
    findings = supervise(world, [Sets(seconds)])
    assert not strange(findings, CHECK, drilling(), at=world.clock.now())
    assert findings.ended - findings.began == pytest.approx(20)
    assert len(findings.samples) == 2
    assert f"set by {seconds:+d} s" in findings.facts[0].text


def test_a_clock_that_was_left_alone_is_not_spoken_of(tmp_path: Path) -> None:
    assert not supervise(sync(tmp_path), [Sets(0)]).facts


# --- On their way -------------------------------------------------------------------------------


def whole(**changes: Any) -> Findings:
    findings = Findings(
        check="gradient_sync", began=NOW - 9, ended=NOW, planned=14400, ran=14400,
        samples=(Sample(AGREE, 1.0, NOW, (), 0.9, 1.0),),
        remarks=(Remark(AGREE, "a", labels(rank=1)),), troubles=(Trouble(AGREE, "b"),),
        facts=(Fact("cpu", "c"),), by="root",
    )  # fmt: skip
    return replace(findings, **changes)


def test_findings_arrive_as_they_were_sent() -> None:
    assert Findings.from_dict(json.loads(json.dumps(whole().to_dict()))) == whole()


@pytest.mark.parametrize(
    "change",
    [
        {"began": "now"}, {"samples": [["x"]]}, {"samples": [[AGREE, math.nan, NOW, {}]]},
        {"samples": 7}, {"facts": [["one"]]}, {"troubles": [[AGREE, "x", None]]}, {"ran": True},
        {"ran": 10**400}, {"samples": [[AGREE, 10**400, NOW, {}]]},
        {"samples": [[AGREE, 1.0, NOW, {}, 2.0, 1.0]]},
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_words(change: dict[str, Any]) -> None:
    with pytest.raises(ProbeError, match="findings of a drill"):
        Findings.from_dict(whole().to_dict() | change)


def test_no_word_of_a_tool_reaches_a_terminal_as_a_command() -> None:
    title, where = "a\x1b]0;title\x07b\nc", labels(rank="\x1b[2J")
    said = whole(
        samples=(Sample(AGREE, 1.0, NOW, where),), remarks=(Remark(AGREE, title, where),),
        troubles=(Trouble(AGREE, title),), facts=(Fact(title, title),),
    )  # fmt: skip
    arrived = Findings.from_dict(json.loads(json.dumps(said.to_dict())))
    assert arrived.facts == (Fact("a ]0;title b\nc", "a ]0;title b\nc"),)
    assert arrived.remarks[0].labels == arrived.samples[0].labels == labels(rank=" [2J")
    assert "\x1b" not in repr(arrived) + arrived.troubles[0].text


def test_too_much_is_refused_and_not_cut_where_the_failure_may_stand() -> None:
    rows = [[AGREE, 1.0, NOW, {}]] * 10_000 + [[AGREE, 0.0, NOW, {}]]
    with pytest.raises(ProbeError, match="10001 samples, at most 10000"):
        Findings.from_dict(whole().to_dict() | {"samples": rows})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ended": NOW + 60}, "now is"),
        ({"samples": (Sample("job_loss", 1.0, NOW),)}, "no figure of a drill"),
        ({"samples": (Sample("hardware_usable_cores", 1.0, NOW),)}, "no figure of a drill"),
        ({"samples": (Sample(AGREE, 1.0, NOW, labels(rank=1)),)}, "labels"),
        ({"samples": (Sample(AGREE, 1.0, NOW - 3600),)}, "outside the run"),
    ],
)
def test_findings_of_something_else_are_refused(change: dict[str, Any], said: str) -> None:
    [problem] = strange(whole(**change), CHECK, drilling(), at=NOW)
    assert said in problem


def drilling() -> Any:
    """The catalogue with the figures of gradient_sync measured, whatever is so far."""
    metrics = {
        name: replace(metric, source=DRILL if name == AGREE else metric.source)
        for name, metric in CATALOGUE.metrics.items()
    }
    criteria = tuple(replace(c, source=DRILL) if c.metric == AGREE else c for c in CHECK.criteria)
    check = replace(CHECK, drill=True, criteria=criteria)
    return replace(CATALOGUE, metrics=metrics, checks={**CATALOGUE.checks, check.id: check})


class Shelf:
    """A store that holds an old figure, which must not be judged."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], Any] = {}
        self.written: list[Sample] = []
        self.kept: list[Report] = []

    def write(self, samples: Any) -> None:
        self.written += samples

    def put(self, kind: str, key: str, document: Any) -> None:
        self.documents[kind, key] = document

    def get(self, kind: str, key: str) -> Any:
        return self.documents.get((kind, key))

    def samples(self, _criterion: Any, *, until: float) -> list[Sample]:
        return [agreement(0.1, until)]

    def keep(self, report: Report, *, scheduled: float | None = None) -> None:
        self.kept.append(report)


def report(shelf: Shelf, *runs: Findings) -> Report:
    catalogue, clock = drilling(), FakeClock()
    drilled = Drilled(catalogue, shelf)
    for findings in runs:
        drilled.keep(findings, at=clock.now())
    judgements = Judgements(catalogue, store=shelf, clock=clock, drilled=drilled.newest)
    return judgements.run_check(catalogue.checks["gradient_sync"])


def of(found: Report, name: str) -> Any:
    return next(r for r in found.results if r.criterion.id == f"gradient_sync.{name}")


def test_only_the_newest_run_is_judged() -> None:
    bad = whole(samples=(agreement(0.2),))
    assert of(report(Shelf(), bad, whole(samples=(agreement(1.0),))), "agreement").observed == 1.0


def test_a_figure_that_the_newest_run_lacks_is_not_taken_from_the_one_before() -> None:
    result = of(report(Shelf(), whole(), whole(samples=())), "agreement")
    assert result.verdict is Verdict.UNKNOWN
    assert "b" in result.reason


def test_a_test_that_was_never_run_says_how_to_run_it() -> None:
    result = of(report(Shelf()), "agreement")
    assert result.verdict is Verdict.UNKNOWN
    assert "dvfd check gradient_sync" in result.reason


def test_a_run_as_short_as_another_catalogue_asks_cannot_pass_by_ours() -> None:
    short = whole(planned=60, ran=60, samples=(agreement(),), troubles=())
    result = of(report(Shelf(), short), "agreement")
    assert result.verdict is Verdict.UNKNOWN
    assert "shortened, 60 s of 4 h" in result.reason


def test_a_figure_is_kept_as_history_and_the_run_with_its_report() -> None:
    shelf = Shelf()
    run = report(shelf, whole()).run
    assert shelf.written == list(whole().samples)
    assert run
    assert (run.by, run.facts) == ("root", (("cpu", "c"),))


def test_what_lies_damaged_in_the_store_is_no_run() -> None:
    shelf = Shelf()
    shelf.put("drill", "gradient_sync", {"check": "gradient_sync"})
    assert of(report(shelf), "agreement").verdict is Verdict.UNKNOWN


def test_a_check_without_a_test_takes_no_findings() -> None:
    with pytest.raises(DvfdError, match="no check with a drill"):
        Drilled(CATALOGUE, Shelf()).keep(whole(check="daily"), at=NOW)


# --- The registry -------------------------------------------------------------------------------


def test_every_check_with_a_drill_has_parts_and_only_they() -> None:
    flagged = {check.id for check in CATALOGUE.checks.values() if check.drill}
    assert flagged == {check for check, parts in drills.PARTS.items() if parts}


def test_every_figure_of_a_drill_is_declared_by_a_part_of_a_check_that_judges_it() -> None:
    declared = {
        (check, metric)
        for check in drills.PARTS
        for part in drills.build(check)
        for metric in part.metrics
    }
    judged_ = {
        (c.check, metric)
        for check in CATALOGUE.checks.values()
        for c in check.criteria
        if c.source == DRILL
        for metric in (c.metric, c.limit.metric)
        if metric
    }
    as_written = {("gradient_sync", "gradient_exact_ratio")}  # judged where readings are off
    assert declared - as_written == judged_

"""What the gradient part makes of the ranks' answer: samples, troubles, and never a guess."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import FakeRunner, judged, said, task, verdicts

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drills import build
from dvfd.drills.drill import Fact, Options, Ran, Remark, Task, Trouble
from dvfd.drills.gradient import Gradients, collect, last_words, read
from dvfd.drills.supervise import supervise
from dvfd.errors import ProbeError, ToolTimeout
from dvfd.model import Sample, Verdict
from dvfd.shell import Output

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gradient"
FULL = {"duration": 14400.0}


@pytest.fixture
def answer() -> dict[str, Any]:
    """What four ranks really left after 20 s, as if of four hours."""
    found: dict[str, Any] = json.loads((FIXTURES / "answer.json").read_text())
    return found | {"seconds": 14400.0, "failures": []}


def found(answer: dict[str, Any], ended: str = "") -> list[Any]:
    return list(read(answer, at=1000.0, ended=ended))


def value(found: list[Any], metric: str, **where: str) -> float | None:
    rows = [f for f in found if isinstance(f, Sample) and f.metric == metric]
    return next((s.value for s in rows if where.items() <= dict(s.labels).items()), None)


def troubles(found: list[Any]) -> dict[str, str]:
    return {f.metric: f.text for f in found if isinstance(f, Trouble)}


def results(answer: dict[str, Any], tmp_path: Path, ended: str = "") -> dict[str, Verdict]:
    drill = task("gradient_sync", tmp_path)
    at = drill.clock.now()
    return verdicts(judged(drill, read(answer, at=at, ended=ended)))


OURS = (
    "norms",
    "agreement",
    "reference",
    "bound",
    "bfloat16_bound",
    "bfloat16_norms",
    "corruption",
    "compared",
    "recomputed",
    "failures",
)


def test_a_healthy_answer_passes_every_criterion(answer: dict[str, Any], tmp_path: Path) -> None:
    verdict = results(answer, tmp_path)
    assert {name: verdict[name] for name in OURS} == dict.fromkeys(OURS, Verdict.PASS)


def one_less(*path: str) -> Callable[[dict[str, Any]], None]:
    def harm(passes: dict[str, Any]) -> None:
        *way, last = path
        for key in way:
            passes = passes[key]
        passes[last] -= 1

    return harm


def differ(passes: dict[str, Any]) -> None:
    passes["bfloat16"]["disagreements"] = 1
    passes["bfloat16"]["examples"] = [[7, 1, [2]]]


def differ_often(passes: dict[str, Any]) -> None:
    passes["float32"]["disagreements"] = 5


def far(passes: dict[str, Any]) -> None:
    passes["float32"]["tally"]["close"] = int(0.999 * passes["float32"]["tally"]["elements"])


def recomputed(passes: dict[str, Any]) -> None:
    passes["float32"]["tally"]["recomputed_differently"] = 1


def nothing(passes: dict[str, Any]) -> None:
    for each in passes.values():
        each["pairs"] = 0


@pytest.mark.parametrize(
    ("harm", "criterion"),
    [
        (one_less("float32", "norms_agreed"), "norms"),
        (one_less("bfloat16", "norms_agreed"), "bfloat16_norms"),
        (one_less("float32", "tally", "bounded"), "bound"),
        (one_less("bfloat16", "tally", "bounded"), "bfloat16_bound"),
        (differ, "corruption"),
        (differ_often, "agreement"),
        (far, "reference"),
        (recomputed, "recomputed"),
        (nothing, "compared"),
    ],
)
def test_each_criterion_fails_on_its_own_fault(
    answer: dict[str, Any], tmp_path: Path, harm: Callable[[Any], None], criterion: str
) -> None:
    harm(answer["passes"])
    assert results(answer, tmp_path)[criterion] is Verdict.FAIL


def test_a_failed_collective_fails_and_is_told_with_its_words(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    answer |= {"done": False, "failures": [{"rank": 1, "at": "float32, step 9", "error": "reset"}]}
    rank_2 = "rank 2 ended first, exit code -9"
    assert results(answer, tmp_path, rank_2)["failures"] is Verdict.FAIL
    words = [f.text for f in found(answer, rank_2) if isinstance(f, Remark)]
    assert words == ["rank 2 ended first, exit code -9; rank 1, float32, step 9: reset"]


def test_ranks_that_ended_early_without_a_failed_collective_leave_that_unknown(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    answer["done"] = False
    assert results(answer, tmp_path, "killed")["failures"] is Verdict.UNKNOWN
    assert troubles(found(answer, "killed")) == {
        "collective_failures": "the ranks did not come to their end: killed"
    }


def test_what_was_run_is_told_so_that_a_part_of_it_does_not_pass(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    answer |= {"seconds": 3600.0, "done": False}
    assert Ran(3600.0) in found(answer)
    assert results(answer, tmp_path)["agreement"] is Verdict.UNKNOWN


def test_the_odd_rank_is_named(answer: dict[str, Any]) -> None:
    differ(answer["passes"])
    remarks = [f for f in found(answer) if isinstance(f, Remark)]
    assert remarks == [
        Remark("gradient_disagreements", "bfloat16, step 7, bucket 1: rank 2 has other bits")
    ]


def without_bfloat16(answer: dict[str, Any]) -> None:
    one = answer["passes"]["bfloat16"]
    tally = dict.fromkeys(one["tally"], 0)
    one |= dict.fromkeys(("steps", "pairs", "norms_agreed", "bytes"), 0)
    one |= {"tally": tally, "error": "Invalid scalar type", "reproducible": False}


def test_a_torch_that_does_not_reduce_bfloat16_leaves_it_unknown_in_its_own_words(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    without_bfloat16(answer)
    verdict = results(answer, tmp_path)
    assert verdict["bfloat16_bound"] is verdict["bfloat16_norms"] is Verdict.UNKNOWN
    assert verdict["bound"] is verdict["agreement"] is Verdict.PASS
    assert set(troubles(found(answer)).values()) == {"Invalid scalar type"}


@pytest.mark.parametrize("which", [("float32", "bfloat16"), ("float32",), ("bfloat16",)])
def test_gradients_that_never_repeat_say_nothing_about_another_rank(
    answer: dict[str, Any], tmp_path: Path, which: tuple[str, ...]
) -> None:
    for name in which:
        answer["passes"][name]["reproducible"] = False
        answer["passes"][name]["tally"]["recomputed"] = 0
    assert results(answer, tmp_path)["recomputed"] is Verdict.UNKNOWN
    words = [f.text for f in found(answer) if isinstance(f, Trouble)]
    assert [text.partition(":")[0] for text in words] == list(which)
    assert all("does not get the same bits" in text for text in words)


def empty(answer: dict[str, Any]) -> None:
    without_bfloat16(answer)
    answer["passes"]["bfloat16"]["error"] = ""
    answer["passes"]["float32"] = copy.deepcopy(answer["passes"]["bfloat16"])


def test_ranks_that_died_before_a_step_leave_everything_unknown(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    empty(answer)
    answer |= {"done": False, "seconds": 0.0}
    verdict = results(answer, tmp_path, "no memory")
    assert {verdict[name] for name in OURS} == {Verdict.UNKNOWN}
    assert set(troubles(found(answer, "no memory"))) >= {"gradient_pairs_compared"}


def test_the_coverage_is_told(answer: dict[str, Any]) -> None:
    facts = {f.name: f.text for f in found(answer) if isinstance(f, Fact)}
    assert facts["coverage, float32"] == (
        "63 steps of 4 buckets, 0.21 GB hashed in each of 4 ranks; 9 buckets (2.5e+06 elements)"
        " held against float64; 12 gradients computed again by another rank; processors 0-1"
    )
    assert facts["one process, float32"].startswith("15.66 % of the reduced elements")
    assert facts["order of the sum, float32"].startswith("100 %")


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("disagreements", 10**9),
        ("steps", -1),
        ("pairs", 1.5),
        ("pairs", None),
        ("norms_agreed", True),
        ("tally", []),
        ("tally", {}),
    ],
)
def test_an_impossible_answer_is_refused(answer: dict[str, Any], key: str, wrong: object) -> None:
    answer["passes"]["float32"][key] = wrong
    with pytest.raises(ProbeError, match="answer of the ranks"):
        found(answer)


@pytest.mark.parametrize(
    "change", [{"world": 1}, {"seconds": float("nan")}, {"passes": {}}, {"seconds": None}]
)
def test_an_answer_of_nobody_is_refused(answer: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(ProbeError, match="answer of the ranks"):
        found(answer | change)


# --- Running ------------------------------------------------------------------------------------


class Ranks:
    """A torchrun that leaves *answer*, if there is one, and ends with *output*."""

    def __init__(self, answer: dict[str, Any] | None, output: Output | Exception) -> None:
        self.argv: list[str] = []
        self._answer, self._output = answer, output

    def __call__(self, argv: list[str]) -> Output | Exception:
        self.argv = argv
        path = Path(next(a for a in argv if a.startswith("--answer=")).partition("=")[2])
        if self._answer is not None:
            path.write_text(json.dumps(self._answer))
        return self._output


def run(tmp_path: Path, ranks: Ranks, **world: Any) -> Iterator[Any]:
    runner = FakeRunner({"torch.distributed.run": ranks})
    return Gradients().run(task("gradient_sync", tmp_path, run=runner, **world))


def test_it_trains_for_the_checks_duration_with_the_profiles_ranks(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    ranks = Ranks(answer, said())
    rows = list(run(tmp_path, ranks))
    assert {"--nproc_per_node=4", "--seconds=14400", "--backend=gloo"} <= set(ranks.argv)
    assert value(rows, "collective_failures") == 0


def test_a_chosen_duration_is_kept(answer: dict[str, Any], tmp_path: Path) -> None:
    ranks = Ranks(answer, said())
    list(run(tmp_path, ranks, options=Options(duration=60.0, soak=False)))
    assert "--seconds=60" in ranks.argv


def test_ranks_that_left_nothing_are_a_trouble_in_torchruns_words(tmp_path: Path) -> None:
    stderr = "Traceback\nModuleNotFoundError: No module named 'torch'\n====\n"
    ranks = Ranks(None, said(code=1, stderr=stderr))
    with pytest.raises(ProbeError, match="No module named 'torch'"):
        list(run(tmp_path, ranks))


def test_ranks_that_hang_are_killed_and_what_they_had_is_kept(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    ranks = Ranks(answer | {"done": False}, ToolTimeout("python: still running after 14700 s"))
    rows = list(run(tmp_path, ranks))
    assert value(rows, "gradient_pairs_compared") == 296
    assert "still running" in troubles(rows)["collective_failures"]


@pytest.mark.parametrize(
    ("world", "why"),
    [
        ({"training": "gpt, 4 ranks"}, "a training job runs: gpt, 4 ranks; --force"),
        ({"options": Options(soak=False)}, "left out: --no-soak"),
        ({"toml": "[profile]\nprocesses_per_node = 1"}, "wanted at least two ranks"),
    ],
)
def test_it_says_why_it_does_not_run(tmp_path: Path, world: dict[str, Any], why: str) -> None:
    ranks = Ranks(None, said())
    rows = troubles(list(run(tmp_path, ranks, **world)))
    assert set(rows) == set(Gradients().metrics)
    assert all(why in text for text in rows.values())
    assert not ranks.argv


def test_force_runs_beside_a_training_job(answer: dict[str, Any], tmp_path: Path) -> None:
    ranks = Ranks(answer, said())
    list(run(tmp_path, ranks, training="gpt", options=Options(force=True)))
    assert ranks.argv


def as_written(tmp_path: Path, **world: Any) -> Task:
    """The drill where a site goes by the source's own words: bits equal to one process's."""
    check = load(Config()).checks["gradient_sync"]
    exact = {"gradient_close_ratio": "gradient_exact_ratio"}
    criteria = tuple(replace(c, metric=exact.get(c.metric, c.metric)) for c in check.criteria)
    return task("gradient_sync", tmp_path, check=replace(check, criteria=criteria), **world)


def test_every_figure_is_declared(answer: dict[str, Any], tmp_path: Path) -> None:
    runner = FakeRunner({"torch.distributed.run": Ranks(answer, said())})
    either = [task("gradient_sync", tmp_path, run=runner), as_written(tmp_path, run=runner)]
    found = [supervise(drill, [Gradients()]).samples for drill in either]
    assert {s.metric for samples in found for s in samples} == set(Gradients().metrics)


def test_a_figure_that_no_criterion_judges_is_not_kept(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    assert value(list(run(tmp_path, Ranks(answer, said()))), "gradient_exact_ratio") is None


def test_bits_equal_to_one_process_are_judged_where_readings_are_off(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    drill = as_written(tmp_path)
    found = read(answer, at=drill.clock.now())
    assert judged(drill, found)["reference"].verdict is Verdict.FAIL


def test_the_drill_has_this_part() -> None:
    assert isinstance(build("gradient_sync")[0], Gradients)


def test_notes_of_ranks_are_read_beside_the_answer_the_first_failure_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.json").write_text("{}")
    for rank, time in ((0, 3.0), (1, 2.0), (2, 1.0)):
        (tmp_path / f"a.json.failed-{rank}").write_text(json.dumps({"rank": rank, "time": time}))
    assert [note["rank"] for note in collect(tmp_path / "a.json")["failures"]] == [2, 1, 0]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_answer_that_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ProbeError, match=r"a\.json"):
        collect(tmp_path / "a.json")


def test_the_rank_that_failed_first_is_found_in_torchruns_report() -> None:
    stderr = (FIXTURES / "torchrun.stderr").read_text()
    assert last_words(stderr) == "rank 2 ended first, exit code -9 (SIGKILL)"


def test_of_ranks_that_end_in_one_second_the_killed_one_was_first() -> None:
    """Rank 0 lost rank 2 and aborted, and torchrun looked at rank 0 first."""
    report = (FIXTURES / "torchrun.stderr").read_text()
    swapped = report.replace("16:00:32", "16:00:33")
    for old, new in ((": 2 (", ": x ("), (": 0 (", ": 2 ("), (": x (", ": 0 (")):
        swapped = swapped.replace(f"rank      {old}", f"rank      {new}")
    swapped = swapped.replace("exitcode  : 1 (pid: 15976) ", "exitcode  : y")
    swapped = swapped.replace("exitcode  : -9 (pid: 15978)  (SIGKILL)", "exitcode  : -6 (pid: 5)")
    swapped = swapped.replace("exitcode  : y", "exitcode  : -9 (pid: 15978)  (SIGKILL)")
    assert last_words(swapped) == "rank 2 ended first, exit code -9 (SIGKILL)"
    later = swapped.replace("16:00:33", "16:00:40").replace("16:00:40", "16:00:33", 3)
    assert last_words(later) == "rank 0 ended first, exit code -6"


def test_what_the_rank_said_of_its_end_goes_with_it() -> None:
    report = (FIXTURES / "torchrun.stderr").read_text()
    stderr = f"[rank2]: Traceback:\n[rank2]: ValueError: no text in /usr/lib\n{report}"
    assert last_words(stderr).endswith("exit code -9 (SIGKILL): ValueError: no text in /usr/lib")


def test_without_a_report_the_last_line_that_speaks_counts() -> None:
    assert last_words("first\nNo module named torch\n=====\n\n") == "No module named torch"
    assert last_words("") == ""

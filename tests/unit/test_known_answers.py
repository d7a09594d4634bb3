"""Known answers on every processor: one that computes wrong is named, one not tested is no pass."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes_drills import FakeRunner, judged, said, task

from dvfd.drills.drill import Options
from dvfd.drills.known_answers import KnownAnswers, measure
from dvfd.drills.supervise import supervise
from dvfd.drills.workers import known_answers as worker
from dvfd.drills.workers.arithmetic import KNOWN, PLAIN_OPERATIONS, Operation, told
from dvfd.model import Verdict

PLAIN = {o.name: [KNOWN[o.name]] for o in PLAIN_OPERATIONS}
GOOD = {"seconds": 1.0, "bytes": 1000, "results": PLAIN | {"rounded FFT": ["aa"]}, "raised": {}}
FOUR = '[profile]\nprocesses_per_node = 4\nrank_cores = ["0", "1", "2", "3"]\n'


def core(cpu, **changed):
    """A good processor, with what it made of some operations instead."""
    results = GOOD["results"] | changed.pop("results", {})
    return {"cpu": cpu} | GOOD | {"results": results} | changed


def answering(cores):
    """A worker that writes this about the processors."""

    def answer(argv):
        document = {"software": "torch 9", "operations": [*GOOD["results"]], "cores": cores}
        Path(argv[-2]).write_text(json.dumps(document))
        return said()

    return FakeRunner({"bare.py": answer})


def drill(tmp_path, *cores, **world):
    """The criterion's result and the facts, of four processors as given, the rest of them good."""
    given = {c["cpu"]: c for c in cores}
    four = [given.get(cpu, core(cpu)) for cpu in range(4)]
    work = task("gradient_sync", tmp_path, toml=FOUR, run=answering(four), **world)
    found = supervise(work, [KnownAnswers()])
    found = replace(found, planned=0.0)  # one part is not the whole of the four hours
    return judged(work, found)["known_answers"], found


def test_processors_that_all_compute_right_pass(tmp_path):
    result, found = drill(tmp_path)

    assert result.verdict is Verdict.PASS
    assert found.facts[0].text.startswith("7 operations on 4 processors (0-3), 4e-06 GB")


def test_a_wrong_product_fails_and_names_the_processor(tmp_path):
    result, _ = drill(tmp_path, core(2, results={"float arithmetic": ["00"]}))

    assert result.verdict is Verdict.FAIL
    assert result.note.startswith("processor 2: float arithmetic gave 00..., known is a829497b")


def test_bits_that_differ_from_most_processors_fail(tmp_path):
    result, _ = drill(tmp_path, core(0, results={"rounded FFT": ["bb"]}))

    assert result.verdict is Verdict.FAIL
    assert result.note == "processor 0: rounded FFT gave other bits than on processor 1-3"


def test_a_processor_that_gives_now_this_now_that_fails(tmp_path):
    result, _ = drill(tmp_path, core(3, results={"rounded FFT": ["aa", "bb"]}))

    assert result.verdict is Verdict.FAIL
    assert "processor 3: rounded FFT gave 2 different results" in result.note


@pytest.mark.parametrize("how", ["no answer after 30 s", "its process was ended by SIGSEGV"])
def test_a_processor_that_never_answers_fails(tmp_path, how):
    result, _ = drill(tmp_path, {"cpu": 1, "lost": how})

    assert result.verdict is Verdict.FAIL
    assert result.note == f"processor 1: {how}"


def test_a_processor_that_cannot_be_tested_is_told_and_does_not_pass(tmp_path):
    result, _ = drill(tmp_path, {"cpu": 1, "untested": "cannot be pinned to: Invalid argument"})

    assert result.verdict is Verdict.UNKNOWN
    assert "the interval 0 to 7 straddles the limit" in result.reason
    assert result.note == "not tested: processor 1: cannot be pinned to: Invalid argument"


def test_a_failure_stays_one_beside_a_processor_that_cannot_be_tested(tmp_path):
    wrong = core(2, results={"CRC-32": ["00"]})
    result, _ = drill(tmp_path, {"cpu": 1, "untested": "offline"}, wrong)

    assert result.verdict is Verdict.FAIL


def test_no_processor_that_can_be_tested_is_unknown(tmp_path):
    none = [{"cpu": cpu, "untested": "cannot be pinned to: Invalid argument"} for cpu in range(4)]
    result, _ = drill(tmp_path, *none)

    assert result.verdict is Verdict.UNKNOWN
    assert "processor 0-3: cannot be pinned to" in result.reason


def test_an_operation_that_the_library_lacks_everywhere_is_left_out_and_told(tmp_path):
    lacks = {"raised": {"rounded FFT": "no FFT"}}
    result, found = drill(tmp_path, *(core(cpu, **lacks) for cpu in range(4)))

    assert result.verdict is Verdict.PASS
    assert found.facts[0].text.endswith("left out: rounded FFT: no FFT")


def test_an_operation_that_breaks_on_one_processor_only_fails(tmp_path):
    broken = core(2, raised={"rounded FFT": "MemoryError()"})
    del broken["results"]["rounded FFT"]
    result, _ = drill(tmp_path, broken)

    assert result.verdict is Verdict.FAIL
    assert "processor 2: rounded FFT raised MemoryError()" in result.note


def test_two_processors_that_disagree_do_not_tell_which_is_wrong(tmp_path):
    cores = [core(0), core(1, results={"rounded FFT": ["bb"]})]
    toml = '[profile]\nprocesses_per_node = 2\nrank_cores = ["0", "1"]\n'

    answers = measure(task("gradient_sync", tmp_path, toml=toml, run=answering(cores)))

    assert answers[1].failures[0].endswith("on processor 0; of two alone either may be wrong")


@pytest.mark.parametrize(
    "cores",
    [
        [core(0)],
        [core(cpu, seconds=float("nan")) for cpu in range(4)],
        [core(cpu, results={"strange": ["00"]}) | {"results": []} for cpu in range(4)],
        [{"cpu": "x"}],
        None,
    ],
)
def test_an_answer_that_makes_no_sense_is_unknown(tmp_path, cores):
    work = task("gradient_sync", tmp_path, toml=FOUR, run=answering(cores))

    result = judged(work, supervise(work, [KnownAnswers()]))["known_answers"]

    assert result.verdict is Verdict.UNKNOWN
    assert "the worker left no sound answer" in result.reason


def test_a_worker_that_fails_says_its_last_words(tmp_path):
    run = FakeRunner({"bare.py": said(code=1, stderr="long story\nno module named ctypes\n")})
    work = task("gradient_sync", tmp_path, toml=FOUR, run=run)

    result = judged(work, supervise(work, [KnownAnswers()]))["known_answers"]

    assert result.verdict is Verdict.UNKNOWN
    assert "no module named ctypes" in result.reason


def test_a_training_job_is_left_alone_unless_forced(tmp_path):
    result, _ = drill(tmp_path, training="job gpt, 4 ranks")
    forced, _ = drill(tmp_path, training="job gpt, 4 ranks", options=Options(force=True))

    assert result.verdict is Verdict.UNKNOWN
    assert "a training job runs: job gpt, 4 ranks; --force" in result.reason
    assert forced.verdict is Verdict.PASS


# --- The worker, on this machine's processors ---------------------------------------------------

HERE = sorted(os.sched_getaffinity(0))


def operation(compute):
    return Operation("SHA-256", 1, lambda: compute)


def on(cpu, compute):
    """What a pinned child makes of one operation."""
    return worker.examine([cpu], [operation(compute)], patience=5)[0]


def test_every_processor_computes_on_itself():
    def where():
        return str(os.sched_getaffinity(0)).encode()

    found = worker.examine(HERE, [operation(where)])

    assert [c["results"]["SHA-256"] for c in found] == [[told(str({c}).encode())] for c in HERE]


def test_a_flipped_bit_on_one_processor_is_caught_there():
    def flips():
        return bytes([1 if os.sched_getaffinity(0) == {HERE[-1]} else 0])

    found = worker.examine(HERE, [operation(flips)])

    assert found[-1]["results"] == {"SHA-256": ["01"]}
    assert all(c["results"] == {"SHA-256": ["00"]} for c in found[:-1])


def test_a_crash_costs_its_processor_only():
    def crashes():
        os.kill(os.getpid(), signal.SIGKILL)

    assert on(HERE[0], crashes) == {"cpu": HERE[0], "lost": "its process was ended by SIGKILL"}


def test_a_processor_that_hangs_is_given_up():
    found = worker.examine([HERE[0]], [operation(lambda: time.sleep(60))], patience=0.2)

    assert found == [{"cpu": HERE[0], "lost": "no answer after 0.2 s"}]


def test_a_processor_that_is_not_there_is_untested():
    found = on(100_000, lambda: b"")

    assert found == {"cpu": 100_000, "untested": "cannot be pinned to: Invalid argument"}


def test_an_operation_that_raises_is_told_and_the_next_one_runs():
    def lacks():
        raise RuntimeError("not implemented for 'BFloat16'")

    found = worker.compute([operation(lacks), Operation("CRC-32", 1, lambda: lambda: b"1")])

    assert "not implemented" in found["raised"]["SHA-256"]
    assert found["results"] == {"CRC-32": ["31"]}


def test_without_torch_the_standard_library_serves(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)

    operations, software = worker.offer()

    assert operations == PLAIN_OPERATIONS
    assert "no torch" in software


@pytest.mark.slow
@pytest.mark.torch
def test_this_machine_computes_right_in_the_jobs_interpreter(tmp_path):
    from dvfd.drills import tree

    work = task("gradient_sync", tmp_path, run=tree.run)
    found = supervise(work, [KnownAnswers()])
    result = judged(work, replace(found, planned=0.0))["known_answers"]

    assert result.verdict is Verdict.PASS, result
    assert f"13 operations on {len(HERE)} processors" in found.facts[0].text
    assert all(0 < answer.seconds < 30 for answer in measure(work))

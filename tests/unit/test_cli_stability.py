"""`dvfd stability` in this process, beside something that answers like a daemon, and without."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from fakes_conductor import ID, FakeRuns, criterion

from dvfd import cli
from dvfd.cli import progress, stability
from dvfd.errors import DvfdError
from dvfd.runs.run import Axis, Plan, Run, Stage
from dvfd.store.run_file import RunFile
from dvfd.store.run_reading import Reading


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A node of its own."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


@pytest.fixture
def runs(place):
    fake = FakeRuns(place / "control.sock").start()
    yield fake
    fake.stop()


@pytest.fixture
def dvfd(place, monkeypatch, capsys):
    """Call a command as typed; its exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dvfd", "stability", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


# --- start: what is refused --------------------------------------------------------------------


def test_without_a_daemon_it_is_said_how_to_start_one(dvfd):
    code, _, err = dvfd("start", "phase1", "--", "true")

    assert code == 3
    assert "needs `dvfd run`" in err


@pytest.mark.parametrize("words", [(), ("--reference", "--", "torchrun", "train.py")])
def test_a_command_or_the_reference_job_has_to_be_given_and_not_both(words, runs, dvfd):
    code, _, err = dvfd("start", "phase1", *words)

    assert code == 3
    assert "one of the two" in err
    assert not runs.asked


@pytest.mark.parametrize("phase", ["phase3", "stability_phase1", ""])
def test_a_phase_that_there_is_not_is_refused(phase, runs, dvfd):
    assert dvfd("start", phase, "--", "true")[0] == 3
    assert not runs.asked


def test_the_reference_job_trains_no_run_of_several_nodes(runs, dvfd):
    code, _, err = dvfd("start", "phase2a", "--reference")

    assert code == 3
    assert "8 processes on 2 nodes" in err
    assert not runs.told("arm")


def test_the_daemons_refusal_starts_no_training(runs, dvfd, monkeypatch):
    started = []
    monkeypatch.setattr(stability, "_launch", lambda *_, **__: started.append(1))
    runs.refusal = f"run {ID} is running on this node: one at a time"

    code, _, err = dvfd("start", "phase1", "--", "true")

    assert (code, started) == (3, [])
    assert f"run {ID} is running" in err


def test_a_daemon_that_starts_anew_meanwhile_is_no_reason_to_give_up(runs, monkeypatch):
    run = runs.arm()
    answers = iter([DvfdError("a daemon listens but does not answer"), None])

    def daemon(op: str, **arguments: str) -> object:
        answer = next(answers, runs)
        if isinstance(answer, DvfdError):
            raise answer
        if answer is None:
            return None
        run["launched"] = {"pid": 1}
        return runs._answer({"op": op}, 0)

    monkeypatch.setattr(stability, "daemon", daemon)

    stability._wait_until_launched(ID, None, "its journal")
    assert next(answers, "asked") == "asked"


# --- status ------------------------------------------------------------------------------------


def test_a_run_under_way_is_told_with_its_times_and_what_it_says_so_far(runs, dvfd):
    runs.arm("running")
    runs.elapsed, runs.ends_at = 11_520.0, 1_800_000_000.0
    runs.judged = [criterion(), criterion("restarts", "UNKNOWN")]

    code, out, _ = dvfd("status")

    assert code == 3  # it has passed nothing yet
    assert "running, 3 h 12 min of 24 h, ends Fri 08:00:00 (20 h 48 min left)" in out
    assert "1 cannot be known, 1 passes so far" in out


def test_the_other_nodes_are_shown_with_their_newest_rows_and_clocks(runs, dvfd):
    runs.arm("running")
    peer = {"node": "n2", "run": "r2", "stage": "running", "heard": 1.0, "age": 2.0,
            "clock": -0.0124, "clock_error": 0.001, "trouble": ""}  # fmt: skip
    away = {**peer, "node": "n3", "age": 130.0, "trouble": "Connection refused"}
    spare = {**peer, "node": "n4", "run": "", "age": None, "clock": None}
    runs.others["peers"] = [peer, away, spare]

    _, out, _ = dvfd("status")

    assert "n2: newest row 2 s ago, clock -0.012 s\n" in out
    assert "n3: newest row 2 min ago, clock -0.012 s, Connection refused\n" in out
    assert "n4" not in out


def test_a_node_that_is_led_says_by_whom(runs, dvfd):
    runs.arm("running")
    runs.others["led_by"] = {"node": "n1", "run": "r1", "stage": "running", "heard": 3.0,
                             "trouble": ""}  # fmt: skip

    assert "part of r1 at n1, which leads: heard 3 s ago\n" in dvfd("status")[1]


def test_a_criterion_that_can_no_longer_be_met_fails_the_status(runs, dvfd):
    runs.arm("running")
    runs.judged = [criterion(verdict="FAIL", so_far="FAIL", outlook={"lost": True})]

    assert dvfd("status")[0] == 2


def test_a_run_that_passed_is_0(runs, dvfd):
    runs.arm("complete")
    runs.judged = [criterion(verdict="PASS")]

    assert dvfd("status")[0] == 0


def test_a_breached_warning_of_a_run_that_passed_is_1(runs, dvfd):
    runs.arm("complete")
    warning = criterion("loss", "FAIL", verdict="FAIL", severity="warning")
    runs.judged = [criterion(verdict="PASS"), warning]

    assert dvfd("status")[0] == 1


def test_a_run_of_which_nothing_was_judged_is_unknown(runs, dvfd):
    runs.arm("complete")

    assert dvfd("status")[0] == 3


@pytest.mark.parametrize("output", ["json", "jsonl", "junit", "nagios"])
def test_every_format_names_a_criterion_that_failed(output, runs, dvfd):
    runs.arm("complete")
    runs.judged = [criterion("loss_spikes", "FAIL", verdict="FAIL")]

    code, out, _ = dvfd("status", "-o", output)

    assert code == 2
    assert "stability_phase1.loss_spikes" in out


def test_a_password_in_the_command_is_not_shown(runs, dvfd):
    runs.arm("running", argv=["train.py", "--data=https://me:hidden@host/x"])

    assert "https://" in dvfd("status")[1]
    assert "hidden" not in dvfd("status")[1] + dvfd("status", "-o", "json")[1]


def test_no_run_at_all_is_3_with_words(runs, dvfd):
    code, out, err = dvfd("status")

    assert (code, out) == (3, "")
    assert "no run is known here" in err


def test_without_a_daemon_and_without_files_it_is_said_where_was_looked(dvfd, place):
    code, _, err = dvfd("status")

    assert code == 3
    assert str(place / "state" / "runs") in err


# --- one line of progress ----------------------------------------------------------------------


def shown(runs: FakeRuns, *judged: dict) -> str:
    runs.arm("running")
    runs.judged = list(judged)
    return progress.line(progress.document(runs._answer({"op": "stability_status"}, 0), running=1))


def test_progress_names_the_worst_criterion_with_its_figures(runs):
    line = shown(
        runs,
        criterion(margin=0.1),
        criterion(
            "throughput_sigma", "FAIL", observed=23.0, comparison="<", limit=20.0, margin=-3.0
        ),
    )

    assert "1 fails, 1 passes so far" in line
    assert "throughput_sigma FAIL, 23 samples/second, wanted < 20, margin -3" in line


@pytest.mark.parametrize(
    ("row", "worse"),
    [
        (criterion("a", "FAIL"), criterion("b", "FAIL", outlook={"lost": True})),
        (criterion("a", outlook={"burn_rate": 1.5}), criterion("b", "FAIL")),
        (criterion("a", "UNKNOWN"), criterion("b", outlook={"burn_rate": 1.5})),
        (criterion("a"), criterion("b", "UNKNOWN")),
        (criterion("a", margin=50.0), criterion("b", margin=10.0)),
        (criterion("a", "NOT_APPLICABLE"), criterion("b")),
    ],
)
def test_what_needs_a_look_first_is_the_worst(row, worse):
    assert progress.pressing([row, worse]) is worse
    assert progress.pressing([worse, row]) is worse


@pytest.mark.parametrize(
    ("stage", "frozen", "settled"),
    [("complete", "", False), ("complete", "5ha", True), ("aborted", "", False)],
)
def test_a_run_is_followed_until_its_last_checkpoints_are_verified(runs, stage, frozen, settled):
    runs.arm(stage)["frozen"] = frozen

    found = progress.document(runs._answer({"op": "stability_status"}, 0), running=True)

    assert progress.settled(found) is settled


def test_a_run_that_waits_for_its_job_says_so(runs):
    runs.arm("armed", job="gpt")

    found = progress.document(runs._answer({"op": "stability_status"}, 0), running=True)

    assert progress.line(found) == "armed, waits for the first step of all ranks of job gpt"


# --- stop and list -----------------------------------------------------------------------------


def test_stopping_tells_the_daemon_why_and_says_that_nothing_was_left(runs, dvfd):
    runs.arm("running")

    code, out, _ = dvfd("stop", "--reason", "enough")

    assert code == 0
    assert runs.told("stop")[0]["reason"] == "enough"
    assert out == f"{ID}: stopped by root: enough; none of its training was left\n"


def test_a_run_that_is_over_is_not_stopped_again(runs, dvfd):
    runs.arm("complete")

    assert dvfd("stop")[0] == 0
    assert not runs.told("stop")


def test_a_supervisor_of_somebody_else_is_named_and_nothing_is_called_gone(runs, dvfd, monkeypatch):
    start = stability_start(os.getpid())
    runs.arm("running")["launched"] = {"pid": os.getpid(), "start": start, "unit": "", "mark": "x"}

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    code, out, err = dvfd("stop")

    assert (code, out) == (2, "")
    assert f"pid {os.getpid()} holds the training" in err


def stability_start(pid: int) -> int:
    from dvfd.runs.ending import started

    return started(pid)


def test_the_list_has_every_run_and_why_it_ended(runs, dvfd):
    runs.arm("aborted")["reason"] = "stopped by root"

    assert dvfd("list")[1] == f"{ID}  aborted  24 h  stopped by root\n"
    assert json.loads(dvfd("list", "-o", "json")[1])["runs"][0]["id"] == ID


def test_a_node_without_runs_says_how_to_begin(runs, dvfd):
    code, out, _ = dvfd("list")

    assert code == 0
    assert "dvfd stability start phase1 --reference" in out


# --- without a daemon --------------------------------------------------------------------------


@pytest.fixture
def filed(place):
    """A run of which only the files are left."""
    run = Run(
        id=ID, node="node4", armed_at=1e9, axis=Axis(boot_id="b", offset=0.0), began_t=60.0,
        stage=Stage.WARM_UP,
        plan=Plan(
            check="stability_phase1", planned=86400, duration=86400, nodes=1, processes=4,
            every=100, checkpoint_every=500, job="gpt",
        ),
    )  # fmt: skip
    file = RunFile.create(place / "state" / "runs" / f"{ID}.db", run.to_document())
    file.heartbeat(3660.0, 1e9 + 3660)
    file.close()
    return place / "state" / "runs"


def test_without_a_daemon_a_runs_file_says_how_far_it_was_and_that_nobody_watches(filed, dvfd):
    code, out, _ = dvfd("status")

    assert code == 3
    assert "warm-up, 1 h of 24 h" in out
    assert "no daemon runs here" in out


def test_without_a_daemon_the_report_of_a_run_that_is_over_decides(filed, dvfd):
    done = Run.from_document(Reading(filed / f"{ID}.db").document())
    file = RunFile.open(filed / f"{ID}.db")
    file.put_document(
        replace(done, stage=Stage.COMPLETE, ended_t=86460.0, ended_at=2e9).to_document()
    )
    file.close()
    report = {"results": [criterion(verdict="PASS")]}
    (filed / f"{ID}.json").write_text(json.dumps(report))

    assert dvfd("status", ID)[0] == 0
    assert dvfd("list")[1].startswith(f"{ID}  complete  24 h")


def test_without_a_daemon_a_run_of_another_name_is_none(filed, dvfd):
    code, _, err = dvfd("status", "phase1_other")

    assert code == 3
    assert "no run 'phase1_other'" in err


def test_without_a_daemon_stopping_says_that_nobody_was_told(filed, dvfd):
    code, out, err = dvfd("stop")

    assert code == 3
    assert "none of its training was left" in out
    assert "no daemon was told" in err

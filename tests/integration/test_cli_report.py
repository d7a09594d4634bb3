"""`dvfd report` as a person types it, on a store that a daemon left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes_output import valid
from fakes_reporting import Desk, twice
from fakes_runs import BEGAN, healthy
from fakes_spent import AT

from dvfd.catalogue import load
from dvfd.cli import dvfd as cli
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.errors import DvfdError
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Stage
from dvfd.store import Store
from dvfd.store.folds import StepFold
from dvfd.store.run_file import RunFile

PRICE = '[cost]\nper_hour = 36.0\ncurrency = "EUR"\n'


def kept(state: Path, desk: Desk, job: str = "gpt", ago: float = 1000.0) -> float:
    """What a daemon would have written of *desk*, *ago* seconds before now; by how much later."""
    store = Store(state / "dvfd.db", metrics=load(Config()).metrics, clock=SystemClock())
    store.start()
    shift = time.time() - ago - AT
    for (_, own), course in desk.series_.items():
        now = tuple((k, job if k == "job" else v) for k, v in own)
        store.write([replace(s, at=s.at + shift, labels=now) for s in course])
    assert store.flush()
    store.stop()
    return shift


def environment(place: Path) -> dict[str, str]:
    (place / "dvfd.toml").write_text('[node]\nname = "n0"\n' + PRICE)
    return {
        "DVFD_CONFIG": str(place / "dvfd.toml"), "DVFD_STATE_DIR": str(place / "state"),
        "RUNTIME_DIRECTORY": str(place),
    }  # fmt: skip


def dvfd(place: Path, *arguments: str) -> Result:
    """In this process: another one takes a second to start."""
    found = CliRunner().invoke(cli, ["report", *arguments], env=environment(place))
    assert found.exception is None or isinstance(found.exception, DvfdError | SystemExit)
    return found


def refused(place: Path, *arguments: str) -> str:
    """Why there is nothing to tell."""
    found = dvfd(place, *arguments)
    assert found.stdout == ""
    assert found.exit_code
    said = str(found.exception) if isinstance(found.exception, DvfdError) else found.stderr
    return " ".join(said.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of gpt, and one of a job with a name that would be a page of its own."""
    found = tmp_path_factory.mktemp("report")
    (found / "state").mkdir()
    (found / "control.sock").touch()  # of no daemon: another one of this machine is not asked
    kept(found / "state", twice())
    kept(found / "state", Desk(), job="<b>ü\n", ago=3000.0)
    return found


def test_a_job_is_told_in_words_by_a_process_of_its_own(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "report", "job", "gpt"],
        env={**os.environ, **environment(place)}, text=True, capture_output=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert done.stdout.startswith("gpt ran 50 s, 100 % of it productive; nothing was lost;")
    assert "run 2 of 2" in done.stdout


def test_the_document_is_as_its_schema_says_and_the_same_twice(place: Path) -> None:
    one, two = (json.loads(dvfd(place, "job", "gpt", "-o", "json").stdout) for _ in range(2))
    valid(one, "job_report")
    assert (one["work"]["steps"], one["cost"]["total"]) == (100, pytest.approx(0.5))
    assert {**one, "made": 0, "period": 0} == {**two, "made": 0, "period": 0}


def test_the_page_and_the_markdown_are_told_too(place: Path) -> None:
    page = dvfd(place, "job", "gpt", "--run", "1", "-o", "html").stdout
    assert page.startswith("<!doctype html>")
    assert "run 1 of 2" in page
    assert "| productive steps | 45 s | 100.0 % | 0.45 |" in (
        dvfd(place, "job", "gpt", "--run", "1", "-o", "markdown").stdout
    )


def test_a_hostile_name_is_text_on_the_page_and_one_line_in_words(place: Path) -> None:
    page = dvfd(place, "job", "<b>ü\n", "-o", "html").stdout
    assert "<b>ü" not in page
    assert "&lt;b&gt;ü" in page
    assert dvfd(place, "job", "<b>ü\n").stdout.startswith("<b>ü ran 1 min 40 s")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["job", "gtp"], "did you mean 'gpt'?"),
        (["job"], "which job? There are '<b>ü"),
        (["job", "gpt", "--run", "7"], "there are 2 in that time"),
        (["job", "gpt", "--hours", "0.01"], "is known, but nobody looked at it"),
        (["job", "gpt", "--since", "soon"], "wanted 2026-07-01"),
        (["job", "gpt", "--since", "2200-01-01"], "begins in the future"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_do(
    place: Path, arguments: list[str], wanted: str
) -> None:
    assert wanted in refused(place, *arguments)


def test_two_runs_are_held_together_and_so_is_one_with_a_file_of_it(place: Path) -> None:
    (place / "one.json").write_text(dvfd(place, "job", "gpt", "--run", "1", "-o", "json").stdout)
    done = dvfd(place, "compare", str(place / "one.json"), "gpt:2", "-o", "json")
    found = json.loads(done.stdout)
    valid(found, "job_comparison")
    assert (found["a"]["name"][:15], found["b"]["name"][:15]) == (
        "gpt, run 1 of 2",
        "gpt, run 2 of 2",
    )
    assert [r["b"] for r in found["rows"] if r["id"] == "steps"] == [100]
    assert "| figure | A | B | B beside A |" in (
        dvfd(place, "compare", "gpt:1", "gpt:2", "-o", "markdown").stdout
    )


def test_a_stability_run_is_told_from_its_own_file(place: Path) -> None:
    story = healthy(stage=Stage.COMPLETE)
    run = replace(story.run(), id="phase1_20270115T080000Z_1a2b")
    (place / "state" / "runs").mkdir()
    file = RunFile.create(place / "state" / "runs" / f"{run.id}.db", run.to_document())
    file.job, file.every, file.node = run.plan.job, run.plan.every, run.node
    file.set_axis(run.axis)
    for rank in range(run.plan.processes):
        began, ended = BEGAN, BEGAN + 1800.0
        fold = StepFold(job="gpt", rank=rank, first_step=1, last_step=50, count=50, at=0.0,
                        began=began, ended=ended)  # fmt: skip
        assert file.take([(f"s{rank}", 1, [fold])])
    file.add([Event(node="n0", t=0.0, at=0.0, what=What.UP)])
    file.close()

    found = json.loads(dvfd(place, "job", "--run", run.id, "-o", "json").stdout)
    valid(found, "job_report")
    assert (found["job"], found["work"]["steps"], found["cost"]["node_hours"]) == ("gpt", 50, 2.0)
    assert f"run {run.id}" in dvfd(place, "compare", run.id, "gpt").stdout
    assert "is one of job 'gpt', not of 'x'" in refused(place, "job", "x", "--run", run.id)
    assert "did you mean" in refused(place, "job", "--run", run.id[:-1])


def test_a_file_that_is_no_report_is_refused(place: Path) -> None:
    (place / "odd.json").write_text('{"kind": "a recipe"}')
    assert "no report of a job" in refused(place, "compare", str(place / "odd.json"), "gpt")


def test_a_store_that_saw_no_job_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "control.sock").touch()
    kept(tmp_path / "state", Desk(looks=0))
    assert "no job was looked at on this node yet" in refused(tmp_path, "job")
    assert "no job 'gpt' was looked at here" in refused(tmp_path, "job", "gpt")


def test_without_a_store_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "control.sock").touch()
    assert "nothing is remembered" in refused(tmp_path, "job", "gpt")


# --- Beside `dvfd goodput` ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that failed after 103 s and was looked at for minutes more, then a short
    one, whole between two looks; told on the minute, where a day of it is asked for.
    """
    found = tmp_path_factory.mktemp("mixed")
    (found / "state").mkdir()
    (found / "control.sock").touch()
    desk = Desk(60)
    for key in list(desk.series_):
        if key[0].startswith("rank_"):
            desk.series_[key] = [s for s in desk.series_[key] if s.at <= AT + 100]
    end = {"steps": 206.0, "step": 0.5, "compute": 0.4}
    shift = kept(found / "state", desk)
    document = {
        "job": "gpt", "run": "1", "began": AT - 3 + shift, "ended": AT + 103 + shift,
        "how": "failed", "why": "RuntimeError: no such sample", "blind": False, "whole": True,
        "world": 2, "here": 2, "base": {"saved": 0, "failed": 0, "steps": {}},
        "ranks": {"0": end, "1": end}, "samples": 6592.0, "loss": 4.0, "saved": 3, "failed": 0,
    }  # fmt: skip
    short = {
        **document, "run": "2", "began": AT + 301 + shift, "ended": AT + 307 + shift,
        "how": "ended", "why": "", "ranks": {"0": {**end, "steps": 12.0}}, "samples": 192.0,
    }  # fmt: skip
    store = Store(found / "state" / "dvfd.db", metrics=load(Config()).metrics, clock=SystemClock())
    store.start()
    store.put("ran", "gpt@1", document)
    store.put("ran", "gpt@2", short)
    assert store.flush()
    store.stop()
    return found


def accounts(place: Path) -> list[dict[str, object]]:
    found = CliRunner().invoke(
        cli, ["goodput", "--job", "gpt", "-o", "json"], env=environment(place)
    )
    assert found.exit_code == 0, found.output
    return list(json.loads(found.stdout)["jobs"])


def test_goodput_tells_each_run_that_the_report_tells_and_the_same_of_it(mixed: Path) -> None:
    told = accounts(mixed)
    assert [(each["number"], each["of"], each["steps"]) for each in told] == [
        (1, 2, 206),
        (2, 2, 12),
    ]
    for number, account in enumerate(told, 1):
        report = json.loads(dvfd(mixed, "job", "gpt", "--run", str(number), "-o", "json").stdout)
        assert report["period"]["seconds"] == pytest.approx(account["seconds"])
        assert report["time"]["goodput"] == pytest.approx(account["goodput"])


def test_the_newest_run_is_told_though_no_look_fell_into_it(mixed: Path) -> None:
    text = dvfd(mixed, "job", "gpt").stdout
    assert text.startswith("gpt ran 6 s to its end, 100 % of it productive; nothing was lost")
    assert "run 2 of 2" in text


def test_a_failed_run_is_told_with_its_reason_from_the_store_on_disk(mixed: Path) -> None:
    report = json.loads(dvfd(mixed, "job", "gpt", "--run", "1", "-o", "json").stdout)
    valid(report, "job_report")
    assert report["ending"]["why"] == "RuntimeError: no such sample"
    assert "1 min 46 s and failed at" in report["headline"]
    assert "recovery" not in report["headline"]

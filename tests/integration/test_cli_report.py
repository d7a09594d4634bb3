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
from fakes_output import valid
from fakes_reporting import Desk, twice
from fakes_spent import AT

from dvfd.catalogue import load
from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.store import Store

PRICE = '[cost]\nper_hour = 36.0\ncurrency = "EUR"\n'


def kept(state: Path, desk: Desk, job: str = "gpt", ago: float = 1000.0) -> None:
    """What a daemon would have written of *desk*, *ago* seconds before now."""
    store = Store(state / "dvfd.db", metrics=load(Config()).metrics, clock=SystemClock())
    store.start()
    shift = time.time() - ago - AT
    for (_, own), course in desk.series_.items():
        now = tuple((k, job if k == "job" else v) for k, v in own)
        store.write([replace(s, at=s.at + shift, labels=now) for s in course])
    assert store.flush()
    store.stop()


def dvfd(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = place / "dvfd.toml"
    config.write_text('[node]\nname = "n0"\n' + PRICE)
    environment = {
        **os.environ, "DVFD_CONFIG": str(config), "DVFD_STATE_DIR": str(place / "state"),
        "RUNTIME_DIRECTORY": str(place),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "report", *arguments],
        env=environment, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of gpt, and one of a job with a name that would be a page of its own."""
    found = tmp_path_factory.mktemp("report")
    (found / "state").mkdir()
    kept(found / "state", twice())
    kept(found / "state", Desk(), job="<b>ü\n", ago=3000.0)
    return found


def test_a_job_is_told_in_words(place: Path) -> None:
    done = dvfd(place, "job", "gpt")
    assert done.stdout.startswith("gpt ran 50 s, 100 % of it productive; nothing was lost;")
    assert "run 2 of 2" in done.stdout
    assert done.returncode == 0


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
    done = dvfd(place, *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert wanted in " ".join(done.stderr.split())


def test_without_a_store_it_says_so(tmp_path: Path) -> None:
    done = dvfd(tmp_path, "job", "gpt")
    assert done.returncode == 3
    assert "nothing is remembered" in done.stderr

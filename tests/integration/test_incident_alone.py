"""A test of a phase fails where no daemon runs: it is opened, sealed and told all the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dvfd.alone import answer, judge_alone
from dvfd.drills.findings import Findings
from dvfd.incidents.preserve import problems
from dvfd.model import Sample


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = tmp_path / "dvfd.toml"
    config.write_text("[incidents]\nfree_bytes = 0\n")
    monkeypatch.setenv("DVFD_CONFIG", str(config))
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return tmp_path


def test_without_a_store_there_is_no_incident_and_nothing_is_made(place: Path) -> None:
    assert answer("incidents")["incidents"] == []
    assert not (place / "state").exists()


def test_a_failed_test_is_opened_and_its_evidence_sealed(place: Path) -> None:
    now = time.time()
    cores = (Sample("hardware_usable_cores", 0.0, now),)
    report, told = judge_alone(
        "hardware", Findings(check="hardware", began=now - 5, ended=now, samples=cores)
    )

    (found,) = answer("incidents")["incidents"]
    assert report["verdict"] == "FAIL"
    assert f"dvfd incident show {found['id']}" in told
    assert problems(Path(found["bundle"]["path"]), found["bundle"]["sha256"]) == []
    assert found["action"]["words"].startswith("nothing to stop")

    notes = place / "notes.txt"
    notes.write_text("fan 2 stood still")
    words = ("--by", "Ann Lee", "--attach", str(notes), "-o", "json")
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "incident", "update", found["id"], *words],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    entry = json.loads(done.stdout)["journal"][-1]
    assert entry["why"] == "notes.txt"
    assert Path(entry["attached"].partition(",")[0]).read_text() == "fan 2 stood still"

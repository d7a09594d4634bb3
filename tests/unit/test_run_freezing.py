"""Freezing a run: whole files, their sums, never another report's place, and the same again."""

import hashlib
import json
import platform
import subprocess
from dataclasses import replace

import pytest
from fakes_report import CATALOGUE, CONFIG, PHASE1, plan, rows, run, write

from dvfd.errors import DvfdError
from dvfd.runs.freezing import CONTEXT, Evidence, by_child, freeze, frozen, report_of
from dvfd.runs.tally import Context

HOUR = 3600.0
SHORT = run(lasted=HOUR, plan=plan(duration=HOUR))


class Watched:
    """What freezing wants of a run under a daemon's eyes."""

    def __init__(self, of, file):
        self.run, self.check, self.file = of, PHASE1, file


@pytest.fixture
def evidence(tmp_path):
    file = write(tmp_path / f"{SHORT.id}.db", SHORT, rows(HOUR))
    hashes = {"catalogue": "c0", "profile": "ab", "evidence": file.freeze()}
    return Evidence(file.path, PHASE1, hashes)


def test_the_files_of_a_report_agree_with_their_sums(evidence):
    found = frozen(evidence)

    assert {path.suffix for path in found.paths} == {".json", ".html", ".xml", ".sha256"}
    told = subprocess.run(
        ["sha256sum", "-c", f"{SHORT.id}.sha256"], cwd=evidence.path.parent, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert told.stdout.count(": OK") == 4  # the run's own file, too


def test_the_page_shows_the_sum_of_the_json_that_lies_beside_it(evidence):
    found = frozen(evidence)

    text = evidence.path.with_suffix(".json").read_bytes()
    assert found.sha256 == hashlib.sha256(text).hexdigest()
    assert found.sha256 in evidence.path.with_suffix(".html").read_text()


def test_a_report_that_is_made_again_is_the_same(evidence):
    first = frozen(evidence)
    before = {path: path.read_bytes() for path in first.paths}

    assert frozen(evidence) == first
    assert {path: path.read_bytes() for path in first.paths} == before


def test_another_report_is_never_overwritten(evidence):
    path = evidence.path.with_suffix(".json")
    path.write_text("somebody's own\n")

    with pytest.raises(DvfdError, match="another report of this run: move it away first"):
        frozen(evidence)

    assert path.read_text() == "somebody's own\n"
    assert not evidence.path.with_suffix(".html").exists()


def test_nothing_half_written_is_left(evidence):
    frozen(evidence)

    assert not list(evidence.path.parent.glob("*.part"))
    assert not list(evidence.path.parent.glob(".*"))


def test_a_report_without_room_leaves_no_piece_of_itself_behind(evidence, monkeypatch):
    with monkeypatch.context() as without_room:
        without_room.setattr("os.fsync", no_room)
        with pytest.raises(OSError, match="No space left"):
            frozen(evidence)

    assert [path.name for path in evidence.path.parent.iterdir()] == [evidence.path.name]
    assert frozen(evidence).paths


def no_room(_descriptor):
    raise OSError(28, "No space left on device")


def test_a_child_makes_the_same_report(evidence):
    made = by_child(evidence)
    before = {path: path.read_bytes() for path in made.paths}

    assert frozen(evidence) == made
    assert {path: path.read_bytes() for path in made.paths} == before


def test_a_child_hands_back_what_its_report_says(evidence):
    made = by_child(evidence)

    told = json.loads(json.dumps([each.to_document() for each in made.judged]))
    assert told == json.loads(evidence.path.with_suffix(".json").read_text())["results"]


def test_what_the_child_says_is_told(evidence):
    evidence.path.with_suffix(".json").write_text("somebody's own\n")

    with pytest.raises(DvfdError, match=r"could not be made: .*: there is another"):
        by_child(evidence)


def test_the_daemon_closes_the_file_and_notes_on_what_it_ran(tmp_path):
    file = write(tmp_path / f"{SHORT.id}.db", SHORT, rows(HOUR))

    made = freeze(Watched(SHORT, file), config=CONFIG, catalogue=CATALOGUE)

    report = json.loads(file.path.with_suffix(".json").read_text())
    assert report["hashes"]["evidence"] == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert report["environment"]["kernel"] == platform.release()
    assert hashlib.sha256(file.path.with_suffix(".json").read_bytes()).hexdigest() == made.sha256
    assert not file.path.stat().st_mode & 0o222


def test_a_run_is_judged_by_what_its_file_says_that_it_was_held_against(tmp_path):
    file = write(tmp_path / f"{SHORT.id}.db", SHORT, rows(HOUR))
    held = Context(single_process=62.5)
    file.put_document(SHORT.to_document() | {CONTEXT: held.to_document()})
    efficiency = replace(
        PHASE1.criteria[0], id="stability_phase1.efficiency", metric="scaling_efficiency_ratio"
    )
    check = replace(PHASE1, criteria=(efficiency,))

    [result] = report_of(Evidence(file.path, check, {}))["results"]

    assert result["observed"] == pytest.approx(275.7 / 4 / 62.5, rel=0.03)


def test_the_report_says_where_every_second_went(evidence):
    goodput = report_of(evidence)["goodput"]

    assert sum(part["seconds"] for part in goodput["parts"]) == pytest.approx(HOUR)
    assert goodput["goodput"] > 0.9

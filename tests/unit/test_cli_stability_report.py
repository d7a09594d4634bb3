"""`dvfd stability report` and `judge`: what was frozen; the same again, or where it differs."""

import json
import shutil
from xml.etree import ElementTree as ET

import pytest
from fakes_report import PHASE1, plan, rows, run, write

from dvfd import cli
from dvfd.catalogue import load
from dvfd.cli.stability_report import differences
from dvfd.config import Config
from dvfd.runs.freezing import freeze

HOUR = 3600.0
SHORT = run(lasted=HOUR, plan=plan(duration=HOUR))


class Watched:
    """What freezing wants of a run under a daemon's eyes."""

    def __init__(self, file):
        self.run, self.check, self.file = SHORT, load(Config()).checks[PHASE1.id], file


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The directory of a node on which one run was frozen."""
    state = tmp_path_factory.mktemp("state")
    file = write(state / "runs" / f"{SHORT.id}.db", SHORT, rows(HOUR))
    freeze(Watched(file), config=Config(), catalogue=load(Config()))
    return state


@pytest.fixture
def state(kept, tmp_path, monkeypatch):
    """A copy of it, to be spoilt."""
    shutil.copytree(kept, tmp_path / "state")
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DVFD_CONFIG", str(tmp_path / "none.toml"))
    (tmp_path / "none.toml").touch()
    return tmp_path / "state" / "runs"


@pytest.fixture
def dvfd(state, monkeypatch, capsys):
    """Call a command as typed; its exit code, stdout and stderr."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["dvfd", "stability", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_the_newest_report_in_words_says_first_that_it_does_not_count(dvfd):
    code, out, _ = dvfd("report")

    assert out.splitlines()[:2] == [
        f"{SHORT.id}: UNKNOWN, it does not count",
        "does not count: shortened: 60 min of 24 h",
    ]
    assert "55 min  productive steps" in out
    assert "3 min  waiting for data" in out  # 0.45 s of a step less 0.4 computed and 0.02 told
    assert code == 3


@pytest.mark.parametrize(
    ("output", "suffix"), [("html", "html"), ("json", "json"), ("junit", "xml")]
)
def test_every_format_is_what_lies_beside_the_run(dvfd, state, output, suffix):
    _, out, _ = dvfd("report", SHORT.id, "-o", output)

    assert out == (state / f"{SHORT.id}.{suffix}").read_text()


def test_junit_has_a_case_for_each_criterion(dvfd):
    _, out, _ = dvfd("report", "-o", "junit")

    assert ET.fromstring(out).attrib["tests"] == "21"


def test_a_report_that_was_changed_is_refused(dvfd, state):
    path = state / f"{SHORT.id}.json"
    path.write_text(path.read_text().replace('"verdict": "UNKNOWN"', '"verdict": "PASS"'))

    code, out, err = dvfd("report", SHORT.id)

    assert (code, out) == (3, "")
    assert "it was changed; dvfd stability judge makes it again" in err


def test_a_run_without_a_report_says_when_it_gets_one(dvfd):
    code, _, err = dvfd("report", "phase1_never")

    assert code == 3
    assert "it gets one when it is over; dvfd stability status phase1_never" in err


def test_a_node_without_reports_says_so(dvfd, state):
    for path in state.iterdir():
        path.unlink()

    assert dvfd("report")[0] == 3


def test_no_word_of_a_report_moves_the_cursor(dvfd, state):
    found = json.loads((state / f"{SHORT.id}.json").read_text())
    found["results"][0]["reason"] = found["uncounted"][0] = found["headline"] = "\x1b]0;owned\x07"
    other = state.parent / "other.json"
    other.write_text(json.dumps(found))

    _, out, _ = dvfd("report", other)

    assert "]0;owned" in out
    assert not {"\x1b", "\x07"} & set(out)


def test_judging_the_run_again_gives_the_same_bytes(dvfd, state):
    file = state / f"{SHORT.id}.db"

    code, out, _ = dvfd("judge", file)

    assert out == file.with_suffix(".json").read_text()
    assert code == 3


def test_the_report_of_a_run_is_found_identical(dvfd, state):
    file = state / f"{SHORT.id}.db"

    code, out, _ = dvfd("judge", file, "--against", file.with_suffix(".json"))

    assert out.startswith("identical, byte by byte: SHA-256 ")
    assert code == 3  # the verdict's: a shortened run


def test_a_report_that_says_something_else_is_told_with_both_sides(dvfd, state):
    file = state / f"{SHORT.id}.db"
    report = json.loads(file.with_suffix(".json").read_text())
    report["results"][0]["verdict"] = report["verdict"] = "PASS"
    other = state / "other.json"
    other.write_text(json.dumps(report))

    code, out, err = dvfd("judge", file, "--against", other)

    assert (code, out) == (3, "")
    assert 'results.0.verdict: "PASS" there, "UNKNOWN" now' in err
    assert '\n  verdict: "PASS" there, "UNKNOWN" now' in err


def test_what_is_no_run_is_refused(dvfd, state):
    path = state / "x.db"
    path.write_text("no database\n")

    code, _, err = dvfd("judge", path)

    assert code == 3
    assert "no file of a run" in err


def test_lists_of_unequal_length_are_one_difference():
    assert list(differences({"a": [1, 2]}, {"a": [1]})) == ["a: [1, 2] there, [1] now"]


def test_what_only_one_side_has_is_a_difference():
    assert list(differences({"a": 1}, {})) == ["a: 1 there, null now"]

"""What the scripts of examples/slurm decide, with dvfd and Slurm's commands played by stubs."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/slurm"
DOCUMENT = Path(__file__).parents[2] / "docs/slurm.md"

STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>{place}/calls
cat {place}/{name}.says 2>/dev/null
exit $(cat {place}/{name}.code 2>/dev/null || echo 0)
"""


class Play:
    """A node on which dvfd, sinfo and scontrol say what they are told to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.notes = place / "notes"
        for name in ("dvfd", "sinfo", "scontrol", "logger"):
            (place / name).write_text(STUB.format(place=place, name=name))
            (place / name).chmod(0o755)

    def says(self, name: str, text: str, code: int = 0) -> None:
        (self.place / f"{name}.says").write_text(f"{text}\n")
        (self.place / f"{name}.code").write_text(f"{code}\n")

    def run(self, script: str, **environment: str) -> int:
        """The exit code of a script that Slurm calls: with no PATH, as Slurm does."""
        text = (EXAMPLE / script).read_text()
        text = text.replace("export PATH=/usr/local/bin", f"export PATH={self.place}")
        text = re.sub(r"^NOTES=\S+", f"NOTES={self.notes}", text, flags=re.MULTILINE)
        copy = self.place / script
        copy.write_text(text)
        given = {"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "17"} | environment
        return subprocess.run(["/bin/sh", str(copy)], env=given, timeout=60, check=False).returncode

    def calls(self, name: str) -> list[str]:
        path = self.place / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]

    def note(self, text: str, age: float = 0.0) -> None:
        """What the prolog notes of a refusal, *age* seconds ago."""
        self.notes.mkdir(exist_ok=True)
        note = self.notes / "refused"
        note.write_text(f"{text}\n")
        os.utime(note, (time.time() - age,) * 2)

    def check(self, slurm: str) -> list[str]:
        """What the health check tells Slurm, which says *slurm* of the node."""
        told = len(self.calls("scontrol"))
        self.says("sinfo", slurm)
        assert self.run("health_check.sh") == 0
        return [call.removeprefix("update NodeName=n1 ") for call in self.calls("scontrol")[told:]]


@pytest.fixture
def play(tmp_path):
    return Play(tmp_path)


@pytest.mark.parametrize(("code", "refused"), [(0, 0), (1, 1), (2, 1), (3, 1), (78, 1), (124, 1)])
def test_only_a_node_that_is_ready_takes_a_job(play, code, refused):
    play.says("dvfd", "FAIL: live.memory: 0.97, wanted <= 0.85\nmore", code)

    assert play.run("prolog.sh") == refused
    assert play.calls("scontrol") == []


def test_a_node_without_dvfd_takes_no_job(play):
    (play.place / "dvfd").unlink()

    assert play.run("prolog.sh") == 1


def test_the_reason_of_a_refusal_is_kept_until_a_job_may_start(play):
    play.says("dvfd", "FAIL: live.memory: 0.97, wanted <= 0.85\nmore", 2)
    play.run("prolog.sh")
    assert (play.notes / "refused").read_text() == "FAIL: live.memory: 0.97, wanted <= 0.85\n"

    play.says("dvfd", "PASS", 0)
    play.run("prolog.sh")
    assert not (play.notes / "refused").exists()


OURS = "dvfd: FAIL: live.memory: 0.97, wanted <= 0.85"


@pytest.mark.parametrize(
    ("ready", "slurm", "told"),
    [
        (0, "idle none", []),
        (0, f"drained {OURS}", ["State=RESUME"]),
        (0, f"draining {OURS}", ["State=RESUME"]),
        (0, "drained disk, ask Ann", []),
        (0, "drained Not responding", []),
        (0, "drained* none", []),
        (0, "down* Not responding", []),
        (0, "drained Prolog error", []),
        (2, "idle none", ["State=DRAIN Reason=dvfd: FAIL: live.x: 1, wanted 0"]),
        (3, "mixed none", ["State=DRAIN Reason=dvfd: FAIL: live.x: 1, wanted 0"]),
        (2, "drained disk, ask Ann", []),
        (2, f"drained {OURS}", []),
        (2, "down* Not responding", []),
        (2, "drained Prolog error", []),
    ],
)
def test_the_health_check_drains_with_a_reason_and_resumes_what_is_its_own(
    play, ready, slurm, told
):
    play.says("dvfd", "FAIL: live.x: 1, wanted 0\nmore", ready)
    play.says("sinfo", slurm)

    assert play.run("health_check.sh") == 0
    assert play.calls("scontrol") == [f"update NodeName=n1 {words}" for words in told]


def test_a_node_that_our_prolog_had_drained_gets_its_reason(play):
    play.note("UNKNOWN: no daemon")
    play.says("sinfo", "draining Prolog error")

    assert play.run("health_check.sh") == 0
    assert play.calls("scontrol") == [
        "update NodeName=n1 State=DRAIN Reason=dvfd: UNKNOWN: no daemon"
    ]
    assert not (play.notes / "refused").exists()


@pytest.mark.parametrize(
    ("ready", "between"),
    [
        (2, "idle none"),  # drained by this very check, before the prolog's refusal came through
        (2, f"draining {OURS}"),
        (0, f"draining {OURS}"),
        (0, "idle none"),  # a person resumed it
        (0, "drained disk, ask Ann"),
        (2, "down* Not responding"),
    ],
)
def test_what_a_prolog_noted_explains_no_later_drain_of_another(play, ready, between):
    """A node that the site's own prolog drained stays so, however often ours refused before."""
    play.note("UNKNOWN: no daemon", age=60)
    play.says("dvfd", "FAIL: live.x: 1, wanted 0", ready)
    play.check(between)

    play.says("dvfd", "PASS", 0)
    assert play.check("drained Prolog error") == []


@pytest.mark.parametrize("age", [0, 3600])
def test_a_note_is_waiting_for_its_drain_however_long_slurm_or_the_next_check_takes(play, age):
    play.note("UNKNOWN: no daemon")
    assert play.check("idle none") == []  # the drain is under way

    play.note("UNKNOWN: no daemon", age)
    assert play.check("drained Prolog error") == ["State=DRAIN Reason=dvfd: UNKNOWN: no daemon"]


def test_a_slurm_that_cannot_be_told_is_told_the_next_time(play):
    play.note("UNKNOWN: no daemon")
    play.says("sinfo", "draining Prolog error")
    play.says("scontrol", "slurm_update error: Unable to contact slurm controller", 1)

    assert play.run("health_check.sh") != 0
    assert (play.notes / "refused").exists()


@pytest.mark.parametrize(("text", "code", "ended"), [("", 0, 0), ("idle none", 1, 1)])
def test_a_slurm_that_does_not_know_or_cannot_be_asked_is_told_nothing(play, text, code, ended):
    (play.place / "sinfo.says").write_text(text)
    (play.place / "sinfo.code").write_text(f"{code}\n")
    play.says("dvfd", "FAIL: live.x", 2)

    assert play.run("health_check.sh") == ended
    assert play.calls("scontrol") == []


def test_the_epilog_never_drains_a_node(play):
    play.says("dvfd", "no daemon", 3)

    assert play.run("epilog.sh") == 0
    assert play.calls("dvfd") == ["job forget --run 17"]


def test_a_job_that_nobody_could_be_told_of_is_told_later(play):
    play.says("dvfd", "no daemon", 3)
    play.run("epilog.sh", SLURM_JOB_ID="18")
    play.says("sinfo", "idle none")
    play.says("dvfd", "PASS", 0)
    play.run("health_check.sh")

    assert play.calls("dvfd") == ["job forget --run 18", "ready", "job forget --run 18"]
    assert list((play.notes / "over").iterdir()) == []


def test_the_run_of_a_job_is_what_its_epilog_will_ask_for(play):
    done = subprocess.run(
        [EXAMPLE / "task_prolog.sh"],
        env={"SLURM_JOB_ID": "17"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "export DVFD_RUN=17\n"


def test_the_page_shows_the_configuration_that_is_tried():
    settings = re.findall(r"^\w+=\S+$", (EXAMPLE / "slurm.conf").read_text(), re.MULTILINE)

    assert len(settings) >= 8
    assert set(settings) <= set(DOCUMENT.read_text().splitlines())

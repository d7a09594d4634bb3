"""`dvfd check` as a person types it, with tests of ours in the place of the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from node import Node

PLAYED = """
import sys
from dvfd import drills
from dvfd.cli import main
from dvfd.drills import conduct
from dvfd.model import Sample, labels

class Torch:
    name, metrics = "torch", ("software_version",)
    def run(self, task):
        print("ran", file=sys.stderr)
        yield Sample("software_version", 2.013, task.clock.now(), labels(package="torch"))

def build(check):
    if check == "hardware":
        {hardware}
    return (Torch(),)

drills.build = build
conduct.LOCK += {lock!r}
sys.argv[0] = "dvfd"
{before}
main()
"""


class Play:
    """The command with `pytorch` measured at once; *hardware* is what its test does instead."""

    def __init__(self, directory: Path) -> None:
        self._node = Node(directory, [])

    def __call__(
        self, *arguments: str, hardware: str = "pass", before: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        code = PLAYED.format(hardware=hardware, before=before, lock=str(self._node.directory))
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
            env={**self._node.environment, **environment}, timeout=60,
        )  # fmt: skip


@pytest.fixture
def dvfd(tmp_path: Path) -> Play:
    return Play(tmp_path)


BREAKS = 'from dvfd.errors import DvfdError\n        raise DvfdError("no room")'


def test_a_check_named_twice_is_run_once(dvfd: Play) -> None:
    done = dvfd("check", "pytorch", "pytorch", "-o", "json")
    assert json.loads(done.stdout)["check"] == "pytorch"
    assert done.stderr.count("ran\n") == 1


def test_what_was_judged_before_a_test_broke_off_is_told(dvfd: Play) -> None:
    done = dvfd("check", "pytorch", "hardware", "-o", "json", hardware=BREAKS)
    document: dict[str, Any] = json.loads(done.stdout)
    assert [report["check"] for report in document["reports"]] == ["pytorch"]
    assert (document["verdict"], done.returncode) == ("UNKNOWN", 3)
    assert done.stderr.endswith("dvfd: hardware: no room\n")


def test_a_test_that_breaks_off_alone_is_an_error(dvfd: Play) -> None:
    done = dvfd("check", "hardware", hardware=BREAKS)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "dvfd: no room\n")


def test_the_node_stays_ours_between_the_tests_of_one_command(dvfd: Play) -> None:
    other = (
        "from dvfd.cli import checks\nfrom dvfd.errors import DvfdError\njudge = checks._judge\n"
        "def judge_while_another_asks(*asked):\n"
        "    try:\n        conduct.alone().__enter__()\n"
        "    except DvfdError:\n        print('refused', file=sys.stderr)\n"
        "    return judge(*asked)\n"
        "checks._judge = judge_while_another_asks"
    )
    assert "refused\n" in dvfd("check", "pytorch", before=other).stderr


FULL = (
    "from dvfd import alone\nfrom dvfd.errors import StoreError\n"
    "def refuse(*_):\n    raise StoreError('no space')\n"
    "alone.judge_alone = refuse\n"
)


def test_findings_that_cannot_be_kept_lie_beside_the_store(dvfd: Play, tmp_path: Path) -> None:
    done = dvfd("check", "pytorch", before=FULL)
    place = tmp_path / "state/drills/pytorch/findings.json"
    assert (done.returncode, str(place) in done.stderr) == (3, True)
    assert json.loads(place.read_text())["samples"][0][0] == "software_version"


WRITES_NOTHING = (
    "from pathlib import Path\n"
    "def full(*_, **__):\n    raise OSError(28, 'No space left on device')\n"
    "Path.write_text = full\n"
)


def test_findings_that_no_disk_takes_are_told(dvfd: Play) -> None:
    done = dvfd("check", "pytorch", before=FULL + WRITES_NOTHING)
    [said] = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert json.loads(said)["check"] == "pytorch"
    assert "no space; what the test found can be written nowhere" in done.stderr

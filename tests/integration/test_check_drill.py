"""What a test found, handed to a real daemon: kept, judged, told; and the same without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_output import valid
from node import Node, running
from testbed import fetch

from dvfd.asking import ask
from dvfd.clock import SystemClock
from dvfd.drills.drill import Fact, Trouble
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError
from dvfd.evidence.ledger import Evidence, Record
from dvfd.model import Sample, labels

pytestmark = pytest.mark.slow


def found(version: float = 2.013) -> Findings:
    """Of the check of torch: its version and two backends; the cores could not be seen."""
    now = time.time()
    return Findings(
        check="pytorch",
        began=now - 1,
        ended=now,
        samples=(
            Sample("software_version", version, now, labels(package="torch")),
            Sample("backend_available", 1.0, now, labels(backend="gloo")),
        ),
        troubles=(Trouble("torch_visible_cores", "the interpreter hung"),),
        facts=(Fact("torch", "2.13.0+cpu"),),
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(tmp_path_factory.mktemp("node"), [])) as up:
        yield up


def told(node: Node, findings: Findings) -> Any:
    return ask(node.directory / "control.sock", "drilled", findings=findings.to_dict())


def verdicts(report: Any) -> dict[str, str]:
    return {row["criterion"]: row["verdict"] for row in report["results"]}


def test_a_run_is_judged_by_the_daemon_and_says_who_ran_it(node: Node) -> None:
    report = told(node, found())
    valid(report, "report")
    assert verdicts(report)["pytorch.version"] == "PASS"
    assert verdicts(report)["pytorch.cores"] == "UNKNOWN"
    assert report["drill"]["by"] == "root" if os.geteuid() == 0 else report["drill"]["by"]
    assert report["drill"]["facts"] == [{"name": "torch", "text": "2.13.0+cpu"}]


def test_what_broke_is_in_the_reason(node: Node) -> None:
    rows = {row["criterion"]: row for row in told(node, found())["results"]}
    assert "the interpreter hung" in rows["pytorch.cores"]["reason"]


def test_the_verdict_is_on_metrics_and_the_figure_is_not(node: Node) -> None:
    told(node, found(version=1.013))
    text = fetch(f"http://{node.address}/metrics").decode()
    assert (
        'dvfd_criterion_verdict{check="pytorch",criterion="pytorch.version",verdict="FAIL"}' in text
    )
    assert "dvfd_software_version" not in text


def test_the_figure_is_history(node: Node) -> None:
    told(node, found())
    rows = node.ask("history", name="software_version", hours=1.0)["rows"]
    assert 2.013 in [row["value"] for row in rows]


def written_down(node: Node) -> list[Record]:
    """Every run in the ledger of *node*, which hangs together."""
    ledger = Evidence(Path(node.environment["DVFD_STATE_DIR"]) / "evidence", SystemClock())
    assert ledger.verify() == []
    return ledger.records("run", "pytorch")


def test_a_run_is_written_down_with_what_the_report_says_of_it(node: Node) -> None:
    before = len(written_down(node))
    report = told(node, found())

    (record,) = written_down(node)[before:]
    assert (record.node, record.submitted) == (report["node"], report["drill"]["by"])
    assert {row["criterion"]: row["verdict"] for row in record.body["results"]} == verdicts(report)
    kept = Path(node.environment["DVFD_STATE_DIR"]) / record.body["report"]["where"]
    assert json.loads(kept.read_text()) == report


def test_judging_a_run_again_writes_nothing_down(node: Node) -> None:
    told(node, found())
    before = len(written_down(node))
    node.ask("check", check="pytorch")
    assert len(written_down(node)) == before


def test_a_restarted_daemon_judges_the_run_it_had(node: Node) -> None:
    told(node, found())
    assert node.stop() == 0
    node.start()
    report = node.ask("check", check="pytorch")
    assert verdicts(report)["pytorch.version"] == "PASS"
    assert report["drill"]["facts"]


NONSENSE: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "none": lambda: {"findings": None},
    "a part": lambda: {"findings": {"check": "pytorch"}},
    "another list": lambda: {"findings": replace(found(), check="daily").to_dict()},
    "tomorrow's": lambda: {"findings": replace(found(), ended=time.time() + 900).to_dict()},
}
"""Made when it is asked for: a suite takes longer than a quarter of an hour."""


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_and_changes_nothing(node: Node, name: str) -> None:
    told(node, found())
    with pytest.raises(DvfdError):
        ask(node.directory / "control.sock", "drilled", **NONSENSE[name]())
    assert verdicts(node.ask("check", check="pytorch"))["pytorch.version"] == "PASS"


def command(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments], env=node.environment, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip


def test_without_a_daemon_the_last_run_is_judged_from_the_store(node: Node, tmp_path: Path) -> None:
    told(node, found())
    alone = Node(tmp_path, [])
    alone.environment["DVFD_STATE_DIR"] = node.environment["DVFD_STATE_DIR"]
    node.stop()
    before = len(written_down(node))
    (tmp_path / "findings.json").write_text(json.dumps(found().to_dict()))
    try:
        done = command(alone, "check", "pytorch", "--no-run", "-o", "json")
        handed = ("check", "pytorch", "--findings", f"{tmp_path}/findings.json", "-o", "json")
        again = command(alone, *handed)
    finally:
        node.start()
    assert verdicts(json.loads(done.stdout))["pytorch.version"] == "PASS"
    assert "no daemon runs here" in done.stderr
    assert verdicts(json.loads(again.stdout))["pytorch.version"] == "PASS"
    assert len(written_down(node)) == before + 1


def test_several_checks_are_one_document_with_the_worst_verdict(node: Node) -> None:
    done = command(node, "check", "pytorch", "hardware", "--no-run", "-o", "json")
    document = json.loads(done.stdout)
    assert [report["check"] for report in document["reports"]] == ["pytorch", "hardware"]
    assert (document["verdict"], done.returncode) == ("UNKNOWN", 3)


def test_a_check_that_does_not_exist_is_named_before_anything_runs(node: Node) -> None:
    done = command(node, "check", "pytorch", "hardwear")
    assert done.returncode == 3
    assert "did you mean 'hardware'" in done.stderr


def test_what_could_not_be_handed_in_is_judged_later(node: Node, tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text(json.dumps(found().to_dict()))
    done = command(
        node, "check", "pytorch", "--findings", f"{tmp_path}/findings.json", "-o", "json"
    )
    assert verdicts(json.loads(done.stdout))["pytorch.version"] == "PASS"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"), ("[" * 100_000, "cannot be read"), ("[1]", "findings of a drill"),
        (json.dumps(replace(found(), check="hardware").to_dict()), "is of hardware"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_finding_is_told(
    node: Node, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "findings.json").write_text(text)
    done = command(node, "check", "pytorch", "--findings", str(tmp_path / "findings.json"))
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr

"""Guards of the design: who imports what, what a metric's name promises, what docs may name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_sinks import whole

from dvfd import drills
from dvfd.assets import packaged
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.model import ATTESTATION, DRILL, NONE_YET, REVIEW, RUN
from dvfd.people.attestations import METRIC as ATTESTED
from dvfd.probes import CLASSES
from dvfd.reviews.review import METRICS as REVIEW_METRICS
from dvfd.runs.tally import METRICS as RUN_METRICS
from dvfd.sinks import alert
from dvfd.sinks.prometheus import Exposition

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dvfd"
FILES = sorted(PACKAGE.rglob("*.py"))

HOMES = {
    "apscheduler": {"schedule.py"},
    "sqlite3": {"store/"},
    "pynvml": {"probes/gpu.py", "probes/nvml.py"},
    "requests": {"sinks/alertmanager.py"},
    "torch": {
        "drills/",
        "checkpoint_verify.py",
        "checkpoint_load.py",
        "telemetry/gradient_hook.py",
        "integrations/accelerate.py",
    },
    "numpy": {
        "drills/",
        "checkpoint_load.py",
        "analysis.py",
        "scaling/fits.py",
        "reviews/slopes.py",
    },
    "scipy": {"analysis.py", "scaling/fits.py"},
    "prometheus_client": {"sinks/", "scraped.py", "exposition.py"},
    "transformers": {"integrations/huggingface.py"},
    "accelerate": {"integrations/accelerate.py"},
    "lightning": {"integrations/lightning.py"},
    "pytorch_lightning": {"integrations/lightning.py"},
    "torchtitan": {"integrations/torchtitan.py"},
}
"""Where each heavy or sensitive library may be imported."""

PURE = {
    "model.py": set(),
    "errors.py": set(),
    "derive.py": {"dvfd.model"},
    "reduce.py": {"dvfd.model", "dvfd.derive"},
    "judge.py": {"dvfd.model", "dvfd.derive", "dvfd.reduce", "dvfd.words"},
    "alarm.py": {"dvfd.model", "dvfd.derive"},
    "gates/proof.py": {"dvfd.model", "dvfd.evidence.chain", "dvfd.words"},
    "gates/decision.py": {"dvfd.model", "dvfd.gates.proof"},
    "gates/programme.py": {"dvfd.model", "dvfd.evidence.chain", "dvfd.errors", "dvfd.gates.proof"},
}
"""What the pure rooms may import of ours."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{alias.name}" for alias in node.names if node.module == "dvfd"
            }
    return frozenset(found)


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize(("library", "homes"), HOMES.items())
def test_a_library_is_imported_only_at_home(library: str, homes: set[str]) -> None:
    users = {name(p) for p in FILES if library in {i.partition(".")[0] for i in imports(p)}}
    strangers = {u for u in users if not any(u == h or u.startswith(h) for h in homes)}
    assert not strangers


@pytest.mark.parametrize(("room", "allowed"), PURE.items())
def test_pure_rooms_import_only_downward(room: str, allowed: set[str]) -> None:
    ours = {i for i in imports(PACKAGE / room) if i.startswith("dvfd.")}
    assert ours <= allowed


@pytest.mark.parametrize(
    "room",
    [
        "judge.py",
        "reduce.py",
        "derive.py",
        "alarm.py",
        "gates/proof.py",
        "gates/decision.py",
        "gates/programme.py",
    ],
)
def test_pure_rooms_read_no_clock_and_no_file(room: str) -> None:
    worldly = {"time", "os", "pathlib", "socket", "subprocess", "threading", "random", "structlog"}
    assert not worldly & {i.partition(".")[0] for i in imports(PACKAGE / room)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "probes").glob("*.py")), ids=name)
def test_probes_know_neither_criteria_nor_sinks(path: Path) -> None:
    if path.name == "__init__.py":
        return
    banned = ("dvfd.judge", "dvfd.sinks", "dvfd.catalogue", "dvfd.daemon", "dvfd.alarm", "dvfd.cli")
    assert not [i for i in imports(path) if i.startswith(banned)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "sinks").glob("*.py")), ids=name)
def test_sinks_never_judge(path: Path) -> None:
    assert not [i for i in imports(path) if i.startswith(("dvfd.judge", "dvfd.probes"))]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_file_says_which_idea_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path))


CATALOGUE = load(Config())


def test_every_measured_metric_is_declared_by_the_probe_or_drill_it_names() -> None:
    declared = {(probe.name, metric) for probe in CLASSES for metric in probe.metrics}
    parts = [part for check in drills.PARTS for part in drills.build(check)]
    declared |= {(DRILL, metric) for part in parts for metric in part.metrics}
    declared |= {(RUN, metric) for metric in RUN_METRICS} | {(ATTESTATION, ATTESTED)}
    declared |= {(REVIEW, metric) for metric in REVIEW_METRICS}
    metrics = CATALOGUE.metrics.values()
    promised = {(m.source, m.name) for m in metrics if m.source != NONE_YET}
    promised |= {(DRILL, m.name) for m in metrics if m.drilled}
    assert declared == promised


def test_every_criterion_has_its_metrics_unit_or_one_made_from_it() -> None:
    """The lint of the catalogue checks units; here: that it looked at every criterion."""
    assert all(c.metric in CATALOGUE.metrics for c in CATALOGUE.criteria.values())


def test_metric_names_follow_prometheus() -> None:
    banned = re.compile(r"percent|_watts|gbps|milli|_ms$|_pct|hostname|_pid$")
    bad = [
        n for n in CATALOGUE.metrics if banned.search(n) or not re.fullmatch(r"[a-z][a-z0-9_]+", n)
    ]
    assert not bad


def test_counters_end_in_total_and_gauges_do_not() -> None:
    for metric in CATALOGUE.metrics.values():
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name


def test_no_label_can_grow_without_bound() -> None:
    banned = {"hostname", "pid", "step", "error", "run", "uid", "session"}
    assert not [m.name for m in CATALOGUE.metrics.values() if banned & set(m.labels)]


def test_thresholds_live_in_checks_only() -> None:
    """No file of the package compares with a framework number by name."""
    pattern = re.compile(r"\b(62\.5|270\.19|99\.99|0\.9999|99\.95|0\.9995)\b")
    assert not [name(p) for p in FILES if pattern.search(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "alert", [alert.FAILED, alert.BLIND, alert.STORM, alert.TEST, alert.PHASE_TEST, alert.DELAYED]
)
def test_every_alert_has_a_runbook_of_four_parts(alert: str) -> None:
    text = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text(encoding="utf-8")
    assert all(f"**{part}.**" in text for part in ("Meaning", "Impact", "Diagnosis", "Mitigation"))


DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_documents_name_only_files_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Every series name on /metrics, with four ranks and everything measured."""
    text = Exposition(whole(FakeClock()).snapshot).text().decode()
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[:1] not in {"#", ""}}


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_documents_name_only_series_that_are_exported(path: Path, exported: set[str]) -> None:
    named = set(re.findall(r"\bdvfd_[a-z_]+[a-z]\b", path.read_text(encoding="utf-8")))
    modules = {Path(name).stem for name in packaged() if name.startswith("job/")}
    assert named - modules <= exported

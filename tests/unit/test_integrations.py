"""What every integration keeps to: its own framework alone, old Python, copies that work."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import dvfd.integrations
from dvfd.telemetry.reporter import quietly

HERE = Path(dvfd.integrations.__file__).parent
FILES = sorted(path for path in HERE.glob("*.py") if path.name != "__init__.py")

FRAMEWORKS = {
    "huggingface": {"transformers"},
    "accelerate": {"accelerate", "torch"},
    "lightning": {"lightning", "pytorch_lightning"},
    "torchtitan": {"torchtitan"},
}
"""What each may import beside the standard library and the reporter."""

REPORTER = """try:
    from dvfd.telemetry.reporter import {names}
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import {names}"""


def stem(path: Path) -> str:
    return path.stem


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_an_integration_imports_its_framework_and_the_reporter_alone(path: Path) -> None:
    assert imported(path) <= FRAMEWORKS[path.stem] | {"dvfd", "dvfd_reporter"}


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_an_integration_is_written_in_python_3_8(path: Path) -> None:
    assert ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_an_integration_finds_the_reporter_installed_or_copied_beside_it(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    names = re.search(r"from dvfd_reporter import (.*)", source)
    assert names
    assert REPORTER.format(names=names[1]) in source


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_an_integration_never_reads_a_value_off_a_device(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
    assert not {"item", "tolist", "cpu", "synchronize"} & {call.attr for call in calls}


class Noted:
    """A reporter that keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Broken:
    """A part of an integration that meets what it did not expect."""

    def __init__(self) -> None:
        self.reporter = Noted()

    @quietly
    def meet(self, error: BaseException) -> Any:
        raise error


def test_what_breaks_in_an_integration_is_noted_and_not_raised() -> None:
    broken = Broken()
    broken.meet(KeyError("loss"))
    assert broken.reporter.notes == ["Broken.meet: KeyError('loss')"]


def test_an_interrupt_is_no_trouble_of_the_integration() -> None:
    with pytest.raises(KeyboardInterrupt):
        Broken().meet(KeyboardInterrupt())


class Loggers:
    """In the place of torchtitan's container, which this interpreter has not."""

    def add_logger(self, _logger: object) -> None:
        """Take one, and do nothing with it."""


@pytest.mark.parametrize("interval", [None, "x", 1e400, [], 500])
def test_a_checkpointer_of_an_odd_shape_is_no_trouble_of_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interval: object
) -> None:
    metrics = ModuleType("torchtitan.components.metrics")
    metrics.BaseLogger, metrics.LoggerContainer = object, Loggers  # type: ignore[attr-defined]
    for name in ("torchtitan", "torchtitan.components"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, metrics.__name__, metrics)
    monkeypatch.delitem(sys.modules, "dvfd.integrations.torchtitan", raising=False)
    titan = importlib.import_module("dvfd.integrations.torchtitan")
    monkeypatch.delitem(sys.modules, titan.__name__)

    checkpointer = SimpleNamespace(enable=True, interval=interval)
    trainer = SimpleNamespace(checkpointer=checkpointer, train=lambda: "trained", step=1)
    titan.watch(trainer, "gpt", socket=str(tmp_path / "nobody"))

    assert trainer.train() == "trained"

"""The first example, trained for long: nothing that would call somebody."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import pytest
from fakes_frameworks import ROOT

from dvfd.telemetry.job import LossWatch

pytest.importorskip("torch")

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch]


class Watching:
    """A reporter that holds losses against those before, as the daemon does."""

    def __init__(self) -> None:
        self.watch, self.losses = LossWatch(), 0

    def step(self, _step: int, *, loss: float | None = None, **_more: object) -> None:
        if loss is not None:
            self.losses += 1
            self.watch.add(loss)

    def pause(self, *_: object) -> None:
        """Nothing to watch."""

    checkpoint_begin = checkpoint_saved = pause


def test_a_training_that_goes_well_for_long_has_no_spike(tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples/plain_torch.py"))
    reporter = Watching()
    steps = 5000

    example["train"](reporter, argparse.Namespace(steps=steps, fail_at=0, output=str(tmp_path)))

    assert reporter.losses == steps / example["LOG_EVERY"]
    assert reporter.watch.spikes == 0

"""Workers of the convergence drill: one that trains nothing, and real ones with a mistake."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvfd import analysis
from dvfd.drills import curve, tree
from dvfd.drills.interpreter import BARE
from dvfd.errors import ToolError
from dvfd.shell import Output

WRONG = Path(__file__).with_name("training_wrong.py")

Losses = Callable[[int, int, int], Sequence[float]]
"""(processes, seed, steps) to one loss a step."""


def falling(_processes: int, seed: int, steps: int, *, noise: float = 0.02) -> np.ndarray:
    """What training looks like; both sides see the same text, so the same noise."""
    chance = np.random.default_rng(seed)
    done = np.arange(steps) / steps
    return 2.0 + 3.0 * np.exp(-8 * done) + chance.normal(0, noise, steps)


class FakeWorker:
    """A runner for Task: answers every order of the drill, and analyses in this process."""

    def __init__(self, losses: Losses = falling) -> None:
        self.losses = losses
        self.gaps: Mapping[int, float] = {1: 0.1, 2: 0.1}  # validation less training, if taken
        self.torch = "2.13.0"
        self.speeds: dict[int, float] = {1: 100.0, 2: 150.0}
        self.trained: list[tuple[int, int]] = []
        self.environments: list[Mapping[str, str]] = []
        self.spoil: Callable[[Path], None] = lambda _file: None
        self.ends = Output(0, "", "", 0.1)

    def __call__(self, argv: Sequence[str], *, timeout: float, **how: Any) -> Output:
        if "dvfd.analysis" in argv:
            return analysed(how["stdin"])
        self.environments.append(how["env"])
        given = {a: b for a, b in itertools.pairwise(argv) if a.startswith("--")}
        many = next((int(a[17:]) for a in argv if a.startswith("--nproc_per_node=")), 1)
        if self.ends.code:
            return self.ends
        answer = Path(given["--answer"])
        if "--measure" in given:
            curve.put(answer, self.measured(many))
        else:
            self.train(given, many, answer)
        return self.ends

    def measured(self, many: int) -> dict[str, Any]:
        speed = self.speeds[many]
        return {"torch": self.torch, "text": "abc", "speed": speed, "processes": many}

    def train(self, given: Mapping[str, str], many: int, answer: Path) -> None:
        plan = curve.Configuration(**json.loads(Path(given["--plan"]).read_text()))
        seed = int(given["--seed"])
        losses = [float(v) for v in self.losses(many, seed, plan.steps)]
        held_out = [(float(plan.samples), losses[-1] + self.gaps[many])] if self.gaps else []
        found = curve.Curve(
            hash=plan.hash,
            processes=many,
            seed=seed,
            batch=plan.batch,
            losses=tuple(losses),
            validation=tuple(held_out),
            nonfinite=sum(not np.isfinite(v) for v in losses),
            seconds=plan.samples / self.speeds[many],
        )
        curve.write(answer, found)
        self.trained.append((seed, many))
        self.spoil(answer)


def analysed(asked: bytes) -> Output:
    """What `python -m dvfd.analysis` would say."""
    before = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.StringIO(asked.decode()), io.StringIO()
    try:
        code = analysis.main()
        return Output(code, sys.stdout.getvalue(), "", 0.1)
    except Exception as error:
        raise ToolError(repr(error)) from error
    finally:
        sys.stdin, sys.stdout = before


def mistaken(kind: str) -> Callable[..., Output]:
    """A runner under which the distributed side trains with a mistake of *kind*, for real."""

    def run(argv: Sequence[str], **how: Any) -> Output:
        words = list(argv)
        if any(word.startswith("--nproc_per_node") for word in words) and "--measure" not in words:
            at = words.index(str(BARE))
            words[at : at + 2] = [str(WRONG), kind]
        return tree.run(words, **how)

    return run

"""A Task for tests: directories and a clock of its own, a runner that is told its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fakes import FakeClock

from dvfd.catalogue import load
from dvfd.config import Config, parse
from dvfd.drills.drill import Options, Task
from dvfd.drills.findings import Findings
from dvfd.errors import ToolError
from dvfd.judge import judge
from dvfd.model import Catalogue, Result, Verdict
from dvfd.shell import Output


class FakeRunner:
    """Answers by the first word that one of *answers* and the command line share.

    An answer is an Output, an exception to raise, or a function of the command line.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self._answers = dict(answers or {})
        self.ran: list[list[str]] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Output:
        self.ran.append(list(argv))
        for key, answer in self._answers.items():
            if any(key in Path(word).name or key == word for word in argv):
                found = answer(list(argv)) if callable(answer) else answer
                if isinstance(found, BaseException):
                    raise found
                for line in found.stdout.splitlines() if on_line else ():
                    on_line(line)
                return found
        raise ToolError(f"{argv[0]}: cannot be started: No such file or directory")


def said(stdout: str = "", *, code: int = 0, stderr: str = "") -> Output:
    """What a tool left behind."""
    return Output(code, stdout, stderr, 0.01)


@cache
def site(toml: str) -> tuple[Config, Catalogue]:
    """A configuration and its catalogue, which no test changes: loading one takes 50 ms."""
    config = parse(toml) if toml else Config()
    return config, load(config)


def task(name: str, directory: Path, /, *, toml: str = "", **world: Any) -> Task:
    """A task of check *name* with the configuration *toml*; a world is empty unless given."""
    config, catalogue = site(toml)
    scratch, state = directory / "scratch", directory / "state"
    scratch.mkdir(exist_ok=True, parents=True)
    state.mkdir(exist_ok=True)
    given = {
        "check": catalogue.checks[name],
        "clock": FakeClock(),
        "run": FakeRunner(),
        "options": Options(),
        **world,
    }
    return Task(config=config, scratch=scratch, state=state, **given)


def judged(task: Task, findings: Findings | Iterable[Any]) -> dict[str, Result]:
    """Each criterion's result by its short name, from findings or from what a part yields."""
    from dvfd.drills.supervise import supervise

    if not isinstance(findings, Findings):
        yielded = list(findings)

        class Only:
            name = "only"
            metrics = tuple({s.metric for s in yielded if hasattr(s, "metric")})

            def run(self, _task: Task) -> Iterable[Any]:
                return iter(yielded)

        findings = supervise(task, [Only()])  # type: ignore[list-item]
    at = task.clock.now()
    results = {}
    for criterion in task.check.criteria:
        criterion = criterion.among(findings.processes)  # noqa: PLW2901  # as judgements do
        trouble = findings.trouble(criterion)
        result = judge(criterion, findings.samples, at=at, trouble=trouble)
        results[criterion.id.partition(".")[2]] = findings.spoken(result)
    return results


def verdicts(results: Mapping[str, Result]) -> dict[str, Verdict]:
    """The verdicts alone."""
    return {name: result.verdict for name, result in results.items()}

"""Which wrong changes of the deciding modules no test sees.

Every mutant is one small change: a comparison turned, a number one higher, an argument left out.
The unit tests that reach it must fail. One that survives them is either a promise without a test,
or changes nothing that anybody was promised: those stand in bench/mutants_explained.toml, each
with its reason, read by a person. Any other survivor is a failure of this check.

    python -m bench.mutants                            every mutant of every module: an hour
    python -m bench.mutants dvfd/judge.py --sample 50  some of one
    python -m bench.mutants --short                    a few of each, other ones with --seed
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.harness import finish
from bench.mutant_tests import Mutants, Outcome
from bench.mutation import Key, Mutant, mutants
from bench.record import RESULTS, Figure, exactly

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = ROOT / "bench" / "mutants_explained.toml"

ALONE = "MUTANTS_IN_A_NAMESPACE"

SHORT = 4
"""Mutants of each module in a smoke run."""

MODULES = {
    "dvfd/judge.py": ("judge", "judge_windows"),
    "dvfd/reduce.py": ("judge", "judge_windows"),
    "dvfd/derive.py": ("derive", "derive_loss", "norm_watch", "judge_windows"),
    "dvfd/alarm.py": ("alarm", "alarm_blindness", "breaches"),
    "dvfd/breaches.py": ("breaches",),
    "dvfd/sinks/pager.py": ("pager", "sink_alertmanager"),
    "dvfd/sinks/alertmanager.py": ("sink_alertmanager",),
    "dvfd/store/pending.py": ("store_pending",),
    "dvfd/gates/decide.py": ("gates", "gatehouse"),
    "dvfd/gates/decision.py": ("gates", "gatehouse"),
    "dvfd/gates/proof.py": ("gates", "gatehouse"),
    "dvfd/gates/gatehouse.py": ("gates", "gatehouse"),
    "dvfd/gates/programme.py": ("programme", "gatehouse"),
    "dvfd/gates/words.py": ("gate_words", "gates_page", "cli_gate_screen"),
    "dvfd/incidents/incident.py": ("incidents",),
    "dvfd/incidents/protocol.py": ("incidents",),
    "dvfd/incidents/preserve.py": ("preserve", "incidents"),
    "dvfd/incidents/halt.py": ("halt", "incidents"),
    "dvfd/incidents/at_once.py": ("at_once", "incidents"),
}
"""What decides, and the unit tests that hold it to its promises."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of the mutants of one module: all of it, or a `sample` drawn with `seed`."""

    mutants: int
    killed: int
    timed_out: int
    explained: int
    unexplained: int
    sample: int = 0
    seed: int = 0
    at: str = ""

    @property
    def score(self) -> float:
        """The share that some test saw, in percent."""
        return 100.0 * (self.killed + self.timed_out) / self.mutants if self.mutants else 100.0


def main() -> int:
    """Try them; 1 where a survivor is not explained, or an explanation is of nothing any more."""
    options = _options()
    if not os.environ.get(ALONE):
        _go_alone()
    explained = explanations(EXPLAINED.read_text(encoding="utf-8"))
    options.sample = sample = options.sample or (SHORT if options.short else 0)
    chosen = [
        mutant
        for module in options.modules
        for mutant in mutants(ROOT, module, sample=sample, seed=options.seed)
    ]
    found = list(zip(chosen, attempt(chosen, options.jobs), strict=True))
    unexplained = survivors(found, explained)
    for mutant in unexplained:
        print(f"nobody has explained: {mutant}")
    old = [] if sample else stale(chosen, explained)
    for key in old:
        print("explained, but there is no such mutant: " + ", ".join(key))
    tried = {
        module: _tried([each for each in found if each[0].module == module], explained, options)
        for module in options.modules
    }
    if options.keep or not options.short:
        tried = kept(RESULTS / "mutants.json") | tried
    raw = {"modules": {module: asdict(each) for module, each in tried.items()}}
    finish("mutants", options, figures(tried), raw)
    return 1 if unexplained or old else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE")
    parser.add_argument("--short", action="store_true", help=f"{SHORT} mutants of each module")
    parser.add_argument("--keep", action="store_true", help="keep a short run's figures too")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each module; 0: all")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.set_defaults(load=os.getloadavg())
    options = parser.parse_args()
    if unknown := set(options.modules) - set(MODULES):
        parser.error(f"{', '.join(sorted(unknown))}: wanted some of {', '.join(MODULES)}")
    return options


def _go_alone() -> None:
    """Begin again in a PID namespace: what stops jobs may, changed, signal anybody it can see.

    A shell is its first process, which reaps whatever loses its parent.
    """
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.getuid() != 0:
        namespace += ["--user", "--map-root-user"]
    again = [sys.executable, "-u", "-m", "bench.mutants", *sys.argv[1:]]
    command = [*namespace, "sh", "-c", '"$@"; exit $?', "sh", *again]
    os.execvpe(command[0], command, {**os.environ, ALONE: "1"})


def attempt(chosen: Sequence[Mutant], jobs: int) -> list[Outcome]:
    """What became of each."""
    modules = {mutant.module for mutant in chosen}
    tests = {module: frozenset(f"test_{name}.py" for name in MODULES[module]) for module in modules}
    plugin = Mutants(ROOT, chosen, tests, jobs=jobs, tell=lambda said: print(said, flush=True))
    names = sorted(frozenset().union(*tests.values()))
    files = [str(ROOT / "tests" / "unit" / name) for name in names]
    options = ["-q", "-p", "no:cacheprovider", "--capture=no"]
    status = pytest.main([*options, *files], plugins=[plugin])
    if plugin.broken or status != 0:
        sys.exit("\n".join(plugin.broken) or f"pytest ended with {status}")
    return plugin.outcomes


def explanations(text: str) -> dict[Key, str]:
    """Why a change that no test sees breaks no promise, by the change."""
    return {
        (entry["module"], entry["function"], was, now): entry["why"]
        for entry in tomllib.loads(text).get("explained", [])
        for was, now in entry["changes"]
    }


def survivors(
    found: Iterable[tuple[Mutant, Outcome]], explained: Mapping[Key, str]
) -> list[Mutant]:
    """Those that nobody has explained."""
    return [m for m, outcome in found if outcome is Outcome.SURVIVED and m.key not in explained]


def stale(chosen: Sequence[Mutant], explained: Mapping[Key, str]) -> list[Key]:
    """Explanations of changes that are none of *chosen*, which are all of their modules."""
    modules, known = {m.module for m in chosen}, {m.key for m in chosen}
    return [key for key in explained if key[0] in modules and key not in known]


def _tried(
    found: Sequence[tuple[Mutant, Outcome]],
    explained: Mapping[Key, str],
    options: argparse.Namespace,
) -> Tried:
    outcomes = Counter(outcome for _, outcome in found)
    unexplained = len(survivors(found, explained))
    return Tried(
        mutants=len(found),
        killed=outcomes[Outcome.KILLED],
        timed_out=outcomes[Outcome.TIMED_OUT],
        explained=outcomes[Outcome.SURVIVED] - unexplained,
        unexplained=unexplained,
        sample=options.sample,
        seed=options.seed if options.sample else 0,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def kept(path: Path) -> dict[str, Tried]:
    """What earlier runs found of modules: a run of some leaves the others as they were."""
    if not path.exists():
        return {}
    modules = json.loads(path.read_text(encoding="utf-8"))["raw"]["modules"]
    return {module: Tried(**each) for module, each in modules.items() if module in MODULES}


def figures(tried: Mapping[str, Tried]) -> list[Figure]:
    """Each module's score, and the survivors that nobody has explained."""
    unexplained = sum(each.unexplained for each in tried.values())
    return [
        *(_score(module, tried[module]) for module in MODULES if module in tried),
        exactly("unexplained", "mutants that survive unexplained", unexplained, "mutants", 0),
    ]


def _score(module: str, tried: Tried) -> Figure:
    drawn = ", drawn at random" if tried.sample else ""
    text = (
        f"{module}: killed of {tried.mutants} mutants{drawn}; {tried.explained} survive and are "
        "explained"
    )
    return Figure(module, text, tried.score, "%")


if __name__ == "__main__":
    sys.exit(main())

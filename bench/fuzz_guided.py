"""Targets of the table under a coverage-guided fuzzer: atheris, which is libFuzzer for Python.

`python -m bench.fuzz_guided PLACE SECONDS RUNS TARGET...` instruments once, then fuzzes each target
in a process of its own. PLACE keeps each one's corpus, its log, and what crashed it: `crash-*`,
`timeout-*`, `oom-*`.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTRUMENTED = {
    "packets": ("dvfd.telemetry.wire",),
    "expositions": ("dvfd.exposition", "prometheus_client.parser"),
    "nodes": ("dvfd.scraped", "prometheus_client.parser"),
    "engines": ("dvfd.history.answer", "dvfd.masking", "dvfd.words"),
    "fleet": ("dvfd.scraped", "dvfd.words"),
    "peers": ("dvfd.remote", "dvfd.runs.told", "dvfd.runs.crossed"),
    "packed": ("dvfd.remote",),
    "perfdata": ("dvfd.perfdata", "dvfd.words"),
    "trainers": ("dvfd.telemetry.trainer_log", "dvfd.telemetry.patterns", "dvfd.telemetry.feed"),
    "lines": ("dvfd.telemetry.files", "dvfd.telemetry.feed", "dvfd.telemetry.jobs", "dvfd.tail",
              "dvfd.telemetry.job", "dvfd.telemetry.rank", "dvfd.telemetry.wire"),
    "manifests": ("dvfd.manifest",),
    "checkpoints": ("dvfd.checkpoint_verify", "dvfd.manifest", "zipfile"),
    "ledger": ("dvfd.evidence.chain",),
    "bundles": ("dvfd.evidence", "tarfile"),
    "settings": ("dvfd.config", "tomllib"),
    "web": ("dvfd.sinks.web_config", "yaml"),
    "requests": ("dvfd.sinks.http", "urllib.parse"),
    "secrets": ("dvfd.masking",),
}  # fmt: skip
"""The modules of each target in which new edges count. All of dvfd would take half a minute."""

SLOWEST = 10
"""Seconds after which one input counts as a hang: none of a few KiB takes a tenth of it."""

MEMORY = 1024
"""MiB that the fuzzing process may hold, its corpus and the instrumentation included."""

SEED = 9

RAN = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
PEAK = re.compile(r"stat::peak_rss_mb:\s+(\d+)")
SEEN = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(frozen=True, slots=True)
class Guided:
    """What came of one target."""

    target: str
    runs: int
    edges: int  # of the code that were seen
    corpus: int  # inputs that each showed something new
    peak_mib: int
    crash: str = ""  # the input's file, and the last words

    def to_document(self) -> dict[str, object]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def guided(place: Path, targets: Sequence[str], *, seconds: int, runs: int) -> list[Guided]:
    """Fuzz each of *targets* until *seconds* or *runs* are over, or it crashes."""
    command = [sys.executable, "-m", "bench.fuzz_guided", str(place), str(seconds), str(runs)]
    limit = 180 + len(targets) * (seconds + 60)
    subprocess.run([*command, *targets], check=True, timeout=limit)
    return [_found(place / target, target) for target in targets]


def _found(place: Path, target: str) -> Guided:
    said = (place / "log").read_text(encoding="utf-8", errors="replace")
    seen = (SEEN.findall(said) or [("0", "0", "0")])[-1]
    crashes = sorted(place.glob("*-*"))
    last = (said.strip().splitlines() or [""])[-1][:300]
    if crashes:
        crash = f"{crashes[0].name}: {last}"
    else:
        crash = "" if RAN.search(said) else f"the fuzzer itself ended: {last}"
    return Guided(
        target, _number(RAN, said), int(seen[0]), int(seen[2]), _number(PEAK, said), crash
    )


def _number(pattern: re.Pattern[str], said: str) -> int:
    found = pattern.search(said)
    return int(found[1]) if found else 0


def main() -> None:
    """Fuzz what the command line names, one after the other."""
    place, seconds, runs, *targets = sys.argv[1:]
    atheris = importlib.import_module("atheris")
    modules = sorted({name for target in targets for name in INSTRUMENTED[target]})
    with atheris.instrument_imports(include=modules):
        importlib.import_module("bench.fuzz_targets")
    for target in targets:
        folder = Path(place) / target
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        if (child := os.fork()) == 0:
            _fuzz(target, folder, seconds, runs)
        os.waitpid(child, 0)


def _fuzz(name: str, folder: Path, seconds: str, runs: str) -> None:
    """Fuzz one target; never returns."""
    atheris = importlib.import_module("atheris")
    target = importlib.import_module("bench.fuzz_targets").TARGETS[name]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for number, seed in enumerate(target.seeds()):
        (folder / "corpus" / f"seed-{number}").write_bytes(seed[: target.most])
    options = [
        f"-max_total_time={seconds}", f"-runs={runs}", f"-seed={SEED}", f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={folder}/", f"-max_len={target.most}",
        "-print_final_stats=1",
    ]  # fmt: skip

    def take(data: bytes) -> None:
        try:
            target.take(data)
        except Exception:
            (folder / "crash-input").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], take)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()

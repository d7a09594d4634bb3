"""Have checkpoints verified, one at a time, by a child process at idle priority. Never opens one.

For a checkpoint without a manifest of ours, one is made when its save is first seen and kept in
the store, so that a bit that flips later is found. Answers are kept there too: a daemon that starts
anew knows what the one before had shown of the same files, and is not blind while it reads them.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dvfd.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dvfd.config import Checkpoints as Settings
    from dvfd.shell import Output

KIND = "checkpoint_manifest"
"""Kind of the records in the store; their key is the job."""

ANSWERS = "checkpoint_answer"
"""Kind of the records of answers; their key is the job."""

DOCUMENT_LIMIT = 256 << 10
"""Characters of a manifest that are kept, about 2000 files: the store keeps records in memory."""

VERIFIER = (sys.executable, "-P", "-m", "dvfd.checkpoint_verify")
"""-P: a directory called dvfd where the daemon happens to run is not ours."""


class Runner(Protocol):
    """`shell.run`, or a fake of it."""

    def __call__(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Output:
        """Run to the end. Raises ToolError, ToolTimeout."""
        ...


class Records(Protocol):
    """The small records of the store."""

    def put(self, kind: str, key: str, document: dict[str, Any] | None) -> None:
        """Keep one record; None deletes it."""
        ...

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """One record."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """What to verify: the path as reported, when it was saved, where it lies in our view, and the
    state of its files (sizes and change times) that the answer will stand for."""

    job: str
    path: str
    saved_at: float | None
    place: Path
    mark: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it; None where nothing could be shown, and `reason` says why."""

    target: Target
    asked: float
    intact: bool | None
    loadable: bool | None
    reason: str


def in_thread(work: Callable[[], None]) -> None:
    """Do *work* beside the caller; the process does not wait for it at its end."""
    threading.Thread(target=work, name="dvfd-verifier", daemon=True).start()


class Verifier:
    """A queue of one per job, and the latest answer for each."""

    def __init__(
        self,
        settings: Settings,
        *,
        records: Records,
        run: Runner,
        start: Callable[[Callable[[], None]], None] = in_thread,
    ) -> None:
        self._settings = settings
        self._records = records
        self._run = run
        self._start = start
        self._lock = threading.Lock()
        self._queue: dict[str, tuple[Target, float]] = {}
        self._now: Target | None = None
        self._answers: dict[str, Answer | None] = {}

    def answer(self, job: str) -> Answer | None:
        """The latest answer about the job, whatever it was about: also an earlier daemon's."""
        with self._lock:
            if job not in self._answers:
                self._answers[job] = _kept(self._records.get(ANSWERS, job), self._options())
            return self._answers[job]

    def request(self, target: Target, *, at: float) -> None:
        """Verify *target* as soon as the others before it are done; asking twice is asking once."""
        with self._lock:
            if self._now == target:
                return
            idle = self._now is None and not self._queue
            self._queue[target.job] = (target, at)
        if idle:
            self._start(self._work)

    def keep_only(self, jobs: set[str]) -> None:
        """Forget every other job."""
        with self._lock:
            for job in self._answers.keys() - jobs:
                self._records.put(ANSWERS, job, None)
            self._answers = {job: a for job, a in self._answers.items() if job in jobs}
            self._queue = {job: q for job, q in self._queue.items() if job in jobs}

    def _work(self) -> None:
        try:
            while taken := self._take():
                target, at = taken
                self._note(Answer(target, at, *self.verify(target)))
        except BaseException:
            with self._lock:
                self._now = None  # the next request starts another thread
            raise

    def _note(self, answer: Answer) -> None:
        job, target = answer.target.job, answer.target
        document = {**asdict(answer), "target": asdict(target) | {"place": str(target.place)}}
        with self._lock:
            self._answers[job] = answer
            self._records.put(ANSWERS, job, {**document, "options": self._options()})

    def _take(self) -> tuple[Target, float] | None:
        with self._lock:
            job = next(iter(self._queue), None)
            taken = None if job is None else self._queue.pop(job)
            self._now = taken[0] if taken else None
            return taken

    def verify(
        self, target: Target, *, whole: bool = False
    ) -> tuple[bool | None, bool | None, str]:
        """Whether *target* is intact and loads, and in words: now, in the caller's thread. With
        *whole* all of its state is restored in that process.
        """
        try:
            document = self._document(target)
            more = (["--manifest"] if document else []) + (["--restore"] if whole else [])
            stdin = json.dumps(document).encode() if document else b""
            done = self._child(target.place, *more, *self._options(), stdin=stdin)
        except ToolError as error:
            return None, None, str(error)
        return _parse(done)

    def _options(self) -> list[str]:
        settings = self._settings
        options = ["--json", "--python", str(settings.python or sys.executable)]
        return options if settings.weights_only else [*options, "--trust-pickles"]

    def _child(self, place: Path, *options: str, stdin: bytes = b"") -> Output:
        memory = str(self._settings.memory_bytes)
        argv = [*VERIFIER, "--memory-bytes", memory, *options, "--", str(place)]
        return self._run(argv, timeout=self._settings.timeout, stdin=stdin)

    def _document(self, target: Target) -> Mapping[str, Any] | None:
        """The manifest made when this very save was first seen; None if it has one of its own."""
        kept = self._records.get(KIND, target.job)
        if not kept or (kept.get("path"), kept.get("saved_at")) != (target.path, target.saved_at):
            kept = {
                "path": target.path,
                "saved_at": target.saved_at,
                "manifest": self._make(target.place),
            }
            self._records.put(KIND, target.job, kept)
        document: Mapping[str, Any] | None = kept.get("manifest")
        return document

    def _make(self, place: Path) -> dict[str, Any] | None:
        done = self._child(place, "--make-manifest")
        if done.code or len(done.stdout) > DOCUMENT_LIMIT:
            return None
        try:
            document: dict[str, Any] | None = json.loads(done.stdout)
        except ValueError:
            return None
        return document


def _kept(document: Mapping[str, Any] | None, options: Sequence[str]) -> Answer | None:
    """The answer in a record; None if there is none, it is none of ours, or others were asked."""
    try:
        if document is None or document["options"] != list(options):
            return None
        target = Target(**document["target"] | {"place": Path(document["target"]["place"])})
        said = {key: document[key] for key in ("asked", "intact", "loadable", "reason")}
        return Answer(target, **said)
    except (KeyError, TypeError):
        return None


def _parse(done: Output) -> tuple[bool | None, bool | None, str]:
    try:
        said = json.loads(done.stdout)
        return said["intact"], said["loadable"], str(said["reason"])
    except (ValueError, KeyError, TypeError):
        words = done.stderr.strip().splitlines()[-1:] or ["no words"]
        return None, None, f"the verifier ended with code {done.code}: {words[0][:200]}"

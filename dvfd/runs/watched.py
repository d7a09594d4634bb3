"""One run under a daemon's eyes: its file, its recorder, its figures. Not thread-safe by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dvfd.runs.advance import Seen, advance, broken, discounted
from dvfd.runs.company import Alone
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Stage, passed
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.model import Check, Clock, Sample
    from dvfd.runs.company import Abroad, Company
    from dvfd.runs.recorder import Recorder
    from dvfd.runs.run import Run
    from dvfd.runs.sight import Sight
    from dvfd.runs.verdicts import Judged
    from dvfd.store.run_file import RunFile
    from dvfd.telemetry.job import Job
    from dvfd.telemetry.rank import Rank
    from dvfd.telemetry.wire import Event as Told

LAST_WORDS = 3.0
"""Seconds after its end in which ranks still tell of its last steps: they do so every second."""

CLOSING = 900.0
"""Seconds after its end in which checkpoints are still verified before the report is frozen: a
checkpoint may take [checkpoints] timeout, 600 s by default, and one more may wait behind it."""


class Watched:
    """A run that is on, or that only waits for its last checkpoints to be verified."""

    def __init__(
        self,
        run: Run,
        check: Check,
        *,
        file: RunFile,
        recorder: Recorder,
        tally: Tally,
        sight: Sight,
        clock: Clock,
        company: Company | None = None,
    ) -> None:
        self.run = run
        self.check = check
        self.file = file
        self.lost = ""  # the criterion that can no longer be met
        self.closing = False  # its report is being written
        self.accepts = False  # misplaced ranks begin all the same, in a run that never counts
        self._recorder = recorder
        self._tally = tally
        self._sight = sight
        self._clock = clock
        self._mark = 0
        self.company = company or Alone()
        self._broken_t: float | None = None  # since when something here speaks for an end

    def t(self) -> float:
        """Run seconds now."""
        return self.run.axis.t(self._clock.boot())

    def sampled(self, samples: Iterable[Sample]) -> None:
        """What the probes measured."""
        if not self.run.stage.over:
            self._recorder.sampled(samples)

    def heard(self, job: Job, rank: Rank, told: Told) -> None:
        """What a rank told of itself."""
        self._recorder.heard(job, rank, told)

    def injected(self, text: str, seconds: float) -> None:
        """A fault was injected on purpose, for so long at most: what follows is planned."""
        self._recorder.injected(text, seconds)

    def healed(self) -> None:
        """It was taken back."""
        self._recorder.healed()

    def tick(self) -> bool:
        """Look once; whether the run moved on."""
        at, boot = self._clock.now(), self._clock.boot()
        t = self.run.axis.t(boot)
        self._recorder.tick(t, at, boot)
        self.file.heartbeat(t, at)
        self.file.flush()
        before = self.run
        self.run = replace(before, seen_t=t, seen_at=at)
        abroad = self.company.look(before, t=t, at=at)
        if not before.stage.over:
            seen = self._sight.look(before, boot=boot, exited=before.exited, lost=self.lost)
            self._move(self._with(abroad, seen), abroad, at)
        return self.run.stage is not before.stage

    def _with(self, abroad: Abroad, seen: Seen) -> Seen:
        """*seen* with what is seen of the other nodes."""
        seen = replace(seen, waits=abroad.waits, fallen=abroad.fallen, led=abroad.led)
        if not broken(self.run, seen):
            self._broken_t = None
            return seen
        if self._broken_t is None:
            self._broken_t = seen.t
        return replace(seen, broken=seen.t - self._broken_t)

    def _move(self, seen: Seen, abroad: Abroad, at: float) -> None:
        self.run = replace(
            self.run, of=abroad.of or self.run.of, peers=abroad.peers or self.run.peers
        )
        if seen.wrong and self.accepts and self.run.stage is Stage.ARMED:
            self.run = discounted(self.run, seen.wrong)
        if new := tuple(d for d in abroad.discounts if d not in self.run.plan.discounts):
            self.run = discounted(self.run, (*self.run.plan.discounts, *new))
        while (after := advance(self.run, seen, at=at)) is not self.run:
            self._entered(after, seen.t, at)

    def _entered(self, after: Run, t: float, at: float) -> None:
        self.run = after
        self._write(after.stage, t, at)
        if after.stage.over:
            self._recorder.stop(t if after.ended_t is None else after.ended_t)

    def resumed(self) -> None:
        """Nobody looked since the last heartbeat: the daemon was away."""
        self.complete()
        t, at = self.file.last_heartbeat() or (self.run.seen_t, self.run.seen_at)
        self._recorder.resume(self.file, t=t, at=at)

    def _write(self, stage: Stage, t: float, at: float) -> None:
        """Write down that the run came to *stage*, and with it what the run is now."""
        why = self.run.reason if stage.over else ""
        words = f"{stage}: {why}" if why else str(stage)
        event = Event(node=self.run.node, t=t, at=at, what=What.STAGE, text=words)
        self.file.enter(event, self.run.to_document())

    def complete(self) -> None:
        """Write down the transitions that the store knows of and the file does not: a daemon may
        die between the two.
        """
        told = {
            event.text.partition(":")[0]
            for event in self.file.events()
            if event.what is What.STAGE and event.node == self.run.node
        }
        for stage, t in passed(self.run):
            if stage not in told:
                self._write(stage, t, self.run.armed_at + t - self.run.armed_t)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def abort(self, reason: str, *, by: str) -> None:
        """End it now, because *by* says so. Raises DvfdError if it is over."""
        t, at = self.t(), self._clock.now()
        after = self.run.moved(Stage.ABORTED, ended_t=t, ended_at=at, reason=reason, stopped_by=by)
        self._entered(after, t, at)

    def settled(self) -> bool:
        """Whether a run that is over has nothing more to wait for."""
        if self.run.ended_t is None:
            return self.run.stage.over
        since = self.t() - self.run.ended_t
        own = since > CLOSING or (since >= LAST_WORDS and self._recorder.idle())
        return own and self.company.ready(self.run, t=self.t())

    def last_words(self) -> None:
        """Write what the file must say before it is judged for good."""
        self.company.close(self.run, t=self.t(), at=self._clock.now())
        self.file.flush()

    def judged(self) -> tuple[Judged, ...]:
        """Every criterion of its check as it stands."""
        self._read()
        found = judged(self.check, self.run, self._tally, t=self.t(), at=self._clock.now())
        self.lost = next((j.result.criterion.id for j in found if j.outlook.lost), "")
        return found

    def let_go(self) -> None:
        """Forget what was tallied: what counts is judged from the file."""
        self._tally = Tally(self.run.plan)

    def _read(self) -> None:
        """Take what is new in the file."""
        self.file.flush()
        mark = self.file.mark()
        self._tally.read(self.file, self._mark, mark)
        self._mark = mark

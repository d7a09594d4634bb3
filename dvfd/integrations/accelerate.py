"""An Accelerate loop seen by dvfd: `Accelerator(log_with=DvfdTracker())`, on every rank.

Accelerate lets the main process alone log, so the steps are not taken from there: torch tells each
rank of every step of its optimizer, which under accumulation is one in several. What the main
process logs goes with the step before it, and is read as it was given: log floats.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from contextlib import contextmanager

from accelerate.state import GradientState, PartialState
from accelerate.tracking import GeneralTracker
from torch.optim.optimizer import register_optimizer_step_post_hook

try:
    from dvfd.telemetry.reporter import Reporter, quietly
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import Reporter, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, Optional, Tuple

NAMES = {
    "loss": ("loss", "train_loss", "training_loss"),
    "grad_norm": ("grad_norm", "gradient_norm", "train_grad_norm"),
    "lr": ("lr", "learning_rate", "train_lr"),
    "val_loss": ("val_loss", "eval_loss", "valid_loss", "validation_loss"),
}
"""What people call a value; "train/loss" is read as "train_loss", and so is "Train Loss"."""


class DvfdTracker(GeneralTracker):  # type: ignore[misc]  # mypy does not follow the framework
    """Reports this process's training from its first optimizer step on.

    *job* is what dvfd calls it: else $DVFD_JOB, Slurm's name of the job, or the script's. *samples*
    are those of this rank in one optimizer step; what is not given is read off the data loader that
    Accelerate prepared. *first_step* is how many steps a resumed training has done before.
    `checkpoint_every` and other *options* are the Reporter's. A *reporter* of your own is yours to
    end.
    """

    name = "dvfd"
    requires_logging_directory = False
    main_process_only = False

    def __init__(
        self,
        job: str = "",
        *,
        samples: Optional[float] = None,
        first_step: int = 0,
        reporter: Optional[Reporter] = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.reporter: Any = reporter
        self._ours = reporter is None
        self._options = {"job": job, **options}
        self._samples = samples
        self._counts_samples = samples is None
        self._gradients: Any = None  # Accelerate's word on the loader that is being read
        self._loader: Any = None  # whose batches were counted last
        self._step = first_step
        self._optimizer: Any = None  # the first that made a step: others of a GAN's do not count
        self._held: Optional[Tuple[int, float]] = None  # step, when it was done
        self._values: Dict[str, float] = {}  # what was logged since the last row
        self._names: Dict[object, str] = {}  # what was logged, by our name; "" for what has none
        self._hook = register_optimizer_step_post_hook(_Hook(self))

    @property
    def tracker(self) -> Any:
        """The reporter, for what only the loop knows: `accelerator.get_tracker("dvfd").tracker`."""
        return self.reporter

    # --- What Accelerate calls ------------------------------------------------------------------

    @quietly
    def start(self) -> None:
        """Introduce this rank, as the main process can before the first step."""
        self._begin()

    def store_init_configuration(self, values: Any) -> None:
        """Take no hyperparameters: dvfd has no use for them."""
        self.start()

    def log(self, values: Any, step: Optional[int] = None, **_more: Any) -> None:
        """Take the values that have a name of NAMES; steps are counted, not read."""
        try:
            for name in values:
                ours = self._names.get(name)
                if ours is None:
                    ours = self._names[name] = named(name)
                if ours:
                    self._values[ours] = values[name]
            if self._held is not None:
                self._send()
        except Exception as error:  # without the decorator, which costs as much as all this
            self._trouble(error)

    @quietly
    def finish(self) -> None:
        """Report the end. Accelerate calls this in the main process; the others end by leaving."""
        self._hook.remove()
        self._send()
        atexit.unregister(self._at_exit)
        if self._ours and self.reporter is not None:
            self.reporter.end("finished")

    # --- What the loop may say ------------------------------------------------------------------

    @contextmanager
    def checkpoint(self, path: object) -> Iterator[None]:
        """Report what is saved inside, on every rank; an exception is a failed one, and goes on.

        `with tracker.checkpoint(path): accelerator.save_state(path)`
        """
        path = os.path.abspath(str(path))
        self._tell("checkpoint_begin", path, self._step)
        try:
            yield
        except BaseException as error:
            self._tell("checkpoint_failed", path, self._step, error)
            raise
        self._tell("checkpoint_saved", path, self._step)

    def pause(self, seconds: float, reason: str = "evaluation") -> None:
        """Say that the next step may take up to *seconds*: before an evaluation."""
        self._tell("pause", seconds, reason)

    # --- What is told of it ---------------------------------------------------------------------

    def _begin(self) -> None:
        if self.reporter is None:
            state = PartialState()
            ranks = {"rank": state.process_index, "world_size": state.num_processes}
            ranks["local_rank"] = state.local_process_index
            self.reporter = Reporter(**{**ranks, **self._options})
            atexit.register(self._at_exit)  # after the reporter's own, so called before it

    @quietly
    def _tell(self, event: str, *what: Any) -> None:
        """Report *event* after the step before it."""
        self._begin()
        self._send()
        getattr(self.reporter, event)(*what)

    def _stepped(self, optimizer: Any) -> None:
        """Hold the step until the next, for what is logged of it."""
        if self._optimizer is None or self._optimizer() is None:
            self._optimizer = weakref.ref(optimizer)
        if self._optimizer() is not optimizer:
            return
        if self.reporter is None:
            self._begin()
        if self._held is not None:
            self._send()
        self._step += 1
        self._held = (self._step, time.monotonic())
        if self._counts_samples:
            self._count()

    def _trouble(self, error: Exception) -> None:
        if self.reporter is not None:
            self.reporter.note("DvfdTracker: %r" % error)

    @quietly
    def _at_exit(self) -> None:
        """Report the last step, before the reporter ends."""
        self._send()

    def _send(self) -> None:
        """Report the step that is held, at the time when it was done."""
        if self._held is not None:
            step, at = self._held
            values, self._held, self._values = self._values, None, {}
            self.reporter.step(step, samples=self._samples, at=at, **values)

    def _count(self) -> None:
        """Read the samples of a step off the loader that is being read: whole batches."""
        if self._gradients is None:
            self._gradients = GradientState()
        loader = self._gradients.active_dataloader
        if loader is not None and loader is not self._loader:
            self._loader = loader
            ranks = max(1, PartialState().num_processes)
            self._samples = loader.total_batch_size / ranks * self._gradients.num_steps


def named(name: object) -> str:
    """What we call a value of that name; empty if it is none of ours."""
    plain = str(name).lower().replace("/", "_").replace(" ", "_")
    return next((ours for ours, names in NAMES.items() if plain in names), "")


class _Hook:
    """What torch calls after each step of each optimizer; it does not keep the tracker."""

    def __init__(self, tracker: DvfdTracker) -> None:
        self._tracker = weakref.ref(tracker)

    def __call__(self, optimizer: Any, *_call: Any) -> None:
        tracker = self._tracker()
        if tracker is None:
            return
        try:
            tracker._stepped(optimizer)
        except Exception as error:
            tracker._trouble(error)

"""An Accelerate loop seen by dvfd: `Accelerator(log_with=DvfdTracker())`, on every rank.

Accelerate lets the main process alone log, so the steps are not taken from there: torch tells each
rank of every step of every optimizer, and those that this tracker's Accelerator has prepared count.
A step is one round of them: it is over when one of them steps again, so that of several, as a GAN
has, the one that steps most counts. What the main process logs goes with the step before it, and
is read as it was given: log floats.

Accelerate tells a tracker on another rank nothing, not even whose it is, so importing this wraps
`Accelerator.__init__`: a new Accelerator looks for such a tracker in its `log_with`.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from contextlib import contextmanager
from functools import wraps

from accelerate import Accelerator
from accelerate.state import GradientState, PartialState
from accelerate.tracking import GeneralTracker
from torch.optim.optimizer import register_optimizer_step_post_hook

try:
    from dvfd.telemetry.reporter import Reporter, after_fork, complain, quietly
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import Reporter, after_fork, complain, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

NAMES = {
    "loss": ("loss", "train_loss", "training_loss"),
    "grad_norm": ("grad_norm", "gradient_norm", "train_grad_norm"),
    "lr": ("lr", "learning_rate", "train_lr"),
    "val_loss": ("val_loss", "eval_loss", "valid_loss", "validation_loss"),
}
"""What people call a value; "train/loss" is read as "train_loss", and so is "Train Loss"."""

DEPTH = 4
"""Layers around the optimizer that steps: Accelerate's, and those that DeepSpeed and others add."""


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
        self._given = {"job": job, "samples": samples, "first_step": first_step, **options}
        self.reporter: Any = reporter
        self._ours = reporter is None
        self._options = {"job": job, **options}
        self._samples = samples
        self._counts_samples = samples is None
        self._gradients: Any = None  # Accelerate's word on the loader that is being read
        self._loader: Any = None  # whose batches were counted last
        self._step = first_step
        self._accelerator: Any = None  # a weak reference, once it is known
        self._round: Set[int] = set()  # ids of the optimizers that have made the newest step
        self._names: Dict[object, str] = {}  # what was logged, by our name; "" for what has none
        self._in_child()
        after_fork(self)
        self._hook = register_optimizer_step_post_hook(_Hook(self))

    def _in_child(self) -> None:
        """Hold nothing: in a forked child that is the parent's to tell."""
        self._held: Optional[Tuple[int, float]] = None  # step, when it was done
        self._values: Dict[str, float] = {}  # what was logged since the last row

    def __reduce__(self) -> Tuple[Any, ...]:
        """Go with an Accelerator that is copied as what was given: silent until one is followed."""
        return _again, (self._given,)

    @property
    def tracker(self) -> Any:
        """The reporter, for what only the loop knows: `accelerator.get_tracker("dvfd").tracker`."""
        return self.reporter

    # --- What Accelerate calls ------------------------------------------------------------------

    @quietly
    def start(self) -> None:
        """Introduce this rank, as the main process can before the first step."""
        self._begin()
        if self._accelerator is None:
            self.reporter.note("DvfdTracker: no step can be seen without follow(accelerator)")

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
                if ours and not _is_broken(self._values.get(ours)):
                    self._values[ours] = values[name]
            if self._held is not None:
                self._send()
        except Exception as error:  # without the decorator, which costs as much as all this
            complain(self, "DvfdTracker", error)

    @quietly
    def finish(self) -> None:
        """Report the end. Accelerate calls this in the main process; the others end by leaving."""
        self._hook.remove()
        self._at_exit()
        atexit.unregister(self._at_exit)
        if self._ours and self.reporter is not None:
            self.reporter.end("finished")

    # --- What the loop may say ------------------------------------------------------------------

    def follow(self, accelerator: Any) -> None:
        """Count the steps of what *accelerator* has prepared or will; `log_with` does this."""
        self._accelerator = weakref.ref(accelerator)

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
        if self._accelerator is None or not _has_prepared(self._accelerator(), optimizer):
            return
        if self._round and id(optimizer) not in self._round:
            self._round.add(id(optimizer))
            return
        self._round = {id(optimizer)}
        if self.reporter is None:
            self._begin()
        if self._held is not None:
            self._send()
        self._step += 1
        self._held = (self._step, time.monotonic())
        if self._counts_samples:
            self._count()

    @quietly
    def _at_exit(self) -> None:
        """Report the last step, before the reporter ends; a second time if a NaN was logged since.

        Other values have no step to go with: a second row would count as one.
        """
        self._send()
        if self._round and any(map(_is_broken, self._values.values())):
            self.reporter.step(self._step, **self._values)
        self._values = {}

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


def _has_prepared(accelerator: Any, optimizer: Any) -> bool:
    """Whether *optimizer* is in a wrapper that *accelerator* made, or in one within that."""
    for held in accelerator._optimizers if accelerator is not None else ():
        for _ in range(DEPTH):
            if held is optimizer:
                return True
            held = getattr(held, "optimizer", None)  # noqa: PLW2901  # one layer further in
    return False


def _is_broken(value: object) -> bool:
    """Whether it is a float that is not finite: what is logged after it must not hide it."""
    return isinstance(value, float) and value - value != 0.0


def _again(given: Dict[str, Any]) -> DvfdTracker:
    return DvfdTracker(**given)


def _introducing(make: Callable[..., None]) -> Callable[..., None]:
    """Make an Accelerator as ever, and tell its tracker whose it is."""

    @wraps(make)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        for tracker in getattr(self, "log_with", ()):
            if isinstance(tracker, DvfdTracker):
                tracker.follow(self)

    return made


Accelerator.__init__ = _introducing(Accelerator.__init__)


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
            complain(tracker, "DvfdTracker", error)

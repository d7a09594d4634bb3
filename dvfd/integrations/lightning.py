"""PyTorch Lightning, under both of its package names: a callback that tells dvfd of training.

    from dvfd.integrations.lightning import DvfdCallback

    trainer = Trainer(callbacks=[DvfdCallback()])

Losses, gradient norms and validation losses are what the module logs with `self.log`, as the floats
that Lightning makes for its loggers every `log_every_n_steps`: with `logger=False` it makes none.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module

try:
    from dvfd.telemetry.reporter import Reporter, after_fork, complain, identity, quietly
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import Reporter, after_fork, complain, identity, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

PACKAGES = ("lightning.pytorch", "pytorch_lightning")

NAMES = {
    "loss": ("train_loss_step", "train_loss", "train/loss_step", "train/loss", "loss_step", "loss"),
    "grad_norm": ("grad_norm_step", "grad_norm", "train/grad_norm", "grad_2.0_norm_total"),
    "val_loss": ("val_loss", "val/loss", "val_loss_epoch", "val/loss_epoch", "valid_loss",
                 "valid/loss", "validation_loss", "eval_loss"),
}  # fmt: skip
"""What modules call what is reported; `grad_2.0_norm_total` is of Lightning's own `grad_norm`."""

LONGEST = 3600
"""Seconds that the first validation may take: the longest pause that there is."""

PATIENCE, SHORTEST = 5, 60
"""Each later one may take so many times the longest so far, and at least so many seconds."""


class DvfdCallback:
    """Reports each fit, from its beginning to its end, of every rank that has it.

    It is of whichever Callback class the job's Trainer knows. *job* is what dvfd calls it: else
    $DVFD_JOB, Slurm's name of the job, or the script's. *loss*, *val_loss* and *grad_norm* are
    names under which the module logs them, where they are not among NAMES; *options* are the
    Reporter's. A *reporter* of your own is yours to end, and to tell of exceptions.
    """

    # Lightning passes over a hook that cannot be called, and these would come with every batch.
    on_train_batch_start = on_before_zero_grad = on_before_backward = on_after_backward = None
    on_before_optimizer_step = None

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Be a Callback of the packages that the job has imported by now."""
        return object.__new__(_with_base(cls))

    def __init__(
        self,
        job: str = "",
        *,
        reporter: Reporter | None = None,
        loss: str = "",
        val_loss: str = "",
        grad_norm: str = "",
        **options: Any,
    ) -> None:
        chosen = {"loss": loss, "val_loss": val_loss, "grad_norm": grad_norm}
        self._given = {"job": job, **chosen, **options}
        self._options = {"job": job, **options}
        names = {field: [chosen[field]] if chosen[field] else NAMES[field] for field in NAMES}
        self._fields = {name: field for field, known in names.items() for name in known}
        self.reporter: Any = reporter
        self._ours = reporter is None
        self._longest: float | None = None  # validation so far
        self._reset()
        after_fork(self)

    def _reset(self) -> None:
        self._in_child()
        self._undo: List[Callable[[], None]] = []
        self._group: Dict[str, Any] = {}  # the first optimizer's parameters and their rate
        self._lr: Any = None  # of the next step
        self._step = -1
        self._last = float("inf")  # the step that ends the fit, if that can be said
        self._samples: float | None = None
        self._loop: Any = None
        self._made: Any = None  # Lightning's count of optimizer steps
        self._every = 0
        self._hears = False
        self._validating: float | None = None  # since when

    def _in_child(self) -> None:
        """Hold nothing: in a forked child that is the parent's to tell."""
        self._held: Tuple[int, float | None, float | None, float] | None = None
        """Step, samples, learning rate and time of a row of which more is to be told."""
        self._values: Dict[str, float] = {}  # what was logged since the last row

    def __reduce__(self) -> Tuple[Any, ...]:
        """Go to a process that is spawned as what was given: its rank has a line of its own."""
        return _again, (self._given,)

    # --- The fit --------------------------------------------------------------------------------

    @quietly
    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Introduce this rank, now that its strategy knows, and listen to what is logged."""
        if stage != "fit":
            return
        self._reset()
        if self._ours:
            self.reporter = Reporter(**{**_who(trainer), **self._options})
        if trainer.loggers:
            self._listen(trainer)
        self._wrap(trainer, "save_checkpoint", self._saves(trainer))
        self._wrap(trainer.strategy, "load_checkpoint", self._loads)

    @quietly
    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Note where training goes on, which is not at 0 after a checkpoint."""
        self._step = trainer.global_step
        for optimizer in trainer.optimizers[:1]:
            self._group = optimizer.param_groups[0]
        self._lr = self._group.get("lr")
        self._loop = loop = trainer.fit_loop.epoch_loop
        if module.automatic_optimization:
            self._made = loop.automatic_optimization.optim_progress.optimizer.step.total
        else:
            self._made = loop.manual_optimization.optim_step_progress.total
        self._last = trainer.estimated_stepping_batches

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report a step once the optimizer has made it, and its values once they are floats."""
        try:
            size = _size(batch)
            if size is not None:
                self._samples = size + (self._samples or 0.0)
            step = self._made.completed  # what trainer.global_step finds by five properties
            if step == self._step:
                return  # gradients are being accumulated
            if self._held:
                self._send()
                self._hears = False  # nothing was logged of it: the next step does not wait
            samples, self._samples, self._step = self._samples, None, step
            # As Lightning counts them, it logs this batch right after this call.
            logs = self._hears and (self._loop._batches_that_stepped + 1) % self._every == 0
            if logs or step >= self._last:
                rate = self._lr if isinstance(self._lr, float) else None  # a tensor may hold it
                self._held = (step, samples, rate, time.monotonic())
            elif self._values:
                self.reporter.step(step, samples=samples, **self._take())
            else:
                self.reporter.step(step, samples=samples)
            self._lr = self._group.get("lr")
        except Exception as error:  # without the decorator, which costs as much as all this
            complain(self, "DvfdCallback", error)

    @quietly
    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Say that the next step takes longer: a sanity check comes before the first one."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self._step < self._last:  # the last row waits for what no later one can tell
            self._send()
        known = self._longest is not None
        limit = max(SHORTEST, PATIENCE * (self._longest or 0.0)) if known else LONGEST
        self._validating = time.monotonic()
        self.reporter.pause(min(limit, LONGEST), "validation")

    @quietly
    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Learn how long one takes."""
        if self._validating is not None:
            self._longest = max(self._longest or 0.0, time.monotonic() - self._validating)
            self._validating = None

    @quietly
    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Report what broke the fit; a checkpoint may still be saved before the loggers end."""
        self._send()
        if self._ours and self.reporter is not None:
            self.reporter.exception(exception)
        if not any(isinstance(logger, _Ear) for logger in trainer.loggers):
            self.ended(failed=True)

    @quietly
    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Report the end of a fit: what the process does afterwards is no training."""
        if stage == "fit":
            self.ended(failed=False)

    # --- What is logged -------------------------------------------------------------------------

    def heard(self, metrics: Dict[str, float]) -> None:
        """Keep what the module logs, until the row that it belongs to."""
        try:
            if self._step < 0:
                return  # a sanity check
            for name, value in metrics.items():
                field = self._fields.get(name)
                if field is not None:
                    self._values[field] = value
        except Exception as error:
            complain(self, "DvfdCallback", error)

    def logged(self) -> None:
        """Report a step, now that all its values were logged."""
        try:
            self._hears = self._every > 0
            held = self._held
            if held is not None and self._step < self._last:
                values, self._values, self._held = self._values, {}, None
                step, samples, lr, at = held
                self.reporter.step(step, samples=samples, lr=lr, at=at, **values)
        except Exception as error:
            complain(self, "DvfdCallback", error)

    @quietly
    def ended(self, *, failed: bool) -> None:
        """Take everything back, and say that the fit has ended."""
        self._send()
        if self._values and self._step >= 0:  # of a validation after an end that nobody foresaw
            self.reporter.step(self._step, **self._take())
        while self._undo:
            self._undo.pop()()
        if self._ours and self.reporter is not None:
            self.reporter.end(self._how(failed=failed), failed=failed)
            self.reporter = None

    def _how(self, *, failed: bool) -> str:
        """How the fit ended, in words."""
        where = "at step %d" % self._step if self._step >= 0 else "before the first step"
        if self._last < float("inf"):
            where += " of %d" % self._last
        if failed:
            return "left " + where
        return "finished" if self._step >= self._last else "stopped early, " + where

    def _send(self) -> None:
        """Report the step that is held, at the time when it was done."""
        if self._held is not None:
            (step, samples, lr, at), self._held = self._held, None
            self.reporter.step(step, samples=samples, lr=lr, at=at, **self._take())

    def _take(self) -> Dict[str, float]:
        values, self._values = self._values, {}
        return values

    def _listen(self, trainer: Any) -> None:
        """Be one more logger: those get floats. With none of the user's there are no floats."""
        ear = _ear(trainer)(self)
        trainer.loggers = [*trainer.loggers, ear]
        self._every = trainer.log_every_n_steps
        self._hears = self._every > 0

        def leave() -> None:
            trainer.loggers = [logger for logger in trainer.loggers if logger is not ear]

        self._undo.append(leave)

    # --- Checkpoints ----------------------------------------------------------------------------

    def _wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Put *wrapper* around a method of one object, for as long as the fit lasts."""
        method, own = getattr(owner, name), vars(owner).get(name)
        lasts = True

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(method, *args, **kwargs) if lasts else method(*args, **kwargs)

        def undo() -> None:
            nonlocal lasts
            lasts = False
            if vars(owner).get(name) is not wrapped:
                return  # the job's own wrapper stands around this one by now
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

        setattr(owner, name, wrapped)
        self._undo.append(undo)

    def _saves(self, trainer: Any) -> Callable[..., Any]:
        """Wrap what saves for ModelCheckpoint and for everybody else."""

        def save(method: Callable[..., Any], filepath: Any, *args: Any, **kwargs: Any) -> Any:
            step = trainer.global_step
            self._save_begins(trainer, filepath, step)
            try:
                result = method(filepath, *args, **kwargs)
            except BaseException as error:
                self._save_failed(trainer, filepath, step, error)
                raise
            self._save_returned(trainer, filepath, step)
            return result

        return save

    @quietly
    def _save_begins(self, trainer: Any, path: Any, step: int) -> None:
        """Rank 0 tells of the checkpoint; on other nodes it is a pause."""
        if trainer.is_global_zero:
            self.reporter.checkpoint_begin(_absolute(path), step)
        elif trainer.local_rank == 0:
            self.reporter.pause(LONGEST, "checkpoint")

    @quietly
    def _save_failed(self, trainer: Any, path: Any, step: int, error: BaseException) -> None:
        if trainer.is_global_zero:
            self.reporter.checkpoint_failed(_absolute(path), step, error)

    @quietly
    def _save_returned(self, trainer: Any, path: Any, step: int) -> None:
        """Report the checkpoint now, or when the thread that writes it comes to its end."""
        if not trainer.is_global_zero:
            return
        plugin = trainer.strategy.checkpoint_io
        writer = getattr(plugin, "_executor", None)  # of AsyncCheckpointIO: one thread
        if writer is None:
            self.reporter.checkpoint_saved(_absolute(path), step)
        else:
            writer.submit(self._written, plugin, _absolute(path), step)

    @quietly
    def _written(self, plugin: Any, path: Any, step: int) -> None:
        """Report what became of a checkpoint that was written in the background."""
        error = getattr(plugin, "_error", None)
        if error is None:
            self.reporter.checkpoint_saved(path, step)
        else:
            self.reporter.checkpoint_failed(path, step, error)

    def _loads(self, method: Callable[..., Any], path: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        checkpoint = method(path, *args, **kwargs)
        self._loaded(path, checkpoint, time.monotonic() - began)
        return checkpoint

    @quietly
    def _loaded(self, path: Any, checkpoint: Any, seconds: float) -> None:
        step = checkpoint.get("global_step", 0)
        self.reporter.checkpoint_loaded(_absolute(path), step, seconds)


class _Ear:
    """A logger beside the user's own, which hears the same floats and keeps none."""

    def __init__(self, callback: DvfdCallback) -> None:
        super().__init__()
        self._callback = callback

    def log_metrics(self, metrics: Dict[str, float], step: int | None = None) -> None:
        """Pass on what is logged."""
        self._callback.heard(metrics)

    def save(self) -> None:
        """Lightning calls this when all of a step's metrics were logged."""
        self._callback.logged()

    def finalize(self, status: str) -> None:
        """Lightning's last word on a fit."""
        self._callback.ended(failed=status != "success")


# --- Which Lightning, and who in it ---------------------------------------------------------------

_CLASSES: Dict[Tuple[type, ...], type] = {}


def _with_base(cls: type) -> type:
    """*cls* as a Callback of each package that the job has imported, or of the one that it has."""
    modules = [sys.modules[name] for name in PACKAGES if name in sys.modules] or [_installed()]
    bases = [module.Callback for module in modules]
    return _joined(cls, *[base for base in bases if not issubclass(cls, base)])


def _installed() -> Any:
    for name in PACKAGES[:-1]:
        try:
            return import_module(name)
        except ImportError:
            continue
    return import_module(PACKAGES[-1])


def _ear(trainer: Any) -> Any:
    """A logger of the package that *trainer* is of."""
    modules = [sys.modules[name] for name in PACKAGES if name in sys.modules]
    module = next(module for module in modules if isinstance(trainer, module.Trainer))
    return _joined(_Ear, import_module(module.__name__ + ".loggers.logger").DummyLogger)


def _joined(*classes: type) -> type:
    """The class that is all of *classes*; the same one each time."""
    if len(classes) == 1:
        return classes[0]
    if classes not in _CLASSES:
        _CLASSES[classes] = type(classes[0].__name__, classes, {"__doc__": classes[0].__doc__})
    return _CLASSES[classes]


def _again(given: Dict[str, Any]) -> DvfdCallback:
    return DvfdCallback(**given)


def _who(trainer: Any) -> Dict[str, Any]:
    """This rank, as its strategy says.

    Where Lightning itself launches the ranks, those of a node have rank 0's process in common: it
    is the parent of the others, and names the run if nothing in the environment does.
    """
    who = {
        "rank": trainer.global_rank,
        "world_size": trainer.world_size,
        "local_rank": trainer.local_rank,
        "local_world_size": trainer.num_devices,
    }
    launcher = type(getattr(trainer.strategy, "launcher", None)).__name__
    me = identity()
    nameless = me["run"].startswith("%d-" % os.getppid())
    if nameless and trainer.local_rank == 0 and launcher == "_SubprocessScriptLauncher":
        who["run"] = "%d-%d" % (me["pid"], me["start"])
    return who


def _absolute(path: Any) -> str:
    """*path* as the daemon can find it; an address of another storage is left as it is."""
    text = str(path)
    return text if "://" in text else os.path.abspath(text)


def _size(batch: Any) -> int | None:
    """How many samples are in a batch: the first dimension of the first thing that has one."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    if not isinstance(batch, (list, tuple)):
        shape = getattr(batch, "shape", None)
        return int(shape[0]) if shape else None
    for part in batch:
        size = _size(part)
        if size is not None:
            return size
    return None

"""torchtitan: each step, and what its metrics logger is told, told to dvfd.

With no change to a job, this module is launched in the place of `torchtitan.train`:

    torchrun --nproc_per_node=8 -m dvfd.integrations.torchtitan --module llama3 --config llama3_8b

A train script of one's own has one more line, between building a Trainer and training:

    watch(trainer, "gpt")

Losses and gradient norms are the floats that torchtitan makes for its loggers every `log_freq`
steps. Its checkpoints are reported by rank 0.
"""

from __future__ import annotations

import inspect
import os
import sys
import time

from torchtitan.components.metrics import BaseLogger, LoggerContainer

try:
    from dvfd.telemetry.reporter import Reporter, after_fork, quietly
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import Reporter, after_fork, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

NAMES = {
    "loss_metrics/global_avg_loss": "loss",
    "grad_norm": "grad_norm",
    "validation_metrics/loss": "val_loss",
    "lr": "lr",
}
"""What torchtitan's metrics are called here. Since 0.3 a learning rate is "lr/AdamW"."""

LONGEST = 3600
"""Seconds that the first validation may take: the longest pause that there is."""

PATIENCE, SHORTEST = 5, 60
"""Each later one may take so many times the longest so far, and at least so many seconds."""


class DvfdLogger(BaseLogger):  # type: ignore[misc]  # mypy does not follow the framework
    """What torchtitan logs, kept until the step that it is of has ended."""

    def __init__(self, *, losses: bool = True) -> None:
        """*losses*: whether this rank has one. In a pipeline only the last stage does."""
        self.values: Dict[str, float] = {}
        self._losses = losses

    def log(self, metrics: Dict[str, Any], step: int) -> None:
        """Take the floats that are known here."""
        for name, value in metrics.items():
            field = NAMES.get("lr" if name.startswith("lr/") else name)
            if field is None or not isinstance(value, float):
                continue
            if self._losses or field not in {"loss", "val_loss"}:
                self.values[field] = value

    def take(self) -> Dict[str, float]:
        """What was logged since the last time."""
        values, self.values = self.values, {}
        return values


def watch(trainer: Any, job: str = "", *, reporter: Reporter | None = None, **options: Any) -> None:
    """Report the training of a Trainer that is built, of every rank that calls this.

    *job* is what dvfd calls it: else $DVFD_JOB, Slurm's name of the job, or the script's. *options*
    are the Reporter's. A *reporter* of your own is yours to end, and to tell of exceptions.
    """
    trainer.train = _Watch(trainer, job, reporter, options).around(trainer.train)


class _Watch:
    """One trainer's line to dvfd."""

    def __init__(
        self, trainer: Any, job: str, reporter: Reporter | None, options: Dict[str, Any]
    ) -> None:
        self._trainer = trainer
        self._ours = reporter is None
        self._logger = DvfdLogger(losses=getattr(trainer, "pp_has_last_stage", True))
        self._in_child()
        self._longest: float | None = None  # validation so far
        self._samples: float | None = None
        self._steps = float("inf")
        every = _every(getattr(trainer, "checkpointer", None))
        self.reporter: Any = reporter or Reporter(job, **{"checkpoint_every": every, **options})
        after_fork(self)

    def _in_child(self) -> None:
        """Hold nothing: in a forked child that is the parent's to tell."""
        self._held: Dict[str, Any] = {}  # the row of the last step, for what no later one can tell
        self._logger.take()

    def around(self, train: Callable[[], Any]) -> Callable[[], Any]:
        """Train with everything told, up to the end or to what breaks it."""

        def told() -> Any:
            self._attach()
            try:
                result = train()
            except BaseException as error:
                self._ended(error)
                raise
            self._ended(None)
            return result

        return told

    @quietly
    def _attach(self) -> None:
        """Be one more logger, and stand around the steps, the checkpoints and the validations."""
        trainer = self._trainer
        loggers = LoggerContainer()
        loggers.add_logger(trainer.metrics_processor.logger)
        loggers.add_logger(self._logger)
        trainer.metrics_processor.logger = loggers
        config = getattr(trainer, "config", None) or trainer.job_config  # its name before 0.3
        self._steps = config.training.steps
        self._samples = _samples(trainer, config)
        trainer.train_step = self._stepping(trainer.train_step)
        trainer.checkpointer.save = self._saving(trainer.checkpointer.save)
        trainer.checkpointer.load = self._loading(trainer.checkpointer.load)
        if hasattr(trainer, "validator"):
            trainer.validator.validate = self._validating(trainer.validator.validate)

    @quietly
    def _ended(self, error: BaseException | None) -> None:
        """Report the last step, what broke the training, and its end."""
        self._send()
        if not self._ours:
            return
        where = "at step %d of %d" % (self._trainer.step, self._steps)
        done = "finished" if self._trainer.step >= self._steps else "stopped early, " + where
        if error is not None:
            self.reporter.exception(error)
        self.reporter.end(done if error is None else "left " + where, failed=error is not None)

    # --- Steps ----------------------------------------------------------------------------------

    def _stepping(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            result = train_step(*args, **kwargs)
            self._stepped()
            return result

        return told

    @quietly
    def _stepped(self) -> None:
        """Report a step, with its values if it was logged; the last one waits for a validation."""
        step = self._trainer.step
        if step >= self._steps:
            self._held = {"step": step, "samples": self._samples, "at": time.monotonic()}
        else:
            self.reporter.step(step, samples=self._samples, **self._logger.take())

    def _send(self) -> None:
        if self._held:
            row, self._held = self._held, {}
            self.reporter.step(**row, **self._logger.take())

    def _validating(self, validate: Callable[..., Any]) -> Callable[..., Any]:
        """Say that the next step takes longer: its row brings the validation's loss."""

        def told(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            self.reporter.pause(self._limit(), "validation")
            result = validate(*args, **kwargs)
            self._longest = max(self._longest or 0.0, time.monotonic() - began)
            return result

        return told

    def _limit(self) -> float:
        known = self._longest is not None
        return min(max(SHORTEST, PATIENCE * (self._longest or 0.0)) if known else LONGEST, LONGEST)

    # --- Checkpoints ----------------------------------------------------------------------------

    def _saving(self, save: Callable[..., Any]) -> Callable[..., Any]:
        def told(curr_step: int, *args: Any, **kwargs: Any) -> Any:
            due = self._due(curr_step, *args, **kwargs)
            if due:
                self._begins(curr_step)
            try:
                result = save(curr_step, *args, **kwargs)
            except BaseException as error:
                self._written(curr_step, error)
                raise
            if due:
                self._returned(curr_step)
            return result

        return told

    def _due(self, *args: Any, **kwargs: Any) -> bool:
        """Whether this call writes a checkpoint, as the checkpointer itself asks."""
        try:
            return bool(self._trainer.checkpointer._should_save(*args, **kwargs))
        except Exception as error:
            self.reporter.note("no checkpoint is seen: %r" % error)
            return False

    @quietly
    def _begins(self, step: int) -> None:
        """Rank 0 tells of the checkpoint; on other nodes it is a pause."""
        if _whole("RANK") == 0:
            self.reporter.checkpoint_begin(self._path(step), step)
        elif _whole("LOCAL_RANK") == 0:
            self.reporter.pause(LONGEST, "checkpoint")

    @quietly
    def _returned(self, step: int) -> None:
        """Report a checkpoint now, or when what saves it in the background comes to its end."""
        saves = getattr(self._trainer.checkpointer, "save_future", None)
        if saves is None:
            self._written(step, None)
        else:
            saves.add_done_callback(lambda done: self._written(step, done.exception()))

    @quietly
    def _written(self, step: int, error: BaseException | None) -> None:
        if _whole("RANK") != 0:
            return
        if error is None:
            self.reporter.checkpoint_saved(self._path(step), step)
        else:
            self.reporter.checkpoint_failed(self._path(step), step, error)

    def _loading(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            loaded = load(*args, **kwargs)
            if loaded:
                self._loaded(time.monotonic() - began)
            return loaded

        return told

    @quietly
    def _loaded(self, seconds: float) -> None:
        step = self._trainer.step
        first = getattr(self._trainer.checkpointer, "initial_load_path", None)
        path = self._path(step) if step or not first else os.path.abspath(first)
        self.reporter.checkpoint_loaded(path, step, seconds)

    def _path(self, step: int) -> str:
        """Where torchtitan keeps the checkpoint of *step*."""
        path = os.path.join(self._trainer.checkpointer.folder, "step-%d" % step)
        return path if "://" in path else os.path.abspath(path)


def _every(checkpointer: Any) -> int:
    """Steps from one checkpoint to the next; a checkpointer that is switched off has none."""
    every = getattr(checkpointer, "interval", 0) if getattr(checkpointer, "enable", 0) else 0
    return every if isinstance(every, int) else 0


def _samples(trainer: Any, config: Any) -> float:
    """Sequences of this rank in a step: ranks that share a model share them."""
    batch = config.training.local_batch_size * trainer.gradient_accumulation_steps
    return float(batch / trainer.parallel_dims.non_data_parallel_size)


def _whole(name: str) -> int:
    """A number that torchrun gives to each rank."""
    word = os.environ.get(name, "")
    return int(word) if word.isdigit() else 0


def main() -> None:
    """Be `torchtitan.train`, watched."""
    from torchtitan import train as titan  # noqa: PLC0415  # a train script may have its own

    if not hasattr(titan, "main"):
        sys.exit("torchtitan.train has no main, as before 0.2.1: call watch in a train script")
    train = titan.Trainer.train

    def watched(trainer: Any) -> Any:
        return _Watch(trainer, "", None, {}).around(train.__get__(trainer))()

    titan.Trainer.train = watched
    takes = inspect.signature(titan.main).parameters  # the class of the trainer, before 0.3
    titan.main(*[titan.Trainer][: len(takes)])


if __name__ == "__main__":
    main()

"""A Hugging Face Trainer seen by dvfd: `Trainer(..., callbacks=[DvfdCallback()])`, on every rank.

The Trainer says how its loop goes, and this passes it on: each optimizer step with its samples,
the loss, gradient norm and learning rate that it logs, the loss of an evaluation, checkpoints, and
how training ended. What the Trainer does not log at a step is not reported of it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

from transformers import TrainerCallback

try:
    from dvfd.telemetry.reporter import Reporter, after_fork, complain, quietly
except ImportError:  # copied beside the reporter, into an image without dvfd
    from dvfd_reporter import Reporter, after_fork, complain, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

LONGEST = 3600
"""Seconds that the first evaluation may take: the longest pause that there is."""

PATIENCE, SHORTEST = 5, 60
"""Each later one may take so many times the longest so far, and at least so many seconds."""

FILTERED = "no loss is reported: logging_nan_inf_filter hides a NaN, and no gradient norm is logged"

LOGGED = (("loss", "loss"), ("grad_norm", "grad_norm"), ("learning_rate", "lr"))
"""What the Trainer calls a value, and what the reporter does."""


class DvfdCallback(TrainerCallback):  # type: ignore[misc]  # mypy does not follow the framework
    """Reports each training of the process, from its beginning to its end.

    *job* is what dvfd calls it: else $DVFD_JOB, Slurm's name of the job, or the script's. *options*
    are the Reporter's. A *reporter* of your own is yours to end: `with Reporter() as reporter`
    around `trainer.train()` reports the exceptions that you catch further out, too.
    """

    def __init__(self, job: str = "", *, reporter: Optional[Reporter] = None, **options: Any):
        self.reporter: Any = reporter
        self._ours = reporter is None
        self._options = {"job": job, **options}
        self._longest: Optional[float] = None  # evaluation so far
        self._reset()
        after_fork(self)

    def _reset(self) -> None:
        self._in_child()
        self._substeps = 0
        self._evaluating: Optional[float] = None  # since when
        self._step = self._steps = 0  # where the training is, of how many
        self._batch = 1  # samples of a micro-batch
        self._holds = False  # each step, since any may be the last of an epoch, which is logged

    def _in_child(self) -> None:
        """Hold nothing: in a forked child that is the parent's to tell."""
        self._held: Optional[Tuple[int, int, float]] = None  # step, samples, when it was done
        self._values: Dict[str, float] = {}  # what was logged since the last row
        self._saving: Optional[Tuple[str, int]] = None  # path, step

    # --- What the Trainer calls -----------------------------------------------------------------

    @quietly
    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Introduce this rank; a training that is tried again goes on with the same line."""
        self._send()
        self._reset()
        self._step, self._steps = state.global_step, state.max_steps
        # A resumed state remembers the batch of the training before.
        self._batch = (state if args.auto_find_batch_size else args).train_batch_size
        self._holds = getattr(args.logging_strategy, "value", args.logging_strategy) == "epoch"
        if self.reporter is None:
            who = identity(args, state, more.get("train_dataloader"))
            self.reporter = Reporter(**{**who, **self._options})
            atexit.register(self._at_exit)  # after the reporter's own, so called before it
        if getattr(args, "eval_on_start", False):
            self._pause()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Count a micro-batch whose gradients are kept for the next."""
        self._substeps += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Report the step, or hold it for what the Trainer is about to log of it."""
        try:
            if self._held is not None:
                self._send()
            self._step = step = state.global_step
            samples = self._batch * (self._substeps + 1)
            self._substeps = 0
            if control.should_log or self._holds or step >= self._steps:
                self._held = (step, samples, time.monotonic())
            elif self._values:
                self._held = (step, samples, time.monotonic())
                self._send()
            else:
                self.reporter.step(step, samples=samples)
            if control.should_evaluate or control.should_save:
                self._foretell(args, state, control)
        except Exception as error:  # without the decorator, which costs as much as all this
            complain(self, "DvfdCallback", error)

    @quietly
    def on_epoch_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Some log, evaluate or save now."""
        self._foretell(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_more: Any) -> None:
        """Take the values that the Trainer has made floats."""
        try:
            if "loss" in logs:
                self._take(args, logs)
                if self._held is not None and self._step < self._steps:
                    self._send()
            if control.should_evaluate or control.should_save:
                self._foretell(args, state, control)
        except Exception as error:
            complain(self, "DvfdCallback", error)

    @quietly
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_more: Any) -> None:
        """Take the evaluation's loss; of several data sets evaluated at once, the first one's."""
        if self._evaluating is not None:
            self._longest = max(self._longest or 0.0, time.monotonic() - self._evaluating)
            self._evaluating = None
        losses = [value for name, value in metrics.items() if name.endswith("_loss")]
        if losses:
            self._values.setdefault("val_loss", metrics.get("eval_loss", losses[0]))
        self._foretell(args, state, control)

    @quietly
    def on_save(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Report that the checkpoint is complete."""
        self._saving = None
        if not state.is_hyper_param_search:
            self.reporter.checkpoint_saved(checkpoint_path(args, state), state.global_step)

    @quietly
    def on_train_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Report the end: what the process does afterwards is no training."""
        self._send()
        if self._ours:
            reporter, self.reporter = self.reporter, None
            atexit.unregister(self._at_exit)
            done = state.global_step >= state.max_steps
            reporter.end("finished" if done else "stopped early, " + self._where())

    # --- What is told of it ---------------------------------------------------------------------

    def _send(self) -> None:
        """Report the step that is held, at the time when it was done."""
        if self._held is not None:
            step, samples, at = self._held
            values, self._held, self._values = self._values, None, {}
            self.reporter.step(step, samples=samples, at=at, **values)

    def _take(self, args: Any, logs: Any) -> None:
        values = self._values
        for name, ours in LOGGED:
            if name in logs:
                values[ours] = logs[name]
        if "grad_norm" not in logs and args.logging_nan_inf_filter:
            del values["loss"]  # it would be finite whatever becomes of the model
            self.reporter.note(FILTERED)

    def _send_but_last(self) -> None:
        """Report what is held; but the last step waits for all that is said of it."""
        if self._step < self._steps:
            self._send()

    def _foretell(self, args: Any, state: Any, control: Any) -> None:
        """Say what the Trainer does next, which is to log, to evaluate, to save, in this order."""
        evaluates, saves = control.should_evaluate, control.should_save
        if control.should_log or not (evaluates or saves):
            return
        self._send_but_last()
        if evaluates:
            self._pause()
        elif not state.is_hyper_param_search:
            self._saving = (checkpoint_path(args, state), state.global_step)
            self.reporter.checkpoint_begin(*self._saving)

    def _pause(self) -> None:
        """Announce an evaluation, once."""
        if self._evaluating is None:
            known = self._longest is not None
            limit = max(SHORTEST, PATIENCE * (self._longest or 0.0)) if known else LONGEST
            self._evaluating = time.monotonic()
            self._values.pop("val_loss", None)  # an earlier one that no step has carried
            self.reporter.pause(min(limit, LONGEST), "evaluation")

    def _where(self) -> str:
        return "at step %d of %d" % (self._step, self._steps)

    @quietly
    def _at_exit(self) -> None:
        """The process ends in the middle of the training: by an exception, if Python knows one."""
        self._send()
        error = getattr(sys, "last_value", None)
        if self._saving is not None:
            self.reporter.checkpoint_failed(*self._saving, error or "left unfinished")
        if error is not None:
            self.reporter.exception(error)
        self.reporter.end("left " + self._where(), failed=True)


def identity(args: Any, state: Any, loader: Any) -> Dict[str, Any]:
    """Who this rank is, as the Trainer knows, and how many steps lie between checkpoints."""
    return {
        "rank": args.process_index,
        "world_size": args.world_size,
        "local_rank": args.local_process_index,
        "checkpoint_every": checkpoint_every(args, state, loader),
    }


def checkpoint_every(args: Any, state: Any, loader: Any) -> int:
    """Steps from one checkpoint to the next; 0 where that cannot be said beforehand."""
    strategy = getattr(args.save_strategy, "value", args.save_strategy)
    if state.is_hyper_param_search or strategy not in {"steps", "epoch"}:
        return 0
    if strategy == "steps":
        return int(state.save_steps)
    # Neither state.max_steps nor the number of epochs knows of an epoch's last, smaller step.
    batches = len(loader) if hasattr(loader, "__len__") else 0
    return -(-batches // int(args.gradient_accumulation_steps))


def checkpoint_path(args: Any, state: Any) -> str:
    """Where the Trainer saves; a search for hyperparameters has directories of its own."""
    name = "checkpoint-%d" % state.global_step
    return os.path.join(os.path.abspath(args.output_dir), name)

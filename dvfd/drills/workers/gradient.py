"""Gradient validation, one rank: train the reference model and check every reduced gradient.

    torchrun --nproc_per_node=4 -m dvfd.drills.workers.gradient --answer FILE --seconds 60

Every bucket of every step is hashed in every rank and the hashes are compared, the norms too. Every
`--sample-every` steps the ranks' own gradients are gathered as well: their sum in float64 is the
truth for the reduced ones, each rank computes its neighbour's gradient again from the neighbour's
samples, and one rank, another each time, computes the whole batch by itself.

Rank 0 writes its answer every minute and at the end. A rank whose collective fails leaves a note
beside it. Exit codes: 0 ran to its end, 1 a collective failed, 2 usage. Never run on a GPU so far.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dvfd.drills import agreement, corpus, faults, stopping, world
from dvfd.drills.agreement import Tally
from dvfd.drills.capture import Bucket, Capture
from dvfd.drills.reference_model import HEAD_WIDTH, ByteModel
from dvfd.telemetry.gradient_hook import hash64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

REDUCED_SHARE = 0.25
"""Of the time, for bfloat16: what most jobs reduce in, and what most criteria are about, is
float32."""

WARM_UP, CLIP, RATE = 50, 1.0, 2e-3
"""As in the reference job: steps of rising learning rate, largest norm applied, learning rate."""

PERIOD = 60.0
"""Seconds between two partial answers: what a killed run loses."""

EXAMPLES = 500
"""Disagreements that are kept with their step, bucket and rank. All are counted."""

GO_ON, TELL, OVER = range(3)


class CollectiveFailed(Exception):
    """A collective raised or timed out; the message is torch's."""


@dataclass(slots=True)
class Ledger:
    """What one precision's training has shown so far; the same in all ranks but for `tally`."""

    seconds: float = 0.0
    steps: int = 0
    pairs: int = 0
    disagreements: int = 0
    bytes: int = 0  # hashed, in each rank
    buckets: list[int] = field(default_factory=list)  # bytes of each, in the last step
    norms_agreed: int = 0
    nonfinite: int = 0  # steps whose gradient norm was no finite number in some rank
    reproducible: bool = False  # a gradient computed twice is the same bit by bit
    tally: Tally = field(default_factory=Tally)
    cores: list[int] = field(default_factory=list)
    examples: list[tuple[int, int, list[int]]] = field(default_factory=list)
    norm_example: str = ""
    error: str = ""  # why there was nothing to train, in torch's words

    def take(self, step: int, rows: Sequence[Sequence[int]], dtype: torch.dtype) -> None:
        """Compare the *rows* of all ranks: a hash for each bucket, then the norm's bits."""
        self.steps += 1
        self.pairs += len(rows[0]) - 1
        self.bytes += sum(self.buckets)
        differing = agreement.disagreements([row[:-1] for row in rows])
        self.disagreements += len(differing)
        room = EXAMPLES - len(self.examples)
        self.examples += [(step, bucket, ranks) for bucket, ranks in differing[:room]]
        norms = [_as_float(row[-1]) for row in rows]
        self.nonfinite += not all(map(math.isfinite, norms))
        if agreement.norms_agree(norms, dtype):
            self.norms_agreed += 1
        else:
            self.norm_example = self.norm_example or f"step {step}: {norms}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for. `steps` of each precision end it early; 0 has no end."""

    answer: Path | None  # None: nothing is written
    seconds: float
    steps: int
    backend: str
    batch: int
    context: int
    width: int
    layers: int
    bucket_mib: float
    sample_every: int
    timeout: float
    seed: int
    flip: str
    flips: int


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; on a mistake, exit with code 2 and say it on stderr."""
    parser = argparse.ArgumentParser(
        prog="dvfd.drills.workers.gradient",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--answer", type=Path, help="file to write; notes go beside it")
    add("--seconds", type=float, default=60.0, help="of training, both precisions together")
    add("--steps", type=int, default=0, help="of each precision; 0: as many as there is time for")
    add("--backend", choices=("gloo", "nccl"), default="gloo")
    add("--batch", type=int, default=4, help="samples per rank and step")
    add("--context", type=int, default=64, help="bytes per sample")
    add("--width", type=int, default=128)
    add("--layers", type=int, default=4)
    add("--bucket-mib", type=float, default=1.0, help="size of DDP's buckets")
    add("--sample-every", type=int, default=25, help="steps")
    add("--timeout", type=float, default=60.0, help="seconds of a collective")
    add("--seed", type=int, default=1)
    add("--flip", choices=("before", "after"), default="", help="a test's fault: flip bits")
    add("--flips", type=int, default=0, help="steps in which to flip one")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.width % HEAD_WIDTH:
        parser.error(f"--width {options.width}: wanted a multiple of {HEAD_WIDTH}")
    if min(options.batch, options.context, options.layers, options.sample_every) < 1:
        parser.error("--batch, --context, --layers and --sample-every: wanted at least 1")
    return options


class Training:
    """The model in one precision, in this rank: trains, and looks at what comes of it."""

    def __init__(self, chosen: Options, place: world.World, text: corpus.Corpus, name: str) -> None:
        self._options = chosen
        self._world = place
        self._dtype = PRECISIONS[name]
        self._flips = faults.Flips(chosen.flip, chosen.flips, chosen.seed)
        self._sampler = corpus.Sampler(text.train, context=chosen.context, seed=chosen.seed)
        self.ledger = Ledger()
        self.capture = Capture()
        torch.manual_seed(chosen.seed)  # the same in every rank: the same model
        model = ByteModel(width=chosen.width, layers=chosen.layers, context=chosen.context)
        self._model = model.to(place.device, self._dtype)
        self._parameters = list(self._model.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=RATE)
        self._ddp = DistributedDataParallel(
            self._model, bucket_cap_mb=chosen.bucket_mib, gradient_as_bucket_view=True
        )
        self.capture.attach(self._ddp)

    def step(self, wish: int) -> int:
        """Train one step and compare it between all ranks; return the most that one wishes."""
        step, position = self.ledger.steps + 1, self._sampler.position
        flip = self._flips.at(step, self._world.size)
        self.capture.keep = step % self._options.sample_every == 1 % self._options.sample_every
        self.capture.harm = self._harm(flip)
        loss: torch.Tensor = self._ddp(self._take(self._world.rank))
        with failing(self.capture):
            torch.autograd.backward(loss)
        buckets = self.capture.buckets
        if self._flips.when == "after":
            self._flip(flip, buckets)
        wish = self._compare(step, buckets, wish)
        if self._flips.when == "after":
            self._flip(flip, buckets)  # as it was: the ranks' models stay the same
        if self.capture.keep:
            self._examine(position, buckets)
        self._update(step)
        return wish

    def _harm(self, flip: faults.Flip | None) -> Callable[[int, torch.Tensor], None] | None:
        """What a planted fault does to a bucket before its reduction."""
        if self._flips.when != "before" or flip is None or flip.rank != self._world.rank:
            return None
        chosen = flip.index(max(1, len(self.capture.buckets)))  # as many as in the step before

        def harm(index: int, buffer: torch.Tensor) -> None:
            if index == chosen:
                flip.apply(buffer)

        return harm

    def _flip(self, flip: faults.Flip | None, buckets: Sequence[Bucket]) -> None:
        if flip is not None and flip.rank == self._world.rank:
            flip.apply(buckets[flip.index(len(buckets))].reduced)

    def _take(self, rank: int) -> torch.Tensor:
        windows = self._sampler.take(self._options.batch, rank=rank, world=self._world.size)
        return windows.to(self._world.device)

    def _compare(self, step: int, buckets: Sequence[Bucket], wish: int) -> int:
        """Exchange hashes, norm and wish; 8 bytes each."""
        hashes = [_signed(hash64([bucket.reduced])) for bucket in buckets]
        norm = float(_norm([p.grad for p in self._parameters if p.grad is not None]))
        mine = torch.tensor([*hashes, _as_bits(norm), wish], device=self._world.device)
        rows = [row.tolist() for row in gather(mine)]
        self.ledger.buckets = [b.reduced.numel() * b.reduced.element_size() for b in buckets]
        self.ledger.take(step, [row[:-1] for row in rows], self._dtype)
        return max(int(row[-1]) for row in rows)

    def _update(self, step: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARM_UP)
        if torch.nn.utils.clip_grad_norm_(self._parameters, CLIP).isfinite():
            self._optimizer.step()
        self._optimizer.zero_grad()

    # --- The sampled steps ----------------------------------------------------------------------

    def _examine(self, position: int, buckets: Sequence[Bucket]) -> None:
        """Hold the step that began at *position* against its parts, again and alone."""
        rank, size, ledger = self._world.rank, self._world.size, self.ledger
        turn = ledger.steps // self._options.sample_every
        neighbour = (rank + 1) % size
        theirs = []
        for number, bucket in enumerate(buckets):
            assert bucket.own is not None
            gradients = gather_bits(bucket.own)
            theirs.append(gradients[neighbour])
            if (number + turn) % size == rank:
                ledger.tally += agreement.against_ranks(bucket.reduced, gradients)
        if ledger.reproducible:
            again = self._gradients(position, neighbour)
            differs = any(
                not torch.equal(agreement.bits(bucket.lay_out(again)), agreement.bits(their))
                for bucket, their in zip(buckets, theirs, strict=True)
            )
            ledger.tally += Tally(recomputed=1, recomputed_differently=int(differs))
        if turn % size == rank:
            alone = self._gradients(position, None)
            for bucket in buckets:
                ledger.tally += agreement.against_one(bucket.reduced, bucket.lay_out(alone))
        ledger.cores = sorted({*ledger.cores, _core()})

    def _gradients(self, position: int, rank: int | None) -> dict[int, torch.Tensor]:
        """The gradient of *rank*'s share of the batch at *position*, or of the whole batch,
        computed here without DDP; by the `id` of the parameter.
        """
        after, self._sampler.position = self._sampler.position, position
        size, batch = self._world.size, self._options.batch
        if rank is None:
            windows = self._sampler.take(size * batch, rank=0, world=1)
        else:
            windows = self._sampler.take(batch, rank=rank, world=size)
        self._sampler.position = after
        loss = self._model(windows.to(self._world.device))
        found = torch.autograd.grad(loss, self._parameters)
        return {id(p): g for p, g in zip(self._parameters, found, strict=True)}

    def look_twice(self) -> None:
        """Find out whether every rank computes the same gradient twice bit by bit: only then does
        a difference between two ranks' mean anything.
        """
        one, two = (self._gradients(0, 0) for _ in range(2))
        same = all(torch.equal(agreement.bits(one[k]), agreement.bits(two[k])) for k in one)
        mine = torch.tensor([int(same)], device=self._world.device)
        self.ledger.reproducible = all(int(each) for each in gather(mine))

    def total(self) -> Ledger:
        """The ledger with the tallies and cores of all ranks in it. A collective."""
        device = self._world.device
        mine = max(os.cpu_count() or 1, *(core + 1 for core in [0, *self.ledger.cores]))
        count = max(int(each) for each in gather(torch.tensor([mine], device=device)))  # nodes vary
        used = torch.zeros(count, dtype=torch.int64, device=device)
        used[self.ledger.cores] = 1
        counts = torch.tensor(astuple(self.ledger.tally), device=device)
        tallies, cores = gather(counts), gather(used)
        found = asdict(self.ledger)
        found["tally"] = Tally(*torch.stack(tallies).sum(0).tolist())
        found["cores"] = torch.stack(cores).sum(0).nonzero().flatten().tolist()
        return Ledger(**found)


# --- Collectives --------------------------------------------------------------------------------


class failing:  # noqa: N801  # reads as a word: `with failing(capture):`
    """Turn what a collective of *capture*'s model raises into CollectiveFailed, and no more."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, RuntimeError) and self._capture.failure:
            raise CollectiveFailed(self._capture.failure) from error


def gather(mine: torch.Tensor) -> list[torch.Tensor]:
    """Every rank's tensor of the same shape, in order of rank. Raises CollectiveFailed."""
    rows = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    try:
        distributed.all_gather(rows, mine)
    except RuntimeError as error:
        raise CollectiveFailed(f"all-gather: {error}") from error
    return rows


def gather_bits(mine: torch.Tensor) -> list[torch.Tensor]:
    """The same, as bytes on the way: no arithmetic and no format can change them."""
    return [row.view(mine.dtype) for row in gather(mine.view(torch.uint8))]


def refusal(dtype: torch.dtype, device: torch.device) -> str:
    """Why *dtype* cannot be reduced here, in torch's own words, or an empty string.

    Tried rather than known: Gloo sums bfloat16 since some version between torch 2.4 and 2.13.
    """
    probe = torch.ones(8, dtype=dtype, device=device)
    try:
        distributed.all_reduce(probe)
    except (RuntimeError, TypeError) as error:
        return str(error).strip().splitlines()[0]
    wanted = distributed.get_world_size()
    return "" if bool((probe == wanted).all()) else f"summed {wanted} ones to {probe[0].item()}"


# --- The run ------------------------------------------------------------------------------------


class Validation:
    """Both precisions one after the other, and rank 0's answer about them."""

    def __init__(self, chosen: Options, place: world.World) -> None:
        self._options = chosen
        self._world = place
        self._ledgers = {name: Ledger() for name in PRECISIONS}
        self._stopped = self._done = False
        self._training: tuple[str, Training] | None = None
        self.at = "before the first step"

    def stop(self, *_signal: object) -> None:
        """End after the step under way, in all ranks. Safe to call in a signal handler."""
        self._stopped = True

    def run(self) -> None:
        """To the end. Raises CollectiveFailed, with a note of it left."""
        self._write()
        text = corpus.load()
        shares = self._shares()
        for name, seconds in shares.items():
            self._train(Training(self._options, self._world, text, name), name, seconds)
        stopped = torch.tensor([int(self._stopped)], device=self._world.device)
        self._done = not any(int(each) for each in gather(stopped))
        self._write()

    def _shares(self) -> dict[str, float]:
        """Seconds for each precision that can be reduced here."""
        total, device = self._options.seconds, self._world.device
        self._ledgers["bfloat16"].error = refusal(torch.bfloat16, device)
        if self._ledgers["bfloat16"].error:
            return {"float32": total}
        reduced = REDUCED_SHARE * total
        return {"float32": total - reduced, "bfloat16": reduced}

    def salvage(self) -> None:
        """Leave what was compared until a collective failed. The last answer's tally stands."""
        if self._training is not None:
            name, training = self._training
            told = self._ledgers[name]
            self._ledgers[name] = replace(training.ledger, tally=told.tally, cores=told.cores)
            self._write()

    def failed(self, error: CollectiveFailed) -> dict[str, Any]:
        """Keep what was compared until then, and be this rank's note of *error*."""
        self.salvage()
        words = str(error)[:1000]
        return {"time": time.time(), "rank": self._world.rank, "at": self.at, "error": words}

    def _train(self, training: Training, name: str, seconds: float) -> None:
        self._training = name, training
        training.look_twice()
        began = told = time.monotonic()
        period, wish, steps = min(PERIOD, self._options.seconds / 6), GO_ON, self._options.steps
        while wish != OVER:
            now, ledger = time.monotonic(), training.ledger
            self.at = f"{name}, step {ledger.steps + 1}"
            over = self._world.leads and (now - began >= seconds or 0 < steps <= ledger.steps + 1)
            due = self._world.leads and now - told >= period
            wish = training.step(OVER if over or self._stopped else TELL if due else GO_ON)
            ledger.seconds = time.monotonic() - began
            if wish != GO_ON:
                told = time.monotonic()
                self._ledgers[name] = training.total()
                self._write()
                self._say(name, self._ledgers[name], seconds)

    def _say(self, name: str, ledger: Ledger, seconds: float) -> None:
        if self._world.leads:
            tally = ledger.tally
            say(
                f"{name}: {ledger.seconds:.0f} of {seconds:.0f} s, {ledger.steps} steps,"
                f" {ledger.pairs} buckets compared, {ledger.disagreements} differ;"
                f" {tally.pairs} held against float64, {tally.elements - tally.bounded} elements"
                f" out of bounds; {tally.recomputed_differently} of {tally.recomputed}"
                " gradients different when computed again"
            )

    @property
    def answer(self) -> dict[str, Any]:
        """What is known so far: the same in every rank."""
        return {
            "done": self._done,
            "world": self._world.size,
            "backend": self._options.backend,
            "torch": torch.__version__,
            "seconds": sum(ledger.seconds for ledger in self._ledgers.values()),
            "planned": self._options.seconds,
            "passes": {name: asdict(ledger) for name, ledger in self._ledgers.items()},
        }

    def _write(self) -> None:
        if self._world.leads and self._options.answer:
            leave(self._options.answer, self.answer)


def leave(path: Path, answer: dict[str, Any]) -> None:
    """Write *answer* so that a reader sees all of it or the one before."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(path)


def note(path: Path, rank: int) -> Path:
    """Where *rank* leaves word of a collective that failed."""
    return path.with_name(f"{path.name}.failed-{rank}")


def say(line: str) -> None:
    """One line of progress on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this rank to its end; the exit code is in the file's first words."""
    chosen = parse(arguments)
    if chosen.answer is None:
        raise SystemExit("--answer: wanted the file to write")
    prepare(chosen.backend)
    place = world.join(chosen.backend, timeout=chosen.timeout)
    note(chosen.answer, place.rank).unlink(missing_ok=True)  # of an earlier run
    validation = Validation(chosen, place)
    # torchrun stops the other ranks when one has died. Their collective fails at about the same
    # moment, and a rank that lives to say so is worth more: torchrun waits 30 seconds for it.
    signal.signal(signal.SIGTERM, validation.stop)
    try:
        validation.run()
    except CollectiveFailed as error:
        leave(note(chosen.answer, place.rank), validation.failed(error))
        say(f"rank {place.rank}, {validation.at}: {error}")
        return 1  # without destroying the group: that may wait for ranks that are gone
    # Who leaves first closes lines from which another may still read the last answer. Once one has
    # passed here all have that answer, so what fails from now on means nothing.
    with contextlib.suppress(RuntimeError):
        distributed.barrier()
    distributed.destroy_process_group()
    return 0


def prepare(backend: str) -> None:
    """No more threads than OMP_NUM_THREADS says, or one; the same bits every time."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    if backend == "nccl":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts
        torch.use_deterministic_algorithms(True, warn_only=True)


def _norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients]
    whole: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return whole


def _signed(value: int) -> int:
    """64 bits as torch's int64 holds them."""
    return value - (1 << 64) if value >> 63 else value


def _as_bits(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _as_float(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


def _core() -> int:
    """The core that this process ran on last: field 39 of its stat, proc(5)."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[36])


if __name__ == "__main__":
    stopping.leave(main())

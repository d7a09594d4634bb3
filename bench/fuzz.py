"""Whatever comes in from others: a record, a refusal in words, or a crash that this has to find.

First packets, made of recorded ones, through the parser, and some of them over real lines into the
real receiver with its book and store. Then everything else that reads what others write: without
guidance (each value exchanged, seeds damaged), and under a coverage-guided fuzzer, so many seconds
for each. What crashes is kept; once mended it belongs into tests/fixtures/fuzz.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.fuzz_guided import Guided, guided
from bench.fuzz_packets import SLOW, Parsed, Received, parsed, received
from bench.fuzz_plain import Plain, plain
from bench.fuzz_targets import TARGETS
from bench.harness import chosen, finish
from bench.record import Figure, at_most, exactly

PACKETS = 1_000_000
SENT = 100_000
DAMAGED = 2_000
GROWTH = 16 * 1024
"""KiB that may be kept for good after warm-up: a heap breathes, a leak of a byte a packet shows."""


def main() -> None:
    """Fuzz everything and keep what was found."""
    options = chosen(
        __doc__, seconds=0, packets=PACKETS, sent=SENT, damaged=DAMAGED, guided="", place=""
    )
    seconds = options.seconds or (2 if options.short else 20)
    names = options.guided.split(",") if options.guided else list(TARGETS)
    began = time.monotonic()
    found = parsed(options.packets)
    over = received(options.sent // (10 if options.short else 1))
    count = options.damaged // (10 if options.short else 1)
    blind = [_told(plain(target, count)) for target in TARGETS.values()]
    with tempfile.TemporaryDirectory() as place:
        led = guided(Path(options.place or place), names, seconds=seconds, runs=10**9)
    lasted = time.monotonic() - began
    for crash in _crashes(found, over, blind, led):
        print(crash)
    raw: dict[str, Any] = {
        "seconds": lasted,
        "receiver": dict(over.counters),
        "plain": [each.to_document() for each in blind],
        "guided": [each.to_document() for each in led],
    }
    finish("fuzz", options, _figures(found, over, blind, led), raw)


def _told(found: Plain) -> Plain:
    print(f"{found.target}: {found.inputs} inputs, {len(found.crashes)} crashes", flush=True)
    return found


def _crashes(
    found: Parsed, over: Received, blind: Sequence[Plain], led: Sequence[Guided]
) -> list[str]:
    """Each crash in words."""
    guided_ones = [f"{each.target}: {each.crash}" for each in led if each.crash]
    blind_ones = [f"{each.target}: {crash}" for each in blind for crash in each.crashes]
    return [*found.crashes, *over.troubles, *blind_ones, *guided_ones]


def _figures(
    found: Parsed, over: Received, blind: Sequence[Plain], led: Sequence[Guided]
) -> list[Figure]:
    crashes = _crashes(found, over, blind, led)
    runs = sum(each.runs for each in led)
    return [
        exactly("crashes", "Crashes in fuzzing, of all below", len(crashes), "crashes", 0),
        Figure("packets", "Made packets through the parser", found.packets, "packets"),
        Figure("packets_taken", "of these were records", found.accepted, "packets"),
        at_most(
            "packet_slowest", "Slowest packet, processor time", 1e3 * found.slowest, "ms",
            1e3 * SLOW,
        ),
        at_most(
            "packets_memory", "Memory kept by that", max(0, found.grown_kib), "KiB", GROWTH
        ),
        Figure("sent", "Made packets into the receiver, over lines", over.sent, "packets"),
        Figure("refused", "of these counted as malformed", over.counters["malformed"], "packets"),
        at_most(
            "receiver_memory", "Memory kept by receiver and store", max(0, over.grown_kib), "KiB",
            GROWTH,
        ),
        at_most("jobs", "Jobs in the book afterwards", over.jobs, "jobs", 16),
        Figure("readers", "Readers of what others write", len(blind), "readers"),
        Figure(
            "damaged", "Damaged inputs to them", sum(each.inputs for each in blind), "inputs"
        ),
        Figure("guided", "Coverage-guided inputs to them", runs, "inputs"),
        Figure(
            "edges", "Edges of their code seen by that", sum(each.edges for each in led), "edges"
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

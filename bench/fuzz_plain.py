"""Targets of the table without guidance: each value of a JSON seed exchanged, and seeds damaged.

Quick and the same each time: what the tests run at every change, and where a fuzzer that climbs by
single bits does not come, such as an integer of four hundred digits.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.fuzz_targets import Target
from bench.fuzzed import VALUES

SEED = 9

SLOW = 1.0
"""Seconds of the processor that one input of a few KiB may cost, on a machine that is busy."""


@dataclass(slots=True)
class Plain:
    """What came of one target."""

    target: str
    inputs: int = 0
    slowest: float = 0.0
    crashes: list[str] = field(default_factory=list)

    def to_document(self) -> dict[str, object]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def plain(target: Target, count: int) -> Plain:
    """Give *target* its seeds, every exchange of a value in them, and *count* damaged ones."""
    found = Plain(target.name)
    seeds = [seed[: target.most] for seed in target.seeds()]
    exchanged = itertools.chain.from_iterable(map(exchanges, target.seeds()))
    for data in itertools.chain(seeds, exchanged, itertools.islice(damaged(seeds), count)):
        found.inputs += 1
        began = time.thread_time()
        try:
            target.take(data)
        except Exception:  # noqa: BLE001  # a crash is what is looked for
            found.crashes.append(f"{data[:300]!r}: {traceback.format_exc(limit=-2)}")
        found.slowest = max(found.slowest, time.thread_time() - began)
    return found


def exchanges(seed: bytes) -> Iterator[bytes]:
    """*seed* with each of its values, one after the other, exchanged for each odd one."""
    try:
        document = json.loads(seed)
    except ValueError:
        return
    for path in _paths(document):
        for value in VALUES:
            yield json.dumps(_with(document, path, value)).encode()


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a document."""
    if not isinstance(value, dict | list):
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (key,)
        yield from ((key, *rest) for rest in _paths(each))


def _with(document: Any, path: tuple[Any, ...], value: object) -> Any:
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return made


def damaged(seeds: list[bytes]) -> Iterator[bytes]:
    """Seeds with bits turned, parts cut out, parts of others put in and parts repeated."""
    chance = random.Random(SEED)
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 5))):
            at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
            other = chance.choice(seeds)
            match chance.randrange(4):
                case 0 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at:end]
                case 2:
                    data[at:at] = other[chance.randrange(len(other) + 1) :][:200]
                case _:
                    data[at:at] = data[at:end] * chance.choice((1, 2, 50))
            del data[1 << 16 :]
        yield bytes(data)

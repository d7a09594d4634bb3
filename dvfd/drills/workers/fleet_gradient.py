"""Gradient validation over several nodes: the ranks of a crew train and check as those of one do.

Every node's first rank gives the answer, which all ranks have alike, so that it outlives the loss
of any other node; a rank whose collective failed gives its note of it.

Options: `arguments`, those of `dvfd.drills.workers.gradient` but `--answer`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from dvfd.drills import corpus
from dvfd.drills.workers import fleet_group, fleet_text, gradient
from dvfd.drills.workers.fleet import Crew


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, Any]:
    """The `answer` of a node's first rank, and the `note` of one whose collective failed.

    Raises NoGroup, Missing, ValueError.
    """
    chosen = gradient.parse(options["arguments"])
    gradient.prepare(chosen.backend)
    fleet_text.same(crew, corpus.load().hash)
    place = fleet_group.join(crew, chosen.backend, timeout=chosen.timeout, led=True)
    validation = gradient.Validation(chosen, place)
    signal.signal(signal.SIGTERM, validation.stop)  # as in the worker itself
    found: dict[str, Any] = {}
    try:
        validation.run()
    except gradient.CollectiveFailed as error:
        who = {"rank": f"{crew.rank} ({crew.me.name})"}
        found["note"] = validation.failed(error) | who
        crew.say(f"{crew.whose(crew.rank)}, {validation.at}: {error}")
    return found | ({"answer": validation.answer} if crew.head else {})

"""Who else takes part in a run, as far as the daemon of one node must know. Nouns only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dvfd.runs.advance import Led
    from dvfd.runs.run import Run

QUIET = 30.0
"""Seconds without a good answer after which a node is silent: they are asked every two."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abroad:
    """What is seen of the other nodes at a look.

    `waits` says who has not come yet, `fallen` whose run was broken off and why; `peers` are the
    runs of those who came, `discounts` why a pass will not count for their sake. `led` is what the
    leader says, at the nodes that it leads, and `of` its run.
    """

    waits: str = ""
    fallen: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)
    discounts: tuple[str, ...] = ()
    of: str = ""
    led: Led | None = None


class Company(Protocol):
    """The other nodes of one run. `poll` is called by a thread of its own, the rest by who
    conducts the run; nothing but `poll` waits for a network.
    """

    def poll(self) -> None:
        """Ask all of them once."""
        ...

    def look(self, run: Run, *, t: float, at: float) -> Abroad:
        """What is known of them at run second *t*, Unix time *at*."""
        ...

    def ready(self, run: Run, *, t: float) -> bool:
        """Whether nothing more is waited for, of a run that is over."""
        ...

    def close(self, run: Run, *, t: float, at: float) -> None:
        """The run is judged next: say who did not deliver."""
        ...

    @property
    def trouble(self) -> str:
        """What keeps the others from being seen, or nothing."""
        ...

    def documents(self) -> dict[str, Any]:
        """`peers` and `led_by`, as `dvfd stability status` shows them."""
        ...


class Alone:
    """A run of one node, or of several that nobody named."""

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble

    def poll(self) -> None:
        """Nobody is there."""

    def look(self, run: Run, *, t: float, at: float) -> Abroad:
        """Nothing is."""
        return Abroad()

    def ready(self, run: Run, *, t: float) -> bool:
        """Nobody is waited for."""
        return True

    def close(self, run: Run, *, t: float, at: float) -> None:
        """Nobody is missing."""

    def documents(self) -> dict[str, Any]:
        """Nobody."""
        return {"peers": [], "led_by": None}

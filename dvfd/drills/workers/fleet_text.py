"""Whether all nodes learn from the same text: else no two ranks' gradients can be compared."""

from __future__ import annotations

from dvfd.drills.workers.fleet import Crew


def same(crew: Crew, text: str) -> None:
    """Raises ValueError, naming who has which, where *text*, its hash, differs; Missing."""
    said = crew.gather("text", text, timeout=120.0)
    values: dict[str, list[str]] = {}
    for node in crew.nodes:
        for value in dict.fromkeys(said[rank] for rank in node.ranks):
            values.setdefault(str(value)[:12], []).append(node.name)
    if len(values) > 1:
        each = "; ".join(f"{', '.join(who)}: {value}" for value, who in values.items())
        raise ValueError(f"Python's own sources, the text, differ between the nodes: {each}")

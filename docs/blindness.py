"""docs/blindness.md: what dvfd says of a source that fell silent, and after how long."""

from __future__ import annotations

from collections.abc import Iterator

from bench.mute_table import SOURCES, Source, Way
from bench.silences import Way as Silence
from dvfd.model import Catalogue
from dvfd.state import LIVE_STANDS, standing

HEAD = """# What dvfd says when it cannot see

One rule: what was not measured, is stale, crashed, was switched off or is implausible is
**UNKNOWN**, and UNKNOWN opens nothing: no green page, no `dvfd ready`, no gate. This table is
carried out, not only written: `python -m bench.mutes` mutes every source of a real daemon in
every way below, and every criterion in process, and reads the verdict on `/metrics`, on the page,
in `dvfd status` and under `/api/v1`. The figures are in [bench/RESULTS.md](../bench/RESULTS.md).

Seconds count from the last sample. A node as delivered samples every 5 s. Whoever was known and is
UNKNOWN for 15 s more raises `DvfdBlind`, which names the source.
"""

SLOW = """Sixty seconds where a source speaks of its own accord and less often: what a rank tells of
a step, which may take long (that it makes none is `live.progress`, FAIL), and a share of
retransmitted segments, which needs a thousand of them.
"""

LEVELS = """## What cannot be seen

Where a source answers, in time, with the same value for ever, dvfd says that value: a temperature,
a memory, an idle link may stand still. Where standing still is impossible it is seen: the ticks of
`/proc/stat`, the energy of a package, the steps of a rank, a text file's modification time.

## Every source, every way
"""

CRITERIA = """## Every criterion

Whatever its source, a criterion is UNKNOWN as soon as it is judged again when
"""


def text(catalogue: Catalogue) -> str:
    """The whole document."""
    return "\n".join(
        [HEAD, _ages(catalogue), SLOW, LEVELS, *map(_source, SOURCES), _criteria(catalogue)]
    )


def _ages(catalogue: Catalogue) -> str:
    rows = ["| source | UNKNOWN after | criteria of the continuous watch |", "|---|---|---|"]
    live = catalogue.checks["live"].criteria
    for name in SOURCES:
        source = name.partition(".")[0]
        mine = [c for c in live if c.source == source]
        ages = sorted({c.max_age for c in mine})
        after = ", ".join(f"{age:g} s" for age in ages) or "three of its own intervals"
        names = ", ".join(f"`{c.id}`" for c in mine) or "a site's own"
        if source == "files":
            after, names = "as the ranks that it tells of", "those of the ranks"
        rows.append(f"| `{source}` | {after} | {names} |")
    return "\n".join(rows) + "\n"


def _source(name: str) -> str:
    row: Source = SOURCES[name]
    lines = [
        f"### `{name.partition('.')[0]}`\n",
        "| way | what is done | dvfd says |",
        "|---|---|---|",
    ]
    for way in Way:
        if way in row.ways:
            lines.append(f"| {way} | {row.ways[way]} | UNKNOWN |")
        else:
            lines.append(f"| {way} | | {row.cannot[way]} |")
    return "\n".join(lines) + "\n"


def _criteria(catalogue: Catalogue) -> str:
    stands: Iterator[str] = (
        f"`{check.id}` {seconds / 3600:.0f} h"
        for check in catalogue.checks.values()
        if not check.watch and (seconds := standing(check))
    )
    lines = [f"- {way};" for way in Silence if way is not Silence.STUCK]
    lines.append(
        f"- {Silence.STUCK}: after {LIVE_STANDS:g} s of the continuous watch; of a list, after its "
        f"interval and what a run of it may be late: {', '.join(stands)}."
    )
    return CRITERIA + "\n".join(lines) + "\n"

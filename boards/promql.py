"""Pieces of PromQL as the dashboards ask it: every selector names job and instance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from boards.colours import VERDICTS

CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}
"""The number that stands for a verdict on a timeline; the largest is the worst."""


CHOSEN = ('job=~"$job"', 'instance=~"$instance"')


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus and how its series are called."""

    expr: str
    legend: str = ""
    limit: bool = False  # what others are held against: drawn dashed and grey


def of(metric: str, *matchers: str) -> str:
    """A selector of *metric* on the chosen nodes."""
    return f"{metric}{{{', '.join((*CHOSEN, *matchers))}}}"


def of_job(metric: str, *matchers: str) -> str:
    """The same, of the chosen training jobs."""
    return of(metric, 'training_job=~"$training_job"', *matchers)


def against(limit: float, selector: str, name: str = "limit") -> Query:
    """A limit where there is something to hold against it: a line alone would hide a blank."""
    return Query(f"vector({limit:g}) and on () group({selector})", name, limit=True)


def rate(selector: str) -> str:
    """Growth of a counter in a second."""
    return f"rate({selector}[$__rate_interval])"


def increase(selector: str, over: str = "$__rate_interval") -> str:
    """Growth of a counter over a time."""
    return f"increase({selector}[{over}])"


def counted(part: str, whole: str) -> str:
    """How many series *part* has: 0 if it has none of those in *whole*, nothing if both have none.

    A count of failures that is 0 because nobody answers would be green while blind.
    """
    return f"count({part}) or 0 * count({whole})"


def coded(metric: str, by: Iterable[str], *matchers: str) -> str:
    """Verdicts as numbers, the worst of each group: see CODES."""
    each = [
        f"{code} * " + of(metric, f'verdict="{verdict}"', *matchers)
        for verdict, code in reversed(CODES.items())
    ]
    return f"max by ({', '.join(by)}) ({' or '.join(each)})"


def or_unknown(expr: str, by: Iterable[str], selector: str, code: int = CODES["UNKNOWN"]) -> str:
    """*expr*, and *code* for what was there in the last hour and is silent now: charts bridge
    silence by themselves, with the last colour they had.
    """
    return f"{expr} or {code} * group by ({', '.join(by)}) (present_over_time({selector}[1h]))"


FLEET = "fleet_check:dvfd_check_verdict:worst"
"""Each check's verdict over all nodes, as a label: recorded by dvfd-recording-cluster."""


def fleet_verdicts() -> str:
    """That verdict as a number; UNKNOWN once nobody records it any more."""
    each = (f'0 * {FLEET}{{verdict="{v}"}} + {code}' for v, code in reversed(CODES.items()))
    return or_unknown(f"max by (check) ({' or '.join(each)})", ["check"], f"{FLEET}{{}}")


FROZEN = 120
"""Seconds after which readings that do not move are no observation, whatever they were."""


def node_verdict() -> str:
    """Each node's verdict; UNKNOWN for one that Prometheus scrapes and that says none, or whose
    readings stand still: an answer of an hour ago would be green while blind.
    """
    said = coded("dvfd_check_verdict", ["instance"], 'check="live"')
    read = of("dvfd_probe_last_success_timestamp_seconds", 'probe=~"node|ranks"')
    fresh = f"time() - max by (instance) ({read}) < {FROZEN}"
    return (
        f"({said}) and on (instance) ({fresh}) "
        f"or 0 * max by (instance) ({of('up')}) + {CODES['UNKNOWN']}"
    )

"""The nodes' verdicts as one: the worst decides, and who is missing or old is UNKNOWN. Pure.

A node's word counts as what it is; its PASS counts only if it was seen just now, judged by the same
catalogue as ours, by a dvfd that is itself well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.model import Combine, Scope, Severity, Verdict, worst

if TYPE_CHECKING:
    from dvfd.model import Catalogue, Check, Criterion
    from dvfd.scraped import Series

SCHEMA = 1
"""Raised when a key of the document changes its meaning or goes."""

OLD = 180.0
"""Seconds after which a node was not seen: three scrapes of the longest usual interval."""

NOTHING = Verdict.NOT_APPLICABLE
"""Of a node that is asked nothing, as what only the lead judges."""

LAST_READ = "dvfd_probe_last_success_timestamp_seconds"
"""By its newest a node that answers, and stands still, is told from one that goes on."""

HASH = 12
"""Characters of a hash that dvfd_build_info carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One node as it was seen last; `why` says why nothing of it counts, if so."""

    node: str
    why: str = ""
    age: float | None = None
    version: str = ""
    catalogue: str = ""
    profile: str = ""
    troubles: tuple[str, ...] = ()
    checks: Mapping[str, Verdict] = field(default_factory=dict)
    criteria: Mapping[str, Verdict] = field(default_factory=dict)
    figures: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by metric and job


@dataclass(frozen=True, slots=True)
class Counted:
    """A check over all nodes: what each counts as, with the reason where it is not its own word."""

    check: str
    verdict: Verdict
    nodes: Mapping[str, Verdict]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Balance:
    """How far the node that is furthest from the mean is from it; None with fewer than two."""

    metric: str
    job: str
    values: Mapping[str, float]
    spread: float | None
    furthest: str
    missing: tuple[str, ...]


# --- What a node said -----------------------------------------------------------------------------

FIGURES = ("dvfd_rank_compute_seconds", "dvfd_job_throughput_samples_per_second")
"""What nodes that train together are compared by: the mean over a node's ranks."""


def seen(node: str, series: Iterable[Series], *, at: float, age: float = 0.0) -> Seen:
    """What *series* say of *node* at Unix time *at*, as it was *age* seconds ago."""
    found = list(series)
    info = next((s.labels for s in found if s.name == "dvfd_build_info"), {})
    return Seen(
        node=node,
        why=_unseen(found, at=at, age=age),
        age=age,
        version=info.get("version", ""),
        catalogue=info.get("catalogue", ""),
        profile=info.get("profile", ""),
        troubles=tuple(_troubles(found)),
        checks=_verdicts(found, "dvfd_check_verdict", "check"),
        criteria=_verdicts(found, "dvfd_criterion_verdict", "criterion"),
        figures=_figures(found),
    )


def _unseen(found: Sequence[Series], *, at: float, age: float) -> str:
    """Why this is no view of a node as it is now, or an empty string."""
    if not any(each.name == "dvfd_build_info" for each in found):
        return "it says nothing of itself"
    if not -OLD <= age <= OLD:
        return f"last seen {age:.0f} s ago, wanted at most {OLD:.0f}"
    read = [each.value for each in found if each.name == LAST_READ]
    if not read:
        return "it has read none of its sources yet"
    if not -OLD <= (old := at - max(read)) <= OLD:
        return f"its newest reading is {old:.0f} s old by our clock, wanted at most {OLD:.0f}"
    return ""


def _troubles(found: Iterable[Series]) -> Iterable[str]:
    for each in found:
        if each.name == "dvfd_loop_late" and each.value:
            yield f"its loop {each.labels.get('loop', '?')} makes no progress"
        if each.name == "dvfd_store_ok" and not each.value:
            yield "its store keeps nothing"


def _verdicts(found: Iterable[Series], name: str, label: str) -> dict[str, Verdict]:
    """The verdict by *label*; a word that is none is UNKNOWN, of two the worse counts."""
    words: dict[str, list[Verdict]] = {}
    for each in found:
        if each.name == name and each.value == 1:
            words.setdefault(each.labels.get(label, ""), []).append(_verdict(each.labels))
    return {of: said[0] if len(set(said)) == 1 else worst(said) for of, said in words.items()}


def _verdict(labels: Mapping[str, str]) -> Verdict:
    try:
        return Verdict(labels.get("verdict", ""))
    except ValueError:
        return Verdict.UNKNOWN


def _figures(found: Iterable[Series]) -> dict[tuple[str, str], float]:
    values: dict[tuple[str, str], list[float]] = {}
    for each in found:
        if each.name in FIGURES:
            job = each.labels.get("training_job", "")
            values.setdefault((each.name, job), []).append(each.value)
    return {of: sum(all_) / len(all_) for of, all_ in values.items()}


# --- All of them ----------------------------------------------------------------------------------


def counted(check: Check, nodes: Sequence[Seen], *, lead: str, catalogue: str) -> Counted:
    """*check* over all nodes, of which *lead* alone is asked what is judged at the lead only."""
    verdicts, reasons = {}, {}
    for node in nodes:
        said = _said(check, node, leads=node.node == lead)
        verdict, reason = counts(said, node, catalogue)
        if verdict is not None:
            verdicts[node.node] = verdict
        if reason:
            reasons[node.node] = reason
    return Counted(check.id, worst(verdicts.values()), verdicts, reasons)


def mixed(check: Check) -> bool:
    """Whether some of its criteria are judged at the lead only and some on every node."""
    return len({criterion.scope for criterion in _deciding(check)}) > 1


def _deciding(check: Check) -> list[Criterion]:
    return [c for c in check.criteria if c.severity is Severity.CRITICAL]


def _said(check: Check, node: Seen, *, leads: bool) -> Verdict | None:
    """The node's own word on the part of *check* that it is asked; None if it is asked nothing."""
    whole = node.checks.get(check.id, Verdict.UNKNOWN)
    if leads:
        return whole
    asked = [c.id for c in _deciding(check) if c.scope is Scope.NODE]
    if not asked:
        return whole if whole is Verdict.FAIL else None
    if not mixed(check):
        return whole
    found = [node.criteria.get(name, Verdict.UNKNOWN) for name in asked]
    if whole is Verdict.FAIL:  # a failure counts wherever it was judged
        return Verdict.FAIL
    return Verdict.NOT_APPLICABLE if set(found) == {Verdict.NOT_APPLICABLE} else worst(found)


def counts(said: Verdict | None, node: Seen, catalogue: str) -> tuple[Verdict | None, str]:
    """What that counts as, and why if it is not what was said; None for what was not asked."""
    if node.why:
        return Verdict.UNKNOWN, node.why
    if said is None:
        return None, ""
    if said in {Verdict.FAIL, Verdict.UNKNOWN}:
        return said, ""
    if node.troubles:
        return Verdict.UNKNOWN, f"{'; '.join(node.troubles)}: it may be blind"
    if node.catalogue[:HASH] != catalogue[:HASH]:
        theirs = node.catalogue[:HASH] or "none"
        return Verdict.UNKNOWN, f"judged by the catalogue {theirs}, wanted {catalogue[:HASH]}"
    return said, ""


def balances(nodes: Sequence[Seen]) -> list[Balance]:
    """Each job by each of FIGURES; a node that is not seen is missing from all."""
    here = [node for node in nodes if not node.why]
    found = sorted({of for node in here for of in node.figures})
    return [_balance(metric, job, nodes) for metric, job in found]


def _balance(metric: str, job: str, nodes: Sequence[Seen]) -> Balance:
    values = {
        node.node: node.figures[metric, job]
        for node in nodes
        if not node.why and (metric, job) in node.figures
    }
    missing = tuple(node.node for node in nodes if node.node not in values)
    mean = sum(values.values()) / len(values)
    if len(values) < 2 or mean == 0:
        return Balance(metric, job, values, None, "", missing)
    furthest = max(values, key=lambda name: abs(values[name] - mean))
    spread = abs(values[furthest] - mean) / abs(mean)
    return Balance(metric, job, values, spread, furthest, missing)


def differences(nodes: Sequence[Seen]) -> dict[str, dict[str, list[str]]]:
    """Which nodes have which version, catalogue and profile, where not all have the same."""
    found = {}
    for what in ("version", "catalogue", "profile"):
        values: dict[str, list[str]] = {}
        for node in nodes:
            if not node.why:
                values.setdefault(getattr(node, what), []).append(node.node)
        if len(values) > 1:
            found[what] = values
    return found


def limit(catalogue: Catalogue) -> tuple[str, float] | None:
    """The criterion that nodes' balance is held against in a run, and its limit."""
    for criterion in catalogue.criteria.values():
        if criterion.across == "node" and criterion.combine is Combine.SPREAD:
            value = criterion.limit.value
            return None if value is None else (criterion.id, value)
    return None


def document(
    nodes: Sequence[Seen], catalogue: Catalogue, checks: Sequence[str], *, lead: str, at: float,
    source: str,
) -> dict[str, Any]:  # fmt: skip
    """All of it as plain JSON values; the verdict is the worst of *checks* over all nodes."""
    every = {
        check.id: counted(check, nodes, lead=lead, catalogue=catalogue.hash)
        for check in catalogue.checks.values()
    }
    deciding = [every[name] for name in checks]
    held = limit(catalogue)
    return {
        "schema": SCHEMA,
        "at": at,
        "source": source,
        "lead": lead,
        "catalogue": catalogue.hash,
        "verdict": str(worst(each.verdict for each in deciding)),
        "decided_by": list(checks),
        "nodes": [_node(node, deciding) for node in nodes],
        "checks": [_check(each) for each in every.values()],
        "differences": differences(nodes),
        "balance": [
            {
                "metric": each.metric,
                "job": each.job,
                "nodes": dict(each.values),
                "spread": each.spread,
                "furthest": each.furthest,
                "missing": list(each.missing),
                "criterion": held[0] if held else "",
                "limit": held[1] if held else None,
            }
            for each in balances(nodes)
        ],
    }


def _node(node: Seen, deciding: Iterable[Counted]) -> dict[str, Any]:
    counts = [each for each in deciding if node.node in each.nodes]
    reasons = dict.fromkeys(each.reasons[node.node] for each in counts if node.node in each.reasons)
    return {
        "node": node.node,
        "verdict": str(worst(each.nodes[node.node] for each in counts) if counts else NOTHING),
        "reason": "; ".join(reasons) or node.why,
        "seen": not node.why,
        "age": node.age,
        "version": node.version,
        "catalogue": node.catalogue,
        "profile": node.profile,
    }


def _check(found: Counted) -> dict[str, Any]:
    return {
        "check": found.check,
        "verdict": str(found.verdict),
        "nodes": {name: str(verdict) for name, verdict in found.nodes.items()},
        "reasons": dict(found.reasons),
    }

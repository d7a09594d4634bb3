"""A report's document as text for a terminal, and as Markdown for a ticket or a mail. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.reporting.compare import figure, side_by_side, size, unit
from dvfd.reporting.document import named, over, tenths
from dvfd.reporting.shares import hours, money, shown
from dvfd.runs.report import iso
from dvfd.words import duration, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.reporting.shares import Part

BAR = 24
"""Columns of a whole bar."""

WORST = 4
"""Ranks that are told: the page has more, the JSON all."""

SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~!"})
"""What Markdown would take for its own."""


def text(report: Mapping[str, Any]) -> str:
    """For people at a terminal or a pipe: a line for each thing."""
    return printable("\n".join(_text(report)))


def _text(report: Mapping[str, Any]) -> Iterator[str]:
    yield _line(report["headline"])
    yield ""
    for part in shown(report["time"]):
        bar = ("█" * round(part.share * BAR)).ljust(BAR)
        price = "" if part.money is None else f" {_price(part.money, report):>16}"
        yield f"  {bar} {part.percent:>5.1f} % {hours(part.seconds):>16}{price}  {part.words}"
    yield ""
    for name, told in facts(report):
        yield f"{name}: {_line(told)}"
    yield ""
    for note in (*report["time"]["notes"], *report["unknown"]):
        yield f"> {_line(note)}"


def _price(amount: float, report: Mapping[str, Any]) -> str:
    return f"{money(amount)} {report['cost']['currency']}"


def facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is besides the time, a sentence each."""
    yield "run", named(dict(report))
    if ending := report.get("ending"):
        yield "end", over(ending)
    yield "work", ", ".join(_work(report["work"]))
    yield "stragglers", _stragglers(report["stragglers"])
    yield "restarts", "; ".join(_restarts(report["restarts"]))
    yield "checkpoints", _checkpoints(report["checkpoints"])
    yield "energy", _energy(report["energy"], several=report["work"]["nodes"] > 1)
    yield "cost", _cost(report["cost"])
    yield "watched", _watched(report)


def _work(work: Mapping[str, Any]) -> Iterator[str]:
    yield "steps not known" if work["steps"] is None else f"{work['steps']:,} steps"
    if work["steps_again"]:
        yield f"{work['steps_again']} done again"
    if work["samples_per_second"] is not None:
        yield f"{work['samples_per_second']:.4g} samples/s over all of the time"
    if work["loss"] is not None:
        yield f"loss {work['loss']:.4g} at the end"
    of = f" of {work['processes']}" if work["processes"] else ""
    yield f"{work['ranks']}{of} ranks"


def _stragglers(found: Mapping[str, Any]) -> str:
    if found["seconds"] is None:
        return f"not known: {found['reason']}"
    worst = [
        f"rank {rank['rank']} was slowest {tenths(rank['slowest'])} of the time and held the "
        f"others up for {hours(rank['seconds'])}"
        for rank in found["ranks"][:WORST]
        if rank["seconds"] >= 1
    ]
    most = f"they took at most {hours(found['seconds'])} of the steps"
    if found["seconds"] < 1:
        return "no rank held the others up for a second"
    turns = ["ranks take turns, and none is to blame"] if found["turns"] else []
    return "; ".join([most, *turns, *worst])


def _restarts(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["count"]:
        yield "none"
        return
    lost = "" if found["seconds"] is None else f", {hours(found['seconds'])} without steps"
    yield f"{found['count']}{lost}"
    for each in found["listed"][:WORST]:
        took = "not over" if each["seconds"] is None else hours(each["seconds"])
        again = "" if each["steps_again"] is None else f", {each['steps_again']} steps again"
        ranks = f"{each['ranks']} rank{'s' if each['ranks'] != 1 else ''}"
        most = "at most " if each["at_most"] else ""
        yield f"{iso(each['at'])}: {ranks} came back, {most}{took}{again}"


def _checkpoints(found: Mapping[str, Any]) -> str:
    failed = f", {found['failed']} failed" if found["failed"] else ""
    if found["seconds"] is not None:
        return f"{found['seen']} saved in {hours(found['seconds'])}{failed}"
    if found.get("saved") is not None:
        when = f", {found['seen'] or 'none'} of them at a known time" if found["saved"] else ""
        return f"{found['saved'] or 'none'} saved{when}{failed}"
    if not found["seen"]:
        return f"not known: none was seen by the looks{failed}"
    return f"{'' if found['all'] else 'at least '}{found['seen']} saved{failed}"


def _energy(found: Mapping[str, Any], *, several: bool) -> str:
    if found["kwh"] is None:
        return "not measured"
    each = [
        f"{meter['source']} {meter['name']}{' of ' + meter['node'] if several else ''} "
        f"{meter['kwh']:.4g} kWh, read {tenths(meter['covered'])} of the time"
        for meter in found["meters"][:WORST]
    ]
    left_out = len(found["meters"]) - len(each)
    more = [f"and {left_out} more"] if left_out else []
    return "; ".join([f"{found['kwh']:.4g} kWh", *each, *more])


def _cost(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not known: no price is configured"
    return (
        f"{money(found['total'])} {found['currency']}, {money(found['productive'])} of it for "
        f"productive steps; {found['node_hours']:.4g} node hours at {found['per_node_hour']:g}"
    )


def _watched(report: Mapping[str, Any]) -> str:
    seen, grain = report["coverage"]["observed"], report["coverage"]["grain"]
    share = "not known how much" if seen is None else tenths(seen)
    looks = f", a look each {duration(grain)} at the coarsest" if grain else ""
    return f"{share} of the time{looks}, by {report['node']}"


def _line(words: str) -> str:
    """One line, whatever a name holds."""
    return " ".join(words.split())


# --- Markdown -----------------------------------------------------------------------------------


def markdown(report: Mapping[str, Any], sha256: str) -> str:
    """For a ticket or a mail: a table, a list, and what is not known."""
    parts = shown(report["time"])
    return "\n".join([
        f"## {plain(report['headline'])}",
        "",
        *_table(parts, report["cost"]),
        "",
        *(f"- **{name}**: {plain(told)}" for name, told in facts(report)),
        "",
        *(f"> {plain(note)}  " for note in (*report["time"]["notes"], *report["unknown"])),
        "",
        f"dvfd {report['made']['dvfd']}, {report['made']['iso']}, SHA-256 of the JSON {sha256}",
        "",
    ])  # fmt: skip


def _table(parts: Sequence[Part], cost: Mapping[str, Any] | None) -> Iterator[str]:
    paid = f" {cost['currency']} |" if cost else ""
    yield f"| part | time | share |{paid}"
    yield f"|---|---:|---:|{'---:|' if cost else ''}"
    for part in parts:
        price = f" {money(part.money)} |" if cost else ""
        yield f"| {plain(part.words)} | {hours(part.seconds)} | {part.percent:.1f} % |{price}"


def plain(words: str) -> str:
    """*words* as Markdown shows them letter by letter."""
    return _line(printable(words)).translate(SPECIAL)


# --- Two runs -----------------------------------------------------------------------------------


def compared(report: Mapping[str, Any]) -> str:
    """A comparison for people at a terminal or a pipe."""
    return printable("\n".join(_compared(report)))


def _compared(report: Mapping[str, Any]) -> Iterator[str]:
    yield _line(report["headline"])
    yield ""
    for which in ("a", "b"):
        yield f"{which.upper()}: {_line(report[which]['name'])}, on {_line(report[which]['node'])}"
    yield ""
    for words, a, b, told in held(report):
        yield f"  {words:<46} {a:>16} {b:>16}  {told}"
    yield ""
    for part, words, a_share, b_share in side_by_side(report["time"]):
        del part
        yield f"  {words:<46} {a_share:>14.1f} % {b_share:>14.1f} %"
    yield ""
    for line in report["against"]:
        yield f"> {_line(line)}"


def held(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """The rows in words: figure, A, B, how B is beside A."""
    for row in report["rows"]:
        a, b = (figure(row, row[w]) for w in ("a", "b"))
        way = {"b": ", better", "a": ", worse"}.get(row["better"], "")
        remark = f", {row['remark']}" if row["remark"] and row["difference"] is not None else ""
        yield f"{row['words']} {unit(row, report)}".strip(), a, b, f"{size(row)}{way}{remark}"


def compared_markdown(report: Mapping[str, Any]) -> str:
    """A comparison for a ticket or a mail."""
    names = [f"- **{w.upper()}**: {plain(report[w]['name'])}, on {plain(report[w]['node'])}"
             for w in ("a", "b")]  # fmt: skip
    return "\n".join([
        f"## {plain(report['headline'])}",
        "",
        *names,
        "",
        "| figure | A | B | B beside A |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join(map(plain, row))} |" for row in held(report)),
        "",
        *(f"> {plain(line)}  " for line in report["against"]),
        "",
    ])  # fmt: skip

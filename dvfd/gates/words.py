"""A gate's document in words: the terminal and the page share them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.gates.decision import urgency
from dvfd.words import NONE, UNITLESS, digits, duration, minute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Document = Mapping[str, Any]

STANDS = ("PASS", "WAIVED")

PREFIX = {"veto": "No-Go ", "test": "test ", "go": "", "condition": ""}
"""How the kinds of lines are told apart where their names are listed."""


TONES = {"GO": "PASS", "HOLD": "UNKNOWN", "NO_GO": "FAIL"}
"""The verdict whose colour an outcome has."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason that keeps a gate shut, what to type, and every line that it holds back. `alone`
    if that is only the test it is about.
    """

    verdict: str
    reason: str
    todo: str
    lines: tuple[str, ...]
    alone: bool


def lacking(lines: Sequence[Document]) -> list[Document]:
    """The lines that do not stand, the most urgent first."""
    found = [line for line in lines if line["verdict"] not in STANDS]
    return sorted(found, key=lambda line: urgency(line["kind"], line["verdict"]))


def causes(lines: Sequence[Document]) -> list[Cause]:
    """Why *lines* do not stand; what shares a reason is told once."""
    groups: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for line in lacking(lines):
        for each in line["evidence"]:
            if each["verdict"] not in STANDS:
                stem = each["what"].partition(".")[0]
                key = each["verdict"], told(each), each["todo"], stem
                groups.setdefault(key, {})[name(line)] = None
    return [
        Cause(verdict, reason, todo, tuple(named), named.keys() <= {stem, f"test {stem}"})
        for (verdict, reason, todo, stem), named in groups.items()
    ]


def name(line: Document) -> str:
    """A line where many are listed."""
    return PREFIX[line["kind"]] + str(line["id"]).removeprefix("no_go_")


def told(each: Document) -> str:
    """The reason of a piece of evidence, and which record it is of."""
    return f"{each['reason']} ({source(each)})" if each["record"] else str(each["reason"])


def source(each: Document) -> str:
    """Where a figure is from: `record 12, 3 d old`."""
    if each["record"] is None:
        return ""
    age = f", {duration(each['age'])} old" if each["age"] is not None else ""
    return f"record {each['record']}{age}"


def figure(line: Document, each: Document) -> str:
    """What was observed beside what is wanted; empty without a figure."""
    return f"{each['criterion']} {observed(each)}, {wanted(line, each)}" * bool(observed(each))


def observed(each: Document) -> str:
    """The figure with its unit; empty where there is none."""
    if each["observed"] is None:
        return ""
    value = digits(each["observed"], each["unit"])
    return value if each["unit"] in UNITLESS or value.endswith("B") else f"{value} {each['unit']}"


def wanted(line: Document, each: Document) -> str:
    """The other side: what is wanted, or where a No-Go line closes the gate."""
    limit = NONE if each["limit"] is None else digits(each["limit"], each["unit"])
    return f"{'closes at' if line['kind'] == 'veto' else 'wanted'} {each['comparison']} {limit}"


def counted(lines: Sequence[Document]) -> str:
    """How many lines stand, do not, and cannot be known."""
    open_ = lacking(lines)
    failed = sum(line["verdict"] == "FAIL" for line in open_)
    good, blind = len(lines) - len(open_), len(open_) - failed
    parts = [f"{good} stand" if good != 1 else "1 stands"]
    if failed:
        parts.append(f"{failed} do not" if failed > 1 else "1 does not")
    if blind:
        parts.append(f"{blind} cannot be known")
    return f"Of {len(lines)} lines, {', '.join(parts)}." if open_ else f"All {good} lines stand."


def due(gate: Document) -> str:
    """The day of a gate, and how late it is."""
    if not gate["due"]:
        return f"due {gate['due_words']} ([programme] start is not set)"
    weeks = gate["due"]["slipped"]
    late = f", {weeks} week{'s' * (weeks > 1)} later than planned" if weeks else ""
    return f"due {gate['due']['day']}{late}"


def authority(gate: Document) -> str:
    """Who decides, and who has yet to sign."""
    who, missing = " and ".join(gate["authority"]), " and ".join(gate["missing"])
    if gate["authorised"]:
        return f"authorised by {who}"
    return f"decided by {who}" + (f", {missing} has not signed" if missing != who else "")


def signature(each: Document) -> str:
    """Who signed, when, under which number, and in spite of what if so."""
    spite = f" IN SPITE OF {each['outcome']}: {each['override']}" if each["override"] else ""
    note = f": {each['note']}" if each["note"] else ""
    who = f"{each['by']} ({each['role']})"
    return f"signed by {who} on {minute(each['at'])}, record {each['record']}{spite}{note}"


def state(gate: Document) -> tuple[str, str]:
    """Where a gate stands, and the verdict whose colour goes with that. One that was signed in
    spite of something is not green.
    """
    if not gate["authorised"]:
        return str(gate["outcome"]).replace("_", "-"), TONES[gate["outcome"]]
    if any(each["override"] for each in gate["signatures"]):
        return "signed in spite", "UNKNOWN"
    return "authorised", "PASS"


def next_step(gate: Document) -> str:
    """What to do first."""
    if gate["authorised"]:
        return "nothing: it is authorised"
    if gate["outcome"] == "GO":
        return f'dvfd sign {gate["gate"]} --name NAME --role "{gate["missing"][0]}"'
    todo = [cause.todo for cause in causes(gate["lines"]) if cause.todo]
    return todo[0] if todo else "wait, or see the reasons above"

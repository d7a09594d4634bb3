"""`dvfd gate`, `dvfd sign`, `dvfd summary`: what holds a phase back, who let it pass, the table."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.common import daemon, output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import MARK, columns, paint, tint, wrapped
from dvfd.decision import urgency
from dvfd.errors import DvfdError
from dvfd.query import known
from dvfd.words import NONE, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Document = Mapping[str, Any]

EXIT = {"GO": 0, "HOLD": 1, "NO_GO": 2}

NOWHERE = 3
"""Nothing is decided here: exit code of UNKNOWN."""

COLOURS = {"GO": "green", "HOLD": "yellow", "NO_GO": "red"}

PREFIX = {"veto": "No-Go ", "test": "test ", "go": "", "condition": ""}
"""How the kinds of lines are told apart where their names are listed."""

STANDS = ("PASS", "WAIVED")


@click.command(short_help="What stands between here and GO, on one screen.")
@click.argument("phase", required=False, shell_complete=names("gates"))
@output_option
def gate(phase: str | None, output: str) -> None:
    """Say whether the gate of PHASE may be passed, and what to type where it may not.

    GO: every line, every ticked test, and every No-Go line measured and false. NO_GO: a No-Go line
    holds. HOLD: anything else; what is missing, too old or from before a change is not known.
    Without PHASE: the four gates, a line each. Gates are decided at the lead of the cluster.

    Exit code: 0 GO, 1 HOLD, 2 NO_GO, 3 not decided here or wrong usage; without PHASE that of the
    first gate that is not signed.

    Example: dvfd gate phase1
    """
    found = _asked()
    if phase is not None:
        chosen = _of(found, phase)
        show(chosen, output, lambda document: "\n".join(_screen(document)))
        sys.exit(EXIT[chosen["outcome"]])
    show(found, output, lambda document: "\n".join(_four(document)))
    waiting = (each for each in found["gates"] if not each["authorised"])
    sys.exit(EXIT[next(waiting, {"outcome": "GO"})["outcome"]])


@click.command(short_help="Record what the authority of a gate decided.")
@click.argument("phase", shell_complete=names("gates"))
@click.option("--name", required=True, metavar="NAME", help="Who decides.")
@click.option("--role", required=True, metavar="ROLE", help="As the gate names its authority.")
@click.option("--note", default="", metavar="TEXT", help="Words to keep with it.")
@click.option("--override", is_flag=True, help="Also on HOLD or NO_GO: every report will say so.")
@click.option("--reason", default="", metavar="TEXT", help="Why, with --override.")
@output_option
def sign(
    phase: str, *, name: str, role: str, note: str, override: bool, reason: str, output: str
) -> None:
    """Write into the ledger that NAME, as ROLE, lets the gate of PHASE be passed.

    dvfd recommends, the named authority decides. It is refused unless the gate is GO; --override
    signs all the same. Where a gate names two roles it is authorised when both have signed. It
    stands when evidence ages or nodes are added later. For root and the group dvfd.

    Example: dvfd sign phase1 --name "Ann Lee" --role "VP Engineering"
    """
    if override != bool(reason.strip()):
        raise click.UsageError("--override and --reason TEXT go together")
    request = {"gate": phase, "name": name, "role": role, "note": note, "override": reason}
    answer = daemon("sign", **request)
    if answer is None:
        from dvfd.alone import sign_alone

        answer = sign_alone(request)
    show(answer, output, lambda document: "\n".join(_signed(document)))


@click.command(short_help="The framework's table: ten tests, four phases.")
@output_option
def summary(output: str) -> None:
    """Print the framework's summary table from the ledger: what each phase's tests are worth.

    A dash stands where the framework does not tick the test. Of a phase that is authorised the
    verdicts are those that were signed. UNKNOWN: not run, or it does not count any more.

    Example: dvfd summary
    """
    found = _asked()
    show(found, output, lambda document: "\n".join(_table(document)))


def _asked() -> Any:
    """All gates. Raises DvfdError where they are not decided."""
    found = daemon("gates")
    if found is None:
        from dvfd.alone import gates_alone

        found = gates_alone()
    if lead := found["elsewhere"]:
        raise DvfdError(f"{found['node']} does not lead: gates are decided on {lead}, ask there")
    return found


def _of(found: Document, phase: str) -> Document:
    """The document of one gate, with what holds for all of them."""
    gates = {each["gate"]: each for each in found["gates"]}
    chosen = gates[known({"gate": phase}, "gate", gates)]
    rest = {key: found[key] for key in ("node", "evidence_days", "overrides", "problems")}
    return {**chosen, **rest}


# --- One gate on a screen -------------------------------------------------------------------------


def _screen(gate_: Document) -> Iterator[str]:
    yield f"{gate_['title']}: {_outcome(gate_['outcome'])}"
    yield from wrapped(f"{_due(gate_)}; {_authority(gate_)}")
    for each in gate_["signatures"]:
        yield from wrapped(_signature(each))
    yield from (line for each in gate_["overrides"] for line in wrapped(f"override: {each}"))
    lacking = [line for line in gate_["lines"] if line["verdict"] not in STANDS]
    yield from wrapped(_count(gate_["lines"], lacking))
    yield ""
    yield from _causes(lacking)
    yield from _standing(gate_["lines"], whole=not lacking)
    yield ""
    yield from wrapped(f"next: {_next(gate_)}")


def _count(lines: Sequence[Document], lacking: Sequence[Document]) -> str:
    failed = sum(line["verdict"] == "FAIL" for line in lacking)
    good = len(lines) - len(lacking)
    parts = [f"{good} stand" if good != 1 else "1 stands"]
    if failed:
        parts.append(f"{failed} do not" if failed > 1 else "1 does not")
    if blind := len(lacking) - failed:
        parts.append(f"{blind} cannot be known" if blind > 1 else "1 cannot be known")
    return f"Of {len(lines)} lines, {', '.join(parts)}."


def _causes(lacking: Sequence[Document]) -> Iterator[str]:
    """What keeps the gate shut, the failed first; what shares a reason is told once."""
    groups: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for line in sorted(lacking, key=_urgency):
        for each in line["evidence"]:
            if each["verdict"] not in STANDS:
                stem = each["what"].partition(".")[0]
                key = each["verdict"], _told(each), each["todo"], stem
                groups.setdefault(key, {})[PREFIX[line["kind"]] + _short(line["id"])] = None
    for (verdict, reason, todo, stem), named in groups.items():
        told = f"{reason}   > {todo}" if todo else reason
        first, *more = wrapped(told, MARK, columns())
        yield paint(verdict, MARK) + first[MARK:]
        yield from more
        if not named.keys() <= {stem, f"test {stem}"}:
            yield from wrapped(f"for {', '.join(named)}", MARK)


def _urgency(line: Document) -> int:
    return urgency(line["kind"], line["verdict"])


def _told(each: Document) -> str:
    """The reason, and which record it is of."""
    if each["record"] is None:
        return str(each["reason"])
    age = f", {duration(each['age'])} old" if each["age"] is not None else ""
    return f"{each['reason']} (record {each['record']}{age})"


def _standing(lines: Sequence[Document], *, whole: bool) -> Iterator[str]:
    """What stands: a line each where all of it does, else their names."""
    mine = [line for line in lines if line["verdict"] in STANDS]
    if whole:
        for line in mine:
            name = PREFIX[line["kind"]] + _short(line["id"])
            yield from wrapped(f"{paint(line['verdict'], MARK)}{name}: {_brief(line)}")
    elif mine:
        told = ", ".join(PREFIX[line["kind"]] + _short(line["id"]) for line in mine)
        yield from wrapped(f"{paint('PASS', MARK)}{told}")


def _brief(line: Document) -> str:
    """The figure that a line stands on with the least left, beside what is wanted."""
    each = line["evidence"][0]
    if each["observed"] is None:
        return _told(each) if line["kind"] != "condition" else line["text"]
    not_ = "not " if line["kind"] == "veto" else ""
    limit = NONE if each["limit"] is None else f"{each['limit']:.6g}"
    figure = f"{each['criterion']} {each['observed']:.6g}, {not_}{each['comparison']} {limit}"
    return f"{figure} (record {each['record']}, {duration(each['age'])} old)"


def _next(gate_: Document) -> str:
    if gate_["authorised"]:
        return "nothing: it is authorised"
    if gate_["outcome"] == "GO":
        role = gate_["missing"][0]
        return f'dvfd sign {gate_["gate"]} --name NAME --role "{role}"'
    todo = [e["todo"] for line in gate_["lines"] for e in line["evidence"] if e["todo"]]
    return todo[0] if todo else "wait, or see the reasons above"


# --- Four gates, the table, a signature -----------------------------------------------------------


def _four(found: Document) -> Iterator[str]:
    for problem in found["problems"]:
        yield from wrapped(f"the ledger: {problem}")
    for each in found["gates"]:
        lacking = [line for line in each["lines"] if line["verdict"] not in STANDS]
        state = "authorised" if each["authorised"] else _due(each)
        spite = " in spite of " + _spite(each) if _spite(each) else ""
        told = f"{state}{spite}; {len(lacking)} of {len(each['lines'])} lines open"
        if lacking and not each["authorised"]:
            worst = min(lacking, key=_urgency)
            told += f", first {_short(worst['id'])}: {worst['reason']}"
        width = columns()
        mark = f"{each['gate']:<8} {_outcome(each['outcome'], 6)} "
        yield mark + (told if not width else told[: max(20, width - 16)])


def _spite(each: Document) -> str:
    return ", ".join(s["outcome"] for s in each["signatures"] if s["override"])


def _table(found: Document) -> Iterator[str]:
    phases = [each["gate"] for each in found["gates"]]
    widest = max((len(row["title"]) for row in found["table"]), default=0)
    yield "  ".join([f"{'TEST':<{widest}}", *(f"{phase.upper():<7}" for phase in phases), "ALL"])
    for row in found["table"]:
        cells = [paint(row["cells"][phase] or "-", 7) for phase in phases]
        yield "  ".join([f"{row['title']:<{widest}}", *cells, paint(row["verdict"])])
    for each in found["gates"]:
        for signature in each["signatures"]:
            yield from wrapped(f"{each['gate']}: {_signature(signature)}")


def _signed(made: Document) -> Iterator[str]:
    yield from wrapped(
        f"{made['gate']}: {_signature({**made, 'at': time.time()})}; it stands on "
        f"{len(made['evidence'])} records"
    )
    if made["authorised"]:
        yield f"{made['title']}: authorised"
    else:
        yield from wrapped(f"not authorised before {' and '.join(made['missing'])} has signed")


def _signature(each: Document) -> str:
    who, when = f"{each['by']} ({each['role']})", _day(each["at"])
    note = f": {each['note']}" if each["note"] else ""
    spite = f" IN SPITE OF {each['outcome']}: {each['override']}" if each["override"] else ""
    return f"signed by {who} on {when}, record {each['record']}{spite}{note}"


def _authority(gate_: Document) -> str:
    who = " and ".join(gate_["authority"])
    if gate_["authorised"]:
        return f"authorised by {who}"
    missing = " and ".join(gate_["missing"])
    return f"{who} decides, {missing} has not signed" if missing != who else f"{who} decides"


def _due(gate_: Document) -> str:
    due = gate_["due"]
    if not due:
        return f"due {gate_['due_words']} ([programme] start is not set)"
    late = f", {due['slipped']} weeks later than planned" if due["slipped"] > 1 else ""
    return f"due {due['day']}" + (", 1 week later than planned" if due["slipped"] == 1 else late)


def _short(id_: str) -> str:
    return id_.removeprefix("no_go_")


def _outcome(outcome: str, width: int = 0) -> str:
    return tint(outcome.ljust(width), COLOURS[outcome])


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))

"""`dvfd gate`, `dvfd sign`, `dvfd summary`: what holds a phase back, who let it pass, the table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import MARK, columns, paint, shortened, tint, wrapped
from dvfd.errors import DvfdError
from dvfd.gates import words
from dvfd.query import known

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.gates.words import Cause

    Document = Mapping[str, Any]

EXIT = {"GO": 0, "HOLD": 1, "NO_GO": 2}

NOWHERE = 3
"""Nothing is decided here, or known: exit code of UNKNOWN."""

COLOURS = {"GO": "green", "HOLD": "yellow", "NO_GO": "red"}


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
    answer = asked("sign", **request)
    show(answer, output, lambda document: "\n".join(_signed(document)))


@click.command(short_help="The framework's table: ten tests, four phases.")
@output_option
def summary(output: str) -> None:
    """Print the framework's summary table from the ledger: what each phase's tests are worth.

    A dash stands where the framework does not tick the test. Of a phase that is authorised the
    verdicts are those that were signed. UNKNOWN: not run, or it does not count any more.

    Exit code: 0; 3 where the ledger is not as it was written: nothing is known.

    Example: dvfd summary
    """
    found = _asked()
    show(found, output, lambda document: "\n".join(_table(document)))
    sys.exit(NOWHERE if found["problems"] else 0)


def _asked() -> Any:
    """All gates. Raises DvfdError where they are not decided."""
    found = asked("gates")
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
    lines = gate_["lines"]
    yield f"{gate_['title']}: {_outcome(gate_['outcome'])}"
    yield from wrapped(f"{words.due(gate_)}; {words.authority(gate_)}")
    for each in gate_["signatures"]:
        yield from wrapped(words.signature(each))
    yield from (line for each in gate_["overrides"] for line in wrapped(f"override: {each}"))
    yield from wrapped(words.counted(lines))
    yield ""
    for cause in words.causes(lines):
        yield from _cause(cause)
    yield from _standing(lines)
    yield ""
    yield from wrapped(f"next: {words.next_step(gate_)}")


def _cause(cause: Cause) -> Iterator[str]:
    told = f"{cause.reason}   > {cause.todo}" if cause.todo else cause.reason
    first, *more = wrapped(told, MARK, columns())
    yield paint(cause.verdict, MARK) + first[MARK:]
    yield from more
    yield from () if cause.alone else wrapped(f"for {', '.join(cause.lines)}", MARK)


def _standing(lines: Sequence[Document]) -> Iterator[str]:
    """What stands: a line each where all of it does, else their names; what somebody waives is
    always a line of its own, with who and why.
    """
    mine = [line for line in lines if line["verdict"] == "PASS"]
    yield from _waived([line for line in lines if line["verdict"] == "WAIVED"])
    if any(line["verdict"] not in words.STANDS for line in lines):
        names_ = wrapped(", ".join(map(words.name, mine)) or "nothing yet", MARK, columns())
        yield paint("PASS", MARK) + names_[0][MARK:]
        yield from names_[1:]
        return
    told: set[str] = set()
    for line in mine:
        whats = {each["what"] for each in line["evidence"]}
        if line["kind"] != "test" or not whats <= told:  # a GO line may be of the very test
            yield paint(line["verdict"], MARK) + shortened(_stands(line), max(0, columns() - MARK))
        told |= whats


def _waived(lines: Sequence[Document]) -> Iterator[str]:
    """Each waiver once, with the lines that stand on it."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        for each in line["evidence"]:
            if each["verdict"] == "WAIVED":
                reasons.setdefault(words.told(each), []).append(words.name(line))
    for reason, named in reasons.items():
        first, *more = wrapped(f"{', '.join(named)}: {reason}", MARK, columns())
        yield paint("WAIVED", MARK) + first[MARK:]
        yield from more


def _stands(line: Document) -> str:
    each = line["evidence"][0]
    told = words.figure(line, each) or (each["reason"] if each["record"] else line["text"])
    return f"{words.name(line)}: {told}" + (f" ({words.source(each)})" if each["record"] else "")


# --- Four gates, the table, a signature -----------------------------------------------------------


def _four(found: Document) -> Iterator[str]:
    yield from _problems(found)
    for each in found["gates"]:
        told, width = _line(each), columns()
        yield f"{each['gate']:<8} {_outcome(each['outcome'], 6)} " + shortened(
            told, max(0, width - 16)
        )


def _problems(found: Document) -> Iterator[str]:
    for problem in found["problems"]:
        yield from wrapped(f"the ledger is not as it was written: {problem}")


def _line(each: Document) -> str:
    """A gate behind its outcome."""
    open_ = words.lacking(each["lines"])
    if each["authorised"]:
        spite = [f" in spite of {s['outcome']}" for s in each["signatures"] if s["override"]]
        return f"authorised{''.join(spite)}; {len(open_)} of {len(each['lines'])} lines open today"
    first = f", first {words.name(open_[0])}: {open_[0]['reason']}" if open_ else ""
    return f"{words.due(each)}; {len(open_)} of {len(each['lines'])} lines open{first}"


def _table(found: Document) -> Iterator[str]:
    phases = [each["gate"] for each in found["gates"]]
    widest = max((len(row["title"]) for row in found["table"]), default=0)
    yield from _problems(found)
    yield "  ".join([f"{'TEST':<{widest}}", *(f"{phase.upper():<7}" for phase in phases), "ALL"])
    for row in found["table"]:
        cells = [paint(row["cells"][phase] or "-", 7) for phase in phases]
        yield "  ".join([f"{row['title']:<{widest}}", *cells, paint(row["verdict"])])
    for each in found["gates"]:
        for signature in each["signatures"]:
            yield from wrapped(f"{each['gate']}: {words.signature(signature)}")


def _signed(made: Document) -> Iterator[str]:
    yield from wrapped(f"{made['gate']}: {words.signature(made)}")
    yield f"it stands on {len(made['evidence'])} records of the ledger"
    if made["authorised"]:
        yield f"{made['title']}: authorised"
    else:
        yield from wrapped(f"not authorised before {' and '.join(made['missing'])} has signed")


def _outcome(outcome: str, width: int = 0) -> str:
    return tint(outcome.ljust(width), COLOURS[outcome])

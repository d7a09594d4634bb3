"""`dvfd evidence`: the ledger of what was run, said and decided, and whether it is whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.attest import when
from dvfd.cli.common import output_option, show
from dvfd.cli.text import columns, paint, shortened, tint, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KINDS = ("run", "attestation", "waiver", "decision", "signoff", "delay", "incident")

SHORT = 12
"""Letters of a hash that tell it from others."""


@click.group()
def evidence() -> None:
    """The ledger of what was run, said and decided."""


@evidence.command("list", short_help="The records, oldest first.")
@click.option("--kind", metavar="KIND", help=f"Only these: {', '.join(KINDS)}.")
@click.option("--subject", metavar="NAME", help="Only of this check, item, criterion or gate.")
@output_option
def list_(kind: str | None, subject: str | None, output: str) -> None:
    """List the newest 500 records of the ledger: number, when, what of which subject, by whom.

    Where the ledger is not as it was written, that is said first. JSON has more of each record,
    `dvfd evidence show` all of one.

    Example: dvfd evidence list --kind run
    """
    answer = asked("evidence", kind=kind, subject=subject)
    show(answer, output, _listed)


@evidence.command("show", short_help="One record, whole.")
@click.argument("number", type=click.IntRange(min=1))
def show_(number: int) -> None:
    """Print record NUMBER of the ledger whole, as JSON.

    A run has the verdict and both sides of every criterion, what the node was, and where its
    report lies with the hash that it was written down with.

    Example: dvfd evidence show 3
    """
    answer = asked("evidence_record", number=number)
    show(answer, "json", str)


@evidence.command("verify", short_help="Whether nothing was edited, removed or put elsewhere.")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--cluster", default="", metavar="ID", help="The cluster that it must be of.")
@click.option("--head", default="", metavar="SHA256", help="Of a record that it must have.")
@output_option
def verify(file: Path | None, cluster: str, head: str, output: str) -> None:
    """Read the ledger anew, or the bundle FILE, and name whatever is not as it was written.

    Every record is held against its hash and the record before it, every report against the hash
    that it was written down with, the end of the ledger against what the store knows. Whoever
    writes all of that anew is found only by a hash that somebody kept elsewhere: --head.

    Exit code: 0 whole, 2 not, 3 there is nothing to verify or it cannot be read.

    Example: dvfd evidence verify phase1.tar --cluster 5f0c1c0de2a84f0d9d0b6f0f1a2b3c4d
    """
    if file is not None:
        from dvfd.alone import bundle_checked

        answer: Any = bundle_checked(file, cluster=cluster, head=head)
    else:
        answer = asked("evidence_verify", cluster=cluster, head=head)
    show(answer, output, _verified)
    sys.exit(_code(answer))


@evidence.command("export", short_help="Everything as one file, for somebody else.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@output_option
def export(file: Path, output: str) -> None:
    """Write the ledger and every report that it names into the tar file FILE.

    `dvfd evidence verify FILE` checks it on any machine; docs/evidence.md says how to do so with
    Python alone. Keep the hash of the last record, which this prints, where nobody can change it:
    print it, mail it. What is not whole is exported all the same, and said.

    Exit code: 0 whole, 2 not.

    Example: dvfd evidence export phase1.tar
    """
    from dvfd.alone import exported

    answer = exported(file)
    show(answer, output, _verified)
    sys.exit(_code(answer))


@evidence.command("renew", short_help="Found another ledger in the place of a spoilt one.")
@click.option("--name", required=True, metavar="NAME", help="Who decides that.")
@click.option("--role", required=True, metavar="ROLE", help="In which role.")
@click.option("--reason", required=True, metavar="TEXT", help="What happened.")
@output_option
def renew(name: str, role: str, reason: str, output: str) -> None:
    """Move a ledger that does not verify aside, and found another with an id of its own.

    The last resort, where no backup or export brings the old one back. Nothing of the old one
    counts any more: tests are run again, people sign and attest again. Stability runs with their
    frozen reports, and attestations, come back from the store when the daemon starts. The first
    record says who decided it and what the old ledger ended with. Refused for one that is whole.

    Example: dvfd evidence renew --name "Ann Lee" --role CTO --reason "the disk lost a block"
    """
    request = {"name": name, "role": role, "reason": reason}
    answer = asked("evidence_renew", **request)
    show(answer, output, _renewed)


def _renewed(made: Mapping[str, Any]) -> str:
    words = f"the old ledger is kept as {made['aside']}; the new one is of cluster"
    return "\n".join(wrapped(f"{words} {made['cluster']}"))


def _code(found: Mapping[str, Any]) -> int:
    if found["problems"]:
        return 2
    return 0 if found["records"] else 3


def _verified(found: Mapping[str, Any]) -> str:
    problems = [line for each in found["problems"] for line in wrapped(f"PROBLEM: {each}")]
    notices = [line for each in found["notices"] for line in wrapped(f"notice: {each}")]
    if not found["records"]:
        return "\n".join([f"{found['where']}: no record", *problems, *notices])
    whole = tint("NOT WHOLE", "red") if problems else tint("whole", "green")
    return "\n".join(
        [
            f"{found['where']}: {whole}",
            f"cluster  {found['cluster'] or 'not known'}",
            f"records  {found['records']}, with {found['reports']} reports",
            f"last     {found['number']}, written on {when(found['at'])}",
            f"head     {found['sha256']}",
            *problems,
            *notices,
        ]
    )


def _listed(found: Mapping[str, Any]) -> str:
    problems = [line for each in found["problems"] for line in wrapped(f"PROBLEM: {each}")]
    notices = [line for each in found["notices"] for line in wrapped(f"notice: {each}")]
    rows = [_row(record) for record in found["records"]]
    left = found["count"] - len(rows)
    more = [f"{left} older ones are not listed: dvfd evidence export has all"] if left else []
    return "\n".join([*problems, *notices, *more, *(rows or ["no record"])])


def _row(record: Mapping[str, Any]) -> str:
    head = f"{record['number']:>5}  {when(record['at'])}  {record['kind']:<11}  "
    return shortened(f"{head}{record['subject']}: {_words(record)}", columns())


def _words(record: Mapping[str, Any]) -> str:
    """What a record says, in a few words."""
    body = record["body"]
    match record["kind"]:
        case "run":
            return ", ".join(_run(body))
        case "attestation":
            return f"{'yes' if body['value'] else 'no'}, {body['by']} ({body['role']})"
        case "waiver":
            until = f"until {when(body['expires'])}" if body["expires"] > record["at"] else "ended"
            return f"{body['by']} ({body['role']}) {until}: {body['reason']}"
    plain = (f"{k} {v}" for k, v in body.items() if v and isinstance(v, str | int | float))
    return ", ".join(plain)


def _run(body: Mapping[str, Any]) -> Iterator[str]:
    yield paint(body["verdict"])
    yield from (body[key] for key in ("aborted", "shortened") if body[key])
    yield f"{body['processes']} processes on {' '.join(body['members'])}"
    yield str(body["run"])

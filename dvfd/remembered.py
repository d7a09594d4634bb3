"""Bring stored reports back as results, so that a restart does not forget what a check found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Protocol

from dvfd.model import Catalogue, Check, Criterion, Report, Result, Run, Verdict, Waived, labels
from dvfd.store.documents import StoredReport


class Archive(Protocol):
    """What is asked of the store."""

    def last_report(self, check_id: str) -> StoredReport | None:
        """The newest kept report of a check."""
        ...


def remembered(store: Archive, catalogue: Catalogue, profile_hash: str) -> Iterator[Report]:
    """The newest report of every check that is not judged all the time.

    A report made under another catalogue or profile says nothing of this one: left out.
    """
    for check in catalogue.checks.values():
        stored = None if check.watch else store.last_report(check.id)
        if stored is None:
            continue
        document = stored.document
        hashes = document.get("hashes", {})
        if hashes.get("catalogue") == catalogue.hash and hashes.get("profile") == profile_hash:
            yield _report(check, document)


def _report(check: Check, document: Mapping[str, Any]) -> Report:
    found = {row["criterion"]: row for row in document["results"]}
    run = _run(document.get("drill"))
    results = tuple(
        _result(c.among(run.processes if run else 0), found.get(c.id), document["at"])
        for c in check.criteria
    )
    return Report(check, results, document["at"], late=document["late"], run=run)


def _run(row: Mapping[str, Any] | None) -> Run | None:
    if row is None:
        return None
    facts = tuple((fact["name"], fact["text"]) for fact in row["facts"])
    return Run(
        began=row["began"],
        ended=row["ended"],
        shortened=row["shortened"],
        by=row["by"],
        facts=facts,
        processes=row.get("processes", 0),  # one from before did not say
    )


def _result(criterion: Criterion, row: Mapping[str, Any] | None, at: float) -> Result:
    if row is None:
        return Result.unknown(criterion, at, "the stored report does not have it")
    return Result(
        criterion,
        Verdict(row["verdict"]),
        row["at"],
        row["reason"],
        row["observed"],
        row["limit"],
        row["margin"],
        row["coverage"],
        labels(**row["labels"]),
        row.get("remark", ""),  # the criterion has its own note
        row["samples"],
        row["sampled_at"],
        waived=_waived(row.get("waived")),
    )


def _waived(row: Mapping[str, Any] | None) -> Waived | None:
    if not row:
        return None
    told = {f.name: row[f.name] for f in fields(Waived)}
    return Waived(**{**told, "verdict": Verdict(told["verdict"])})

"""A document in the format asked for: text, JSON, JSON lines, JUnit XML or a Nagios plugin's lines.

Pure: documents in, text out. docs/output.md says what each format promises.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

SCHEMA = 1
"""Of the documents that are made here; raised when a key changes its meaning or goes."""

EXIT = {"PASS": 0, "WAIVED": 0, "FAIL": 2, "UNKNOWN": 3, "NOT_APPLICABLE": 3}

STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
"""Nagios' words for the exit codes 0 to 3."""

LINES = {
    "results": "result",
    "rows": "row",
    "checks": "check",
    "reports": "report",
    "probes": "source",
    "jobs": "job",
    "alerts": "alert",
    "log_lines": "log_line",
}
"""Lists of a document that become lines of their own, and the kind that each line names."""

ILLEGAL = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What XML 1.0 cannot hold, not even escaped. Compiled where it is used: that takes a while."""

Document = Mapping[str, Any]


def rendered(document: Document, output: str, text: Callable[[Any], str]) -> str:
    """*document* in the format *output*; *text* makes the words for people."""
    match output:
        case "json":
            return json.dumps(versioned(document), indent=2)
        case "jsonl":
            return "\n".join(json.dumps(line) for line in lines(versioned(document)))
        case "junit":
            return junit(document)
        case "nagios":
            return nagios(document)
        case _:
            return text(document)


def versioned(document: Document) -> Document:
    """*document* with the number of its schema first."""
    return document if "schema" in document else {"schema": SCHEMA, **document}


def lines(document: Document) -> Iterator[Document]:
    """What the document says of itself, then a line for each thing in its lists."""
    lists = {key for key in LINES if isinstance(document.get(key), Sequence)}
    head = {key: value for key, value in document.items() if key not in lists}
    yield _line(document, "document", head)
    for key in (key for key in LINES if key in lists):
        for row in document[key]:
            results = row.get("results", []) if key in {"checks", "reports"} else []
            own = {name: value for name, value in row.items() if value is not results}
            yield _line(document, LINES[key], own)
            for result in results:
                check = row.get("id") or row["check"]
                yield _line(document, "result", {"check": check, **result})


def _line(document: Document, kind: str, row: Document) -> Document:
    first = {"schema": document["schema"], "kind": kind}
    return {**first, **row, **first}


LEVELS = {"warning": (1, 2, 3), "unknown": (2, 3), "fail": (2,)}
"""Of `--fail-on`: the exit codes that stay what they are; the others become 0."""


def exit_code(document: Document, fail_on: str = "warning") -> int:
    """Of a report or a status: 0 pass, 1 pass with a breached warning, 2 fail, 3 unknown; 0 for
    what is below the level *fail_on*.

    A daemon that is itself in trouble may be blind: its pass is unknown.
    """
    code = _code(document)
    return code if code in LEVELS[fail_on] else 0


def _code(document: Document) -> int:
    code = EXIT.get(document["verdict"], 3)
    if code == 0 and any(_blind(document)):
        return 3
    breached = any(row["verdict"] == "FAIL" for row in criteria(document))
    return 1 if code == 0 and breached else code


def together(reports: Sequence[Document], *, broken: str = "") -> Document:
    """Several reports as one document: the worst verdict is its own.

    *broken* says why a further one is missing: the rest cannot pass without it.
    """
    order = ("FAIL", "UNKNOWN", "WAIVED", "PASS", "NOT_APPLICABLE")
    verdicts = [*(report["verdict"] for report in reports), *(["UNKNOWN"] if broken else [])]
    last = reports[-1]
    return {
        "schema": last["schema"],
        "check": " ".join(report["check"] for report in reports),
        "at": last["at"],
        "node": last["node"],
        "verdict": min(verdicts, key=order.index),
        "reports": list(reports),
        **({"broken": broken} if broken else {}),
    }


def criteria(document: Document) -> list[Document]:
    """The results of a report, of several, or of the live checks of a status."""
    if "reports" in document:
        return [row for report in document["reports"] for row in criteria(report)]
    if "results" in document:
        return list(document["results"])
    return [row for check in document["checks"] if check["watch"] for row in check["results"]]


def cases(document: Document) -> list[Document]:
    """The criteria, and whatever else keeps the document from being a pass: nothing may hide."""
    rows = [*_blind(document), *criteria(document)]
    verdict = document["verdict"]
    if EXIT.get(verdict, 3) and not any(row["verdict"] == verdict for row in rows):
        rows.append(_case("dvfd.verdict", verdict, f"the verdict is {verdict}"))
    return rows


def _blind(document: Document) -> Iterator[Document]:
    """What a status says against itself."""
    if not document.get("running", True):
        yield _case("dvfd.daemon", "UNKNOWN", "no daemon runs here: nothing is watched")
    for trouble in document.get("troubles", ()):
        yield _case("dvfd.itself", "UNKNOWN", trouble)
    if "broken" in document:
        yield _case("dvfd.itself", "UNKNOWN", document["broken"])


def _case(name: str, verdict: str, reason: str) -> Document:
    return {"criterion": name, "verdict": verdict, "severity": "critical", "reason": reason}


def title(document: Document) -> str:
    """The check's name, or `status`."""
    return str(document.get("check", "status"))


def junit(document: Document) -> str:
    """One suite; FAIL is a failure, UNKNOWN an error, never passed and never skipped.

    ASCII, everything else as character references: valid whatever the terminal's encoding is.
    """
    from xml.etree import ElementTree as ET

    rows = cases(document)
    counts = {
        "tests": str(len(rows)),
        **{plural: str(sum(_part(row) == part for row in rows)) for part, plural in PARTS.items()},
    }
    root = ET.Element("testsuites", {"name": "dvfd", **counts})
    head = {
        "name": title(document),
        "hostname": document["node"],
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(document["at"])),
        "time": "0",
        **counts,
    }
    suite = ET.SubElement(root, "testsuite", {key: _legal(value) for key, value in head.items()})
    for row in rows:
        name = _legal(row["criterion"])
        case = {"classname": f"dvfd.{name.partition('.')[0]}", "name": name, "time": "0"}
        element = ET.SubElement(suite, "testcase", case)
        if part := _part(row):
            told = {"type": row["severity"], "message": _legal(row["reason"])}
            inner = ET.SubElement(element, part, told if part != "skipped" else _message(row))
            inner.text = _legal(f"{row['verdict']} {row['criterion']}: {row['reason']}")
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=True)
    return written.decode("ascii")


PARTS = {"failure": "failures", "error": "errors", "skipped": "skipped"}
"""Elements that say how a test case ended, and the attribute that counts them."""


def _part(row: Document) -> str:
    """The element for a row; none for a pass. A verdict that nobody knows is an error."""
    parts = {"PASS": "", "FAIL": "failure", "NOT_APPLICABLE": "skipped", "WAIVED": "skipped"}
    return parts.get(row["verdict"], "error")


def _message(row: Document) -> dict[str, str]:
    return {"message": _legal(f"{row['verdict']}: {row['reason']}")}


def _legal(value: object) -> str:
    """*value* as text that XML can hold; a question mark in the place of what it cannot."""
    return re.sub(ILLEGAL, "?", str(value))


def nagios(document: Document) -> str:
    """A plugin's output: one line with counts to plot, then a line for each thing amiss."""
    rows, amiss = cases(document), loudest_first(document)
    state = STATES[_code(document)]
    what = f"{title(document)} of {document['node']}"
    said = f"{amiss[0]['criterion']}: {amiss[0]['reason']}" if amiss else _well(rows)
    more = f" (and {len(amiss) - 1} more)" if len(amiss) > 1 else ""
    head = f"DVFD {state} - {_plain(what)}: {_plain(said)}{more} | {_counts(rows)}"
    detail = (f"{row['verdict']} ({row['severity']}) {row['criterion']}: {row['reason']}"
              for row in amiss)  # fmt: skip
    return "\n".join([head, *map(_plain, detail)])


def _well(rows: Sequence[Document]) -> str:
    """A pass in words; what somebody waived is no pass of its own."""
    waived = [row["criterion"] for row in rows if row["verdict"] == "WAIVED"]
    return f"passes, waived: {', '.join(waived)}" if waived else "all is well"


def loudest_first(document: Document) -> list[Document]:
    """What fails or cannot be known, critical before the others, FAIL before UNKNOWN."""
    rows = (row for row in cases(document) if row["verdict"] in {"FAIL", "UNKNOWN"})
    return sorted(rows, key=_loudest)


def _loudest(row: Document) -> tuple[bool, bool]:
    """What decides the verdict first: critical before the others, FAIL before UNKNOWN."""
    return row["severity"] != "critical", row["verdict"] != "FAIL"


def _counts(rows: Sequence[Document]) -> str:
    """Performance data: what fails as critical, as a warning, cannot be known, and all."""
    found = Counter(
        "warnings" if row["verdict"] == "FAIL" and row["severity"] != "critical" else row["verdict"]
        for row in rows
    )
    named = {"fail": "FAIL", "warnings": "warnings", "unknown": "UNKNOWN", "pass": "PASS"}
    parts = [f"{name}={found[key]};;;0;{len(rows)}" for name, key in named.items()]
    return " ".join([*parts, f"criteria={len(rows)};;;0"])


def _plain(text: str) -> str:
    """*text* on one line without a pipe, which would begin performance data."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).replace("|", "/").split())

"""A bundle of evidence: checked anywhere by its hashes, by dvfd and by nothing but Python."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeClock
from fakes_store import Heads

from dvfd.errors import DvfdError, StoreError
from dvfd.evidence import bundle
from dvfd.evidence.chain import FOUNDED, ORIGIN, sealed
from dvfd.evidence.ledger import FILE, Evidence
from dvfd.evidence.shown import Shown, operations

if TYPE_CHECKING:
    from collections.abc import Iterator

BY_HAND = re.search(
    r"```python\n(.*?)```", Path("docs/evidence.md").read_text(encoding="utf-8"), re.DOTALL
)


class Desk:
    """A ledger with two runs and their reports, and a bundle of it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.ledger = Evidence(state / "evidence", FakeClock(), node="n1")
        self.shown = Shown(self.ledger, state)
        self.file = state / "all.tar"
        for run in ("a", "b"):
            self.run(run)

    def run(self, run: str, where: str = "") -> None:
        text = json.dumps({"run": run}).encode()
        where = where or f"runs/{run}.json"
        (self.state / "runs").mkdir(exist_ok=True)
        (self.state / "runs" / f"{run}.json").write_bytes(text)
        report = {"where": where, "sha256": hashlib.sha256(text).hexdigest()}
        body = {"run": run, "results": [1, 2], "report": report}
        self.ledger.append("run", "hardware", body, submitted="root")

    def spoilt(self, name: str, old: bytes, new: bytes) -> Path:
        """The bundle with *old* exchanged for *new* in its file *name*."""
        self.shown.export(self.file)
        made = self.state / "spoilt.tar"
        with tarfile.open(self.file) as tar, tarfile.open(made, "w") as spoilt:
            for member in tar.getmembers():
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                data = data.replace(old, new) if member.name == name else data
                member.size = len(data)
                spoilt.addfile(member, BytesIO(data))
        return made


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def by_hand(file: Path) -> tuple[int, str]:
    """What the lines of docs/evidence.md say of a bundle, run by a Python without dvfd."""
    assert BY_HAND
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", BY_HAND[1], str(file)],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_bundle_is_whole_by_itself_and_names_its_cluster_and_head(desk: Desk) -> None:
    made = desk.shown.export(desk.file)
    found = bundle.opened(desk.file, cluster=desk.ledger.cluster, head=made.sha256)

    assert (found.problems, found.records, found.reports, found.code) == ((), 3, 2, 0)
    assert (found.cluster, found.sha256) == (desk.ledger.cluster, made.sha256)
    code, said = by_hand(desk.file)
    assert (code, said.split()[:2]) == (0, ["whole", desk.ledger.cluster])
    assert made.sha256 in said


def test_the_same_ledger_makes_the_same_bundle(desk: Desk) -> None:
    desk.shown.export(desk.file)
    desk.shown.export(desk.state / "again.tar")

    assert desk.file.read_bytes() == (desk.state / "again.tar").read_bytes()


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (FILE, b'"run":"a"', b'"run":"c"', "line 2: edited"),
        ("runs/a.json", b"a", b"c", "its report runs/a.json has the SHA-256"),
    ],
)
def test_what_was_changed_in_a_bundle_is_named(
    desk: Desk, name: str, old: bytes, new: bytes, said: str
) -> None:
    spoilt = desk.spoilt(name, old, new)

    found = bundle.opened(spoilt)
    assert said in " ".join(found.problems)
    assert found.code == 2
    assert by_hand(spoilt)[0] == 1


def test_a_bundle_of_another_cluster_is_named_as_such(desk: Desk) -> None:
    desk.shown.export(desk.file)

    found = bundle.opened(desk.file, cluster="f" * 32)

    assert found.problems == (f"of cluster {desk.ledger.cluster}, wanted {'f' * 32}",)
    assert found.code == 2


def test_a_ledger_that_was_written_anew_lacks_the_hash_that_somebody_kept(desk: Desk) -> None:
    kept = desk.shown.export(desk.file).sha256
    desk.run("c")
    assert desk.shown.verified(head=kept).problems == ()

    (desk.state / "evidence" / FILE).unlink()
    for run in ("a", "b", "c"):
        desk.run(run)
    found = desk.shown.verified(head=kept)

    assert f"no record has the hash {kept}" in found.problems[0]
    assert desk.shown.verified().problems == ()


def test_a_hash_that_was_typed_in_capitals_is_the_same(desk: Desk) -> None:
    kept = desk.shown.export(desk.file).sha256

    assert bundle.opened(desk.file, head=f" {kept.upper()}").problems == ()
    assert desk.shown.verified(head=kept.upper()).problems == ()


def test_a_record_that_is_written_while_somebody_verifies_is_not_missed(tmp_path: Path) -> None:
    class Busy(Evidence):
        """Somebody appends once the lines were read."""

        def lines(self) -> Iterator[bytes]:
            yield from super().lines()
            self.append("run", "hardware", {}, submitted="root")

    ledger = Busy(tmp_path / "evidence", FakeClock(), store=Heads())
    ledger.append("run", "hardware", {}, submitted="root")

    assert Shown(ledger, tmp_path).verified().problems == ()
    assert Shown(ledger, tmp_path).export(tmp_path / "x.tar").problems == ()


def test_a_ledger_that_the_store_knows_otherwise_is_exported_with_that_word(tmp_path: Path) -> None:
    heads = Heads()
    ledger = Evidence(tmp_path / "evidence", FakeClock(), store=heads)
    ledger.append("run", "hardware", {}, submitted="root")
    heads.kept["evidence", "head"]["sha256"] = "f" * 64

    assert "was exchanged" in Shown(ledger, tmp_path).verified().problems[0]
    assert "was exchanged" in Shown(ledger, tmp_path).export(tmp_path / "x.tar").problems[0]


def test_a_report_that_is_gone_is_missed_and_the_rest_is_exported(desk: Desk) -> None:
    (desk.state / "runs" / "a.json").unlink()

    found = desk.shown.export(desk.file)

    assert found.problems == ("record 2: its report runs/a.json is not there",)
    assert bundle.opened(desk.file).problems == found.problems


def test_a_record_cannot_have_any_file_of_the_node_exported(desk: Desk) -> None:
    (desk.state / "secret.json").write_text("{}", encoding="ascii")
    desk.run("c", "runs/../secret.json")

    assert "no place of a report" in desk.shown.export(desk.file).problems[0]
    with tarfile.open(desk.file) as tar:
        assert not [name for name in tar.getnames() if "secret" in name]


def test_a_ledger_that_is_not_whole_is_exported_as_it_is_and_that_is_said(desk: Desk) -> None:
    path = desk.state / "evidence" / FILE
    path.write_bytes(path.read_bytes().replace(b'"run":"a"', b'"run":"x"'))

    assert "line 2: edited" in desk.shown.export(desk.file).problems[0]
    assert "line 2: edited" in bundle.opened(desk.file).problems[0]


def test_another_file_is_never_overwritten(desk: Desk) -> None:
    desk.file.write_text("mine", encoding="ascii")

    with pytest.raises(StoreError, match="there is a file already"):
        desk.shown.export(desk.file)
    assert desk.file.read_text(encoding="ascii") == "mine"


def test_where_there_is_no_evidence_there_is_nothing_to_export(tmp_path: Path) -> None:
    shown = Shown(Evidence(tmp_path / "evidence", FakeClock()), tmp_path)

    with pytest.raises(DvfdError, match="nothing to export"):
        shown.export(tmp_path / "x.tar")
    assert shown.verified().code == 3


@pytest.mark.parametrize("data", [b"", b"nonsense" * 200, bytes(10240)])
def test_what_is_no_bundle_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)

    with pytest.raises(StoreError, match="no bundle of evidence"):
        bundle.opened(tmp_path / "x.tar")
    with pytest.raises(StoreError, match="cannot be read"):
        bundle.opened(tmp_path / "none.tar")


def test_a_bundle_that_was_cut_off_is_told(desk: Desk) -> None:
    desk.shown.export(desk.file)
    desk.file.write_bytes(desk.file.read_bytes()[:2500])

    with pytest.raises(StoreError, match="no bundle of evidence"):
        bundle.opened(desk.file)


def test_a_packed_bundle_that_was_cut_off_is_told(desk: Desk) -> None:
    desk.shown.export(desk.file)
    for pack in (gzip.compress, lzma.compress):
        packed = pack(desk.file.read_bytes())
        desk.file.write_bytes(packed[: len(packed) // 2])
        with pytest.raises(StoreError, match="no bundle of evidence"):
            bundle.opened(desk.file)
        desk.file.unlink()
        desk.shown.export(desk.file)


@pytest.mark.parametrize("spoilt", [b"[1]", b'{"report":7}', b'{"report":[]}'])
def test_a_bundle_with_another_kind_of_body_is_told(tmp_path: Path, spoilt: bytes) -> None:
    ledger = Evidence(tmp_path / "evidence", FakeClock())
    ledger.append("run", "hardware", {}, submitted="root")
    parts = json.loads(ledger.path.read_bytes().splitlines()[-1]) | {"body": json.loads(spoilt)}
    del parts["sha256"]
    first = ledger.path.read_bytes().splitlines(keepends=True)[0]
    ledger.path.write_bytes(first + sealed(parts)[1])

    found = Shown(ledger, tmp_path).export(tmp_path / "x.tar")

    assert len(found.problems) == 1
    assert bundle.opened(tmp_path / "x.tar").problems == found.problems


# --- What people ask ----------------------------------------------------------------------------


def test_records_are_listed_by_kind_and_subject_without_their_long_parts(desk: Desk) -> None:
    found = desk.shown.listed("run", None)

    assert [record["body"]["run"] for record in found["records"]] == ["a", "b"]
    assert "results" not in found["records"][0]["body"]
    assert desk.shown.listed("run", "network")["records"] == []
    assert desk.shown.one(2)["body"]["results"] == [1, 2]
    with pytest.raises(DvfdError, match="no record 9"):
        desk.shown.one(9)


def test_a_list_of_a_ledger_that_is_not_whole_says_so(desk: Desk) -> None:
    path = desk.state / "evidence" / FILE
    path.write_bytes(path.read_bytes().replace(b'"run":"a"', b'"run":"x"'))

    assert "edited" in desk.shown.listed(None, None)["problems"][0]


def test_a_daemon_answers_the_same(desk: Desk) -> None:
    asked = operations(desk.shown)

    def answer(op: str, **request: Any) -> Any:
        return json.loads(json.dumps(asked[op].answer(request, None)))  # type: ignore[arg-type]

    assert answer("evidence", kind=None, subject=None)["count"] == 3
    assert answer("evidence_record", number=1)["kind"] == FOUNDED
    assert answer("evidence_verify")["problems"] == []
    assert replace(desk.shown.verified()).records == answer("evidence_verify")["records"]


def test_a_whole_ledger_is_not_founded_anew_nor_is_one_by_nobody(desk: Desk) -> None:
    request = {"name": "Ann", "role": "CTO", "reason": "because"}
    with pytest.raises(DvfdError, match="the ledger is whole"):
        desk.shown.renew(request, "root")

    path = desk.state / "evidence" / FILE
    path.write_bytes(path.read_bytes().replace(b'"run":"a"', b'"run":"x"'))
    with pytest.raises(DvfdError, match="name: missing"):
        desk.shown.renew({**request, "name": ""}, "root")
    made = desk.shown.renew(request, "root")

    assert "line 2: edited" in made["problems"][0]
    assert desk.shown.verified().problems == ()


@pytest.mark.slow
def test_ten_thousand_records_are_verified_within_a_second(tmp_path: Path) -> None:
    rows = [
        {"criterion": f"hardware.c{n}", "verdict": "PASS", "observed": 1.5 * n, "limit": 3.25,
         "comparison": ">=", "margin": 0.5, "unit": "samples/second", "severity": "critical",
         "reason": "mean of 864 windows is 243.1 samples/s, wanted at least 250"}
        for n in range(15)
    ]  # fmt: skip
    previous, lines = ORIGIN, []
    for number in range(1, 10_001):
        first = number == 1
        record, line = sealed({
            "number": number, "at": 1.8e9, "kind": FOUNDED if first else "run", "subject": "x",
            "body": {} if first else {"results": rows}, "node": "n", "submitted": "root",
            "previous": previous,
        })  # fmt: skip
        previous = record.sha256
        lines.append(line)
    (tmp_path / FILE).write_bytes(b"".join(lines))
    ledger = Evidence(tmp_path, FakeClock())

    took = []
    for _ in range(3):  # of ours alone, the best: other processes have their share of the machine
        began = time.process_time()
        assert Shown(ledger, tmp_path).verified().code == 0
        took.append(time.process_time() - began)
    assert min(took) < 1.0
    assert len(ledger.records("run", "x")) == 9_999

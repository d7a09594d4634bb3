"""Who signs the validation as a whole: the framework's three roles, by name, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakes import FakeClock
from fakes_report import CATALOGUE

from dvfd.errors import DvfdError
from dvfd.evidence.ledger import Evidence
from dvfd.people.signoffs import SignOffs

if TYPE_CHECKING:
    from pathlib import Path

ROLES = ["ML Engineering Lead", "Infrastructure Director", "VP Engineering"]


@pytest.fixture
def book(tmp_path: Path) -> SignOffs:
    return SignOffs(CATALOGUE, Evidence(tmp_path, FakeClock(), node="n1"))


def test_the_roles_are_those_of_the_last_section_and_nobody_has_signed(book: SignOffs) -> None:
    rows = book.document()["signoffs"]

    assert [row["role"] for row in rows] == ROLES
    assert all(row["clause"].startswith("Documentation & Sign-Off > ") for row in rows)
    assert [row["signed"] for row in rows] == [None] * 3


def test_a_signature_says_who_and_when_and_the_newest_is_shown(book: SignOffs) -> None:
    book.sign({"role": "vp engineering", "name": "Bo"}, "root")
    book.sign({"role": "VP Engineering", "name": "Ann Lee", "note": "with thanks"}, "root")

    *others, row = book.document()["signoffs"]

    assert [other["signed"] for other in others] == [None, None]
    assert row["signed"]["body"] == {"by": "Ann Lee", "note": "with thanks"}
    assert row["signed"]["submitted"] == "root"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"role": "Office Cat", "name": "Tom"}, "no such role"),
        ({"role": "VP Enginering", "name": "Tom"}, "did you mean 'VP Engineering'"),
        ({"role": "VP Engineering", "name": " "}, "name: missing"),
        ({"name": "Tom"}, "role: missing"),
    ],
)
def test_nobody_signs_without_a_name_or_in_a_role_that_is_none(
    book: SignOffs, request_: dict[str, str], said: str
) -> None:
    with pytest.raises(DvfdError, match=said):
        book.sign(request_, "root")
    assert not any(row["signed"] for row in book.document()["signoffs"])

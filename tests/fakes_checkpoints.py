"""Checkpoints on disk, and a verifier that answers what it is told."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from dvfd import manifest
from dvfd.shell import Output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAYLOAD = bytes(range(256)) * 16


def archive(path: Path, payload: bytes = PAYLOAD) -> Path:
    """A file in the layout of torch.save: a stored zip with data.pkl and one tensor."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("state/data.pkl", b"\x80\x02}q\x00.")
        file.writestr("state/data/0", payload)
    return path


def sealed(folder: Path) -> Path:
    """A directory with two shards and a manifest of ours."""
    folder.mkdir()
    archive(folder / "state.pt")
    (folder / "shard.distcp").write_bytes(PAYLOAD)
    (folder / manifest.NAME).write_text(json.dumps(manifest.build(folder, step=5)))
    return folder


def flip(path: Path, at: int | None = None) -> None:
    """Flip one bit, in the middle unless told."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


class Records:
    """The store's small records."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}

    def put(self, kind: str, key: str, document: dict[str, Any] | None) -> None:
        if document is None:
            self.kept.pop((kind, key), None)
        else:
            self.kept[kind, key] = json.loads(json.dumps(document))

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.kept.get((kind, key))


class FakeVerifier:
    """Stands for shell.run: says `answer`, makes `document` where a manifest is asked for."""

    def __init__(self, intact: bool | None = True, loadable: bool | None = True) -> None:
        self.answer: dict[str, object] = {
            "intact": intact,
            "loadable": loadable,
            "reason": "because",
        }
        self.document: object = None
        self.calls: list[list[str]] = []
        self.given: list[bytes] = []

    def __call__(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Output:
        self.calls.append(list(argv))
        self.given.append(stdin)
        made = "--make-manifest" in argv
        return Output(0, json.dumps(self.document if made else self.answer), "", 0.1)

    @property
    def verifications(self) -> int:
        return sum("--make-manifest" not in argv for argv in self.calls)

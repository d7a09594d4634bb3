"""What a checkpoint's files must be: bytes and SHA-256 of each, sealed. Standard library only.

A seal (SHA-256 over the rest of the document) makes a flipped bit in the manifest itself visible.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAME = "manifest.json"
FORMAT = "dvfd-checkpoint-1"

CHUNK = 1 << 20
"""Bytes hashed at a time: bounds memory, large enough that SHA-256 runs at full speed."""

FILES_LIMIT = 100_000
"""Files looked at in one checkpoint: the largest sharded ones have tens of thousands."""

MANIFEST_LIMIT = 64 << 20
"""Bytes of a manifest that are read: far above FILES_LIMIT lines."""


class Broken(Exception):
    """The files are not what they were when they were saved; the message says which and how."""


class Unclear(Exception):
    """Nothing can be said: unreadable, out of bounds, or no kind that we know."""


def regular(path: Path) -> int:
    """Open *path* for reading if it is a plain file, and return the descriptor.

    Never follows a symbolic link and never waits on a FIFO. Raises Broken if it is not there or
    is no plain file, Unclear if it may not be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Broken(f"{path.name}: not there") from None
    except OSError as error:
        if path.is_symlink():
            raise Broken(f"{path.name}: a symbolic link, wanted a plain file") from None
        raise Unclear(f"{path.name}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Broken(f"{path.name}: no plain file")
    return handle


def digest(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of one plain file. Raises like `regular`; a read error is Broken."""
    total, sha = 0, hashlib.sha256()
    with os.fdopen(regular(path), "rb", buffering=0) as file:
        try:
            while chunk := file.read(CHUNK):
                sha.update(chunk)
                total += len(chunk)
        except OSError as error:  # EIO: the disk cannot give it back
            raise Broken(f"{path.name}: read failed at byte {total}: {error.strerror}") from None
    return total, sha.hexdigest()


def walk(root: Path) -> Iterator[str]:
    """Names, relative to *root* and in order, of everything below it that is no directory.

    Raises Broken at a symbolic link, Unclear above FILES_LIMIT.
    """
    count = 0
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        folders.sort()
        for name in [*folders, *files]:
            if (root / folder / name).is_symlink():
                raise Broken(f"{name}: a symbolic link inside the checkpoint")
        for name in sorted(files):
            relative = os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118  # strings: many
            count += 1
            if count > FILES_LIMIT:
                raise Unclear(f"more than {FILES_LIMIT} files")
            yield relative


def _unreadable(error: OSError) -> None:
    raise Unclear(f"{error.filename}: cannot be listed: {error.strerror}")


def build(path: Path, **extra: Any) -> dict[str, Any]:
    """The sealed manifest of a file or a directory as it is now; *extra* joins it.

    The name of a lone file is its key. Raises Broken and Unclear like `walk` and `digest`.
    """
    root, names = (path, list(walk(path))) if path.is_dir() else (path.parent, [path.name])
    files = {}
    for name in names:
        size, sha = digest(root / name)
        files[name] = {"bytes": size, "sha256": sha}
    return seal({"format": FORMAT, **extra, "files": files})


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """*document* with the `seal` that belongs to it."""
    body = {key: value for key, value in document.items() if key != "seal"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "seal": hashlib.sha256(text.encode()).hexdigest()}


def read(path: Path) -> dict[str, Any] | None:
    """The manifest in file *path*; None if it is JSON of somebody else's.

    Raises Broken if it is not there, is not JSON, or is ours and its seal fails.
    """
    with os.fdopen(regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > MANIFEST_LIMIT:
            raise Broken(f"{path.name}: more than {MANIFEST_LIMIT} bytes")
        raw = file.read()
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise Broken(f"{path.name}: not JSON") from None
    if isinstance(document, dict) and not {"seal", "format"} & document.keys():
        return None  # one flipped bit cannot hide both of our keys
    return validated(document)


def validated(document: object) -> dict[str, Any]:
    """*document* if it is a manifest of ours with a true seal. Raises Broken."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Broken(f"{NAME}: not a {FORMAT} document")
    if seal(document)["seal"] != document.get("seal"):
        raise Broken(f"{NAME}: changed since it was sealed")
    files = document.get("files")
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        raise Broken(f"{NAME}: no table of files with bytes and sha256")
    return document


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    return isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def check(path: Path, document: Mapping[str, Any]) -> None:
    """Hold a file, or every file of a directory, against the manifest. Raises Broken, Unclear.

    A file that the manifest does not name is Broken too: it would be loaded unverified.
    """
    wanted = document["files"]
    root = path if path.is_dir() else path.parent
    for name, entry in wanted.items():
        _check_file(root, name, entry)
    if path.is_dir():
        more = next((name for name in walk(path) if name not in wanted and name != NAME), "")
        if more:
            raise Broken(f"{more}: not in the manifest")


def check_own(path: Path) -> None:
    """Hold the directory *path* against the manifest in it. Raises Broken, Unclear."""
    document = read(path / NAME)
    if document is None:
        raise Broken(f"{NAME}: not a {FORMAT} document")
    check(path, document)


def _check_file(root: Path, name: str, entry: Mapping[str, Any]) -> None:
    parts = name.split("/")
    if name.startswith("/") or not name or any(part in {"", ".", ".."} for part in parts):
        raise Broken(f"{name!r}: a name that leaves the checkpoint")
    for depth in range(1, len(parts)):
        if root.joinpath(*parts[:depth]).is_symlink():
            raise Broken(f"{name}: reached through a symbolic link")
    size, sha = digest(root / name)
    if size != entry["bytes"]:
        raise Broken(f"{name}: {size} bytes, the manifest says {entry['bytes']}")
    if sha != entry["sha256"]:
        raise Broken(f"{name}: SHA-256 {sha[:12]}, the manifest says {entry['sha256'][:12]}")

"""Load torch files in a process of its own and compare their tensors. Knows nothing else of dvfd.

Run as a file, by the interpreter that has torch (Python >= 3.8), with a question in JSON on stdin:
`{"paths": [...], "tensors": {name: hash} or null, "weights_only": true, "whole": false}`. The
answer is one line of JSON on stdout: `{"loadable": true | false | null, "reason": "..."}`. With
`whole` all of the state is brought into memory, as by a job that resumes, and every tensor read.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator  # noqa: UP035  # for Python 3.8


NO_MEMORY = (None, "needs more memory than checkpoints.memory_bytes")


def tensors(value: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor in a nest of dicts and lists, under its dotted name."""
    if hasattr(value, "untyped_storage"):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from tensors(inner, f"{name}.{index}")


def tensor_hash(tensor: Any) -> str:
    """SHA-256 over type, shape and the bytes of the elements in order; of a dense tensor."""
    flat = tensor.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)} ".encode())
    size = flat.numel() * flat.element_size()
    if size:
        sha.update((ctypes.c_char * size).from_address(flat.data_ptr()))  # no numpy needed
    return sha.hexdigest()


def different(state: object, wanted: dict[str, str]) -> str:
    """The first way in which the tensors of *state* differ from their hashes, or nothing."""
    found = dict(tensors(state))
    if missing := sorted(set(wanted) - set(found)):
        return f"tensor {missing[0]} is missing"
    for name, tensor in found.items():
        if tensor_hash(tensor) != wanted.get(name):
            return f"tensor {name} is not the one that was saved"
    return ""


def answer(question: dict[str, Any]) -> tuple[bool | None, str]:
    """Load every file of *question*: loadable, and why or why not."""
    try:
        import torch  # noqa: PLC0415  # its absence is an answer
    except ImportError as error:
        return None, f"torch cannot be imported by {sys.executable}: {error}"
    found = [_load(torch, path, question) for path in question["paths"]]
    for verdict in (False, None):
        for loadable, words in found:
            if loadable is verdict:
                return loadable, words
    return True, "; ".join(filter(None, (f"{len(found)} loaded", *(words for _, words in found))))


def _load(torch: Any, path: str, question: dict[str, Any]) -> tuple[bool | None, str]:
    """Load one file; what is too large for the memory at once, a tensor after the other."""
    whole = question.get("whole", False)
    found = _read(torch, path, question, mapped=not whole)
    if not whole or found != NO_MEMORY:
        return found
    loadable, words = _read(torch, path, question, mapped=True)
    return (
        loadable,
        f"{words}, one after the other: at once it {NO_MEMORY[1]}" if loadable else words,
    )


def _read(
    torch: Any, path: str, question: dict[str, Any], *, mapped: bool
) -> tuple[bool | None, str]:
    try:
        whole = question.get("whole", False)
        mmap = mapped and _maps(path)
        state = torch.load(
            path, map_location="cpu", weights_only=question["weights_only"], mmap=mmap
        )
        wanted = question["tensors"]
        if wanted is not None and (how := different(state, wanted)):
            return False, how
        return True, _restored(state, compared=wanted is not None) if whole else ""
    except Exception as error:  # noqa: BLE001  # a hostile or broken pickle raises anything
        return _refused(error, path)


def _restored(state: object, *, compared: bool) -> str:
    """What was in memory; a tensor that nothing was compared with is read all the same."""
    found = [tensor for _, tensor in tensors(state)]
    if not compared:
        for tensor in found:
            tensor_hash(tensor)
    size = sum(tensor.numel() * tensor.element_size() for tensor in found)
    equal = ", each equal to the one that was saved" if compared else ""
    return f"restored {len(found)} tensors of {size} bytes{equal}"


def _maps(path: str) -> bool:
    """Whether *path* is in the zip format, which can be mapped instead of read."""
    with open(path, "rb") as file:  # noqa: PTH123  # for Python 3.8 as for any
        return file.read(2) == b"PK"


def _refused(error: Exception, path: str) -> tuple[bool | None, str]:
    words = str(error)
    if isinstance(error, MemoryError):
        words = "not enough memory"
    if "Unsupported global" in words or "Unsupported class" in words:
        return None, f"{path}: holds objects that weights_only refuses: a pickle is code"
    if "not enough memory" in words or "Cannot allocate memory" in words:
        return NO_MEMORY
    first = words.strip().splitlines()[0] if words.strip() else ""
    return False, f"{path}: {type(error).__name__}: {first[:200]}"


if __name__ == "__main__":
    del sys.path[0]  # this directory: its modules have names that torch's imports might find
    verdict, reason = answer(json.load(sys.stdin))
    sys.stdout.write(json.dumps({"loadable": verdict, "reason": reason}) + "\n")

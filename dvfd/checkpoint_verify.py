"""Say whether a checkpoint is what was saved and whether it loads. Runs as a child process.

    python -m dvfd.checkpoint_verify PATH [--json]

Intact: the files agree with the manifest beside them or with the one given by `--manifest`; without
any, the checksums inside zip archives (torch.save) decide. A load that does not raise proves
nothing: torch reads flipped bits without a word. Never runs code from the checkpoint unless
`--trust-pickles`. Exit codes: 0 intact and loadable, 2 not, 3 could not tell.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd import manifest
from dvfd.manifest import Broken, Unclear

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TORCH_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".tar"})
"""Names under which torch.save files go about."""

ARGUMENTS = frozenset({"training_args.bin"})
"""What a trainer was called with, as a pickled object of Hugging Face's: code, and no resumption
reads it. Its archive's checksums are looked at like any other's.
"""

RANDOM = re.compile(r"rng_state(_\d+)?\.pth|random_states_\d+\.pkl")
"""Where Hugging Face's Trainer and Accelerate keep the state of their generators: NumPy's types,
which are not loaded. torch's weights_only hands the file's own words to their `__setstate__`, and
NumPy 1.24 then writes to an address that the file chooses. Checksums as for any other.
"""

HEADER_LIMIT = 100 << 20
"""Bytes of a safetensors header that are read: the format's own limit."""

SCHEMA = 1
"""Of the JSON document; raised when a key changes its meaning or goes."""

INTACT, BROKEN, UNCLEAR = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer: None where nothing could be shown."""

    intact: bool | None
    loadable: bool | None
    reason: str

    @property
    def code(self) -> int:
        """The exit code that says the same."""
        if self.intact is False or self.loadable is False:
            return BROKEN
        return INTACT if self.intact and self.loadable else UNCLEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to load: the interpreter that has torch, whether pickles may run code, or not at all."""

    python: str = sys.executable
    trust_pickles: bool = False
    load: bool = True
    whole: bool = False  # bring all of it into memory, as a job that resumes does


def verify(
    path: Path, *, document: Mapping[str, Any] | None = None, manner: Manner | None = None
) -> Verification:
    """Verify the file or directory at *path*, against *document* too if there is one."""
    manner = manner or Manner()
    try:
        root = settle(path)
        own = own_manifest(root)
        intact, reason = integrity(root, own, document)
    except Broken as error:
        return Verification(False, None if os.path.lexists(path) else False, str(error))
    except Unclear as error:
        return Verification(None, None, str(error))
    except MemoryError:
        return Verification(None, None, "needs more memory than checkpoints.memory_bytes")
    if not manner.load:
        return Verification(intact, None, f"{reason}; not loaded")
    loadable, how = load(root, own, manner)
    return Verification(intact, loadable, f"{reason}; {how}")


def settle(path: Path) -> Path:
    """*path*, or its neighbour that it links to (`latest`). Raises Broken, Unclear.

    Nothing is resolved beyond that: a path through /proc/PID/root must stay one.
    """
    try:
        if path.is_symlink():
            path = _neighbour(path)
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Broken(f"{path}: not there") from None
    except OSError as error:
        raise Unclear(f"{path}: cannot be reached: {error.strerror}") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise Broken(f"{path}: neither file nor directory")
    return path


def _neighbour(path: Path) -> Path:
    target = path.readlink()
    beside = path.parent / target
    if len(target.parts) != 1 or target.name in {"", ".."} or beside.is_symlink():
        raise Unclear(f"{path}: a link to {target}, only one to a neighbour is followed")
    return beside


def own_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest beside the files, if it is one of ours. Raises Broken if it is damaged."""
    if not root.is_dir() or not os.path.lexists(root / manifest.NAME):
        return None
    return manifest.read(root / manifest.NAME)  # None: somebody else's file of that name


def integrity(
    root: Path, own: Mapping[str, Any] | None, document: Mapping[str, Any] | None
) -> tuple[bool | None, str]:
    """Whether the files are those that were saved, and how that is known. Raises Broken."""
    if own is not None:
        manifest.check(root, own)
        return True, f"{len(own['files'])} files agree with their manifest"
    bare = [name for name, path in contents(root) if not has_checksum(path)]
    if document is not None:
        manifest.check(root, manifest.validated(document))
        return True, f"{len(document['files'])} files agree with the manifest made at their save"
    if bare:
        return None, f"{bare[0]}: no manifest, and no checksum of its own"
    return True, "archive checksums agree"


def contents(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file. Raises Broken if there is none."""
    names = list(manifest.walk(root)) if root.is_dir() else [root.name]
    if not names:
        raise Broken(f"{root.name}: an empty directory")
    folder = root if root.is_dir() else root.parent
    return ((name, folder / name) for name in names)


def has_checksum(path: Path) -> bool:
    """Whether the file carries checksums; then they were held against it. Raises Broken."""
    if path.suffix == ".safetensors":
        _check_safetensors(path)
        return False
    if not is_archive(path):
        if path.suffix in TORCH_SUFFIXES and not path.stat().st_size:
            raise Broken(f"{path.name}: empty")
        return False
    _check_archive(path)
    return True


def is_archive(path: Path) -> bool:
    """Whether *path* begins or ends as a zip archive does: one end may be damaged."""
    with os.fdopen(manifest.regular(path), "rb") as file:
        try:
            return file.read(4) == b"PK\x03\x04" or zipfile.is_zipfile(file)
        except zipfile.BadZipFile:  # one end, and not as it should be
            return True


def _check_archive(path: Path) -> None:
    with os.fdopen(manifest.regular(path), "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                bad = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise Broken(f"{path.name}: a damaged archive: {error}") from None
        except (NotImplementedError, RuntimeError, struct.error) as error:
            raise Broken(f"{path.name}: not as torch.save writes it: {error}") from None
    if bad:
        raise Broken(f"{path.name}: CRC of {bad} does not agree")


def _check_safetensors(path: Path) -> None:
    """Hold the file's size against its header: shows truncation, not flipped bits."""
    with os.fdopen(manifest.regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise Broken(f"{path.name}: truncated in its header")
        try:
            header = json.loads(file.read(length))
            ends = [e["data_offsets"][1] for k, e in header.items() if k != "__metadata__"]
        except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError):
            raise Broken(f"{path.name}: its header is damaged") from None
    if 8 + length + max(ends, default=0) != size:
        raise Broken(
            f"{path.name}: {size} bytes, its header says {8 + length}+{max(ends, default=0)}"
        )


def load(root: Path, own: Mapping[str, Any] | None, manner: Manner) -> tuple[bool | None, str]:
    """Load every torch file in a process of its own: loadable, and how that is known."""
    files = list(contents(root))
    if any(path.suffix == ".distcp" or path.name == ".metadata" for _, path in files):
        return None, "not loaded: the .metadata of a distributed checkpoint is a pickle, so code"
    state = [path for _, path in files if path.name not in ARGUMENTS]
    unread = [] if manner.trust_pickles else [p for p in state if RANDOM.fullmatch(p.name)]
    loads = (path for path in state if path not in unread)
    torch = [str(p) for p in loads if p.suffix in TORCH_SUFFIXES or is_archive(p)]
    if not torch:
        tensors = any(path.suffix == ".safetensors" for _, path in files)
        return (True, "headers read") if tensors else (None, "nothing that torch could load")
    alone = own is not None and len(torch) == 1
    question = {
        "paths": torch,
        "tensors": own.get("tensors") if own is not None and alone else None,
        "weights_only": not manner.trust_pickles,
        "whole": manner.whole,
    }
    loadable, how = _ask_loader(manner.python, question)
    return loadable, "; ".join((how, *_left_out(unread)))


def _left_out(unread: Sequence[Path]) -> Iterator[str]:
    """What was not loaded of what a resumption reads, in words."""
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        yield f"{unread[0].name}{more} not loaded: a generator's state, pickled"


def _ask_loader(python: str, question: Mapping[str, Any]) -> tuple[bool | None, str]:
    script = Path(__file__).with_name("checkpoint_load.py")
    try:
        done = subprocess.run(
            [python, str(script)],
            input=json.dumps(question).encode(),
            capture_output=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # one core is all that it may take
        )
    except OSError as error:
        return None, f"{python}: cannot be started: {error.strerror}"
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        return said["loadable"], said["reason"]
    except (ValueError, IndexError, KeyError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return (
            None,
            f"the loader ended with code {done.returncode}: {(last or ['no words'])[0][:200]}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, print, and return the exit code."""
    chosen = _parser().parse_args(arguments)
    _yield_to_others(chosen.memory_bytes)
    if chosen.make_manifest:
        return _make(chosen.path)
    document = json.loads(sys.stdin.read()) if chosen.manifest else None
    manner = Manner(
        python=chosen.python,
        trust_pickles=chosen.trust_pickles,
        load=not chosen.no_load,
        whole=chosen.restore,
    )
    found = verify(chosen.path, document=document, manner=manner)
    answer = json.dumps({"schema": SCHEMA, **asdict(found)})
    _say([answer] if chosen.json else _words(chosen.path, found))
    return found.code


def _make(path: Path) -> int:
    """Print a manifest of what is there now; `null` where one of ours is there already."""
    try:
        root = settle(path)
        document = None if own_manifest(root) else manifest.build(root)
        _say([json.dumps(document)])
    except (Broken, Unclear) as error:
        sys.stderr.write(f"{error}\n")
        return BROKEN if isinstance(error, Broken) else UNCLEAR
    return INTACT


def _words(path: Path, found: Verification) -> Iterable[str]:
    shown = {True: "yes", False: "NO", None: "unknown"}
    yield f"{path}: intact: {shown[found.intact]}, loadable: {shown[found.loadable]}"
    yield f"  {found.reason}"


def _say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dvfd checkpoint verify",
        description="Whether a checkpoint is what was saved, and whether it loads. Exit codes: "
        "0 both, 2 not, 3 could not tell.",
    )
    parser.add_argument("path", type=Path, help="a file or a directory")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--manifest", action="store_true", help="a manifest comes on stdin")
    parser.add_argument("--make-manifest", action="store_true", help="print one, verify nothing")
    parser.add_argument("--no-load", action="store_true", help="look at the bytes only")
    parser.add_argument("--restore", action="store_true", help="read all of the state, to the end")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch")
    parser.add_argument("--trust-pickles", action="store_true", help="may run code from it")
    parser.add_argument("--memory-bytes", type=int, default=0, help="limit (0: none)")
    return parser


def _yield_to_others(memory: int) -> None:
    """Idle priority for processor and disk, and a bound on memory, for this process and its child.

    RLIMIT_DATA rather than RLIMIT_AS: torch maps gigabytes of libraries that it never touches.
    """
    os.nice(19)
    try:
        import psutil  # noqa: PLC0415  # the verifier does without

        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    except (ImportError, OSError, AttributeError):
        pass
    if memory:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


if __name__ == "__main__":
    sys.exit(main())

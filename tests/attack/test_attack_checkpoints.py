"""Checkpoints made to hurt: no code of theirs runs, nothing outside is read, and it ends."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes_checkpoints import archive, sealed

from dvfd import manifest
from dvfd.checkpoint_verify import Manner, verify
from dvfd.errors import ProbeError
from dvfd.probes.checkpoints import ENTRIES, fingerprint
from dvfd.probes.places import locate

BYTES = Manner(load=False)


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def torch_file(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("state/data.pkl", pickled)
        file.writestr("state/version", "3\n")
        file.writestr("state/data/0", b"\0" * 64)
    return path


def test_the_canary_is_a_canary(tmp_path: Path) -> None:
    """Or the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    ["state.pt", "pytorch_model.bin", "legacy.pth", "rng_state.pth", "random_states_0.pkl",
     "training_args.bin", "folder/state.ckpt", "shards/.metadata", "shards/0.distcp", "any"],
)  # fmt: skip
def test_a_pickle_that_runs_code_is_never_executed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    canary, path = tmp_path / "canary", tmp_path / "ck" / name
    path.parent.mkdir(parents=True)
    pickled = pickle.dumps({"model": Evil(canary), "step": 5}, protocol=2)
    if name.endswith((".pth", ".metadata", ".pkl")):
        path.write_bytes(pickled)  # as torch wrote it before 1.6, and others still do
    else:
        torch_file(path, pickled)
    root = path if "/" not in name else path.parent
    command = [sys.executable, "-P", "-m", "dvfd.checkpoint_verify", "--json", "--", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)

    assert done.returncode in {2, 3}, "what holds code neither loads nor passes"
    assert '"loadable": true' not in done.stdout
    assert not canary.exists()


def _bomb(path: Path, size: int) -> None:
    """An archive whose only member unpacks to *size* zero bytes, in a thousandth of that."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        with file.open("state/data/0", "w", force_zip64=True) as member:
            for _ in range(size >> 20):
                member.write(b"\0" * (1 << 20))
        file.writestr("state/data.pkl", b"\x80\x02}q\x00.")


@pytest.mark.slow
@pytest.mark.torch
def test_a_zip_bomb_costs_no_more_memory_than_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    _bomb(path, 1 << 30)
    assert path.stat().st_size < 2 << 20
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    limit = 1 << 29
    command = [sys.executable, "-c", code, sys.executable, "-P", "-m", "dvfd.checkpoint_verify",
               "--json", "--memory-bytes", str(limit), "--", str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    code_of, peak_kib = map(int, done.stdout.split())

    assert code_of in {2, 3}
    assert peak_kib * 1024 < limit + (1 << 29)  # what torch maps of its libraries comes on top


def test_an_archive_that_lies_of_its_sizes_is_damaged(tmp_path: Path) -> None:
    path = archive(tmp_path / "state.pt")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 2**32 - 2, 2**32 - 2)
    path.write_bytes(data)
    assert verify(path, manner=BYTES).intact is False


def test_a_safetensors_header_that_claims_exabytes_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for length in (2**63, 2**64 - 1, 1 << 40):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        assert verify(path, manner=BYTES).intact is False


# --- Paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "../../outside"])
@pytest.mark.parametrize("name", ["shard.distcp", "state.pt", "manifest.json"])
def test_a_link_in_place_of_a_file_leads_nowhere(name: str, target: str, tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / name).unlink()
    (folder / name).symlink_to(target)
    found = verify(folder, manner=BYTES)

    assert found.intact is False
    assert "root:" not in found.reason


def test_a_folder_that_is_a_link_is_not_walked(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / "more").symlink_to("/etc")
    assert verify(folder, manner=BYTES).intact is False
    (tmp_path / "up").symlink_to("..")
    assert verify(tmp_path / "up", manner=BYTES).intact is not True


@pytest.mark.parametrize("path", ["ck", "./ck", "", "a\0b", "~/ck", "file:///ck"])
def test_a_path_that_is_not_absolute_is_refused_in_words(path: str) -> None:
    with pytest.raises(ProbeError):
        locate(path, None)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2Jx", "<img src=x>", "\udcff", "--trust-pickles"])
def test_a_name_that_means_something_elsewhere_is_only_a_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "ck" / name
    folder.mkdir(parents=True)
    archive(folder / "state.pt")
    command = [sys.executable, "-P", "-m", "dvfd.checkpoint_verify", "--json", "--no-load", "--",
               str(folder)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)

    assert done.returncode == 3  # intact; whether it loads was not asked
    assert done.stdout.count(b"\n") == 1
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/random", "/proc/kmsg"])
def test_a_device_is_no_checkpoint(target: str) -> None:
    if Path(target).exists():
        assert verify(Path(target), manner=BYTES).intact is not True


def test_a_path_of_a_hundred_thousand_letters_is_said_in_words() -> None:
    found = verify(Path("/" + "x" * 100_000), manner=BYTES)
    assert found.intact is not True


@contextmanager
def swapping(path: Path, *others: Path) -> Iterator[None]:
    """Exchange what lies at *path* for each of *others* in turn, as fast as can be, from before
    the body begins.
    """
    stop, first = threading.Event(), threading.Event()

    def work() -> None:
        beside = path.with_name("swap")
        while not stop.is_set():
            for other in others:
                beside.unlink(missing_ok=True)
                if other.is_symlink():
                    beside.symlink_to(other.readlink())
                else:
                    os.link(other, beside)
                beside.rename(path)
                first.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert first.wait(60)
        yield
    finally:
        stop.set()
        thread.join(60)


def test_a_file_exchanged_between_look_and_read_is_never_intact_by_what_it_was(
    tmp_path: Path,
) -> None:
    """A link to a secret, and a file of other bytes: what is opened is what is judged."""
    folder = sealed(tmp_path / "ck")
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.symlink_to("/etc/passwd")
    other.write_bytes(b"other bytes")
    with swapping(folder / "shard.distcp", secret, other):
        until = time.monotonic() + 3
        while time.monotonic() < until:
            found = verify(folder, manner=BYTES)
            assert not found.intact, found  # False, or None where a link was met
            assert "root:" not in found.reason


@pytest.mark.slow
def test_a_hundred_thousand_files_are_seen_in_part_and_refused_by_count(tmp_path: Path) -> None:
    folder = tmp_path / "ck"
    folder.mkdir()
    for number in range(manifest.FILES_LIMIT + 1):
        place, beyond = folder / str(number), number % 60_000  # ext4 has 65,000 links to a file
        os.link(folder / str(number - beyond), place) if beyond else place.touch()
    began = time.thread_time()
    fingerprint(folder)
    assert time.thread_time() - began < 2, f"a pass looks at {ENTRIES} of them"
    found = verify(folder, manner=BYTES)
    assert (found.intact, found.reason) == (None, f"more than {manifest.FILES_LIMIT} files")

"""The verifier finds what is broken, says so, and never guesses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fakes_checkpoints import PAYLOAD, archive, flip, sealed

from dvfd import checkpoint_verify, manifest
from dvfd.checkpoint_verify import Manner, verify

if TYPE_CHECKING:
    from pathlib import Path

BYTES = Manner(load=False)


def test_a_whole_checkpoint_with_a_manifest_is_intact(tmp_path: Path) -> None:
    assert verify(sealed(tmp_path / "ck"), manner=BYTES).intact is True


@pytest.mark.parametrize("name", ["state.pt", "shard.distcp", "manifest.json"])
def test_one_flipped_bit_in_any_file_is_found(tmp_path: Path, name: str) -> None:
    folder = sealed(tmp_path / "ck")
    flip(folder / name)
    assert verify(folder, manner=BYTES).intact is False


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    whole = (folder / "manifest.json").read_bytes()
    for at in range(len(whole)):
        flip(folder / "manifest.json", at)
        found = verify(folder, manner=BYTES)
        (folder / "manifest.json").write_bytes(whole)
        assert found.intact is False, at


def test_truncation_is_found(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    os.truncate(folder / "state.pt", 100)
    assert "100 bytes, the manifest says" in verify(folder, manner=BYTES).reason


def test_a_missing_shard_is_found_and_named(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / "shard.distcp").unlink()
    found = verify(folder, manner=BYTES)
    assert found == checkpoint_verify.Verification(False, None, "shard.distcp: not there")


def test_a_file_that_the_manifest_does_not_name_is_found(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    archive(folder / "extra.pt")
    assert verify(folder, manner=BYTES).reason == "extra.pt: not in the manifest"


def test_a_checkpoint_that_is_not_there_is_neither_intact_nor_loadable(tmp_path: Path) -> None:
    found = verify(tmp_path / "nowhere")
    assert (found.intact, found.loadable, found.code) == (False, False, 2)


def test_an_archive_without_a_manifest_is_intact_by_its_own_checksums(tmp_path: Path) -> None:
    assert verify(archive(tmp_path / "state.pt"), manner=BYTES).intact is True


def test_a_flipped_bit_in_an_archive_is_found_without_a_manifest(tmp_path: Path) -> None:
    path = archive(tmp_path / "state.pt")
    flip(path, path.read_bytes().index(PAYLOAD) + 7)
    assert "CRC of state/data/0" in verify(path, manner=BYTES).reason


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_damaged_first_byte_does_not_hide_an_archive(tmp_path: Path, at: int) -> None:
    path = archive(tmp_path / "state.pt")
    flip(path, at)
    assert verify(path, manner=BYTES).intact is False


def test_a_truncated_archive_is_found_without_a_manifest(tmp_path: Path) -> None:
    path = archive(tmp_path / "state.pt")
    os.truncate(path, 1000)
    assert verify(path, manner=BYTES).intact is False


def test_shards_without_a_manifest_are_unknown_never_intact(tmp_path: Path) -> None:
    (tmp_path / "0.distcp").write_bytes(PAYLOAD)
    found = verify(tmp_path)
    assert (found.intact, found.loadable, found.code) == (None, None, 3)


def test_shards_agree_with_the_manifest_made_at_their_save(tmp_path: Path) -> None:
    (tmp_path / "0.distcp").write_bytes(PAYLOAD)
    document = manifest.build(tmp_path)
    assert verify(tmp_path, document=document, manner=BYTES).intact is True
    flip(tmp_path / "0.distcp")
    assert verify(tmp_path, document=document, manner=BYTES).intact is False


def test_a_lone_file_agrees_with_the_manifest_made_at_its_save(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(PAYLOAD)
    document = manifest.build(path)
    (tmp_path / "neighbour").write_text("no part of it")
    assert verify(path, document=document, manner=BYTES).intact is True


def test_an_empty_directory_is_broken(tmp_path: Path) -> None:
    assert verify(tmp_path, manner=BYTES).intact is False


def safetensors(path: Path, *, missing: int = 0) -> Path:
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * (64 - missing))
    return path


def test_safetensors_prove_their_size_but_not_their_bits(tmp_path: Path) -> None:
    assert verify(safetensors(tmp_path / "m.safetensors"), manner=BYTES).intact is None


def test_truncated_safetensors_are_found(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "m.safetensors", missing=1)
    assert verify(path, manner=BYTES).intact is False


def test_links_inside_a_checkpoint_are_not_followed(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / "shard.distcp").unlink()
    (folder / "shard.distcp").symlink_to("/dev/zero")
    assert "a symbolic link" in verify(folder, manner=BYTES).reason


def test_a_device_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / "state.pt").unlink()
    os.mkfifo(folder / "state.pt")
    assert verify(folder, manner=BYTES).reason == "state.pt: no plain file"


def test_a_manifest_cannot_point_out_of_its_directory(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    (tmp_path / "secret").write_text("x")
    size, sha = manifest.digest(tmp_path / "secret")
    files = {"../secret": {"bytes": size, "sha256": sha}}
    document = manifest.seal({"format": manifest.FORMAT, "files": files})
    (folder / "manifest.json").write_text(json.dumps(document))
    assert "leaves the checkpoint" in verify(folder, manner=BYTES).reason


def test_a_link_to_a_neighbour_is_followed_and_one_elsewhere_is_not(tmp_path: Path) -> None:
    sealed(tmp_path / "step-5")
    (tmp_path / "latest").symlink_to("step-5")
    (tmp_path / "elsewhere").symlink_to("/etc")
    assert verify(tmp_path / "latest", manner=BYTES).intact is True
    assert verify(tmp_path / "elsewhere", manner=BYTES).intact is None


def test_somebody_elses_manifest_json_is_only_a_file(tmp_path: Path) -> None:
    archive(tmp_path / "state.pt")
    (tmp_path / "manifest.json").write_text('{"version": 3}')
    assert verify(tmp_path, manner=BYTES).intact is None


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"format": 1}', '{"seal": ""}', "null"])
def test_a_hostile_manifest_is_broken_or_foreign_and_never_a_crash(
    tmp_path: Path, text: str
) -> None:
    folder = sealed(tmp_path / "ck")
    (folder / "manifest.json").write_text(text)
    assert verify(folder, manner=BYTES).intact is False


def test_an_interpreter_that_cannot_be_started_leaves_loading_unknown(tmp_path: Path) -> None:
    found = verify(archive(tmp_path / "state.pt"), manner=Manner(python="/nowhere/python"))
    assert (found.intact, found.loadable, found.code) == (True, None, 3)


def test_an_interpreter_without_torch_leaves_loading_unknown(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    found = verify(archive(tmp_path / "state.pt"), manner=Manner(python=str(bare)))
    assert found.loadable is None
    assert "torch cannot be imported" in found.reason


def test_the_command_answers_in_json_and_by_its_exit_code(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "ck")
    flip(folder / "state.pt")
    argv = [sys.executable, "-m", "dvfd.checkpoint_verify", str(folder), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["intact"] is False
    assert json.loads(done.stdout)["schema"] == 1


def test_no_manifest_is_made_where_one_of_ours_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint_verify._make(sealed(tmp_path / "ck"))
    assert capsys.readouterr().out == "null\n"

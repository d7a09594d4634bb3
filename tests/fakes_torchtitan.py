"""torchtitan's releases for subprocesses, run on the processor by titan_on_cpu.py.

Each release lies in a directory of its own under .cache, what it needs in one that they share; of
torch, transformers and their like they take the installed ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_frameworks import ROOT, environment, pinned

NEW, OLD = "0.3.0", "0.2.2"
VERSIONS = (NEW, OLD)

NEEDED = (
    "absl-py==2.5.1", "datasets==4.7.0", "dill==0.4.0", "docstring_parser==0.18.0",
    "einops==0.8.2", "fsspec==2026.2.0", "grpcio==1.85.3", "httpcore==1.0.9", "httpx==0.28.1",
    "Markdown==3.11.3", "multiprocess==0.70.18", "pandas==3.1.1", "pillow==13.0.0",
    "protobuf==7.36.2", "pyarrow==26.0.1", "python-dateutil==4.0.0", "sniffio==1.3.1",
    "spmd_types==0.2.3", "tensorboard==2.21.0", "torch_checkpointing==0.1.1", "torchdata==0.11.0",
    "typeguard==4.6.1", "tyro==1.0.17", "xxhash==4.1.0",
)  # fmt: skip
"""What torchtitan imports beside torch and transformers' own needs, but for triton: its kernels."""

EXAMPLE = ROOT / "examples" / "torchtitan" / "train.py"
STAND_IN = ROOT / "tests" / "titan_on_cpu.py"

TOML = """
[job]
dump_folder = "{place}"
[metrics]
log_freq = 1
[model]
name = "llama3"
flavor = "debugmodel"
hf_assets_path = "{place}/assets"
[optimizer]
lr = 8e-4
[lr_scheduler]
warmup_steps = 2
[training]
local_batch_size = 2
seq_len = 64
dataset = "c4_test"
dataset_path = "{place}/text"
[checkpoint]
enable = true
interval = 10
[validation]
enable = true
freq = 10
steps = 2
local_batch_size = 2
seq_len = 64
dataset = "c4_test"
dataset_path = "{place}/text"
"""
"""What examples/torchtitan/train.py asks for, as releases before 0.3 read it."""


def titan_environment(version: str, place: Path, **more: str) -> dict[str, str]:
    """What a subprocess needs to import this release, and to be the only rank."""
    if version == NEW and sys.version_info < (3, 11):
        pytest.skip("torchtitan 0.3 needs Python 3.11")
    made = environment("installed", **more)
    parts = [pinned(f"torchtitan-{version}", (f"torchtitan=={version}",)),
             pinned("torchtitan-needs", NEEDED)]  # fmt: skip
    made["PYTHONPATH"] = os.pathsep.join([*map(str, parts), made["PYTHONPATH"]])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    place_of_it = {"EXAMPLE_OUTPUT": str(place), "HF_HOME": str(place / "hf")}
    return {**made, **alone, **place_of_it, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def titan(
    version: str, place: Path, *arguments: str, script: Path = EXAMPLE, **more: str
) -> subprocess.CompletedProcess[str]:
    """Train the debug model under this release, with further *arguments* of torchtitan."""
    if version == OLD:
        place.mkdir(parents=True, exist_ok=True)
        (place / "job.toml").write_text(TOML.format(place=place), encoding="utf-8")
        arguments = (f"--job.config_file={place / 'job.toml'}", *arguments)
    argv = [sys.executable, "-W", "ignore", str(STAND_IN), str(script), *arguments]
    return subprocess.run(
        argv,
        env=titan_environment(version, place, **more),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

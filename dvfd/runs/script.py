"""The source's scripts of stability runs: each rank of their torchrun trains the reference job.

A steward, started by the first rank of the node, arms the run and ends the training with it; what
the ranks need to know it leaves in the directory that they share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from dvfd.catalogue import load as load_catalogue
from dvfd.config import load as load_config
from dvfd.drills import inside
from dvfd.errors import DvfdError
from dvfd.runs import ending, steward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WAITING = 180.0
"""Seconds in which a steward arms the run: it may have to start a daemon on a busy machine."""

SPARE = 900.0
"""Seconds that ranks train on their own beyond the run: a steward that died lets none train on."""

UNKNOWN = 3


def ranked(check_id: str) -> None:
    """Be a rank of the run of *check_id*; ends the process. Rank 0 ends with the verdict's exit
    code, the others with 0, and with 1 if the training broke.
    """
    if inside.rank() is None:
        print(f"this runs as the ranks of torchrun: {_line(check_id)}", file=sys.stderr)  # noqa: T201
        sys.exit(UNKNOWN)
    asked, options = parse(sys.argv[1:])
    _understood(options)
    place = inside.shared()
    leads = os.environ.get("LOCAL_RANK", "0") == "0"
    helper = _start_steward(check_id, asked, place) if leads and not _restarts() else None
    if leads:
        steward.write(place / steward.RANK, {"pid": os.getpid()})
    told = _told(place / steward.RUN, helper)
    sys.stdout = sys.stderr  # what is printed there is the report alone
    refused = "refused" in told
    over = refused or steward.read(place / steward.VERDICT) is not None
    code = 0 if over else _train(told, options)
    if leads and not code:
        code = _verdict(place, helper)
        code = code if refused or inside.rank() == 0 else 0
    _leave(code)


def _understood(options: Sequence[str]) -> None:
    """End with words on a mistake in *options*, before a run is armed for them."""
    from dvfd.drills.options import parse as read  # noqa: PLC0415  # torch takes seconds to load

    read(options)


def _line(check_id: str) -> str:
    """What to type, on every node."""
    check = load_catalogue(load_config()).checks[check_id]
    several = f"--nnodes={check.nodes} " if check.nodes > 1 else ""
    each = check.processes // check.nodes
    return f"torchrun {several}--nproc_per_node={each} {sys.argv[0]} --backend=gloo"


def _restarts() -> int:
    """How often torchrun has started these ranks again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _verdict(place: Path, helper: subprocess.Popen[bytes] | None) -> int:
    """Say that the training has ended, wait for what the run is worth, tidy up; its exit code."""
    steward.write(place / steward.ENDED, {"code": 0})
    until = time.monotonic() + steward.CLOSING + WAITING
    while (found := steward.read(place / steward.VERDICT)) is None and time.monotonic() < until:
        if helper is not None and helper.poll() is not None:
            break
        time.sleep(0.1)
    code: int = (found or steward.read(place / steward.VERDICT) or {"code": UNKNOWN})["code"]
    if helper is not None:
        helper.wait()  # its words come before torchrun's
    if not code or _restarts() >= int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        inside.clear()  # else torchrun starts these ranks again, to find that the run is over
    return code


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What the steward wants to know, and the options of the reference job."""
    parser = argparse.ArgumentParser(
        description="A stability run under torchrun.",
        epilog="Further options are those of the reference job: -m dvfd.drills.reference_job -h",
    )
    parser.add_argument("--duration", type=float, help="seconds: a shorter run cannot pass")
    parser.add_argument("--on-failure", choices=("continue", "stop"), default="continue")
    parser.add_argument("--note", default="", help="words to keep with the run")
    parser.add_argument("--force", action="store_true", help="also with ranks that share cores")
    return parser.parse_known_args(arguments)


def _start_steward(
    check_id: str, asked: argparse.Namespace, place: Path
) -> subprocess.Popen[bytes]:
    """In a session of its own: it has words to say when torchrun has ended the ranks."""
    for name in (steward.RUN, steward.ENDED, steward.VERDICT):  # of a torchrun of the same pid
        (place / name).unlink(missing_ok=True)
    order = {
        "check": check_id,
        "argv": sys.argv,
        "agent": os.getppid(),
        "leads": inside.rank() == 0,
        **vars(asked),
    }
    argv = (sys.executable, "-m", "dvfd.runs.steward", str(place), json.dumps(order))
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)


def _told(path: Path, helper: subprocess.Popen[bytes] | None) -> Mapping[str, Any]:
    """What the steward leaves for the ranks. Raises DvfdError if it leaves nothing."""
    until, agent = time.monotonic() + WAITING, ending.started(os.getppid())
    while (found := steward.read(path)) is None or found["agent"] != agent:
        if time.monotonic() > until or (helper is not None and helper.poll() is not None):
            raise DvfdError(f"{path}: the steward of this run left nothing there: see its words")
        time.sleep(0.1)
    return found


def _train(told: Mapping[str, Any], options: Sequence[str]) -> int:
    """Train until the steward ends it; the exit code."""
    from dvfd.drills import reference_job  # noqa: PLC0415  # torch takes seconds to load

    os.environ["DVFD_SOCKET"] = told["socket"]
    ours = (
        f"--job={told['job']}",
        f"--seconds={told['duration'] + SPARE}",
        f"--checkpoint-dir={told['directory']}",
        f"--checkpoint-every={told['checkpoint_every']}",
    )
    return reference_job.main([*ours, *options])


def _leave(code: int) -> None:
    from dvfd.drills.stopping import leave  # noqa: PLC0415  # as above

    leave(code)

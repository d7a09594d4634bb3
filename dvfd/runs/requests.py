"""What can be asked of a daemon about stability runs, through its control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.control import Operation
from dvfd.errors import DvfdError
from dvfd.runs.conductor import Order
from dvfd.runs.run import Launched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.control import Peer
    from dvfd.runs.conductor import Conductor

ARGUMENTS = 4096
"""Words of a training command at most: a request must fit into 64 KiB anyway."""

LASTS = 3600.0
"""Seconds that an injected fault may last: what is planned has an end."""

FAILURES = ("continue", "stop")


def operations(conductor: Conductor) -> dict[str, Operation]:
    """Every operation by its name."""

    def arm(request: Mapping[str, Any], peer: Peer) -> Any:
        return conductor.arm(_order(request), by=peer.name).shown()

    def launched(request: Mapping[str, Any], peer: Peer) -> Any:
        return conductor.launched(_text(request, "id"), _launched(request)).shown()

    def exited(request: Mapping[str, Any], peer: Peer) -> Any:
        code = request.get("code")
        if type(code) is not int:
            raise DvfdError(f"code: a whole number wanted, got {code!r:.40}")
        return conductor.exited(_text(request, "id"), ended(code)).shown()

    def stop(request: Mapping[str, Any], peer: Peer) -> Any:
        reason = _text(request, "reason", empty=True)
        return conductor.abort(_text(request, "id"), reason, by=peer.name).shown()

    def injected(request: Mapping[str, Any], peer: Peer) -> Any:
        lasts = request.get("seconds")
        if isinstance(lasts, bool) or not isinstance(lasts, int | float) or not 0 < lasts <= LASTS:
            raise DvfdError(f"seconds: up to {LASTS:g} wanted, got {lasts!r:.40}")
        said = _text(request, "what")
        return conductor.injected(_text(request, "job"), said, float(lasts), by=peer.name)

    def healed(request: Mapping[str, Any], peer: Peer) -> Any:
        return conductor.healed(_text(request, "job"), by=peer.name)

    return {
        "fault_injected": Operation(injected, changes=True),
        "fault_healed": Operation(healed, changes=True),
        "stability_arm": Operation(arm, changes=True),
        "stability_launched": Operation(launched, changes=True),
        "stability_exited": Operation(exited, changes=True),
        "stability_stop": Operation(stop, changes=True),
        "stability_status": Operation(
            lambda request, peer: conductor.status(_text({"id": "", **request}, "id", empty=True))
        ),
        "stability_list": Operation(
            lambda request, peer: [run.shown() for run in conductor.runs()]
        ),
    }


def ended(code: int) -> str:
    """How a process ended, by its exit code; a negative one is the signal that killed it."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _order(request: Mapping[str, Any]) -> Order:
    duration = request.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, int | float | None):
        raise DvfdError(f"duration: seconds wanted, got {duration!r:.40}")
    on_failure = request.get("on_failure", FAILURES[0])
    if on_failure not in FAILURES:
        raise DvfdError(f"on_failure: one of {', '.join(FAILURES)} wanted, got {on_failure!r:.40}")
    argv = request.get("argv", [])
    if not isinstance(argv, list) or len(argv) > ARGUMENTS:
        raise DvfdError(f"argv: a list of up to {ARGUMENTS} words wanted, got {argv!r:.40}")
    return Order(
        check=_text(request, "check"),
        job=_text(request, "job"),
        duration=None if duration is None else float(duration),
        on_failure=on_failure,
        argv=tuple(map(str, argv)),
        directory=_text({"directory": "/", **request}, "directory"),
        note=_text({"note": "", **request}, "note", empty=True),
        force=request.get("force") is True,
    )


def _launched(request: Mapping[str, Any]) -> Launched:
    found = request.get("launched")
    try:
        launched = Launched(**found)  # type: ignore[arg-type]  # checked below
        whole = all(
            type(number) is int and number >= 0 for number in (launched.pid, launched.start)
        )
        words = all(isinstance(text, str) for text in (launched.unit, launched.mark))
    except TypeError:
        whole = words = False
    if not (whole and words):
        raise DvfdError(f"launched: unit, or pid, start and mark wanted, got {found!r:.80}")
    return launched


def _text(request: Mapping[str, Any], key: str, *, empty: bool = False) -> str:
    found = request.get(key)
    if not isinstance(found, str) or not (found or empty) or not found.isprintable():
        raise DvfdError(f"{key}: printable words wanted, got {found!r:.40}")
    return found

"""A daemon that conducts one stability run, as far as its control socket shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvfd.control import ControlServer, Operation
from dvfd.errors import DvfdError

ID = "phase1_20261125T200000Z_ab12"


def criterion(name: str = "throughput", so_far: str = "PASS", **more: Any) -> dict[str, Any]:
    """One criterion of a run that is on, as the daemon tells it."""
    outlook = {"lost": False, "burn_rate": None, "words": "", "budget": None, "used": None}
    row = {
        "criterion": f"stability_phase1.{name}", "verdict": "UNKNOWN", "so_far": so_far,
        "severity": "critical", "reason": f"{so_far.lower()} so far", "observed": 260.0,
        "comparison": ">=", "limit": 250.0, "margin": 10.0, "unit": "samples/second", "item": "1",
    }  # fmt: skip
    found = {**row, **more}
    return {**found, "outlook": {**outlook, **found.get("outlook", {})}}


class FakeRuns:
    """Answers the operations of a run, keeps what it was asked in `asked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []
        self.refusal = ""
        self.deaf = False  # to who holds the training
        self.judged: list[dict[str, Any]] = []
        self.elapsed = 0.0
        self.ends_at: float | None = None
        self.others: dict[str, Any] = {"peers": [], "led_by": None}
        self.run: dict[str, Any] | None = None
        self._server: ControlServer | None = None

    def arm(self, stage: str = "armed", **plan: Any) -> dict[str, Any]:
        """A run that is on, or over."""
        wanted = {
            "check": "stability_phase1", "job": "phase1", "duration": 86400.0, "argv": [],
            "on_failure": "continue",
        }  # fmt: skip
        began = None if stage == "armed" else 60.0
        self.run = {
            "id": ID, "plan": {**wanted, **plan}, "node": "node4", "stage": stage,
            "armed_at": 1e9, "launched": None, "began_t": began, "ended_at": None, "ended_t": None,
            "seen_at": 1e9,
            "reason": "", "stopped_by": "", "frozen": "",
        }  # fmt: skip
        return self.run

    def start(self) -> FakeRuns:
        names = ("arm", "launched", "exited", "stop", "status", "list")
        operations = {f"stability_{name}": Operation(self._answer, changes=True) for name in names}
        self._server = ControlServer(
            self.path, {**operations, "ping": Operation(lambda request, peer: "pong")}
        )
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server:
            self._server.stop()
        self._server = None

    def told(self, op: str) -> list[dict[str, Any]]:
        """What came of that operation."""
        return [each for each in self.asked if each["op"] == f"stability_{op}"]

    def _answer(self, request: Mapping[str, Any], peer: object) -> Any:
        self.asked.append(dict(request))
        op = request["op"].removeprefix("stability_")
        if self.refusal and op == "arm":
            raise DvfdError(self.refusal)
        if op == "arm":
            asked = ("check", "job", "duration", "argv", "on_failure")
            given = {key: request[key] for key in asked if request[key] is not None}
            return self.arm(**given)
        if op == "list":
            return [self.run] if self.run else []
        if self.run is None:
            raise DvfdError("no run is known here: dvfd stability list")
        return self._of_the_run(op, request, self.run)

    def _of_the_run(self, op: str, request: Mapping[str, Any], run: dict[str, Any]) -> Any:
        match op:
            case "launched" if self.deaf:
                raise DvfdError("not now")
            case "launched":
                run["launched"] = request["launched"]
            case "exited" if run["stage"] not in {"complete", "aborted"}:
                reason = f"the training command ended with exit code {request['code']}"
                run.update(stage="aborted", reason=reason)
            case "stop":
                reason = f"stopped by root: {request['reason']}"
                run.update(stage="aborted", reason=reason, stopped_by="root", frozen="x")
            case "status":
                return {
                    "run": run, "t": self.elapsed, "elapsed": self.elapsed,
                    "left": run["plan"]["duration"] - self.elapsed, "ends_at": self.ends_at,
                    "judged": self.judged, "trouble": "", **self.others,
                }  # fmt: skip
        return run

"""Describe the routes of /api/v1 in OpenAPI 3.1, from the table that answers them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dvfd.sinks import shapes
from dvfd.sinks.api import LABEL, ROOT

if TYPE_CHECKING:
    from dvfd.model import Catalogue
    from dvfd.sinks.api import Parameter, Route
    from dvfd.state import Snapshot

ABOUT = """Read-only. A successful answer is {"schema": 1, "data": ...}, a refused request
{"schema": 1, "error": ...} with what was read and what was wanted. Times are Unix seconds,
durations seconds, values base units; null is unknown, never zero."""

PLAIN = {"text/plain": {"schema": shapes.TEXT}}

OTHERWISE = {
    "405": {"description": "Not GET or HEAD", "content": PLAIN},
    "500": {"description": "The answer failed; the log has the reason", "content": PLAIN},
    "503": {"description": "More requests wait than can be answered", "content": PLAIN},
}


def described(routes: Sequence[Route], snapshot: Snapshot) -> dict[str, Any]:
    """The whole description, for the checks, metrics and labels that this node has."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "dvfd", "version": snapshot.version, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": {ROOT + r.path: {"get": _operation(r, snapshot.catalogue)} for r in routes},
        "components": {"schemas": {"Error": shapes.ERROR}},
    }


def _operation(route: Route, catalogue: Catalogue) -> dict[str, Any]:
    own = route.path == "/openapi.json"
    answer = route.data if own else shapes.record(schema={"const": 1}, data=route.data)
    return {
        "operationId": "_".join(re.findall(r"\w+", route.path)),
        "summary": route.text,
        "parameters": [*_parameters(route, catalogue)],
        "responses": {
            "200": {"description": route.text, "content": _json(answer)},
            "400": _refusal("A parameter that there is not, or that cannot be read"),
            "404": _refusal("No such path, check or metric"),
            **OTHERWISE,
        },
    }


def _parameters(route: Route, catalogue: Catalogue) -> Iterable[dict[str, Any]]:
    yield from (_parameter(parameter, catalogue) for parameter in route.parameters)
    if route.labels:
        names = {label for metric in catalogue.metrics.values() for label in metric.labels}
        for name in sorted(names):
            text = f"only series whose label {name} has this value; 400 if the metric has none"
            yield {"name": LABEL + name, "in": "query", "description": text, "schema": shapes.TEXT}


def _parameter(parameter: Parameter, catalogue: Catalogue) -> dict[str, Any]:
    shape = dict(parameter.shape)
    if parameter.names:
        shape["enum"] = list(parameter.names(catalogue))
    if not parameter.required:
        shape["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "path" if parameter.in_path else "query",
        "description": parameter.text,
        "required": parameter.required,
        "schema": shape,
    }


def _json(shape: shapes.Shape) -> dict[str, Any]:
    return {"application/json": {"schema": shape}}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}

"""The committed JSON Schemas of what commands print, to hold real output against."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = {
    path.name: json.loads(path.read_text())
    for path in (Path(__file__).parents[1] / "docs/schemas").glob("*.json")
}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)


def valid(thing: object, schema: str) -> None:
    """Raises if *thing* is not as docs/schemas says."""
    Draft202012Validator(SCHEMAS[f"{schema}.schema.json"], registry=REGISTRY).validate(thing)

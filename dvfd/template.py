"""Make a template ready to be filled in: one way for all pages. What it is not told breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2


def template(path: Path, helpers: Mapping[str, Any]) -> jinja2.Template:
    """The template at *path*, which may use *helpers*. It escapes everything."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(helpers)
    return environment.get_template(path.name)

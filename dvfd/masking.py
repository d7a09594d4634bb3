"""Hide passwords and tokens in the addresses that leave dvfd in words. Pure; imports nothing.

The one place that knows what a secret looks like. It is applied where words leave: the log, the
status document, the interface for programs, `config show`, complaints, and what alerts say.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

STARS = "***"
"""What stands where a secret was."""

T = TypeVar("T")

_WORD = re.compile(r"\S+")

_KEY = re.compile(
    r"(?i)([?&][\w.-]*(?:token|passw|pwd|secret|key|signature|credential|auth)[\w.-]*=)[^&#\s\"']+"
)
"""A query parameter whose name says that its value is a secret."""


def masked(value: T) -> T:
    """*value* with the secrets of every address in it hidden: in a text, or in all texts of a
    document of dicts and lists. What holds none comes back as it was.
    """
    found: Any = value
    if isinstance(value, str):
        found = _masked(value)
    elif isinstance(value, dict):
        found = {masked(key): masked(inner) for key, inner in value.items()}
    elif isinstance(value, list):
        found = [masked(inner) for inner in value]
    elif isinstance(value, tuple):
        found = tuple(masked(inner) for inner in value)
    return found  # type: ignore[no-any-return]


def without_user(address: str) -> str:
    """*address* for a link: without the user and the password, which would not be valid masked."""
    return masked(address).replace(f"//{STARS}@", "//")


def _masked(text: str) -> str:
    if "://" not in text:
        return text
    if "@" in text:
        text = _WORD.sub(lambda word: _word(word[0]), text)
    return _KEY.sub(rf"\1{STARS}", text)


def _word(word: str) -> str:
    """One word; from the first address with a user to the word's last @, whatever lies between.

    A password with a raw slash ends the authority early: what follows a colon there is hidden
    too. Rather a path too much than half a password.
    """
    schemes = word.split("://")
    for number, rest in enumerate(schemes[1:], 1):
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        later = "://".join(schemes[number:])
        if "@" in authority or (":" in authority and "@" in later):
            return "://".join([*schemes[:number], f"{STARS}@{later.rpartition('@')[2]}"])
    return word

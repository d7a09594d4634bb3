"""Hide passwords and tokens in what leaves dvfd in words. Pure; imports nothing.

The one place that knows what a secret looks like. `masked` hides those in addresses, and is applied
where words leave: the log, the status document, the interface for programs, `config show`,
complaints, and what alerts say. `redacted` also hides those that other programs wrote into their
logs and environments, rather too much than too little: it is for evidence that is handed on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

STARS = "***"
"""What stands where a secret was."""

T = TypeVar("T")

_WORD = re.compile(r"\S+")

_KEY = re.compile(
    r"(?i)([?&][\w.-]*(?:token|passw|pwd|secret|key|signature|credential|auth)[\w.-]*=)[^&#\s\"']+"
)
"""A query parameter whose name says that its value is a secret."""


_NAME = (
    r"(?:passwor[dt]|passwd|passphrase|(?<![a-z])pass(?![a-z])|(?<![a-z])pwd|secret(?!ar)|credential"
    r"|token(?!iz)|(?:api|access|private|signing"
    r"|encryption|auth|account|ssh|master|client|license)[_.-]?key|authorization|cookie|dsn)"
)
"""What the name of a secret has in it. A bare `key` is a key of a dictionary far more often."""

_SECRET_NAME = re.compile(rf"(?i){_NAME}|(?:^|[_.-])(?:key|auth|pat|sid)s?$")

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?:/s)?")
"""What follows a name like tokens_per_second, and opens nobody's door."""

_HINTS = ("pass", "pwd", "secret", "credential", "token", "key", "authorization", "cookie", "dsn")
"""What a line must hold, in lower case, to be looked at more closely: most do not."""

_ASSIGNED = re.compile(
    rf"(?i)(?<![\w.-])(?P<name>[\w.-]*{_NAME}[\w.-]*)(?P<sign>[\"']?\s{{0,3}}(?:[:=]|=>)\s{{0,3}})"
    r"(?P<value>\"[^\"\n]*\"?|'[^'\n]*'?|(?:(?:bearer|basic|token)\s+)?[^\s,;\"'&)}\]]+)"
)

_OPTION = re.compile(
    rf"(?i)(?<!\S)(?P<name>--?[\w-]*{_NAME}[\w-]*)(?P<sign>\s+)(?P<value>[^\s-]\S*)"
)

_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"  # PEM
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bxox[abeprs]-[\w-]{10,}|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}|(?<=[Bb]asic )[\w+/=]{12,}",
    re.DOTALL,
)
"""What says by its shape that it opens something."""

_OPAQUE = re.compile(r"(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[\w+/=-]{24,}")
"""A whole value like this is a key far more often than a word; hashes in hexadecimal are not."""


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


def redacted(text: str) -> str:
    """*text* that another program wrote, without the secrets in it: in addresses, after a name that
    says so (`api_key=...`, `--password ...`), or known by their shape. Its lines stay lines.
    """
    lines = masked(_SHAPES.sub(STARS, text)).split("\n")
    return "\n".join(_line(line) for line in lines)


def redacted_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* without the values whose names, or which themselves, look like secrets."""
    return {name: _variable(name, value) for name, value in sorted(environment.items())}


def _variable(name: str, value: str) -> str:
    if _SECRET_NAME.search(name) and value:
        return STARS
    return STARS if _OPAQUE.fullmatch(value) else redacted(value)


def _line(line: str) -> str:
    lower = line.lower()
    if not any(hint in lower for hint in _HINTS):
        return line
    return _OPTION.sub(_starred, _ASSIGNED.sub(_starred, line))


def _starred(found: re.Match[str]) -> str:
    """An assignment without its value; a plain number after a count of tokens is one."""
    value = found["value"]
    if "token" in found["name"].lower() and _NUMBER.fullmatch(value.strip("\"'")):
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['name']}{found['sign']}{quote}{STARS}{quote}"


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

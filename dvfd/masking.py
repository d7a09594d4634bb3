"""Hide passwords and tokens in what leaves dvfd in words. Pure; imports nothing.

The one place that knows what a secret looks like. `masked` hides those in addresses, and is applied
where words leave: the log, the status document, the interface for programs, `config show`,
complaints, and what alerts say. `redacted` also hides those that other programs wrote into their
logs and environments, rather too much than too little: it is for evidence that is handed on, and
for what logs, plugins and exceptions said. `redacted_command` does so for a command, word by word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STARS = "***"
"""What stands where a secret was."""

T = TypeVar("T")

_WORD = re.compile(r"\S+")

_AUTHORITY = re.compile(r"[^/?#]*")

_QUERY = re.compile(r"([?&](?P<name>[\w.-]++)=)[^&#\s\"']+")
"""A query parameter of an address."""

_QUERY_NAME = re.compile(
    r"(?i)token|passw|pwd|secret|key|signature|credential|auth|jwt|(?:^|[_.-])(?:sig|sas)$"
)
"""A name of a query parameter which says that its value is a secret."""

_NAME = (
    r"(?:passwor[dt]|passwd|passphrase|passcode|(?<![a-z])pass(?![a-z])|(?:db|user|root|ssh)_?pass\b"
    r"|(?<![a-z])pwd|secret(?!ar)|credential|(?<![a-z])creds?(?![a-z])|(?<![a-z])otp(?![a-z])"
    r"|(?:api|access|private|signing|encryption|auth|account|ssh|master|client|license|tls|host|rsa"
    r"|deploy|sharedaccess)[_.-]?key|authorization|cookie|dsn|webhook)"
)
"""What the name of a secret has in it. A bare `key` is a key of a dictionary far more often."""

_SOFT = (
    r"(?:token(?!iz)|jwt|bearer|signature|(?<![a-z])(?:sig|sas|psk|auth)(?![a-z])"
    r"|(?-i:\b[A-Z0-9_]+KEYS?\b|(?:\b|_)(?:[A-Z0-9]*(?<!BY)(?<!COM)PASS|PW|PAT|SID)\b))"
)
"""What the names of secrets have in them, and those of counts: a plain number is not hidden."""

_HARD_NAME, _ANY_NAME = re.compile(rf"(?i){_NAME}"), re.compile(rf"(?i){_NAME}|{_SOFT}")

_SECRET_NAME = re.compile(
    rf"(?i){_NAME}|{_SOFT}|(?<!by)(?<!com)pass$|(?:key|creds?)s?$|auth(?!or)|jwt|hmac|unseal|salt$"
    r"|(?:^|[_.-])(?:pat|sid|pw|psk|sas|sig)s?$|license$"
)
"""The name of a secret in an environment, where a name is nothing but a name."""

_BEFORE = 6
"""Words before one of a command that may say what it is: docker login -u a -p X."""

_ARGUMENT_NAME = re.compile(r"[\w.-]+")
"""What stands before the = of an option or a variable; a sentence for a shell is none."""

_NUMBER = re.compile(
    r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?[A-Za-z%]{0,2}(?:/\w{1,6})?(?:[,;]\d+)*+"
    r"|[Tt]rue|[Ff]alse|None|null"
)
"""What follows a name like tokens_per_second, and opens nobody's door."""

_SIGNED = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]++)(?P<sign>\\*+[\"']?(?:"
    r"[ \t]*+(?::[ \t]*+(?P<type>\w{1,20}+)[ \t]*+)?"  # a type, in Python
    r"(?:=++>?|->|:(?!:))[ \t]*+(?:[|>][+-]?[ \t]*+(?=\n))?(?:\n[ \t]++)?"
    r"|(?<=[\"']),[ \t]*+(?:\n[ \t]*+)?(?=\\*+[\"'])))"  # a pair, or arguments in a list
)
"""A name and what stands between it and its value, which may stand on the next line."""

_OPTION = re.compile(
    r"(?<![\w.-])(?P<name>--?[\w.-]++)(?P<sign>[ \t]++(?:\\\n[ \t]*+)?)(?=[^\s=:-])"
)
"""An option and the gap before its value."""

_HEADER_NAME = re.compile(r"(?i)authorization|cookie")

_NESTED = re.compile(r"[\[({|>\\]++(?=[\"'\s]|\Z)")
"""The beginning of what holds names and values, and is none."""

_WORD_VALUE = (
    r"(?:[^\s,;\"'&)}\]\\]|\\(?![\"'nr]))++"
    r"(?:(?:[,;&)}\]]++(?![\w.-]++\\*+[\"']?[ \t]*+[:=])|[\"'](?=[A-Za-z0-9]))"
    r"(?:[^\s,;\"'&)}\]\\]|\\(?![\"'nr]))++)*+"
)
"""A value without quotes: what follows a comma without a space is of it, the next name is not."""

_VALUE = re.compile(rf"(?:(?:bearer|basic|token)[ \t]++(?=[^\s\"']))?{_WORD_VALUE}", re.IGNORECASE)

_ITEM = r"[^\s\"',;=\\]++(?:=(?:\"[^\"\n]*+\"|[^\s\"',;\\]*+))?"

_HEADER = re.compile(rf"(?!\*\*\*)[^\s\"',;\\]++(?:[ \t]++{_ITEM})?(?:[ \t]*+[,;][ \t]*+{_ITEM})*+")
"""What follows Authorization or Cookie: a scheme, its value, and all pairs that belong to it."""

_LIST = re.compile(r"\[\s*+(?:(?:\\*+\"[^\"\n]*+\"|\\*+'[^'\n]*+')\s*+,?\s*+)++\]?")

_OPEN = re.compile(r"(?:[A-Za-z]{1,20}\(|[bru])?(?P<slashes>\\{0,7}+)(?P<quote>[\"'])")
"""The beginning of a quoted value: b'..., SecretStr('..., or in JSON within JSON \\"."""


def _quoted(quote: str, slashes: int) -> re.Pattern[str]:
    """The rest of a value that was opened by so many backslashes and a quote, to its end."""
    if not slashes:
        return re.compile(rf"(?:[^{quote}\\\n]++|\\.)*+(?={quote})")
    escaped = rf"\\{{{slashes + 1},}}+{quote}"
    inner = rf"(?:[^{quote}\\\n]++|\\++(?!{quote})|{escaped})*+"
    return re.compile(rf"{inner}(?=\\*+{quote})")


_QUOTED = {(quote, n): _quoted(quote, n) for quote in "\"'" for n in range(8)}

_SPOKEN = re.compile(
    r"(?i)(?P<keep>(?:\blogin[ \t]++\S++\s++password[ \t]++"  # .netrc
    r"|\b(?:requirepass|masterauth|wandb login)[ \t]++"
    r"|\bsshpass\\*+[\"']?[\s,]++\\*+[\"']?-p(?:\\*+[\"'],)?\s*+"
    r"|\b(?:docker|podman|helm|oras) login[^\n]{0,80}?[ \t]-p[ \t]*+"
    r"|\b(?-i:mysql(?:dump|admin)?|mariadb)\b[^\n]{0,80}?[ \t]-p(?=\S)"
    r"|\bredis-cli\b[^\n]{0,80}?[ \t]-a[ \t]++"
    r"|(?<![\w-])(?-i:-u|-U|--user|--proxy-user)\\*+[\"']?[\s,=]*+\\*+[\"']?(?!\d++:\d)"
    r"[^\s:\"']{1,64}+:(?!//))(?:\\*+[\"'])?)"
    r"(?:(?<=\")[^\"\\\n]++|(?<=')[^'\\\n]++|[^\s\"'\\]++)"
)
"""Secrets that commands and files take without a name before them."""

_SHAPES = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bnpm_[A-Za-z0-9]{20,}"
    r"|\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bxox[abeprs]-[\w-]{10,}|\bAIza[\w-]{30,}"
    r"|\b[srp]k_(?:live|test)_\w{10,}|\bpypi-[\w-]{40,}|\bya29\.[\w-]{20,}"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+|(?<=/api/webhooks/)[\w/-]+"
    r"|(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+"  # a JSON web token
    r"|\$(?:[156y]|2[aby])\$[\w./$=-]{8,}+"  # a line of /etc/shadow
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}|(?<=[Bb]asic )[\w+/=]{12,}"
)
"""What says by its shape that it opens something."""

_FENCE = re.compile(r"-----(?P<which>BEGIN|END) [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
"""The first and the last line of a key in PEM."""

_KEY_BYTES = 32 << 10
"""A key of 16384 bits is 13 KB of PEM: what lies further apart is not one key."""

_KEY_LINE = re.compile(
    r"\s*+[\"']?[A-Za-z0-9+/=]*+(?:\\[nr])?[\"']?,?\s*+"
    r"|(?:Proc-Type|DEK-Info|Version|Comment|Hash):.*"
)
_KEY_END = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{40,76}[\"',\s]*$")
"""A line of a key of which an end is missing, and one before which a logger put its own words."""

_ESCAPED_FIRST = re.compile(r"(?:\\+[nr][A-Za-z0-9+/=]*+)++")
_ESCAPED_LAST = re.compile(r"(?<![A-Za-z0-9+/=\\])(?:[A-Za-z0-9+/=]*+\\++[nr])++$")
"""Such lines in one, with their ends escaped."""

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
    says so (`api_key=...`, `--password ...`), or known by their shape. Takes time in proportion to
    its length. It costs an error message a word or two, never all of it.
    """
    found = masked(_SHAPES.sub(STARS, _without_keys(text)))
    found = _SPOKEN.sub(rf"\g<keep>{STARS}", found)
    return _without_values(_OPTION, _without_values(_SIGNED, found))


def redacted_command(argv: Sequence[str]) -> list[str]:
    """The words of *argv* without the secrets in them: the values of options and variables whose
    names say so, and what `redacted` finds in a word, also by the words before it.
    """
    found: list[str] = []
    for place, word in enumerate(argv):
        option = argv[place - 1] if place else ""
        if option.startswith("-") and "=" not in option and _is_secret(option, word):
            found.append(STARS)
        else:
            found.append(_argument(" ".join(found[-_BEFORE:]), word))
    return found


def _argument(before: str, word: str) -> str:
    """*word* of a command; *before*, which is redacted, are those in front of it."""
    name, sign, value = word.partition("=")
    if sign and _ARGUMENT_NAME.fullmatch(name) and _is_secret(name, value):
        return f"{name}={STARS}"
    said = redacted(f"{before} {word}")
    return said[len(before) + 1 :] if said.startswith(f"{before} ") else redacted(word)


def _is_secret(name: str, value: str) -> bool:
    """Whether *value* is one, by the name of the option or the variable that takes it."""
    if not value or not _SECRET_NAME.search(name):
        return False
    return bool(_HARD_NAME.search(name)) or not _NUMBER.fullmatch(value)


def redacted_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* without the values whose names, or which themselves, look like secrets."""
    return {name: _variable(name, value) for name, value in sorted(environment.items())}


def _variable(name: str, value: str) -> str:
    if _SECRET_NAME.search(name) and value:
        return STARS
    return STARS if _OPAQUE.fullmatch(value) else redacted(value)


# --- Values after a name ------------------------------------------------------------------------


def _without_values(names: re.Pattern[str], text: str) -> str:
    """*text* without what follows those of *names* which say that it is a secret."""
    kept: list[str] = []
    at = 0
    for found in names.finditer(text):
        if found.start() < at or not (name := _telling(found)):
            continue
        if hidden := _hidden(text, found, name):
            shown, end = hidden
            kept += [text[at : found.end()], shown]
            at = end
    return "".join([*kept, text[at:]])


def _telling(found: re.Match[str]) -> str:
    """The name that says that a secret follows; nothing if none does. `failed: api_key=x` looks
    like a name with a type.
    """
    names = (found["name"], found.groupdict().get("type") or "")
    return next(filter(_ANY_NAME.search, names), "")


def _hidden(text: str, found: re.Match[str], name: str) -> tuple[str, int] | None:
    """What is shown instead of the value after a name, and where the value ends, if it has one."""
    at, shown = found.end(), STARS
    hard = bool(_HARD_NAME.search(name))
    if "," in found["sign"] and not (hard or name.startswith("-")):
        return None  # names in a list, one after the other
    value = None
    if opened := _OPEN.match(text, at):
        at, shown = opened.end(), f"{opened[0]}{STARS}"
        value = _QUOTED[opened["quote"], len(opened["slashes"])].match(text, at)
    elif value := _LIST.match(text, at):
        shown = f"[{STARS}]"
    elif _NESTED.match(text, at):
        return None
    value = value or (_HEADER if _HEADER_NAME.search(name) else _VALUE).match(text, at)
    if value is None:
        return None
    if not hard and _NUMBER.fullmatch(value[0].strip("[](){}")):
        return None
    return shown, value.end()


# --- Keys in PEM --------------------------------------------------------------------------------


def _without_keys(text: str) -> str:
    """*text* without private keys, also those of which only the beginning or the end is there."""
    kept: list[str] = []
    at, begun = 0, False
    for fence in _FENCE.finditer(text):
        between, ends = text[at : fence.start()], fence["which"] == "END"
        whole = begun and ends and len(between) <= _KEY_BYTES
        if not whole:
            between = _after_key(between) if begun else between
            kept += [_before_key(between) if ends else between, STARS]
        at, begun = fence.end(), not ends
    return "".join([*kept, _after_key(text[at:]) if begun else text[at:]])


def _after_key(text: str) -> str:
    """*text* without the lines of a key at its beginning."""
    lines = (
        _ESCAPED_FIRST.sub("", text, count=1).split("\n") if text[:1] == "\\" else text.split("\n")
    )
    ours = next((n for n, line in enumerate(lines) if not _of_a_key(line)), len(lines))
    return "\n".join(["", *lines[ours:]] if 0 < ours < len(lines) else lines[ours:])


def _before_key(text: str) -> str:
    """*text* without the lines of a key at its end."""
    *lines, last = text.split("\n")
    lines.append(_ESCAPED_LAST.sub("", last))
    while lines and _of_a_key(lines[-1]):
        lines.pop()
    return "".join(f"{line}\n" for line in lines)


def _of_a_key(line: str) -> bool:
    return bool(_KEY_LINE.fullmatch(line) or _KEY_END.search(line[-90:]))


def without_user(address: str) -> str:
    """*address* for a link: without the user and the password, which would not be valid masked."""
    return masked(address).replace(f"//{STARS}@", "//")


def _masked(text: str) -> str:
    if "://" not in text:
        return text
    if "@" in text:
        text = _WORD.sub(lambda word: _word(word[0]), text)
    return _QUERY.sub(_starred, text)


def _starred(found: re.Match[str]) -> str:
    """A query parameter without its value, if its name says that it is a secret."""
    return f"{found[1]}{STARS}" if _QUERY_NAME.search(found["name"]) else found[0]


def _word(word: str) -> str:
    """One word; from the first address with a user to the word's last @, whatever lies between.

    A password with a raw slash ends the authority early: what follows a colon there is hidden
    too. Rather a path too much than half a password.
    """
    begin, last = word.find("://"), word.rfind("@")
    while 0 <= begin < last:
        begin += len("://")
        end = word.find("://", begin)
        authority = _AUTHORITY.match(word, begin, len(word) if end < 0 else end)
        if authority and ("@" in authority[0] or ":" in authority[0]):
            return f"{word[:begin]}{STARS}{word[last:]}"
        begin = end
    return word

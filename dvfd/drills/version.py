"""A version as one number that compares: major + minor / 1000 + patch / 1000000."""

from __future__ import annotations

import re

from dvfd.errors import ProbeError

RELEASE = re.compile(r"v?(\d{1,6})\.(\d{1,3})(?:\.(\d{1,3}))?(?P<rest>[^+\s]*)")

BEFORE = re.compile(r"[._-]?(a|alpha|b|beta|c|rc|pre|preview|dev)[._-]?\d*", re.IGNORECASE)
"""What makes a version one before its release: PEP 440, and OpenMPI's a and rc."""

AFTER = re.compile(r"([._-]?(post|rev|r)[._-]?\d*|[.-]\d.*)?", re.IGNORECASE)

MICRO = 1_000_000


def encode(text: str) -> float:
    """*text* as a number; one before the release counts half a patch less than the release.

    So 4.1.6 is 4.001006, and 2.1.0rc1 is 2.0009995: below 2.1.0, above all of 2.0. What follows a
    + does not count. Raises ProbeError if it is no version.
    """
    found = RELEASE.match(text.strip())
    if found is None:
        raise ProbeError(f"read {text.strip()[:80]!r}, wanted a version such as 4.1.6")
    major, minor, patch = (int(number or 0) for number in found.group(1, 2, 3))
    doubled = 2 * (major * MICRO + minor * 1000 + patch)
    rest = found["rest"]
    if BEFORE.match(rest):
        return max(0, doubled - 1) / (2 * MICRO)
    if AFTER.fullmatch(rest):
        return doubled / (2 * MICRO)
    raise ProbeError(f"read {text.strip()[:80]!r}: {rest!r} is no ending of a version")

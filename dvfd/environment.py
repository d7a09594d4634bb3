"""What this machine and this program are, as one hash: evidence falls when it changes."""

from __future__ import annotations

import hashlib
import platform

from dvfd import __version__


def environment_hash() -> str:
    """SHA-256 over kernel, architecture, Python and dvfd's own version."""
    facts = (platform.release(), platform.machine(), platform.python_version(), __version__)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()

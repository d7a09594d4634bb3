"""Tell a path that does not exist from one that the service's own sandbox hides from us.

systemd puts an inaccessible directory over what ProtectHome and InaccessiblePaths take away, and
a directory of its own over /tmp and /var/tmp for PrivateTmp. Both are seen in /proc/self/mountinfo.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

HOMES = ("/home", "/root", "/run/user")

INACCESSIBLE = re.compile(r"/systemd/inaccessible(/|$)")
PRIVATE = re.compile(r"systemd-private-")


def hidden(path: str | os.PathLike[str], *, mountinfo: Path = MOUNTINFO) -> str:
    """Why *path* cannot be seen from in here, with what to do; empty if nothing hides it."""
    top = _mount_over(os.path.abspath(path), mountinfo)  # noqa: PTH100  # resolve() would look there
    if top is None:
        return ""
    point, root, kind = top
    where = f"{point} is hidden from this service"
    if PRIVATE.search(root):
        return f"{where} (PrivateTmp=yes): move it, or use the drop-in tmp.conf"
    if INACCESSIBLE.search(root) or (kind == "tmpfs" and point in HOMES):
        directive = "ProtectHome" if point in HOMES else "InaccessiblePaths"
        return f"{where} ({directive}=): move it, or allow it in a drop-in"
    return ""


def _mount_over(path: str, mountinfo: Path) -> tuple[str, str, str] | None:
    """Mount point, root and type of the mount that *path* lies on; None if that is unknown."""
    best = None
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields:
            continue
        root, point = _unescape(fields[3]), _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best[0])):  # a later one lies on top
            best = (point, root, fields[fields.index("-") + 1])
    return best


def _unescape(text: str) -> str:
    """Octal escapes of blanks: proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)

"""Says whose a file is that this process may not use."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

__all__ = ["owner_remark"]


def owner_remark(path: Path) -> str:
    """Return a remark such as `` (it is owned by root, ...)`` for an error; empty if it is ours.

    For a file that was made by a run as another user, often once by hand as root.
    """
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        try:
            owner = each.stat().st_uid
        except OSError:
            continue
        if owner != os.geteuid() and not os.access(each, os.R_OK | os.W_OK):
            return f" ({each.name} is owned by {_name(owner)}; this is {_name(os.geteuid())})"
    return ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"

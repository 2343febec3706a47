"""Replaces small files of the daemon's own, so that a reader never sees part of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes, *, mode: int, group: str | None = None) -> None:
    """Write ``content`` to the disk and put it in place of ``path``; raises OSError.

    The file gets ``group`` if there is such a group and this user may set it.
    """
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            if group is not None:
                with contextlib.suppress(LookupError, PermissionError):
                    shutil.chown(name, group=group)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except OSError:
        if name:
            Path(name).unlink(missing_ok=True)
        raise

"""What is fetched or built once, and kept between runs."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_directory", "kept"]


def cache_directory() -> Path:
    """Where what is big to fetch is kept between runs."""
    return Path(os.environ.get("RECODEX_TEST_CACHE") or Path.home() / ".cache" / "recodex-monitor")


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder of this name; ``fill`` puts into it what belongs there, once.

    Other processes that ask for it wait meanwhile.
    """
    folder = cache_directory() / name
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            fill(part)
            part.rename(folder)
    return folder

"""What is fetched or built once, and kept between runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_directory", "kept"]


def cache_directory() -> Path:
    """Where what is big to fetch is kept between runs."""
    return Path(os.environ.get("RECODEX_TEST_CACHE") or Path.home() / ".cache" / "recodex-monitor")


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder of this name; ``fill`` puts into it what belongs there, once."""
    folder = cache_directory() / name
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{name}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        fill(part)
        part.rename(folder)
    except OSError:
        # Was somebody else faster?
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder

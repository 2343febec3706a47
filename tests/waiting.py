"""Waiting for a condition, with a limit, instead of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, limit_s: float = 20) -> None:
    """Return as soon as ``condition()`` is true; raise TimeoutError after ``limit_s``."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)

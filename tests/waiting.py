"""Waiting for a condition, with a limit, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

# Enough for the busiest machine. A test that passes never waits so long.
LIMIT_S = 60


async def until(condition: Callable[[], object], *, limit_s: float = LIMIT_S) -> None:
    """Return as soon as ``condition()`` is true; raise TimeoutError after ``limit_s``."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def wait_for(condition: Callable[[], Any], what: str, *, limit_s: float = LIMIT_S) -> Any:
    """Wait until ``condition()`` is true and return what it gave."""
    begun = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        passed = time.monotonic() - begun
        if passed > limit_s:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        # A condition that asks a server takes time from what it waits for.
        time.sleep(min(max(0.01, passed / 10), 0.1))

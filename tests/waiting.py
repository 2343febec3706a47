"""Waiting for a condition, with a limit, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], object], *, limit_s: float = 20) -> None:
    """Return as soon as ``condition()`` is true; raise TimeoutError after ``limit_s``."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def wait_for(condition: Callable[[], Any], what: str, *, limit_s: float = 20.0) -> Any:
    """Wait until ``condition()`` is true and return what it gave."""
    deadline = time.monotonic() + limit_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.01)

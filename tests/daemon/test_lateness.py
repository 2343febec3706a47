"""How late the loop is, and what held it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import types

import pytest

from monitor.daemon.lateness import Lateness
from tests.waiting import until


def holding(released: threading.Event) -> types.FunctionType:
    """Return a function of the daemon that holds its caller."""
    code = "def flush():\n    while not released.wait(0.01): pass"
    scope: dict[str, object] = {"__name__": "monitor.relay.somewhere", "released": released}
    exec(code, scope)
    found = scope["flush"]
    assert isinstance(found, types.FunctionType)
    return found


async def test_a_held_loop_is_measured_and_its_holder_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lateness = Lateness()
    task = asyncio.create_task(lateness.run())
    await until(lambda: next(iter(lateness.metrics())).samples[-1][1] >= 1)
    named, released = threading.Event(), threading.Event()

    class Named(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "held" in record.getMessage():
                named.set()

    def release() -> None:
        named.wait(60)
        released.set()

    handler = Named()
    logging.getLogger("monitor.daemon").addHandler(handler)
    threading.Thread(target=release).start()
    try:
        before = time.monotonic()
        holding(released)()
        count = next(iter(lateness.metrics())).samples[-1][1]
        await until(lambda: next(iter(lateness.metrics())).samples[-1][1] > count)
        measured_s = time.monotonic() - before
    finally:
        logging.getLogger("monitor.daemon").removeHandler(handler)
        task.cancel()
    assert "held for over 1 s by monitor.relay.somewhere.flush" in caplog.text
    latest = list(lateness.metrics())[1].samples[0][1]
    assert 0.5 < latest <= measured_s

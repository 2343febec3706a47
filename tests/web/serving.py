"""Runs the HTTP server in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from fastapi import APIRouter

from monitor.part import Part
from monitor.tokens import TokenFile
from monitor.web import part as web_part
from monitor.web.context import Context
from monitor.web.http.sockets import Handler
from monitor.web.part import Web
from monitor.web.routes import Served, health
from monitor.web.settings import ApiSettings
from tests.waiting import LIMIT_S


class Serving:
    """A server that runs: its port, and a way to call into its loop."""

    def __init__(self, web: Web, loop: asyncio.AbstractEventLoop) -> None:
        self.web = web
        self.loop = loop
        self.port = web.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.websocket_url = f"ws://127.0.0.1:{self.port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LIMIT_S)

    def reload(self, settings: ApiSettings) -> None:
        """Adopt settings as the daemon does on SIGHUP."""

        async def adopt() -> None:
            (await self.web.prepare(settings))()

        self.call(adopt())


@contextlib.contextmanager
def serving(
    *,
    parts: Sequence[Part] = (),
    tokens: TokenFile | None = None,
    routers: Sequence[APIRouter] | None = None,
    websockets: Mapping[str, Handler] | None = None,
    max_message_bytes: int = 65536,
    **settings: Any,
) -> Iterator[Serving]:
    """Serve ``parts``, or exactly the routers and WebSocket handlers given, on a free port."""
    tokens = tokens or TokenFile(None)
    web = Web(
        ApiSettings(uri=("127.0.0.1", 0), tokens_file=None, **settings),
        tokens=tokens,
        parts=lambda: [web, *parts],
    )
    given = (
        list(routers or ()),
        dict(websockets or {}),
        max_message_bytes,
    )
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    thread = threading.Thread(target=loop.run_forever, name="serving", daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(LIMIT_S)

    runs: list[concurrent.futures.Future[None]] = []
    try:
        with contextlib.ExitStack() as stack:
            if routers is not None or websockets is not None:
                stack.enter_context(patch.object(web_part, "served", _instead(given)))
            for part in parts:
                call(part.start())
            call(web.start())
        runs += [asyncio.run_coroutine_threadsafe(part.run(), loop) for part in (web, *parts)]
        yield Serving(web, loop)
        # As the daemon stops: drain first, then end the parts' tasks.
        call(_all(part.drain() for part in (web, *parts)))
        for run in runs:
            if run.done():
                run.result()
    finally:
        # Whatever goes wrong with one step, the thread must end, or the whole run never does.
        with contextlib.ExitStack() as ending:
            ending.callback(loop.close)
            ending.callback(thread.join, LIMIT_S)
            ending.callback(loop.call_soon_threadsafe, loop.stop)
            ending.callback(lambda: call(_settle()))
            for part in reversed(parts):
                ending.callback(_closing, call, part)
            ending.callback(_closing, call, web)
            for run in runs:
                ending.callback(run.cancel)


def _closing(call: Callable[[Any], Any], part: Part) -> None:
    call(part.close())


def _instead(given: tuple[list[APIRouter], dict[str, Handler], int]) -> Any:
    def served(context: Context) -> Any:
        routers, websockets, max_message_bytes = given
        return Served([health.router(context), *routers], websockets, max_message_bytes)

    return served


async def _all(steps: Any) -> None:
    await asyncio.gather(*steps)


async def _settle() -> None:
    """Let transports that were aborted tell their protocols, and cancelled tasks end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=LIMIT_S)
    for _ in range(3):
        await asyncio.sleep(0)

"""A real HTTP receiver that accepts, refuses, hangs or redirects, as a test wants it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.waiting import until


@dataclass
class Request:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpReceiver:
    """``answer`` returns the whole response, or None to say nothing and keep the connection."""

    answer: Callable[[Request], bytes | None] = lambda _: response(200)
    requests: list[Request] = field(default_factory=list)
    accepted: list[Request] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> HttpReceiver:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=64 * 1024 * 1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(first.split(" ")[1], headers, body)
            self.requests.append(request)
            answer = self.answer(request)
            if answer is None:
                await asyncio.Event().wait()
                return
            if answer.startswith(b"HTTP/1.1 2"):
                self.accepted.append(request)
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # The stream's own callback would log that its task was cancelled.
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    def events(self) -> list[tuple[str, str]]:
        """Return event and subject of each incident of what was accepted, in order."""
        return [
            (request.json["event"], incident["subject"])
            for request in self.accepted
            for incident in request.json["incidents"]
        ]

    async def until(self, count: int, *, limit_s: float = 60) -> list[Request]:
        await until(lambda: len(self.accepted) >= count, limit_s=limit_s)
        return self.accepted


def response(status: int, headers: Mapping[str, str] | None = None, body: str = "ok") -> bytes:
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", body]).encode()

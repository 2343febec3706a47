"""libcurl's multi interface in the asyncio loop: it says which sockets and times it waits for.

Source: curl_multi_socket_action(3), CURLMOPT_SOCKETFUNCTION(3), CURLMOPT_TIMERFUNCTION(3).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pycurl

__all__ = ["CurlLoop"]


class CurlLoop:
    """Performs transfers; each is a future of ``(errno, message)``, ``(0, "")`` for a whole one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._timer: asyncio.TimerHandle | None = None
        self._watched: dict[int, int] = {}
        self._transfers: dict[Any, asyncio.Future[tuple[int, str]]] = {}

    async def perform(self, easy: Any) -> tuple[int, str]:
        """Perform what ``easy`` is set up for; a cancelled transfer is cut off at once."""
        future: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._transfers[easy] = future
        try:
            self._multi.add_handle(easy)
            return await future
        finally:
            if self._transfers.pop(easy, None) is not None:
                self._multi.remove_handle(easy)

    def _watch(self, what: int, fd: int, multi: Any, data: Any) -> None:
        del multi, data
        loop, had = self._loop, self._watched.get(fd, 0)
        want = 0 if what == pycurl.POLL_REMOVE else what
        if want == had:
            return
        if want & pycurl.POLL_IN and not had & pycurl.POLL_IN:
            loop.add_reader(fd, self._act, fd, pycurl.CSELECT_IN)
        elif had & pycurl.POLL_IN and not want & pycurl.POLL_IN:
            loop.remove_reader(fd)
        if want & pycurl.POLL_OUT and not had & pycurl.POLL_OUT:
            loop.add_writer(fd, self._act, fd, pycurl.CSELECT_OUT)
        elif had & pycurl.POLL_OUT and not want & pycurl.POLL_OUT:
            loop.remove_writer(fd)
        if want:
            self._watched[fd] = want
        else:
            self._watched.pop(fd, None)

    def _set_timer(self, timeout_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout_ms >= 0:
            # Never acted on in here: libcurl forbids calling it from its own callbacks.
            self._timer = self._loop.call_later(timeout_ms / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, fd: int, events: int) -> None:
        self._multi.socket_action(fd, events)
        while True:
            left, done, failed = self._multi.info_read()
            for easy in done:
                self._finish(easy, 0, "")
            for easy, errno, message in failed:
                self._finish(easy, errno, message)
            if not left:
                return

    def _finish(self, easy: Any, errno: int, message: str) -> None:
        future = self._transfers.pop(easy, None)
        self._multi.remove_handle(easy)
        if future is not None and not future.done():
            future.set_result((errno, message))

    def close(self) -> None:
        """Let go of everything; transfers under way have been cancelled before."""
        self._set_timer(-1)
        for fd in list(self._watched):
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_reader(fd)
                self._loop.remove_writer(fd)
        self._watched.clear()
        self._multi.close()

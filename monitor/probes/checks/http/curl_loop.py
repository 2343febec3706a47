"""libcurl's handles, and its multi interface in the asyncio loop.

Source: curl_multi_socket_action(3), CURLMOPT_SOCKETFUNCTION(3), CURLMOPT_TIMERFUNCTION(3).
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import Any

import pycurl

from monitor.probes.network import Network

__all__ = ["CurlHandles", "CurlLoop"]

_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
# Handled in one turn of the loop; the rest follows in the next. Each event takes some 50 us, or ms
# where a site sends its body in chunks of one byte.
_MOST_EVENTS = 32
_TURN_S = 0.002
# Pieces of bodies that are taken in one turn of the loop, of all transfers together.
_MOST_PIECES = 256

_Write = Callable[[bytes], int | None]


def _actions(events: int) -> int:
    actions = 0
    if events & select.EPOLLIN:
        actions = pycurl.CSELECT_IN
    if events & select.EPOLLOUT:
        actions |= pycurl.CSELECT_OUT
    if events & (select.EPOLLERR | select.EPOLLHUP):
        actions |= pycurl.CSELECT_ERR
    return actions


class _Pace:
    """Pauses transfers whose bodies come in many pieces until the next turn of the loop.

    libcurl joins the pieces that arrive while a transfer is paused, without a call for each piece.
    """

    def __init__(self) -> None:
        self._left = _MOST_PIECES
        self._paused: dict[Any, CurlLoop] = {}
        self._next: asyncio.Handle | None = None

    def taking(self, easy: Any, of: CurlLoop, write: _Write) -> _Write:
        """Return what libcurl calls with each piece instead of ``write``."""

        def take(piece: bytes) -> int | None:
            if self._next is None:
                self._next = asyncio.get_running_loop().call_soon(self._turn)
            if self._left <= 0:
                self._paused[easy] = of
                return int(pycurl.WRITEFUNC_PAUSE)
            self._left -= 1
            return write(piece)

        return take

    def forget(self, easy: Any) -> None:
        """Do not resume a transfer that has ended."""
        self._paused.pop(easy, None)

    def _turn(self) -> None:
        self._next, self._left = None, _MOST_PIECES
        for easy, loop in list(self._paused.items()):
            if self._paused.pop(easy, None) is not None:
                loop.resume(easy)

    def close(self) -> None:
        """Resume nothing more."""
        if self._next is not None:
            self._next.cancel()


class CurlLoop:
    """Performs transfers; each ends with ``(errno, message)``, ``(0, "")`` on success."""

    def __init__(self, pace: _Pace, network: Network) -> None:
        self._pace = pace
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        # One epoll for all sockets, which the loop watches as one: registering each socket with
        # the loop costs several times as much, and most live for two events.
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._on_ready)
        self._timer: asyncio.TimerHandle | None = None
        self._watched: dict[int, int] = {}
        self._transfers: dict[Any, asyncio.Future[tuple[int, str]]] = {}

    async def perform(self, easy: Any, write: _Write) -> tuple[int, str]:
        """Perform the transfer of ``easy``; cancelling it ends the transfer at once.

        ``write`` gets the body, piece by piece.
        """
        easy.setopt(pycurl.WRITEFUNCTION, self._pace.taking(easy, self, write))
        future: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._transfers[easy] = future
        try:
            self._multi.add_handle(easy)
            return await future
        finally:
            self._pace.forget(easy)
            if self._transfers.pop(easy, None) is not None:
                self._multi.remove_handle(easy)

    def resume(self, easy: Any) -> None:
        """Continue a transfer that was paused, unless it has ended meanwhile."""
        if easy not in self._transfers:
            return
        try:
            easy.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            self._finish(easy, error.args[0], str(error.args[-1]))

    def _watch(self, what: int, fd: int, multi: Any, data: Any) -> None:
        del multi, data
        if what == pycurl.POLL_REMOVE:
            if self._watched.pop(fd, None) is not None:
                self._epoll.unregister(fd)
            return
        had = self._watched.get(fd)
        if what != had:
            self._watched[fd] = what
            events = _EVENTS[what]
            if had is None:
                self._epoll.register(fd, events)
            else:
                self._epoll.modify(fd, events)

    def _on_ready(self) -> None:
        until = time.monotonic() + _TURN_S
        behind = True
        for _ in range(_MOST_EVENTS):
            # One by one: those that epoll has told of come last the next time.
            found = self._epoll.poll(0, 1)
            if not found:
                behind = False
                break
            fd, events = found[0]
            self._multi.socket_action(fd, _actions(events))
            if time.monotonic() > until:
                break
        self._network.note(self, behind=behind)
        self._reap()

    def _set_timer(self, timeout_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout_ms >= 0:
            # Not here: libcurl must not be called from its own callbacks.
            self._timer = self._loop.call_later(timeout_ms / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._reap()

    def _reap(self) -> None:
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
        """Close everything; running transfers have been cancelled before."""
        self._set_timer(-1)
        self._loop.remove_reader(self._epoll.fileno())
        self._multi.close()
        self._epoll.close()


class CurlHandles:
    """Handles for transfers, and the loops that perform them; belongs to the loop's thread."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._loops: dict[str | None, CurlLoop] = {}
        self._pace = _Pace()
        self._idle: list[Any] = []

    def loop(self, ca_file: str | None) -> CurlLoop:
        """Return the loop for transfers that trust ``ca_file``.

        Each file has its own: a multi handle of libcurl caches the authorities of one file.
        """
        found = self._loops.get(ca_file)
        if found is None:
            found = self._loops[ca_file] = CurlLoop(self._pace, self._network)
        return found

    def take(self) -> Any:
        """Return a handle without any options set."""
        return self._idle.pop() if self._idle else pycurl.Curl()

    def give(self, easy: Any) -> None:
        """Reset a handle and keep it for the next transfer."""
        # A reset keeps the cookies of all answers, and the next job must not send them.
        easy.setopt(pycurl.COOKIELIST, "ALL")
        easy.reset()
        self._idle.append(easy)

    def close(self) -> None:
        """Close all handles and loops."""
        self._pace.close()
        for easy in self._idle:
            easy.close()
        self._idle.clear()
        for loop in self._loops.values():
            loop.close()
        self._loops.clear()

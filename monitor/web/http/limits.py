"""HTTP/1.1 with limits on slow clients."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor.settings import Address, address_text
from monitor.transport.fair import FairReading
from monitor.transport.proxies import read_proxy_header
from monitor.web.http.connections import CONNECTION, Connections
from monitor.web.http.problems import MEDIA_TYPE, problem_body

__all__ = ["MAX_HEADER_BYTES", "LimitedHttp"]

MAX_HEADER_BYTES = 16 * 1024
"""Bytes of a request's line and headers."""

# s that a client has to read the answer to a request whose body was not read to its end, after
# what it sent last.
_LINGER_S = 2.0


class LimitedHttp(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits on connections and on slow clients.

    A request must be complete ``request_timeout`` after its first byte (or after the connection,
    or after the answer to the request before, if it was pipelined), and a client must read what
    is sent within ``client_stall``. h11 limits headers.
    """

    limits: Connections  # set by the subclass that the server makes for its settings

    # the client that a proxy named before TLS
    proxied: Address | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, or refuse where there are too many connections."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION: transport}
        self._reads = _Reads(self)
        self._reads.connection_made(transport)
        transport.set_protocol(self._reads)
        # It pauses and resumes reading; nothing else of a transport is used.
        reads: Any = self._reads
        self.flow = FlowControl(reads)
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._answered: Any = _Answered(self)
        # The beginning of a PROXY header, from a peer that may send one.
        self._preface: bytes | None = None
        if self.proxied is not None:
            self._for_client(self.proxied)
        if self.client is not None and self.limits.is_proxy(self.client[0]):
            self._preface = b""
        if not self.limits.add(self):
            self._answer(503, "too many connections")
            self.transport.close()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Read a slice of data; if it is not HTTP, only this connection ends."""
        if self.transport.is_closing():
            return
        self.limits.busy(self)
        if self._preface is not None:
            data = self._after_proxy_header(data)
            if not data:
                return
        try:
            super().data_received(data)
        except h11.ProtocolError:
            self._say_no_http()
            self.transport.close()
            return
        if self.transport.get_protocol() is not self._reads:  # it became a WebSocket
            self._disarm()
        elif self._reading():
            self._arm()
        else:
            self._disarm()

    def _after_proxy_header(self, data: bytes) -> bytes:
        self._preface = (self._preface or b"") + data
        try:
            found = read_proxy_header(self._preface)
        except ValueError as problem:
            peer = address_text(self.client or ("", 0))
            self.limits.faults_log.warning("proxy", "closing %s: %s", peer, problem)
            self.transport.abort()
            return b""
        if found is None:
            return b""
        size, client = found
        data, self._preface = self._preface[size:], None
        if client is not None:
            self._for_client(client)
            self.limits.unknown(self)
        return data

    def _for_client(self, client: Address) -> None:
        self.client = client
        self._reads.belongs_to(client[0])
        self.limits.name(self.transport, client)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with a problem."""
        self._say_no_http()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = sys.exception()
            if getattr(error, "error_status_hint", 400) == 431:
                self._refuse(431, f"the headers have more than {MAX_HEADER_BYTES} bytes")
            else:
                self._refuse(400, "this is not HTTP/1.1")
        else:  # during an answer
            self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over, with the bytes after the request."""
        self._reads.hand_over()
        super().handle_websocket_upgrade(event)
        rest = self.conn.trailing_data[0] + self._reads.rest()
        if rest:
            websocket: Any = self.transport.get_protocol()
            websocket.data_received(rest)

    def handle_events(self) -> None:
        """Let an answer that ends the connection reach a client that still sends."""
        super().handle_events()
        if self.cycle is not None:
            self.cycle.transport = self._answered

    def over_budget(self) -> None:
        """End a connection that takes too much of the loop's time."""
        peer = "a peer" if self.client is None else address_text(self.client)
        self.limits.faults_log.warning(
            "flood", "closing the connection of %s: too many small pieces or requests", peer
        )
        if self._linger is None and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(429, "too many small pieces or requests on one connection")
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Keep the time limit for a request that began during the answer to the last one.

        A body that was not read before the answer is not read after it: the connection ends.
        """
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._end_unread()
            return
        self.limits.unknown(self)
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.limits.idle(self)
        if not self.transport.is_closing() and self._reading() and self.conn.trailing_data[0]:
            self._arm()

    def pause_writing(self) -> None:
        """Limit the time for which a client reads nothing."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(
                self.limits.settings.client_stall, self.transport.abort
            )

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        self._disarm()
        for timer in (self._stall, self._linger):
            if timer is not None:
                timer.cancel()
        self._reads.drop_input()
        self.limits.discard(self.transport)
        super().connection_lost(exc)

    def _reading(self) -> bool:
        """Whether a request is awaited, or has arrived only in part."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _arm(self) -> None:
        if self._deadline is None:
            timeout = self.limits.settings.request_timeout
            self._deadline = self.loop.call_later(timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.conn.our_state is h11.IDLE:
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.abort()

    def end(self) -> None:
        """Close after an answer, at once if the client has sent all of its request and no more."""
        got_all = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        if got_all and not self.conn.trailing_data[0] and not self._reads.has_work:
            self.transport.close()
        else:
            self._end_unread()

    def _end_unread(self) -> None:
        """Close, and forget what still comes; the client has time to read the answer."""
        self._disarm()
        self._reads.discard()
        if self._linger is not None or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
            until = self.loop.time() + self.limits.settings.request_timeout
            self._linger_on(until, -1)
        else:  # TLS
            self.transport.close()

    def _linger_on(self, until: float, before: int) -> None:
        """Wait as long as the client still sends, or reads, until a time (s) of the loop."""
        forgotten = self._reads.forgotten_bytes
        idle = forgotten == before and not self.transport.get_write_buffer_size()
        if idle or self.loop.time() >= until:
            self.transport.abort()
        else:
            self._linger = self.loop.call_later(_LINGER_S, self._linger_on, until, forgotten)

    def _say_no_http(self) -> None:
        peer = "a peer" if self.client is None else address_text(self.client)
        self.limits.faults_log.warning(
            "no HTTP", "closing the connection of %s: not HTTP/1.1", peer
        )

    def _refuse(self, status: int, detail: str) -> None:
        """Answer although there is no whole request, and close."""
        self._answer(status, detail)
        self._end_unread()

    def _answer(self, status: int, detail: str) -> None:
        body = problem_body(status, detail)
        later = "retry-after: 5\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"connection: close\r\n{later}\r\n"
        )
        self.transport.write(head.encode() + body)


class _Answered:
    """The transport of a :class:`LimitedHttp` as its answers see it: a close loses none of them."""

    def __init__(self, http: LimitedHttp) -> None:
        self._http = http

    def __getattr__(self, name: str) -> Any:
        return getattr(self._http.transport, name)

    def close(self) -> None:
        """Close; what the client still sends is forgotten."""
        self._http.end()


class _Reads(FairReading):
    """Reads for a :class:`LimitedHttp`, in slices, and passes on all else."""

    def __init__(self, http: LimitedHttp) -> None:
        super().__init__()
        self._http = http
        self._stopped = False

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        client = self._http.client
        return "a peer" if client is None else address_text(client)

    def step(self) -> None:
        """Parse a slice."""
        self._http.data_received(self.next_slice())

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be parsed: a request is answered first, or it is no longer HTTP."""
        return self._held or self._stopped

    def over_budget(self) -> None:
        """End the connection."""
        self._http.over_budget()

    def pause_reading(self) -> None:
        """Parse nothing more until :meth:`resume_reading`."""
        self.hold(True)

    def resume_reading(self) -> None:
        """Parse again."""
        self.hold(False)

    def hand_over(self) -> None:
        """Parse nothing more: another protocol takes over a transport that reads."""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
        self._stopped = True

    def rest(self) -> bytes:
        """Return what was read and not parsed."""
        rest = self._input[self._at :]
        self.drop_input()
        return rest

    def _settle(self) -> None:
        if self.transport.get_protocol() is self:
            super()._settle()

    def eof_received(self) -> bool | None:
        """Pass it on; the transport closes."""
        self._http.eof_received()
        return None

    def pause_writing(self) -> None:
        """Pass it on."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._http.connection_lost(exc)

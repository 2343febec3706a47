"""A ZeroMQ ROUTER on an address of the config, read by the daemon's loop.

libzmq's descriptor is edge-triggered: it becomes readable once, and again only after everything
was read. So a reader of a limited number of messages asks for another turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq
from zmq.auth.thread import ThreadAuthenticator

from monitor.errors import ListenError
from monitor.settings import address_text
from monitor.transport.listen import zeromq_endpoints

__all__ = ["CurveKeys", "Router", "reason"]

# A peer that is lost without a word is noticed within 2 minutes.
_KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 60,
    zmq.TCP_KEEPALIVE_INTVL: 15,
    zmq.TCP_KEEPALIVE_CNT: 4,
}


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Keys in Z85: the server's own, and the public ones of peers that may connect."""

    public: bytes
    secret: bytes
    allowed: frozenset[bytes]


class Router:
    """Binds the socket, and calls ``drain`` when there may be messages.

    ``key`` is the address's place in the config, for errors. ``options`` are socket options of
    zmq_setsockopt(3). With ``events`` there is a :attr:`monitor` socket, and ``drain_monitor``.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        key: str,
        options: Mapping[int, int | bytes],
        events: int = 0,
    ) -> None:
        self.endpoints: list[str] = []
        self.socket: zmq.Socket[bytes] | None = None
        self.monitor: zmq.Socket[bytes] | None = None
        self._address = address
        self._key = key
        self._options = options
        self._events = events
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._authenticator: ThreadAuthenticator | None = None
        self._allowed = _AllowedKeys()
        self._drain: Callable[[], None] = lambda: None
        self._readers: list[int] = []
        self._turn: asyncio.Handle | None = None

    async def bind(self, curve: CurveKeys | None = None) -> zmq.Socket[bytes]:
        """Bind, with ``curve`` for peers with an allowed key only; raises ListenError."""
        endpoints = await zeromq_endpoints(self._address)
        context = self._context = zmq.Context()
        socket = self.socket = context.socket(zmq.ROUTER)
        ipv6 = any("[" in endpoint for endpoint in endpoints)
        for option, value in ({**_KEEPALIVE, zmq.IPV6: ipv6} | dict(self._options)).items():
            socket.setsockopt(option, value)
        if curve is not None:
            self._require(context, socket, curve)
        if self._events:
            self.monitor = socket.get_monitor_socket(self._events)
        for endpoint in endpoints:
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                address = address_text(self._address)
                raise ListenError(self._key, address, reason(error)) from None
            self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        return socket

    def read(
        self, drain: Callable[[], None], drain_monitor: Callable[[], None] = lambda: None
    ) -> None:
        """Call ``drain`` whenever there may be messages, and ``drain_monitor`` for events."""
        self._drain = drain
        loop = asyncio.get_running_loop()
        for source, callback in ((self.socket, self._drain_now), (self.monitor, drain_monitor)):
            if source is not None:
                descriptor = source.FD
                loop.add_reader(descriptor, callback)
                self._readers.append(descriptor)
                # Messages that arrived before add_reader cause no further edge.
                loop.call_soon(callback)

    @property
    def reading(self) -> bool:
        """Whether messages are read."""
        return bool(self._readers)

    def drain_soon(self) -> None:
        """Call ``drain`` in the next turn of the loop: no further edge tells of what is left."""
        if self._turn is None and self._readers:
            self._turn = asyncio.get_running_loop().call_soon(self._drain_now)

    def _drain_now(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._drain()

    def stop_reading(self) -> None:
        """Call nothing more; the socket can still send."""
        loop = asyncio.get_running_loop()
        while self._readers:
            loop.remove_reader(self._readers.pop())
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def close(self) -> None:
        """Close the sockets and end their threads; may be called twice.

        Waits for messages that are still to be sent as long as zmq.LINGER says.
        """
        self.stop_reading()
        if self.socket is not None:
            if self.monitor is not None:
                self.socket.disable_monitor()
                self.monitor.close(0)
                self.monitor = None
            self.socket.close()
            self.socket = None
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def allow(self, keys: frozenset[bytes]) -> None:
        """Let peers with these public keys connect, from the next handshake on."""
        self._allowed.keys = keys

    def _require(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        curve: CurveKeys,
    ) -> None:
        """Take peers with an allowed key only (https://rfc.zeromq.org/spec/27/)."""
        self._authenticator = ThreadAuthenticator(
            context, log=logging.getLogger("monitor.transport.curve")
        )
        self._authenticator.start()
        self.allow(curve.allowed)
        self._authenticator.configure_curve_callback("*", self._allowed)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)


class _AllowedKeys:
    """Answers the authenticator's thread."""

    keys: frozenset[bytes] = frozenset()

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a peer with this key, in Z85, may connect."""
        del domain
        return key in self.keys


def reason(error: zmq.ZMQError) -> str:
    """Return an error of libzmq in words."""
    return zmq.strerror(error.errno) if error.errno else str(error)

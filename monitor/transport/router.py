"""A ZeroMQ ROUTER on an address of the config, read by the daemon's loop.

libzmq's descriptor is edge-triggered: it becomes readable once, and again only after everything
was read. So a reader of a limited number of messages asks for another turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import zmq
from zmq.auth.thread import ThreadAuthenticator

from monitor.errors import ListenError
from monitor.settings import address_text
from monitor.transport.curve import CurveKeys
from monitor.transport.listen import NOT_HERE, zeromq_endpoints

__all__ = ["Router", "peer_address", "reason"]

# A peer that is lost without a word is noticed within 2 minutes.
_KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 60,
    zmq.TCP_KEEPALIVE_INTVL: 15,
    zmq.TCP_KEEPALIVE_CNT: 4,
}


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
        self.endpoints.clear()
        endpoints = await zeromq_endpoints(self._address)
        context = self._context = zmq.Context()
        socket = self.socket = context.socket(zmq.ROUTER)
        for option, value in (_KEEPALIVE | dict(self._options)).items():
            socket.setsockopt(option, value)
        if curve is not None:
            self._require(context, socket, curve)
        if self._events:
            self.monitor = socket.get_monitor_socket(self._events)
        missing: zmq.ZMQError | None = None
        for endpoint in endpoints:
            if self._address[1] == 0 and self.endpoints:
                break
            # At all addresses it accepts IPv4 on the same socket, and without IPv6 only IPv4.
            socket.setsockopt(zmq.IPV6, "[" in endpoint or "*" in endpoint)
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                missing = error
                if error.errno not in NOT_HERE:
                    break
                continue
            self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        if missing is not None and (missing.errno not in NOT_HERE or not self.endpoints):
            raise ListenError(self._key, address_text(self._address), reason(missing)) from None
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
        """Call ``drain`` in the next turn of the loop: no further edge signals what is left."""
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


def peer_address(frame: zmq.Frame) -> str:
    """Return the address that sent a frame; raises zmq.ZMQError if it is not known."""
    # An IPv6 socket shows an IPv4 peer like this (RFC 4291, 2.5.5.2).
    return str(frame.get("Peer-Address")).removeprefix("::ffff:")

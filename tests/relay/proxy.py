"""A TCP proxy that cuts its connections, as those in between do."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["CuttingProxy"]


class CuttingProxy:
    """Passes bytes on to a port of this host, and cuts each connection after some of them.

    ``cut_bytes`` is the range of how many a connection carries towards the client before it
    is cut, anywhere within a frame; None cuts only when :meth:`cut_all` says so.
    """

    def __init__(
        self, target: int, *, seed: int = 0, cut_bytes: tuple[int, int] | None = None
    ) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.cut_bytes = cut_bytes
        self.cuts = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        # For each connection to the relay, how many bytes it may still bring.
        self._left: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stop = False
        self._flows = threading.Event()
        self._flows.set()
        self._cut_share = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut_all(self, share: float = 1.0) -> None:
        """Cut this share of the connections now."""
        self._cut_share = share
        self._wake.send(b"x")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Carry nothing for a while, and say nothing: connections are half-open for all."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def close(self) -> None:
        """Stop, and close everything."""
        self._stop = True
        self._wake.send(b"x")
        self._thread.join(5)
        for peer in (*self._pairs, self._listener, self._wake, self._woken):
            peer.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stop:
            found = self._selector.select(1)
            while not self._stop and not self._flows.wait(0.2):
                pass
            for key, _ in found:
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                if peer is self._listener:
                    self._accept()
                elif peer is self._woken:
                    self._woken.recv(100)
                    share, self._cut_share = self._cut_share, 0.0
                    for server in list(self._left):
                        if self._random.random() < share:
                            self._cut(server)
                elif peer in self._pairs:
                    self._pass_on(peer)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            server = socket.socket()
            server.settimeout(2)
            try:
                server.connect(("127.0.0.1", self._target))
            except OSError:
                client.close()
                server.close()
                return
            for peer, other in ((client, server), (server, client)):
                peer.settimeout(5)
                self._pairs[peer] = other
                self._selector.register(peer, selectors.EVENT_READ)
            cut = self.cut_bytes
            self._left[server] = self._random.randint(*cut) if cut else 1 << 60

    def _pass_on(self, peer: socket.socket) -> None:
        other = self._pairs[peer]
        try:
            data = peer.recv(65536)
            if peer in self._left:
                data, over = data[: self._left[peer]], len(data) - self._left[peer]
                self._left[peer] -= len(data)
                other.sendall(data)
                if over >= 0 or not data:
                    self._cut(peer)
                return
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(peer)

    def _cut(self, peer: socket.socket) -> None:
        self.cuts += 1
        # A reset, not an orderly end: what is under way is lost.
        other = self._pairs[peer]
        with suppress(OSError):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._drop(peer)

    def _drop(self, peer: socket.socket) -> None:
        for one in (peer, self._pairs[peer]):
            self._selector.unregister(one)
            self._pairs.pop(one)
            self._left.pop(one, None)
            one.close()

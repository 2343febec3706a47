"""A TCP proxy that can be cut, frozen, and mended: the network between a client and its server."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading

_LAST_BYTES = 4096


class CutProxy:
    """Carries bytes from its address to 127.0.0.1:``target``, unless it is cut or frozen."""

    def __init__(self, target: int = 0, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.target = target
        self._flows = threading.Event()
        self._flows.set()
        self._cut = threading.Event()
        self._ended = threading.Event()
        self.swallow_answer_to: re.Pattern[bytes] | None = None
        """Cut off the client whose next last bytes are these from the server's answer."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="cut-proxy").start()

    def cut(self) -> None:
        """Close what is open, and everything that comes, at once."""
        self._cut.set()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Carry nothing, and say nothing: connections stay and can be made, half-open for all."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry again, also what was held back meanwhile."""
        self._cut.clear()
        self._flows.set()

    def close(self) -> None:
        """End."""
        self._ended.set()
        self.cut()
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                return
            with server:
                with self._lock:
                    self._open |= {client, server}
                try:
                    self._pump(client, server)
                except OSError:
                    return
                finally:
                    with self._lock:
                        self._open -= {client, server}

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        sent = b""
        while not self._cut.is_set():
            for source in select.select(list(other), [], [], 0.5)[0]:
                data = source.recv(65536)
                while not self._flows.wait(0.2):
                    if self._cut.is_set():
                        return
                if not data or self._cut.is_set():
                    return
                other[source].sendall(data)
                if source is server:
                    continue
                sent = (sent + data)[-_LAST_BYTES:]
                if self.swallow_answer_to is not None and self.swallow_answer_to.search(sent):
                    self.swallow_answer_to = None
                    server.recv(1)
                    return

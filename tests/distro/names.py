"""A name server that knows one name, for machines that are on no other network."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer a query for the known name's IPv4 address; others have no answer (RFC 1035)."""
        query, sock = cast("tuple[bytes, socket.socket]", self.request)
        server = cast("_Server", self.server)
        end = query.index(b"\0", 12) + 1
        question = query[12 : end + 4]
        labels = b"".join(
            bytes([len(label)]) + label.encode() for label in server.known_name.split(".")
        )
        (kind,) = struct.unpack(">H", query[end : end + 2])
        found = query[12 : end - 1].lower() == labels and kind == 1
        header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, int(found), 0, 0)
        answer = b""
        if found:
            address = socket.inet_aton(server.known_address)
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, len(address)) + address
            server.asked.append(server.known_name)
        sock.sendto(header + question + answer, self.client_address)


class _Server(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def __init__(self, listen: str, name: str, address: str) -> None:
        super().__init__((listen, 53), _Answer)
        self.known_name = name
        self.known_address = address
        self.asked: list[str] = []


@contextmanager
def name_server(listen: str, name: str, address: str) -> Iterator[list[str]]:
    """Answer for ``name`` on port 53 of ``listen``; gives the list of what was asked."""
    with _Server(listen, name, address) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.asked
        finally:
            server.shutdown()
            thread.join()

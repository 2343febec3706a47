"""A web server that misbehaves in every way that a check must bear, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable

PAGE = b"<html>hello, this is the page</html>"


def answer(status: int, body: bytes = PAGE, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Misbehaving:
    """Answers by path, one connection a thread; :attr:`requests` are what was received."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        # Set at the end, which stops all waits.
        self.ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="misbehaving")
        self._accepting.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self._tls else ''}://{host}:{self.port}{path}"

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(10)
            if self._tls is None:
                self._answer(connection)
                return
            with self._tls.wrap_socket(connection, server_side=True) as secured:
                self._answer(secured)

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
        head, _, body = request.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                wanted = int(line.split(b":")[1])
                while len(body) < wanted:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    body += piece
        self.requests.append(head + b"\r\n\r\n" + body)
        path = head.split(b" ")[1].decode()
        name, _, argument = path[1:].partition("/")
        handler: Callable[[socket.socket, str], None] | None = getattr(
            self, f"_do_{name.replace('-', '_')}", None
        )
        if handler is None:
            connection.sendall(answer(404))
        else:
            handler(connection, argument)

    def _do_ok(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(200))

    def _do_status(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(int(argument)))

    def _do_text(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(200, b"a" * int(argument) + b"!"))

    def _do_latin1(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(
            answer(200, "grün".encode("latin-1"), Content_Type="text/plain; charset=ISO-8859-1")
        )

    def _do_odd_charset(self, connection: socket.socket, argument: str) -> None:
        page = answer(200, Content_Type="text/html; charset=CHARSET")
        connection.sendall(page.replace(b"CHARSET", b"gr\xfcn"))

    def _do_odd_redirect(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(302, b"", Location="/PLACE").replace(b"PLACE", b"ok/gr\xfcn"))

    def _do_redirect(self, connection: socket.socket, argument: str) -> None:
        left = int(argument)
        target = "/ok" if left <= 1 else f"/redirect/{left - 1}"
        connection.sendall(answer(302, b"", Location=target))

    def _do_see(self, connection: socket.socket, argument: str) -> None:
        """See another: /see/STATUS/URL."""
        status, _, target = argument.partition("/")
        connection.sendall(answer(int(status), b"", Location=target))

    def _do_leads(self, connection: socket.socket, argument: str) -> None:
        """Redirect to a page, with a body that no browser reads."""
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /ok\r\n")
        rest = {
            "lies": b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
            "breaks-off": b"Content-Length: 50\r\n\r\nabcd",
            "long": b"Content-Length: 2000000\r\n\r\n" + bytes(2_000_000),
            "never-ends": b"\r\n",
        }
        connection.sendall(rest[argument])
        if argument == "never-ends":
            # The client closes first.
            connection.recv(1)

    def _do_cut(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Fr")

    def _do_silent(self, connection: socket.socket, argument: str) -> None:
        self.ended.wait(10)

    def _do_drip(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self.ended.wait(0.02):
            connection.sendall(b"x")

    def _do_reset(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _do_empty(self, connection: socket.socket, argument: str) -> None:
        pass

    def _do_garbage(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"\x00\x01SSH-2.0-not a web server\r\n\r\n")

    def _do_short(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

    def _do_gzip(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(200, gzip.compress(PAGE), Content_Encoding="gzip"))

    def _do_broken_gzip(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(200, b"not gzip", Content_Encoding="gzip"))

    def _do_cookie(self, connection: socket.socket, argument: str) -> None:
        """Redirect to the same page until it has the cookie."""
        if b"session=7" in self.requests[-1]:
            connection.sendall(answer(200))
        else:
            connection.sendall(
                answer(302, b"", Location="/cookie", Set_Cookie="session=7; HttpOnly; Path=/")
            )

    def _do_sets_cookie(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(answer(200, Set_Cookie="leaked=1; Path=/"))

    def _do_coded(self, connection: socket.socket, argument: str) -> None:
        """Answer with the coding's name, and a body of this coding or none: /coded/NAME/SIZE."""
        name, _, size = argument.partition("/")
        body = {"gzip": gzip.compress(PAGE), "deflate": zlib.compress(PAGE)}.get(name, PAGE)
        connection.sendall(answer(200, body[: int(size or "1000")], Content_Encoding=name))

    def _do_length_required(self, connection: socket.socket, argument: str) -> None:
        known = b"content-length: 0" in self.requests[-1].lower()
        connection.sendall(answer(200 if known else 411))

    def _do_json(self, connection: socket.socket, argument: str) -> None:
        # More digits than Python reads.
        page = b'{"status": "ok", "items": [1, 2], "count": 1%s}' % (b"0" * 5000)
        connection.sendall(answer(200, page, X_Served_By="node-7"))

    def _do_marked(self, connection: socket.socket, argument: str) -> None:
        """A page with a byte order mark, or with its charset in a meta tag."""
        bodies = {
            "utf-16": "\ufeffgrün".encode("utf-16-le"),
            "utf-8": "\ufeffgrün".encode(),
            "meta": '<meta charset="windows-1252">grün'.encode("cp1252"),
            "xml": '<?xml version="1.0" encoding="ISO-8859-1"?>grün'.encode("latin-1"),
        }
        connection.sendall(answer(200, bodies[argument], Content_Type="text/html"))

    def _do_charset(self, connection: socket.socket, argument: str) -> None:
        page = "+AGE-grün".encode()
        connection.sendall(answer(200, page, Content_Type=f"text/html; charset={argument}"))

    def _do_events(self, connection: socket.socket, argument: str) -> None:
        """A stream that never ends, after a first event."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        if argument != "none":
            connection.sendall(b"data: 1\n\n")
            self.ended.wait(10)

    def _do_bomb(self, connection: socket.socket, argument: str) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
        connection.sendall(answer(200, body, Content_Encoding="gzip"))

    def _do_endless(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not self.ended.is_set():
            connection.sendall(b"1000\r\n" + b"y" * 4096 + b"\r\n")

    def _do_crumbs(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"1\r\ny\r\n" * int(argument) + b"4\r\nlast\r\n0\r\n\r\n")

    def _do_headers(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not self.ended.is_set():
            connection.sendall(b"X-Again: " + b"z" * 1000 + b"\r\n")

    def _do_odd_upgrade(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(
            b"HTTP/1.1 101 Switching\r\nUpgrade: gr\xfcn\r\nConnection: upgrade\r\n\r\n"
        )

    def _do_websocket(self, connection: socket.socket, argument: str) -> None:
        """Agree to a WebSocket, with more in the answer than is usual, and wait."""
        key = self.requests[-1].partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        magic = key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accepted = base64.b64encode(hashlib.sha1(magic, usedforsecurity=False).digest())
        if argument == "interim":
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        more = {"long": b"Set-Cookie: " + b"a" * 20000 + b"\r\n", "many": b"X-Again: 1\r\n" * 200}
        header = (
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            + more.get(argument, b"")
            + b"Sec-WebSocket-Accept: "
            + accepted
            + b"\r\n\r\n"
        )
        connection.sendall(header.replace(b"\r\n", b"\n") if argument == "lines" else header)
        says = {
            "says": b"\x81\x08421 busy",
            "masks": b"\x81\x85abcdhello",
            "lines": b"\x81\x04220 ",
            "closes": b"\x88\x0b\x03\xf0too busy!",
            "pings": b"\x89\x00" * 5000 + b"\x81\x03220",
        }
        connection.sendall(says.get(argument, b""))
        while argument == "pings" and connection.recv(65536):
            pass
        connection.recv(1)

    def _do_upgrade(self, connection: socket.socket, argument: str) -> None:
        connection.sendall(
            b"HTTP/1.1 101 Switching\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n"
        )

"""A Kubernetes API over HTTP: list in pages, watch, bookmarks, expiry, and all that goes wrong.

PyPI's kmock has neither pages nor resource versions that expire, bookmarks, or a
stream that breaks half-way, so this is a small server of our own. What it does it does as
the API server does it:

- One resource version counts for all objects; every write gets the next one.
- A list's pages show one moment: what is written between two pages shows in neither, and a
  page's ``continue`` token expires with that moment (410, ``Expired``).
- A watch continues after ``resourceVersion`` and sends one JSON line an event in a chunked
  stream. An object that comes to match the label selector is ADDED, one that no longer does
  is DELETED. Versions from before the last compaction are gone: 410, as the answer's status
  or as an ERROR event in the stream.
- Bookmarks come where they are asked for, from time to time and before the stream's end.
- Groups that are not served answer 404 in plain text, refusals are ``Status`` objects.

Faults are asked for with :meth:`KubernetesServer.fail` (the next requests) and
:meth:`KubernetesServer.break_watches` (streams that are open).
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.servers.kubernetes_objects import (
    KINDS,
    PATH,
    Break,
    Fault,
    KubernetesObjects,
    Object,
    Request,
    status_of,
)

__all__ = ["Break", "Fault", "KubernetesServer", "Request", "kubernetes_server"]


class KubernetesServer(KubernetesObjects):
    """The cluster's objects, and the HTTP server in front of them; all methods from any thread."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, openshift: bool = True) -> None:
        super().__init__(openshift=openshift)
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port again after :meth:`stop`."""
        kubernetes = self

        class Handler(_Handler):
            server_state = kubernetes

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients come and go; what matters shows at the client

        self._closing = False
        server = Server(("127.0.0.1", self.port), Handler, bind_and_activate=True)
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        self.port = server.server_address[1]
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on and reset the open ones; the objects stay."""
        if self._server is None or self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self.wait(lambda: self._streams == 0, "streams still open")
        self._server = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: KubernetesServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        found = PATH.match(url.path)
        plural = found["plural"] if found else ""
        group = (found["core"] or found["group"]) if found else ""
        if plural not in KINDS or KINDS[plural][0] != group:
            return self._text(404, "404 page not found\n")
        if plural == "deploymentconfigs" and not state.openshift:
            return self._text(404, "404 page not found\n")
        assert found is not None
        request = Request(
            verb="watch" if query.get("watch") == "true" else "list",
            plural=plural,
            namespace=found["namespace"] or "",
            query=query,
            at=time.monotonic(),
            groups=tuple(self.headers.get_all("Impersonate-Group") or ()),
        )
        fault = state.take_fault(request)
        if fault is not None and isinstance(fault.how, bytes):
            return self._send(200, fault.how, "application/json", {})
        if fault is not None and isinstance(fault.how, str):
            return self._fault(fault.how)
        if fault is not None and isinstance(fault.how, int):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._json(fault.how, status_of(fault.how, "Fault", "asked for"), headers)
        if state.tokens is not None:
            word, _, token = (self.headers.get("Authorization") or "").partition(" ")
            if word.lower() != "bearer" or token not in state.tokens:
                return self._json(401, status_of(401, "Unauthorized", "Unauthorized"))
        if (plural, request.namespace) in state.forbidden:
            message = f'{plural} is forbidden: User "system:serviceaccount:default:monitor" cannot'
            return self._json(403, status_of(403, "Forbidden", message))
        if request.verb == "watch":
            return self._watch(request)
        if state.before_page is not None:
            start = json.loads(base64.b64decode(query["continue"]))[0] if "continue" in query else 0
            state.before_page(plural, start)
        return self._json(*state.page(request))

    def _watch(self, request: Request) -> None:
        state = self.server_state
        if state.is_gone(int(request.query["resourceVersion"])):
            return self._json(410, status_of(410, "Expired", "too old resource version"))
        for piece in state.watch(request):
            if piece is None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.flush()
            elif isinstance(piece, bytes):
                step = state.chunk_bytes or len(piece)
                for start in range(0, len(piece), step):
                    self._chunk(piece[start : start + step])
            else:
                return self._break(piece)
        return None

    def _break(self, how: Break) -> None:
        match how:
            case "end":
                self.wfile.write(b"0\r\n\r\n")
                return
            case "gone":
                expired = status_of(410, "Expired", "too old resource version: 1 (2)")
                self._chunk(json.dumps({"type": "ERROR", "object": expired}).encode() + b"\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            case "error":
                broken = status_of(500, "InternalError", "etcdserver: no leader")
                self._chunk(json.dumps({"type": "ERROR", "object": broken}).encode() + b"\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            case "garbage":
                self._chunk(b'{"type": "ADDED", "object": ]\n')
                self.wfile.write(b"0\r\n\r\n")
                return
            case "silence":
                self.server_state.hold()
            case "truncate":
                self._chunk(b'{"type": "MODIFIED", "object": {"kind": "Depl')
            case "reset":
                pass
        self._reset(linger=how == "truncate")

    def _fault(self, how: str) -> None:
        match how:
            case "silence":
                self.server_state.hold()
            case "truncate":
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"kind": ')
            case "garbage":
                return self._text(200, "<html>proxy error</html>")
        self._reset(linger=how == "truncate")
        return None

    def _reset(self, *, linger: bool) -> None:
        """Close at once: with a RST, or where ``linger`` is set with a FIN after what was sent."""
        self.close_connection = True
        with suppress(OSError):
            if not linger:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.wfile.close()
            self.rfile.close()  # they hold on to the socket, too
            self.connection.close()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, code: int, body: Object, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps(body).encode(), "application/json", headers or {})

    def _text(self, code: int, text: str) -> None:
        self._send(code, text.encode(), "text/plain; charset=utf-8", {})

    def _send(self, code: int, body: bytes, type_: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": type_, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@pytest.fixture
def kubernetes_server() -> Iterator[KubernetesServer]:
    """Return a cluster with OpenShift's group, without TLS or tokens."""
    server = KubernetesServer()
    yield server
    server.stop()

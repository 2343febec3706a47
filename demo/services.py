"""Services that are not web pages: one of each other kind of check, added over the API."""

from __future__ import annotations

import contextlib
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import requests

__all__ = ["services"]

_BEAT_S = 3.0
_PREFACE_BYTES, _FRAME_HEADER_BYTES = 24, 9
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_ACK = _END_STREAM = 1
_END_HEADERS = 4
# What a gRPC server says on the first stream: settings, and that it has seen the client's; then the
# header of an answer, SERVING, and the status 0. Source: RFC 9113, 6; RFC 7541, 6.
_HEADER = b"\x88\x0f\x10\x10application/grpc"
_SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
_TRAILER = b"\x00\x0bgrpc-status\x010"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


_HEALTHY = (
    _frame(_SETTINGS, 0, 0)
    + _frame(_SETTINGS, _ACK, 0)
    + _frame(_HEADERS, _END_HEADERS, 1, _HEADER)
    + _frame(_DATA, 0, 1, _SERVING)
    + _frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, _TRAILER)
)


class _Health(socketserver.StreamRequestHandler):
    """Answers one request that is like that of a check."""

    timeout = 5

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.rfile.read(_PREFACE_BYTES)
            while header := self.rfile.read(_FRAME_HEADER_BYTES):
                self.rfile.read(int.from_bytes(header[:3], "big"))
                # The request ends with its data.
                if header[3] == _DATA and header[4] & _END_STREAM:
                    self.wfile.write(_HEALTHY)


class _Names(socketserver.BaseRequestHandler):
    """Answers every question with one address."""

    def handle(self) -> None:
        question = dns.message.from_wire(self.request[0])
        answer = dns.message.make_response(question)
        name = question.question[0].name
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        self.request[1].sendto(answer.to_wire(), self.client_address)


class _Directory(socketserver.BaseRequestHandler):
    """Shakes hands, and says nothing."""

    context: ssl.SSLContext

    def handle(self) -> None:
        self.request.settimeout(5)
        with (
            contextlib.suppress(OSError),
            self.context.wrap_socket(self.request, server_side=True) as secured,
        ):
            secured.recv(1)


@contextlib.contextmanager
def services(folder: Path, url: str, relay: str) -> Iterator[None]:
    """Run the services, and let the daemon at ``url`` check them and the relay."""
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(_server(socketserver.ThreadingUDPServer, _Names))
        health = stack.enter_context(_server(socketserver.ThreadingTCPServer, _Health))
        jobs: list[dict[str, Any]] = [
            {"name": "Live progress", "kind": "websocket", "url": relay},
            {
                "name": "Name server",
                "kind": "dns",
                "url": f"dns://127.0.0.1:{names}/judge.example.org",
                "expected": ["^192[.]0[.]2[.]"],
            },
            {"name": "Grading service", "kind": "grpc", "url": f"grpc://127.0.0.1:{health}/"},
        ]
        certificate = _certificate(folder)
        if certificate is not None:
            _Directory.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _Directory.context.load_cert_chain(certificate)
            port = stack.enter_context(_server(socketserver.ThreadingTCPServer, _Directory))
            place = f"tls://127.0.0.1:{port}"
            keys = {"ca_file": str(certificate), "certificate_days": 14}
            jobs.append({"name": "Directory", "kind": "tls", "url": place, **keys})
        for job in jobs:
            _add(url, {**job, "interval": 5, "timeout": 2})
        beat = {"name": "Nightly backup", "kind": "heartbeat", "interval": _BEAT_S, "grace": 5}
        key = _add(url, beat)["key"]
        ended = threading.Event()
        stack.callback(ended.set)
        threading.Thread(target=_beat, args=(f"{url}/heartbeat/{key}", ended), daemon=True).start()
        yield


@contextlib.contextmanager
def _server(kind: type[Any], handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with kind(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _certificate(folder: Path) -> Path | None:
    """Make a certificate for this host with openssl; None without it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    file = folder / "directory.pem"
    command = [
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "90", "-subj", "/CN=Directory"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", "-"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        return None
    with file.open("ab") as written:
        written.write(done.stdout)
    return file


def _add(url: str, job: dict[str, Any]) -> dict[str, Any]:
    answer = requests.post(f"{url}/job", json=job, timeout=10)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _beat(url: str, ended: threading.Event) -> None:
    while True:
        with contextlib.suppress(requests.RequestException):
            requests.post(url, timeout=5)
        if ended.wait(_BEAT_S):
            return

"""Everybody that the pages speak of, for a machine that is on no other network.

Names of example.org lead to this host, where real servers stand behind the ports that the pages
name; certificates are of an authority of the tests', which the machine trusts.
"""

from __future__ import annotations

import socketserver
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from websockets.utils import accept_key

from tests.distro.built import Built
from tests.servers.cut import CutProxy
from tests.servers.debian import Machine, machine

__all__ = ["World", "world"]

# Who is where: on this host, and on the machine itself.
_HERE = ("example.org", "mail.example.org", "packages.example.org", "db.example.org")
_HERE_TOO = ("kafka-1.example.org", "kubernetes.example.org")
_THERE = ("recodex.example.org", "monitor.example.org")

# All that a page may have left behind but the package.
_CLEAN = """
cd /
systemctl stop 'recodex-monitor*.service' 'nginx*.service' 'apache2*.service' 2>/dev/null
rm -rf /etc/credstore/* /etc/systemd/system/recodex-monitor*
rm -f /etc/systemd/system/multi-user.target.wants/recodex-monitor@*
rm -rf /etc/ssl/private/recodex* /etc/nginx/sites-*/recodex* /etc/apache2/sites-*/recodex*
rm -rf /srv/story /root
mkdir -p /srv/story /root
echo /root >/srv/story/cwd
systemctl daemon-reload
systemctl reset-failed
"""
_PURGE = """
dpkg --purge recodex-monitor
rm -rf /etc/recodex /var/lib/recodex-monitor /var/log/recodex
systemctl daemon-reload
"""
# As the package left it when it was installed.
_RENEW = """
set -e
if [ -d /srv/config ]; then
    rm -rf /etc/recodex/monitor
    cp -a /srv/config /etc/recodex/monitor
    find /var/lib/recodex-monitor /var/log/recodex -mindepth 1 -delete
    systemctl start recodex-monitor
else
    dpkg --install /srv/recodex-monitor.deb
    cp -a /etc/recodex/monitor /srv/config
fi
"""


class World:
    """The machine, and an authority that it trusts."""

    def __init__(self, debian: Machine, built: Built, directory: Path) -> None:
        self.debian = debian
        self.built = built
        self.directory = directory
        self.authority = trustme.CA()
        self._purged = False

    def begin(self, *, installed: bool) -> None:
        """Bring the machine to where a page begins: nothing there, or the package alone."""
        self.debian.run("bash", "-c", _CLEAN, check=False)
        if installed and not self._purged:
            self.debian.run("bash", "-c", _RENEW)
        elif installed:
            self.debian.run("dpkg", "--install", "/srv/recodex-monitor.deb")
            self._purged = False
        else:
            self.debian.run("bash", "-c", _PURGE)
            self._purged = True

    def pem(self, *names: str) -> tuple[str, str]:
        """Return the chain and the key (PKCS 8) of a certificate for ``names``."""
        certificate = self.authority.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return chain.decode(), pem.decode()

    def authority_pem(self) -> str:
        """Return the authority's own certificate."""
        return self.authority.cert_pem.bytes().decode()

    @contextmanager
    def leads(self, port: int, target: int) -> Iterator[None]:
        """Let ``port`` of this host's names lead to a port of its loopback."""
        proxy = CutProxy(target, host=self.debian.host_address, port=port)
        try:
            yield
        finally:
            proxy.close()

    def set_up(self) -> None:
        """Tell the machine the names and the authority, and let apt ask nothing."""
        debian = self.debian
        hosts = [f"{debian.host_address} {' '.join((*_HERE, *_HERE_TOO))}"]
        hosts.append(f"127.0.0.1 localhost {' '.join(_THERE)}")
        debian.write("/etc/hosts", "\n".join(hosts) + "\n")
        debian.write("/usr/local/share/ca-certificates/tests.crt", self.authority_pem())
        debian.run("update-ca-certificates")
        debian.write(
            "/etc/apt/apt.conf.d/99tests",
            'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
            'quiet "2";\nAcquire::Retries "0";\n',
        )
        debian.copy_in(self.built.deb, "/srv/recodex-monitor.deb")


@contextmanager
def world(built: Built) -> Iterator[World]:
    """Give a booted machine with everybody around it."""
    with ExitStack() as stack:
        debian = stack.enter_context(machine(full=True))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rm-world-")))
        found = World(debian, built, directory)
        found.set_up()
        stack.enter_context(_sites(found))
        stack.enter_context(_mail(found))
        yield found


class _Site(BaseHTTPRequestHandler):
    """example.org, with a WebSocket at /ws/, and the repositories."""

    protocol_version = "HTTP/1.1"
    repository = Path()

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._upgrade()
        elif self.headers["Host"] == "packages.example.org":
            file = self.repository / self.path.lstrip("/")
            if file.is_file():
                self._answer(200, file.read_bytes())
            else:
                self._answer(404, b"no such file\n")
        else:
            self._answer(200, b"<h1>Example Domain</h1>\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _upgrade(self) -> None:
        """Take the handshake, wait for whatever comes, and close (RFC 6455)."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        self.rfile.read(2)
        self.wfile.write(b"\x88\x02\x03\xe8")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest's output is for what fails."""


class _Quiet:
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go."""


class _Sites(_Quiet, ThreadingHTTPServer):
    pass


class _Mail(_Quiet, socketserver.ThreadingTCPServer):
    pass


@contextmanager
def _sites(found: World) -> Iterator[None]:
    """Serve them over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.authority.issue_cert("example.org", "packages.example.org").configure_cert(context)
    handler = type("Site", (_Site,), {"repository": found.built.repository})
    with _Sites((found.debian.host_address, 443), handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        with _running(server):
            yield


@contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


class _Greeting(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"220 mail.example.org ESMTP\r\n")
        self.request.recv(100)


@contextmanager
def _mail(found: World) -> Iterator[None]:
    """Greet as a mail server does."""
    with _Mail((found.debian.host_address, 25), _Greeting) as server, _running(server):
        yield

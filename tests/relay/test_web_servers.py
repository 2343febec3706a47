"""The config of our pages, in the real web servers: wss://HOST/ws and /ws/ reach the relay."""

from __future__ import annotations

import contextlib
import csv
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.docs.book import fences_of
from tests.ports import free_port
from tests.relay.conftest import Relay, StartRelay, everything
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

HOST = "recodex.example.org"
_APACHE = """
ServerRoot {directory}
PidFile {directory}/pid
ErrorLog {directory}/error.log
Mutex file:{directory}
ServerName localhost
{modules}
Listen {port}
"""
_MODULES = ("mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http")


def page(name: str, language: str) -> str:
    """Return the config of a page, the first one if there are several."""
    return next(
        fence.text for fence in fences_of(f"docs/deploy/{name}.md") if fence.language == language
    )


class Front:
    """A directory with a certificate, a free port, and the page's config adapted to both."""

    def __init__(self, directory: Path, relay: Relay) -> None:
        self.directory, self.port = directory, free_port()
        self.log = directory / "output"
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST, "monitor.example.org")
        self.certificate, self.key = directory / "front.pem", directory / "front.key"
        self.both = directory / "both.pem"
        certificate.private_key_pem.write_to_path(str(self.key))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(self.certificate), append=True)
        self.both.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self._relay = relay

    def adapt(self, text: str) -> str:
        text = text.replace("/etc/ssl/certs/recodex.example.org.pem", str(self.certificate))
        text = text.replace("/etc/ssl/private/recodex.example.org.key", str(self.key))
        text = text.replace("/etc/haproxy/recodex.example.org.pem", str(self.both))
        text = text.replace("127.0.0.1:4567", f"127.0.0.1:{self._relay.websocket_port}")
        return re.sub(r"(listen |\*:|bind :)443\b", rf"\g<1>{self.port}", text)

    def write(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.write_text(text)
        return file

    @contextlib.contextmanager
    def running(self, *command: str | Path) -> Iterator[None]:
        with self.log.open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        try:

            def listens() -> bool:
                assert process.poll() is None, self.log.read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", self.port)) == 0

            wait_for(listens, f"{command[0]} listens")
            yield
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def nginx(front: Front, program: Callable[..., str], *, name: str = "nginx") -> Iterator[None]:
    binary = program("nginx", package="nginx-light")
    site = front.write("site.conf", front.adapt(page(name, "nginx")))
    places = "".join(
        f"{kind}_temp_path {front.directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = front.write(
        "nginx.conf",
        f"daemon off; pid {front.directory}/pid; error_log {front.directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{places}include {site};\n}}\n",
    )
    with front.running(binary, "-c", str(config), "-e", str(front.directory / "early.log")):
        yield


@contextlib.contextmanager
def apache(front: Front, program: Callable[..., str]) -> Iterator[None]:
    binary = program("apache2", "/usr/sbin/apache2", package="apache2")
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in (*_MODULES, "proxy_wstunnel")
    )
    base = _APACHE.format(directory=front.directory, modules=modules, port=front.port)
    config = front.write("apache.conf", base + front.adapt(page("apache", "apache")))
    with front.running(binary, "-D", "FOREGROUND", "-f", str(config)):
        yield


@contextlib.contextmanager
def haproxy(front: Front, program: Callable[..., str]) -> Iterator[None]:
    binary = program("haproxy", package="haproxy")
    config = front.write("haproxy.cfg", front.adapt(page("haproxy", "haproxy")))
    with front.running(binary, "-db", "-f", str(config)):
        yield


@contextlib.contextmanager
def caddy(front: Front, program: Callable[..., str]) -> Iterator[None]:
    binary = program("caddy", package="caddy")
    text = front.adapt(page("caddy", "caddy"))
    tls = f"tls {front.certificate} {front.key}"
    for host in (HOST, "monitor.example.org"):
        text = text.replace(f"{host} {{", f"{host}:{front.port} {{\n    {tls}")
    options = "{\n    admin off\n    auto_https off\n}\n"
    config = front.write("Caddyfile", options + text)
    with front.running(binary, "run", "--adapter", "caddyfile", "--config", str(config)):
        yield


SERVERS = {"nginx": nginx, "apache": apache, "haproxy": haproxy, "caddy": caddy}


@pytest.mark.parametrize("server", SERVERS)
def test_the_relay_behind_a_web_server(
    start_relay: StartRelay, tmp_path: Path, program: Callable[..., str], server: str
) -> None:
    relay = start_relay(
        origins=[f"https://{HOST}"], trusted_proxies=["127.0.0.1"], subscribe_timeout=60
    )
    front = Front(tmp_path, relay)
    with SERVERS[server](front, program):
        for number, path in enumerate(("/ws", "/ws/")):
            with socket.create_connection(("127.0.0.1", front.port), timeout=60) as peer:
                client = connect(
                    f"wss://{HOST}{path}",
                    sock=peer,
                    ssl=front.trust,
                    origin=Origin(f"https://{HOST}"),
                    open_timeout=60,
                )
                with client as connection:
                    connection.send(f"c{number}")
                    relay.wait_subscribed(f"c{number}")
                    relay.broker.send(f"c{number}", "STARTED")
                    relay.broker.send(f"c{number}", "FINISHED")
                    assert everything(connection) == (
                        ['{"command": "STARTED"}', '{"command": "FINISHED"}'],
                        1000,
                    )
    # The client has a port only where the proxy names it.
    shown = re.findall(r"\] (\S+) subscribed to c", relay.daemon.log)
    assert len(shown) == 2
    if server != "haproxy":
        assert shown == ["127.0.0.1:0"] * 2
    assert "invalid WebSocket" not in relay.daemon.log


def checked(admin_socket: Path) -> list[str]:
    """Return the state and the last check of each of HAProxy's servers."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(admin_socket))
        admin.sendall(b"show stat\n")
        answer = b""
        while data := admin.recv(65536):
            answer += data
    rows = csv.DictReader(answer.decode().removeprefix("# ").splitlines())
    return [
        f"{row['status']} {row['check_status']}"
        for row in rows
        if row["svname"] not in ("FRONTEND", "BACKEND")
    ]


def warnings(relay: Relay) -> list[str]:
    """Return warnings but those about the machine."""
    lines = re.findall(r".*\[WARNING\].*", relay.daemon.log)
    return [line for line in lines if "[asyncio]" not in line and "the hard limit" not in line]


def test_haproxys_check_sees_the_relay_up(
    start_relay: StartRelay, tmp_path: Path, program: Callable[..., str]
) -> None:
    binary = program("haproxy", package="haproxy")
    relay = start_relay()
    front = Front(tmp_path, relay)
    # The check as HAProxy has it by default (OPTIONS, HTTP/1.0), and others.
    checks = ["", "HEAD /", "GET /", "GET / HTTP/1.1\\r\\nHost:\\ x", "HEAD / HTTP/1.0"]
    text = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n"
    text += "    timeout server 60s\n"
    for number, check in enumerate(checks):
        text += f"backend b{number}\n    option httpchk {check}\n"
        text += f"    server s{number} 127.0.0.1:{relay.websocket_port} check inter 200ms\n"
    text += f"frontend f\n    bind 127.0.0.1:{front.port}\n    default_backend b0\n"
    config = front.write("haproxy.cfg", f"global\n    stats socket {tmp_path}/s\n{text}")
    with front.running(binary, "-db", "-f", str(config)):
        wait_for(lambda: checked(tmp_path / "s") == ["UP L7OK"] * 5, "all checks pass")
    assert not warnings(relay)


def test_haproxy_names_the_client_where_tls_is_ours(
    start_relay: StartRelay, tmp_path: Path, program: Callable[..., str]
) -> None:
    binary = program("haproxy", package="haproxy")
    api_port = free_port()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    encrypted = {
        "tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")},
        "trusted_proxies": ["127.0.0.1"],
    }
    relay = start_relay(
        sections={"api": {"uri": ["127.0.0.1", api_port], **encrypted}}, **encrypted
    )
    headers = ("send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn")
    ways = [
        (f"{header} {check}", port, free_port())
        for header in headers
        for port in (relay.websocket_port, api_port)
        for check in ("check inter 60s", "check inter 60s check-ssl verify none")
    ]
    front = Front(tmp_path, relay)
    front.port = ways[-1][2]
    text = f"global\n    stats socket {tmp_path}/s\n    max-spread-checks 100\n"
    text += "defaults\n    mode tcp\n"
    text += "    timeout connect 60s\n    timeout client 60s\n    timeout server 60s\n"
    for number, (options, to, port) in enumerate(ways):
        text += f"listen l{number}\n    bind 127.0.0.1:{port}\n"
        text += f"    server s{number} 127.0.0.1:{to} {options}\n"
    # What a client says of itself is not the proxy's word.
    lies = "X-Forwarded-For: 192.0.2.1\r\n"
    with front.running(binary, "-db", "-f", str(front.write("haproxy.cfg", text))):
        for number, (_, to, port) in enumerate(ways):
            # All of 127/8 is this machine.
            source = (f"127.0.0.{number + 10}", 0)
            peer = socket.create_connection(("127.0.0.1", port), 60, source_address=source)
            if to == api_port:
                with trust.wrap_socket(peer, server_hostname="localhost") as client:
                    client.sendall(f"PUT /job/1 HTTP/1.1\r\nHost: x\r\n{lies}\r\n".encode())
                    assert client.recv(100)
                relay.daemon.wait_log(f"by nobody from {source[0]}: ")
                continue
            lying = {"X-Forwarded-For": "192.0.2.1"}
            url = "wss://localhost/"
            with connect(url, sock=peer, ssl=trust, additional_headers=lying) as socket_:
                socket_.send(f"c{number}")
                relay.daemon.wait_log(rf"{source[0]}:")
                relay.wait_subscribed(f"c{number}")
                relay.broker.send(f"c{number}", "FINISHED")
                assert everything(socket_)[1] == 1000
        wait_for(lambda: set(checked(tmp_path / "s")) == {"UP L4OK", "UP L6OK"}, "all checks pass")
    assert "192.0.2.1" not in relay.daemon.log
    assert not warnings(relay)

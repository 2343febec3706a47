"""Commands, and the proxies that the environment names."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from monitor.errors import MonitorError
from monitor.transport.environment_proxy import environment_proxy
from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import StartDaemon, run_program

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "no_proxy")
TOKEN = "a-token-that-nobody-else-may-see"


class Proxy:
    """A proxy that answers 502, and remembers what it was sent."""

    def __init__(self) -> None:
        self.heard = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.socket.accept()
                with peer:
                    self.heard += peer.recv(65536)
                    peer.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.socket.close()


def command(proxy: Proxy, *arguments: str) -> tuple[int, str, str]:
    environ = {key: value for key, value in os.environ.items() if key.lower() not in VARIABLES}
    environ |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy.url)
    environ["RECODEX_MONITOR_TOKEN"] = TOKEN
    done = run_program(*arguments, env=environ)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.integration_test
def test_loopback_is_reached_directly(start_daemon: StartDaemon, proxy: Proxy) -> None:
    websocket, zeromq, api = free_port(), free_port(), free_port()
    start_daemon(
        {
            "websocket_uri": ["127.0.0.1", websocket],
            "zeromq_uri": ["127.0.0.1", zeromq],
            "logs": {},
            "api": {"uri": ["127.0.0.1", api], "tokens_file": None},
        }
    ).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{zeromq}")
    broker.send("c", "FINISHED")
    status, _, problem = command(proxy, "follow", "c", "--url", f"ws://localhost:{websocket}/")
    assert (status, problem) == (0, "")
    broker.close()
    status, _, problem = command(proxy, "logs", "--api", f"http://127.0.0.1:{api}")
    assert (status, problem) == (0, "")
    assert proxy.heard == b""


@pytest.mark.integration_test
@pytest.mark.parametrize(
    "arguments",
    [
        ("job", "list", "--api", "http://monitor.test:9000"),
        ("logs", "--api", "http://monitor.test:9000"),
        ("logs", "--follow", "--api", "http://monitor.test:9000"),
        ("job", "list", "--api", "https://monitor.test"),
        ("follow", "c", "--wait", "1", "--url", "ws://monitor.test:4567/"),
    ],
    ids=["job", "logs", "logs --follow", "job https", "follow"],
)
def test_elsewhere_an_error_names_the_proxy_and_the_token_stays_here(
    proxy: Proxy, arguments: tuple[str, ...]
) -> None:
    status, _, problem = command(proxy, *arguments)
    assert status in (1, 75)
    assert f"the proxy {proxy.url}" in problem
    assert TOKEN.encode() not in proxy.heard
    assert TOKEN not in problem


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "a.localhost"])
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_no_proxy_for_this_machine(monkeypatch: pytest.MonkeyPatch, scheme: str, host: str) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://proxy.test:3128")
    monkeypatch.delenv("no_proxy")
    assert environment_proxy(f"{scheme}://{host}:9000/x", secret=True) is None
    assert environment_proxy(f"{scheme}://other.test/", secret=False) == "http://proxy.test:3128"
    if scheme in ("http", "ws"):
        with pytest.raises(MonitorError, match="not sending the token unencrypted"):
            environment_proxy(f"{scheme}://other.test/", secret=True)
    monkeypatch.setenv("no_proxy", "other.test")
    assert environment_proxy(f"{scheme}://other.test/", secret=True) is None


def test_a_proxys_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:hunter2@proxy.test:3128")
    with pytest.raises(MonitorError) as caught:
        environment_proxy("http://other.test/", secret=True)
    assert "hunter2" not in str(caught.value)
    assert "user:***@proxy.test" in str(caught.value)

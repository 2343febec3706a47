"""The ES module client in Node and in Chromium, against a proxy that cuts connections."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import missing
from tests.relay.broker import Broker
from tests.relay.conftest import Relay, StartRelay
from tests.relay.proxy import CuttingProxy
from tests.servers.daemon import ROOT, StartDaemon
from tests.waiting import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.integration_test

STATIC = ROOT / "monitor" / "web" / "static"
CHANNELS = [f"job{number}" for number in range(5)]
MESSAGES = 300
# Delays of a tenth, so that many cuts fit into a short test.
OPTIONS: dict[str, Any] = {"pace": 0.1}


class Following:
    """Events of a client, as lists: kind, channel, content."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []

    def of(self, kind: str) -> list[list[Any]]:
        return [event for event in list(self.events) if event[0] == kind]

    def told(self, channel: str) -> list[str]:
        return [
            event[2].get("task_id", event[2]["command"])
            for event in self.of("message")
            if event[1] == channel
        ]


class InNode(Following):
    """The client in Node, where the WebSocket is an option to it."""

    def __init__(self, node: str, url: str, channels: list[str]) -> None:
        super().__init__()
        self.process = subprocess.Popen(
            [
                node,
                "--no-warnings",
                "--experimental-websocket",
                str(Path(__file__).parent / "follow.mjs"),
                url,
                json.dumps(OPTIONS),
                *channels,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def wait_over(self) -> None:
        assert self.process.wait(60) == 0
        self._reader.join(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def in_node(program: Callable[..., str]) -> Iterator[Callable[..., InNode]]:
    """Return a function that follows channels from Node."""
    node = program("node", package="nodejs, 20 or newer")
    version = subprocess.check_output([node, "--version"], text=True)
    if int(version.lstrip("v").split(".")[0]) < 20:
        missing(f"node {version.strip()} is older than 20")
    made: list[InNode] = []

    def follow(url: str, channels: list[str]) -> InNode:
        made.append(InNode(node, url, channels))
        return made[-1]

    yield follow
    for client in made:
        client.close()


@pytest.fixture
def proxied() -> Iterator[Callable[..., CuttingProxy]]:
    made: list[CuttingProxy] = []

    def start(relay: Relay, **options: Any) -> CuttingProxy:
        made.append(CuttingProxy(relay.websocket_port, **options))
        return made[-1]

    yield start
    for proxy in made:
        proxy.close()


def send_jobs(relay: Relay, seen: Callable[[], int]) -> None:
    """Send all channels' messages, never far ahead of what the client has, so that cuts matter."""
    for number in range(MESSAGES):
        for channel in CHANNELS:
            relay.broker.task(channel, number)
        enough = (number - 20) * len(CHANNELS)
        wait_for(lambda enough=enough: seen() >= enough, "the client")  # type: ignore[misc]
    for channel in CHANNELS:
        relay.broker.send(channel, "FINISHED")


def complete(messages: int = MESSAGES) -> list[str]:
    return [*(f"t{number}" for number in range(messages)), "FINISHED"]


def check_complete(client: Following) -> None:
    for channel in CHANNELS:
        assert client.told(channel) == complete()
    assert {event[1] for event in client.of("end")} == set(CHANNELS)
    assert all(event[2]["finished"] for event in client.of("end"))
    assert client.of("reset") == client.of("gap") == client.of("error") == []


def test_node_gets_everything_once_through_a_proxy_that_cuts(
    relay: Relay, proxied: Callable[..., CuttingProxy], in_node: Callable[..., InNode]
) -> None:
    proxy = proxied(relay, seed=1, cut_bytes=(2_000, 30_000))
    client = in_node(f"ws://127.0.0.1:{proxy.port}/", CHANNELS)
    send_jobs(relay, lambda: len(client.of("message")))
    proxy.cut_bytes = None
    client.wait_over()
    check_complete(client)
    assert proxy.cuts >= 4
    messages = client.of("message")
    assert [e[3]["seq"] for e in messages if e[1] == "job0"] == list(range(1, MESSAGES + 2))


def test_node_resumes_over_a_restart_and_is_told_of_the_gap(
    start_relay: StartRelay, start_daemon: StartDaemon, in_node: Callable[..., InNode]
) -> None:
    relay = start_relay(history_file="history.db")
    client = in_node(f"ws://127.0.0.1:{relay.websocket_port}/", CHANNELS)
    for channel in CHANNELS:
        for number in range(50):
            relay.broker.task(channel, number)
    wait_for(lambda: len(client.of("message")) == 250, "the first half")
    relay.broker.close()
    assert relay.daemon.stop() == 0
    relay.daemon = start_daemon(relay.config).wait_ready()
    relay.brokers = [Broker(f"tcp://127.0.0.1:{relay.zeromq_port}")]
    for channel in CHANNELS:
        for number in range(50, 100):
            relay.broker.task(channel, number)
        relay.broker.send(channel, "FINISHED")
    client.wait_over()
    for channel in CHANNELS:
        assert client.told(channel) == complete(100)
    assert client.of("reset") == []
    assert {(event[1], event[2]["seq"]) for event in client.of("gap")} == {
        (channel, 50) for channel in CHANNELS
    }
    assert next(event[1]["code"] for event in client.of("away")) == 1001


class _Static(SimpleHTTPRequestHandler):
    """The daemon's static files."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(STATIC))

    def log_message(self, format: str, *args: Any) -> None:
        pass


class InPage(Following):
    """The client in a page; events are read from it when asked."""

    def __init__(self, page: Page, url: str, channels: list[str]) -> None:
        super().__init__()
        self._page = page
        # Browsers let only pages of this host talk to it.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Static)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{self._server.server_port}"
        page.goto(f"{origin}/relay-client.js")
        page.evaluate(
            """async ([url, options, channels]) => {
                const { RelayClient } = await import("/relay-client.js");
                window.told = [];
                const say = (...event) => window.told.push(event);
                const relay = window.relay = new RelayClient(url, options);
                for (const channel of channels) {
                    relay.subscribe(channel, {
                        message: (data, at) => say("message", channel, data, at),
                        reset: (told) => say("reset", channel, told),
                        gap: (told) => say("gap", channel, told),
                        end: (told) => say("end", channel, told),
                    });
                }
            }""",
            [url, OPTIONS, channels],
        )

    def count(self) -> int:
        return int(self._page.evaluate("window.told.filter((e) => e[0] === 'message').length"))

    def wait_over(self) -> None:
        self._page.wait_for_function(
            f"window.told.filter((e) => e[0] === 'end').length === {len(CHANNELS)}", timeout=60_000
        )
        self.events = self._page.evaluate("window.told")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_page_gets_everything_once_through_a_proxy_that_cuts(
    relay: Relay, proxied: Callable[..., CuttingProxy], page: Page
) -> None:
    proxy = proxied(relay, seed=2, cut_bytes=(2_000, 30_000))
    client = InPage(page, f"ws://127.0.0.1:{proxy.port}/", CHANNELS)
    send_jobs(relay, client.count)
    proxy.cut_bytes = None
    client.wait_over()
    check_complete(client)
    assert proxy.cuts >= 4
    # A channel that ended can be read again, and left.
    again = page.evaluate(
        """() => new Promise((resolve) => {
            const leave = window.relay.subscribe("job0", {
                message: (data) => { leave(); resolve(data); },
            });
        })"""
    )
    assert again == {"command": "TASK", "task_id": "t0", "task_state": "COMPLETED"}
    client.close()

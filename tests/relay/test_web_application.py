"""A page of a web application, which never connects again, shows a job's progress."""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.relay.broker import Broker
from tests.relay.conftest import Relay, StartRelay
from tests.relay.other_clients import web_application
from tests.servers.daemon import StartDaemon

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.integration_test

TASKS = 30
FINISHED = "20 completed, 5 skipped, 5 failed"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Application:
    """The page of a channel, in a browser."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.origin = page, origin
        # Connections that it opened.
        self.opened = 0
        self.errors: list[str] = []
        page.on("websocket", self._open)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _open(self, _: object) -> None:
        self.opened += 1

    def show(self, relay: Relay, channel: str = "job") -> None:
        asked = {"url": f"ws://127.0.0.1:{relay.websocket_port}/ws", "channel": channel}
        query = urllib.parse.urlencode({**asked, "tasks": TASKS})
        self.page.goto(f"{self.origin}/progress.html?{query}")

    def wait(self, phase: str, done: int = 0) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator("#progress")).to_have_attribute("data-phase", re.compile(phase))
        expect(self.page.locator("progress")).to_have_js_property("value", done)

    @property
    def counts(self) -> str:
        return self.page.locator("#progress span").inner_text()

    @property
    def commands(self) -> list[str]:
        return self.page.locator("#progress li").all_inner_texts()


@pytest.fixture(scope="module")
def origin(program: Callable[..., str]) -> Iterator[str]:
    """Return the address of a web server with the application."""
    folder: Path = web_application(program)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Files(*args, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def application(origin: str, page: Page) -> Application:
    return Application(page, origin)


def run(relay: Relay, first: int, last: int) -> None:
    """Send the tasks from ``first`` to before ``last``, and what is around all of them."""
    if first == 0:
        for command in ("DOWNLOADED", "STARTED"):
            relay.broker.send("job", command)
    for number in range(first, last):
        state = {4: "SKIPPED", 5: "FAILED"}.get(number % 6, "COMPLETED")
        relay.broker.task("job", number, state)
    if last == TASKS:
        for command in ("ENDED", "UPLOADED", "FINISHED"):
            relay.broker.send("job", command)


COMMANDS = ["DOWNLOADED", "STARTED", *["TASK"] * TASKS, "ENDED", "UPLOADED", "FINISHED"]


def check_finished(application: Application, opened: int = 1) -> None:
    application.wait("finished", TASKS)
    assert application.counts == FINISHED
    assert application.commands == COMMANDS
    assert application.opened == opened
    assert application.errors == []


def test_a_page_sees_a_job_from_the_beginning_to_the_end(
    relay: Relay, application: Application
) -> None:
    application.show(relay)
    application.wait("open")
    relay.wait_subscribed("job")
    run(relay, 0, 10)
    application.wait("open", 10)
    run(relay, 10, TASKS)
    check_finished(application)
    # It closed first, without a code (1005), or the relay did: both are the normal end.
    assert relay.daemon.wait_log("a client left job: ")[-4:] in {"1000", "1005"}


def test_a_page_that_comes_in_the_middle_or_after_the_end_shows_everything(
    relay: Relay, application: Application
) -> None:
    run(relay, 0, 15)
    application.show(relay)
    application.wait("open", 15)
    run(relay, 15, TASKS)
    check_finished(application)
    application.show(relay)
    check_finished(application, opened=2)


def test_a_page_loses_nothing_by_a_reload_and_by_brokers_that_come_and_go(
    start_relay: StartRelay, application: Application
) -> None:
    relay = start_relay(ping_interval=1)
    application.show(relay)
    relay.wait_subscribed("job")
    run(relay, 0, 10)
    application.wait("open", 10)
    relay.daemon.write_config({**relay.config, "relay": {"ping_interval": 2, "max_clients": 5}})
    relay.daemon.reload()
    run(relay, 10, 20)
    application.wait("open", 20)
    relay.broker.close()
    relay.daemon.wait_log("a ZeroMQ peer disconnected, 0 now")
    relay.brokers[0] = Broker(f"tcp://127.0.0.1:{relay.zeromq_port}")
    run(relay, 20, TASKS)
    check_finished(application)


def test_a_page_that_a_restart_cut_off_has_everything_once_it_is_loaded_again(
    start_relay: StartRelay, start_daemon: StartDaemon, application: Application
) -> None:
    relay = start_relay(history_file="history.db")
    application.show(relay)
    relay.wait_subscribed("job")
    run(relay, 0, 10)
    application.wait("open", 10)
    relay.broker.close()
    assert relay.daemon.stop() == 0
    application.wait("lost 1001", 10)
    relay.daemon = start_daemon(relay.config).wait_ready()
    relay.brokers[0] = Broker(f"tcp://127.0.0.1:{relay.zeromq_port}")
    run(relay, 10, TASKS)
    relay.wait_received(23)
    # Nobody connects again by itself.
    assert application.opened == 1
    application.page.reload()
    check_finished(application, opened=2)

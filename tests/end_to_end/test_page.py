"""A web page of the kind that ReCodEx serves: one WebSocket, JSON.parse, a bar that counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import StartDaemon

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.end_to_end

PAGE = b"""<!DOCTYPE html>
<progress id="bar" max="1000" value="0"></progress>
<script>
  const seen = {commands: [], code: null};
  const [url, channel] = decodeURIComponent(location.hash.slice(1)).split(' ');
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(channel);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    seen.commands.push(message.command);
    if (message.command === 'TASK') document.getElementById('bar').value += 1;
  };
  socket.onclose = (event) => { seen.code = event.code; };
</script>
"""


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_sees_the_whole_job(start_daemon: StartDaemon, page: Page, site: str) -> None:
    websocket_port, zeromq_port = free_port(), free_port()
    start_daemon(
        {"websocket_uri": ["127.0.0.1", websocket_port], "zeromq_uri": ["127.0.0.1", zeromq_port]}
    ).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{zeromq_port}")
    broker.send("student_1", "DOWNLOADED")
    broker.send("student_1", "STARTED")
    page.goto(f"{site}#ws://127.0.0.1:{websocket_port}/ws/ student_1")
    page.wait_for_function("seen.commands.includes('STARTED')")
    for number in range(1000):
        broker.task("student_1", number)
    broker.send("student_1", "FINISHED")
    page.wait_for_function("seen.code !== null")
    seen = page.evaluate("seen")
    assert seen["commands"][:2] == ["DOWNLOADED", "STARTED"]
    assert seen["commands"][-1] == "FINISHED"
    assert seen["code"] == 1000
    assert page.evaluate("document.getElementById('bar').value") == 1000
    broker.close()

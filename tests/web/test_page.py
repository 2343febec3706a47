"""The live page in a real Chromium: every view, what it shows, and that it stays true."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from tests.cluster.plays import DeploymentPlay
from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.browser import LIMIT_MS, Open, assert_usable, wait_for_count
from tests.servers.daemon import StartDaemon
from tests.servers.kubernetes import KubernetesServer
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import WebSocket

pytestmark = pytest.mark.end_to_end

VIEWS = {
    "overview": ("#/", "text=2 sites are down"),
    "sites": ("#/sites", ".sites .uptime"),
    "site": ("#/sites/1", ".chart svg:has(path)"),
    "models": ("#/models", ".timeline li"),
    "logs": ("#/logs", ".log li.error"),
    "relay": ("#/relay", "text=student_1"),
    "channel": ("#/relay/student_1", "text=running, last: TASK"),
}


def kubeconfig(file: Path, server: KubernetesServer) -> str:
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    return str(file)


def upload(daemon: Whole, level: str, message: str, sender: str = "addon-1") -> None:
    entry = {"level": level, "time": time.time(), "sender": sender, "message": message}
    with connect(f"ws://127.0.0.1:{daemon.port}/ws") as socket:
        socket.send(json.dumps({"action": "uploadLogs", **entry}))
        assert json.loads(socket.recv(timeout=60))["status"] == "ok"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A daemon with all parts on, two sites down, one up and one stopped, and something of all."""
    server = KubernetesServer()
    port = free_port()
    own = f"http://127.0.0.1:{port}/website_mock?delay=0&size=9"
    play = DeploymentPlay("churn")
    for step in play.create("registry.example/churn:1.4"):
        for write in step:
            assert write.item is not None
            server.write(write.plural, write.item)
    jobs = [
        {"id": 1, "name": "good", "url": f"{own}&status=200", "interval": 0.5},
        {"id": 2, "name": "ill", "url": f"{own}&status=503", "interval": 0.5},
        {"id": 3, "name": "<b>gone</b>", "url": "http://127.0.0.1:9/", "interval": 0.5},
        {"id": 4, "name": "resting", "url": f"{own}&status=200", "interval": 0.5},
    ]
    file = kubeconfig(tmp_path_factory.mktemp("cluster") / "kubeconfig", server)
    try:
        with whole(
            probes={"jobs": jobs},
            cluster={"kubeconfig": file, "kinds": ["Deployment"]},
            api={"uri": ["127.0.0.1", port], "tokens_file": None, "website_mock": True},
            logs={"timewindow": 600},
        ) as running:
            broker = Broker(f"tcp://127.0.0.1:{running.config['zeromq_uri'][1]}")
            with contextlib.closing(broker):
                broker.send("student_1", "STARTED")
                for number in range(3):
                    broker.task("student_1", number)
                broker.task("student_1", 3, "FAILED")
                assert running.request("POST", "/job/4/stop").status_code == 200
                running.wait_for_state(2, "down")
                running.wait_for_state(3, "down")
                upload(running, "error", "the disk is full")
                upload(running, "debug", "nothing <i>special</i>")
                yield running
    finally:
        server.stop()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_view_shows_what_is_there_and_can_be_used_by_all(
    daemon: Whole, open_page: Open, scheme: str, width: int
) -> None:
    watched = open_page(
        daemon.url,
        color_scheme=scheme,
        viewport={"width": width, "height": 844},
        reduced_motion="reduce",
        bypass_csp=True,  # for axe alone; the policy has a test of its own
    )
    page = watched.open()
    for name, (fragment, selector) in VIEWS.items():
        page.goto(f"{daemon.url}/{fragment}")
        page.wait_for_selector(selector)
        assert_usable(page, f"{name}, {scheme}, {width}")
    page.set_viewport_size({"width": 768, "height": 1024})
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the bar does not fit a tablet"
    watched.assert_quiet()


def test_the_policy_forbids_scripts_in_the_page_and_the_page_has_none(
    daemon: Whole, open_page: Open
) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/sites/1")
    page.wait_for_selector(".chart svg:has(path)")
    watched.assert_quiet()
    page.evaluate(
        "const script = document.createElement('script');"
        "script.textContent = 'window.evil = true'; document.body.append(script)"
    )
    assert page.evaluate("window.evil") is None
    assert any("Content Security Policy" in text for text in watched.console)


def test_names_are_text_and_never_markup(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/sites")
    page.wait_for_selector("text=<b>gone</b>")
    page.goto(f"{daemon.url}/#/logs")
    page.wait_for_selector("text=nothing <i>special</i>")
    watched.assert_quiet()


def test_an_address_that_is_none_shows_a_view_all_the_same(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/relay/%zz")
    page.wait_for_selector("h1:has-text('%zz')")
    page.goto(f"{daemon.url}/#/nowhere/%")
    page.wait_for_selector("text=2 sites are down")
    watched.assert_quiet()


def test_a_job_is_stopped_and_started_and_every_page_sees_it(
    daemon: Whole, open_page: Open
) -> None:
    here, there = open_page(daemon.url), open_page(daemon.url)
    mine, other = here.open("#/sites/1"), there.open("#/sites")
    row = other.locator('.sites li[data-id="1"]')
    row.locator(".state.up").wait_for()
    mine.get_by_role("button", name="Stop", exact=True).click()
    row.locator(".state.stopped").wait_for()
    mine.get_by_role("button", name="Start", exact=True).click()
    row.locator(".state.up").wait_for()
    here.assert_quiet()
    there.assert_quiet()


def test_sites_are_found_by_state_name_and_error(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/sites")
    rows = page.locator(".sites li")
    wait_for_count(rows, 4)
    # The worst come first.
    assert rows.first.locator(".state.down").count() == 1
    page.get_by_role("button", name="Down", exact=True).click()
    wait_for_count(rows, 2)
    page.get_by_label("Search sites").fill("refused")
    wait_for_count(rows, 1)
    assert "gone" in rows.first.inner_text()
    watched.assert_quiet()


def test_logs_come_live_are_filtered_paused_and_exported(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, accept_downloads=True)
    page = watched.open("#/logs")
    page.wait_for_selector(".log li.error")
    upload(daemon, "info", "a live line")
    page.wait_for_selector(".log li:has-text('a live line')")
    page.get_by_role("button", name="Pause").click()
    upload(daemon, "info", "a held line")
    page.wait_for_selector("text=1 new entry")
    assert page.locator(".log li:has-text('a held line')").count() == 0
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".log li:has-text('a held line')")
    page.get_by_label("Search messages").fill("DISK")
    page.wait_for_selector(".log li mark:has-text('disk')")
    wait_for_count(page.locator(".log li"), 1)
    upload(daemon, "info", "not of this search")
    upload(daemon, "warning", "another disk")
    page.wait_for_selector(".log li:has-text('another')")
    assert page.locator(".log li").count() == 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert json.loads(lines[0])["message"] == "another disk"
    watched.assert_quiet()


def test_a_channel_is_followed_as_a_bar(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/relay/student_2")
    page.wait_for_selector("text=nothing yet")
    broker = Broker(f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}")
    with contextlib.closing(broker):
        broker.send("student_2", "STARTED")
        page.wait_for_selector("text=running, last: STARTED")
        page.get_by_label("expected").fill("4")
        broker.task("student_2", 1)
        broker.task("student_2", 2, "FAILED")
        page.wait_for_selector("text=1 failed")
        assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "2"
        assert page.get_by_role("progressbar").get_attribute("aria-valuemax") == "4"
        broker.send("student_2", "FINISHED")
        page.wait_for_selector("text=finished")
        # The same channel again.
        broker.send("student_2", "STARTED")
        page.wait_for_selector("text=running, last: STARTED")
        assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "0"
    watched.assert_quiet()


def test_a_channel_says_when_the_relay_had_lost_its_broker(daemon: Whole, open_page: Open) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    watched = open_page(daemon.url)
    page = watched.open("#/relay/student_3")
    notes = page.get_by_label("What may be missing")
    with contextlib.closing(Broker(uri)) as broker:
        broker.send("student_3", "STARTED")
        page.wait_for_selector("text=running, last: STARTED")
        assert notes.is_hidden()
    notes.get_by_text("The relay lost a broker at").wait_for()
    with contextlib.closing(Broker(uri)) as broker:
        notes.get_by_text("The relay lost a broker from").wait_for()
        broker.send("student_3", "FINISHED")
        page.wait_for_selector("text=finished")
    assert "after message 1 some may be missing" in notes.inner_text()
    watched.assert_quiet()


def test_a_channel_goes_on_after_a_restart_or_says_what_may_be_missing(
    open_page: Open, start_daemon: StartDaemon
) -> None:
    port, zeromq = free_port(), free_port()
    config = {
        "zeromq_uri": ["127.0.0.1", zeromq],
        "relay": {"history_file": "channels.db"},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    daemon = start_daemon(config).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open("#/relay/student_1")
    with contextlib.closing(Broker(f"tcp://127.0.0.1:{zeromq}")) as broker:
        broker.send("student_1", "STARTED")
        broker.task("student_1", 1)
        page.wait_for_selector("text=1 completed")
    # The same channel under its old name: nothing is lost but what nobody heard meanwhile.
    assert daemon.stop() == 0
    page.wait_for_selector('body[data-connection="lost"]')
    daemon = start_daemon(config).wait_ready()
    with contextlib.closing(Broker(f"tcp://127.0.0.1:{zeromq}")) as broker:
        broker.task("student_1", 2)
        page.wait_for_selector("text=2 completed")
    steps = page.get_by_label("Messages, newest first")
    assert steps.locator("li").count() == 3
    notes = page.get_by_label("What may be missing")
    notes.get_by_text("after message 2 some may be missing").first.wait_for()
    assert notes.get_by_text("no longer").count() == 0
    # A relay that has forgotten it.
    assert daemon.stop() == 0
    page.wait_for_selector('body[data-connection="lost"]')
    daemon = start_daemon({**config, "relay": {}}).wait_ready()
    notes.get_by_text("The relay no longer knows this channel").wait_for()
    assert steps.locator("li").count() == 3
    with contextlib.closing(Broker(f"tcp://127.0.0.1:{zeromq}")) as broker:
        broker.task("student_1", 3)
        notes.get_by_text("no longer knew what this page had seen").wait_for()
        page.wait_for_selector("text=1 completed")
    assert watched.foreign == []
    assert daemon.stop() == 0


def test_notifications_come_by_themselves_and_are_not_asked_for_again_and_again(
    daemon: Whole, open_page: Open
) -> None:
    def notify(message: str) -> None:
        entry = {"level": "info", "time": time.time(), "sender": "a", "message": message}
        with connect(f"ws://127.0.0.1:{daemon.port}/ws") as socket:
            socket.send(json.dumps({"action": "uploadNotifications", **entry}))
            assert json.loads(socket.recv(timeout=60))["status"] == "ok"

    watched = open_page(daemon.url)
    asked: list[str] = []
    sockets: list[WebSocket] = []
    page = watched.page
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 - no builtin
    notify("the first one")
    watched.open("#/logs")
    page.get_by_text("Notifications", exact=True).click()
    page.wait_for_selector(".log li:has-text('the first one')")
    notify("the second one")
    page.wait_for_selector(".log li:has-text('the second one')")

    def hear(count: int) -> None:
        for _ in range(count):
            sockets[-1].wait_for_event("framereceived", timeout=LIMIT_MS)

    # One comes each second, and so did the requests once.
    hear(4)
    settled = sum("/notification" in url for url in asked)
    hear(6)
    assert sum("/notification" in url for url in asked) == settled
    page.get_by_role("button", name="Pause").click()
    notify("the third one")
    page.wait_for_selector("text=There are other notifications")
    assert page.locator(".log li:has-text('the third one')").count() == 0
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".log li:has-text('the third one')")
    watched.assert_quiet()


def test_everything_can_be_reached_by_keyboard(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/sites")
    page.wait_for_selector(".sites li")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('href') || document.activeElement.innerText"
                " || document.activeElement.ariaLabel"
            )
        )
    assert {"#view", "#/", "#/sites", "#/logs", "Down", "Search sites", "#/sites/1"} <= reached
    watched.assert_quiet()


def test_the_connection_is_lost_said_and_found_again(
    open_page: Open, start_daemon: StartDaemon
) -> None:
    port = free_port()
    config = {
        "relay": False,
        "probes": {"jobs": [{"id": 1, "name": "a", "url": "http://127.0.0.1:9/", "interval": 0.5}]},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    first = start_daemon(config).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open()
    page.wait_for_selector("text=1 site is down")
    assert first.stop() == 0
    page.wait_for_selector('body[data-connection="lost"]')
    page.wait_for_selector("text=The connection to the daemon is lost")
    assert "What you see is from" in page.locator(".lost").inner_text()
    # What was seen is still there to be read, but not as if it were of now.
    assert "grayscale" in page.locator("main").evaluate("each => getComputedStyle(each).filter")
    second = start_daemon(config).wait_ready()
    page.wait_for_selector('body[data-connection="live"]')
    assert page.locator(".lost").is_hidden()
    page.wait_for_selector("text=1 site is down")
    assert watched.foreign == []
    # The browser itself says of each try that nobody was there; the page adds nothing.
    assert all("ERR_" in text or "WebSocket" in text for text in watched.console)
    assert second.stop() == 0


def test_a_page_logs_in_with_a_token_and_out(open_page: Open) -> None:
    with whole(tokens=True) as daemon:
        watched = open_page(daemon.url)
        page = watched.page
        page.goto(daemon.url)
        page.get_by_label("Token").fill(daemon.tokens["reader"])
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector('body[data-connection="live"]')
        page.wait_for_selector("text=The daemon")
        assert page.evaluate("document.cookie") == ""
        page.goto(f"{daemon.url}/#/relay")
        page.wait_for_selector("text=Channels are shown to administrators")
        # What may not be seen is refused, and not empty.
        page.goto(f"{daemon.url}/#/relay/student_1")
        refused = page.locator(".picture[data-kind=refused]:visible")
        wait_for_count(refused, 2)
        assert "Channels are shown to administrators" in refused.first.inner_text()
        assert page.get_by_text("0 completed").is_hidden()
        watched.assert_quiet()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token").wait_for()
        page.get_by_label("Token").fill("rmt_wrong")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector("text=There is no such token.")

"""The live page never shows what is not true: loading, empty, refused, old, unavailable, true."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from monitor.store import DatabaseSettings
from tests.ports import free_port
from tests.servers.browser import LIMIT_MS, Open, wait_for_count
from tests.servers.daemon import StartDaemon
from tests.servers.postgres import PostgresServer, own_server
from tests.store.opened import opened
from tests.web.whole import whole

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

pytestmark = pytest.mark.end_to_end

GONE = "http://127.0.0.1:9/"


def site(number: int, name: str, url: str = GONE, interval: float = 0.5) -> dict[str, Any]:
    return {"id": number, "name": name, "url": url, "interval": interval}


def held_back(page: Page, kind: str) -> list[Any]:
    """Keep messages of a kind from the page; return what sends each of them after all."""
    held: list[Any] = []

    def handle(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            found = json.loads(message if isinstance(message, str) else gzip.decompress(message))
            if found["type"] == kind:
                held.append(lambda: route.send(message))
            else:
                route.send(message)

        server.on_message(pass_on)

    page.route_web_socket("**/live*", handle)
    return held


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A daemon with two sites that are down, and without models and the relay."""
    with whole(probes={"jobs": [site(1, "a"), site(2, "b")]}, relay=False) as running:
        yield running.url


def test_nothing_is_green_before_it_is_known(open_page: Open, url: str) -> None:
    watched = open_page(url)
    page = watched.page
    held = held_back(page, "jobs")
    watched.open()
    page.wait_for_selector("h1:has-text('Loading')")
    assert page.locator(".verdict.up").count() == 0
    page.goto(f"{watched.url}/#/sites")
    page.wait_for_selector(".picture[data-kind=loading] >> visible=true")
    page.goto(f"{watched.url}/#/sites/2")
    page.wait_for_selector(".picture[data-kind=loading] >> visible=true")
    for send in held:
        send()
    page.wait_for_selector("h1:has-text('b')")
    watched.assert_quiet()


def test_a_site_that_was_never_checked_is_not_up(
    open_page: Open, start_daemon: StartDaemon
) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}/website_mock?status=200&delay=0&size=9"
    start_daemon(
        {
            "relay": False,
            "probes": {"jobs": [site(1, "good", own), site(2, "later", own, 80000.0)]},
            "api": {"uri": ["127.0.0.1", port], "tokens_file": None, "website_mock": True},
        }
    ).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open()
    page.wait_for_selector("h1:has-text('1 site has no result yet')")
    assert page.locator(".verdict.up").count() == 0
    watched.assert_quiet()


def test_a_mass_outage_is_a_line_for_each_error(open_page: Open, start_daemon: StartDaemon) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}/website_mock?delay=0&size=9"
    jobs = [site(number, f"site {number}") for number in range(1, 31)]
    jobs += [site(40 + number, f"ill {number}", f"{own}&status=503") for number in range(2)]
    jobs.append({**site(50, "slow", f"{own}&status=200"), "degraded_after": 1e-6})
    start_daemon(
        {
            "relay": False,
            "probes": {"jobs": jobs},
            "api": {"uri": ["127.0.0.1", port], "tokens_file": None, "website_mock": True},
        }
    ).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open()
    page.wait_for_selector("h1:has-text('32 sites are down')")
    page.locator(".also li").get_by_text("1 site is degraded").wait_for()
    lines = page.locator(".changes").first.locator("li")
    wait_for_count(lines, 2)
    assert "and 27 more are down" in lines.first.inner_text()
    assert "ill 0 and ill 1 are down" in lines.nth(1).inner_text()
    lines.first.get_by_text("27 more").click()
    rows = page.locator(".sites li")
    page.wait_for_selector("text=30 of 33 in all")
    assert rows.first.locator(".state.down").count() == 1
    watched.assert_quiet()


def test_a_part_that_is_off_is_not_an_empty_view(open_page: Open, url: str) -> None:
    watched = open_page(url)
    # Which parts are off is known before how the others do.
    held_back(watched.page, "status")
    page = watched.open("#/models")
    page.wait_for_selector("text=the part cluster is off")
    watched.assert_quiet()


def test_every_tab_works_without_the_daemon_and_says_how_old_its_data_is(
    open_page: Open, start_daemon: StartDaemon
) -> None:
    port = free_port()
    config = {
        "relay": False,
        "probes": {"jobs": [site(1, "a")]},
        "logs": {},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    daemon = start_daemon(config).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open()
    page.wait_for_selector("h1:has-text('1 site is down')")
    page.wait_for_selector('body[data-views="loaded"]')
    assert daemon.stop() == 0
    page.wait_for_selector('body[data-connection="lost"]')
    page.wait_for_selector(".verdict.stale h1:has-text('Not connected. At ')")
    page.get_by_role("link", name="Sites").click()
    page.wait_for_selector(
        ".picture[data-kind=stale]:visible >> text=before the connection was lost"
    )
    assert page.locator(".sites li").count() == 1
    page.get_by_role("link", name="Logs").click()
    page.wait_for_selector("h1:has-text('Logs')")
    page.wait_for_selector(".picture[data-kind=stale]:visible >> text=nothing is known yet")
    assert page.locator('.tabs [aria-current="page"]').inner_text() == "Logs"
    assert page.title().endswith("Logs – recodex-monitor")
    page.get_by_role("link", name="Overview", exact=True).click()
    page.wait_for_selector(".verdict.stale h1:has-text('Not connected. At ')")


def test_what_cannot_be_loaded_is_said_as_long_as_that_lasts(open_page: Open, url: str) -> None:
    watched = open_page(url)
    page = watched.page
    page.route(re.compile(r"/(uptime|log|notification)\?"), lambda route: route.fulfill(status=503))
    with page.expect_websocket() as opened_socket:
        watched.open()
    for fragment, what in (
        ("#/sites", "The uptime bars"),
        ("#/logs", "The logs"),
        ("#/logs?kind=notification", "The notifications"),
    ):
        page.goto(f"{watched.url}/{fragment}")
        said = page.locator(".picture[data-kind=away]:visible").get_by_text(f"{what} cannot be")
        said.wait_for()
        # What else the daemon says each second changes nothing about it.
        for _ in range(3):
            opened_socket.value.wait_for_event("framereceived")
        assert said.is_visible(), what


async def make_tables(url: str) -> None:
    async with opened(DatabaseSettings(url=url)):
        pass


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[PostgresServer, str]]:
    """A PostgreSQL of these tests' own, to be stopped, and the URL of a database with tables."""
    with own_server() as server:
        url = server.url(server.create_database())
        # In another thread: playwright has an event loop in this one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, make_tables(url)).result()
        yield server, url


def test_panels_say_that_the_database_is_unavailable_and_show_data_when_it_is_back(
    open_page: Open, postgres: tuple[PostgresServer, str], start_daemon: StartDaemon
) -> None:
    server, url = postgres
    port = free_port()
    config = {
        "relay": False,
        "database": {"url": url},
        "probes": {"jobs": [site(1, "a")]},
        "aggregation": {"flush_interval": 0.2},
        "logs": {},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    start_daemon(config, debug=False).wait_ready()
    watched = open_page(f"http://127.0.0.1:{port}")
    page = watched.open("#/logs")
    page.wait_for_selector("text=No log entry within the time")
    server.stop()
    with contextlib.ExitStack() as stack:
        stack.callback(server.start)
        page.goto(f"{watched.url}/#/sites/1")
        unavailable = page.locator(".picture[data-kind=away]:visible")
        unavailable.get_by_text("The uptime cannot be loaded").wait_for(timeout=LIMIT_MS)
        page.goto(f"{watched.url}/#/logs")
        unavailable.get_by_text("The logs cannot be loaded").wait_for(timeout=LIMIT_MS)
        assert page.get_by_text("No log entry within").is_hidden()
        page.goto(f"{watched.url}/#/")
        page.wait_for_selector("text=The logs are not known")
        assert page.locator(".verdict.up").count() == 0
    page.goto(f"{watched.url}/#/logs")
    page.wait_for_selector("text=No log entry within the time", timeout=LIMIT_MS)
    assert watched.foreign == []

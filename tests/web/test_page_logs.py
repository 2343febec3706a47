"""The log view: bars over time, ranges, context, links, readable lines, and whole exports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.client import connect

from tests.servers.browser import Open, wait_for_count
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.end_to_end

ESCAPE = "\x1b[31mred\u202egnp.exe\x07"


def upload(daemon: Whole, entries: list[dict[str, Any]]) -> None:
    with connect(f"ws://127.0.0.1:{daemon.port}/ws") as socket:
        socket.send(json.dumps({"action": "uploadLogs", "logs": entries}))
        assert json.loads(socket.recv(timeout=60))["status"] == "ok"


def entry(message: str, age: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "level": "info",
        "time": time.time() - age,
        "sender": "addon-1",
        "message": message,
        **more,
    }


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(probes=False, relay=False, aggregation=False, logs={"timewindow": 4000}) as running:
        upload(running, [entry(f"line {number}", 3000 - number) for number in range(900)])
        upload(
            running,
            [
                entry("the disk is full", 1500.0, level="error"),
                entry('{"job": 7, "text": "a\\u202eb", "ok": false}', 1000.0),
                entry(ESCAPE, 999.0),
                entry("an Addon", 998.0, sender="Addon-1"),
            ],
        )
        yield running


def rows(page: Page) -> Any:
    return page.locator(".log > li")


def test_a_part_of_the_time_is_chosen_on_the_bars_and_is_in_the_address(
    daemon: Whole, open_page: Open
) -> None:
    watched = open_page(daemon.url, viewport={"width": 1280, "height": 900})
    page = watched.open("#/logs")
    bars = page.locator(".log-bars")
    bars.locator("svg[aria-label^='904 entries, 1 of them']").wait_for()
    box = bars.bounding_box()
    assert box is not None
    # From 60 % to 80 % of 4000 s: 1600 to 800 s ago.
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20)
    page.mouse.up()
    wait_for_count(rows(page), 4)
    assert re.search(r"from=\d+\.\d+&until=\d+\.\d+", page.url)
    assert "not live" in page.locator(".title").inner_text()
    page.reload()
    wait_for_count(rows(page), 4)
    assert page.get_by_label("Time range").input_value() == "custom"
    watched.assert_quiet()


def test_the_bars_can_be_read_and_chosen_by_keyboard(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/logs?level=error")
    page.locator(".log-bars svg[aria-label^='1 entries']").wait_for()
    page.locator(".log-bars").focus()
    page.keyboard.press("End")
    words = page.locator(".bars-panel .bar-words")
    for _ in range(60):
        if "1 error" in words.inner_text():
            break
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=not live")
    wait_for_count(rows(page), 1)
    watched.assert_quiet()


def test_a_line_is_a_link_to_all_that_was_logged_around_it(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, viewport={"width": 1280, "height": 900})
    page = watched.open("#/logs?q=disk")
    wait_for_count(rows(page), 1)
    page.locator(".log a.time").click()
    marked = page.locator(".log > li.marked")
    marked.wait_for()
    assert "the disk is full" in marked.inner_text()
    # Without the search, and in sight.
    assert rows(page).count() > 1
    box = marked.bounding_box()
    assert box is not None
    assert 56 < box["y"] < 850
    page.go_back()
    wait_for_count(rows(page), 1)
    watched.assert_quiet()


def test_lines_are_readable_and_harmless(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/logs?q=exe")
    message = page.locator(".log .message")
    message.wait_for()
    shown = message.inner_text()
    assert shown == "␛[31mredU+202Egnp.exe␇"
    page.goto(f"{daemon.url}/#/logs?q=%22job%22")
    wait_for_count(rows(page), 1)
    page.get_by_role("button", name="Details").click()
    page.wait_for_selector(".json-key >> text=job")
    assert message.inner_text().splitlines()[1].startswith('  "job": 7')
    assert "\u202e" not in message.inner_text()
    watched.assert_quiet()


def test_texts_are_left_out_and_a_sender_is_named_exactly(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/logs?sender=Addon-1")
    wait_for_count(rows(page), 1)
    page.get_by_label("Sender, exactly").fill("addon")
    page.wait_for_selector("text=a sender must be named exactly")
    page.goto(f"{daemon.url}/#/logs?level=info&not=line")
    wait_for_count(rows(page), 4)
    page.get_by_role("searchbox", name="Leave out").fill("addon")
    page.get_by_role("searchbox", name="Leave out").press("Enter")
    wait_for_count(rows(page), 3)
    assert page.url.endswith("#/logs?level=info&not=line&not=addon")
    page.get_by_role("button", name="No longer leave out addon").click()
    wait_for_count(rows(page), 4)
    watched.assert_quiet()


def test_messages_match_a_regular_expression_also_those_that_come_live(
    daemon: Whole, open_page: Open
) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/logs?regexp=^line+8[05]%240%24")
    wait_for_count(rows(page), 0)
    expression = page.get_by_role("searchbox", name="Regular expression")
    assert expression.input_value() == "^line 8[05]$0$"
    expression.fill(r"^line 8[05]0$")
    expression.press("Enter")
    wait_for_count(rows(page), 2)
    assert page.url.endswith("#/logs?regexp=%5Eline+8%5B05%5D0%24")
    page.wait_for_selector(".log-bars svg[aria-label^='2 entries']")
    expression.fill(r"^(live|line) 8[05]0$")
    expression.press("Enter")
    page.wait_for_selector("text=2 entries, newest first, live")
    upload(daemon, [entry("live 85"), entry("live 850"), entry("live 8500")])
    wait_for_count(rows(page), 3)
    watched.assert_quiet()
    expression.fill("(")
    expression.press("Enter")
    page.wait_for_selector("text=/The logs cannot be loaded: .*regexp.*/")
    expression.fill("")
    expression.press("Enter")
    wait_for_count(page.get_by_text("cannot be loaded"), 0)


def test_reading_further_down_holds_new_entries_back(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, viewport={"width": 1280, "height": 700})
    page = watched.open("#/logs?sender=follow")
    upload(daemon, [entry(f"old {number}", 60, sender="follow") for number in range(100)])
    page.wait_for_selector("text=100 entries")
    page.evaluate("scrollTo(0, 1200)")
    page.wait_for_selector(".log .message >> text='old 60' >> visible=true")
    at = page.locator(".log > li:has-text('old 60')").bounding_box()
    upload(daemon, [entry(f"new {number}", sender="follow") for number in range(25)])
    page.wait_for_selector("text=25 new entries")
    assert page.locator(".log > li:has-text('old 60')").bounding_box() == at
    page.locator(".held").click()
    page.wait_for_selector(".log .message >> text='new 24'")
    assert page.locator(".held").is_hidden()
    watched.assert_quiet()


def test_an_export_has_the_whole_query(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, accept_downloads=True)
    page = watched.open("#/logs?q=line")
    page.wait_for_selector("text=300+ entries")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 900
    assert json.loads(lines[-1])["message"] == "line 0"
    watched.assert_quiet()

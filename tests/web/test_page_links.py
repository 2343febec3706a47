"""Every state of the live page is a link, Back returns to a place, and long lists stay short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from monitor.alerts.incidents import Incident
from monitor.alerts.texts import link_to
from tests.servers.browser import Open
from tests.waiting import wait_for
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.end_to_end

SITES = 300
HOSTILE = "\u202egnp.exe " + "very-long-name-" * 14 + "🙂"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    """A daemon with many sites, which nothing checks."""
    jobs = [
        {"id": number, "name": f"site {number}", "url": "http://127.0.0.1:9/", "interval": 80000}
        for number in range(1, SITES)
    ]
    jobs.append({"id": SITES, "name": HOSTILE, "url": "http://127.0.0.1:9/" + "x" * 300})
    with whole(probes={"jobs": jobs}, logs=False, relay=False) as running:
        yield running


def row(page: Page, number: int) -> str:
    return f'.sites a[href="#/sites/{number}"]'


def test_only_rows_in_sight_are_drawn_and_all_can_be_reached(
    daemon: Whole, open_page: Open
) -> None:
    watched = open_page(daemon.url, viewport={"width": 1280, "height": 800})
    page = watched.open("#/sites")
    page.wait_for_selector(f"text={SITES} in all")
    assert 5 < page.locator(".sites li").count() < 60
    first = page.locator(".sites li").first
    assert first.get_attribute("aria-setsize") == str(SITES)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector(f'.sites li[aria-posinset="{SITES}"]')
    assert page.locator(".sites li").count() < 60
    watched.assert_quiet()


def test_back_returns_to_the_place_with_its_filter_and_focus(
    daemon: Whole, open_page: Open
) -> None:
    watched = open_page(daemon.url, viewport={"width": 1280, "height": 800})
    page = watched.open("#/sites")
    page.get_by_label("Search sites").fill("site 1")
    page.wait_for_selector("text=111 of 300")
    page.evaluate("scrollTo(0, 3000)")
    link = page.locator(".sites li a >> visible=true").nth(20)
    target = link.get_attribute("href")
    link.click()
    page.wait_for_selector(".crumb")
    assert page.evaluate("scrollY") == 0
    before = page.evaluate("history.length")
    page.go_back()
    page.wait_for_selector(f'.sites a[href="{target}"]:focus')
    assert page.get_by_label("Search sites").input_value() == "site 1"
    assert page.evaluate("scrollY") > 2000
    assert page.evaluate("history.length") == before
    box = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert box > 56
    watched.assert_quiet()


def test_a_link_has_filter_search_and_span(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url)
    page = watched.open("#/sites?q=site+2&state=unknown&span=day")
    page.wait_for_selector("text=of 300 in all")
    assert page.get_by_label("Search sites").input_value() == "site 2"
    pressed = page.locator('.segments button[aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["Unknown", "90 d"]
    page.get_by_role("button", name="90 h").click()
    assert page.url.endswith("#/sites?q=site+2&state=unknown&span=hour")
    watched.assert_quiet()


def test_the_focus_never_comes_to_lie_below_the_bar(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, viewport={"width": 1000, "height": 500})
    page = watched.open("#/sites")
    page.wait_for_selector(row(page, 1))
    page.evaluate("scrollTo(0, 4000)")
    page.locator(".sites li a >> visible=true").nth(12).focus()
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        top = page.evaluate("document.activeElement.getBoundingClientRect().top")
        assert top >= 56
    watched.assert_quiet()


def test_hostile_names_turn_nothing_around_and_fit(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, viewport={"width": 390, "height": 800})
    page = watched.open("#/sites?q=very-long")
    name = page.locator(".sites .name b")
    name.wait_for()
    assert HOSTILE in (name.get_attribute("title") or "")
    for fragment in ("#/sites?q=very-long", f"#/sites/{SITES}", "#/"):
        page.goto(f"{daemon.url}/{fragment}")
        page.wait_for_selector("main h1")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_quiet()


def test_in_forced_colours_the_current_tab_differs(daemon: Whole, open_page: Open) -> None:
    watched = open_page(daemon.url, forced_colors="active")
    page = watched.open("#/sites")
    page.wait_for_selector('.tabs a[data-view="sites"][aria-current]')
    styles = page.evaluate(
        "[...document.querySelectorAll('.tabs a')].map(each =>"
        " [each.dataset.view === 'sites', getComputedStyle(each).textDecorationLine])"
    )
    assert len(styles) > 2
    assert all(line == ("underline" if current else "none") for current, line in styles)


def test_the_link_of_a_message_opens_its_incident(open_page: Open) -> None:
    jobs = [{"id": 1, "name": "portal", "url": "http://127.0.0.1:9/", "interval": 0.5}]
    rules = [{"name": "unreachable", "watch": "site", "receivers": []}]
    with whole(probes={"jobs": jobs}, alerts={"rules": rules}, logs=False, relay=False) as running:
        (found,) = wait_for(lambda: running.get("/incident")["items"], "an incident")
        link = link_to(msgspec.convert(found, Incident), running.url)
        assert link is not None
        watched = open_page(running.url)
        page = watched.page
        page.goto(link)
        page.get_by_role("heading", name="portal is down").wait_for()
        watched.assert_quiet()

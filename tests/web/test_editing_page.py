"""Sites are added, changed, copied, checked and deleted on the page, and that can be undone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests.servers.browser import assert_usable
from tests.waiting import wait_for
from tests.web.conftest import LogIn
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        body = {"name": "first", **running.mock(), "interval": 60}
        assert running.request("POST", "/job", json=body).status_code == 201
        running.wait_for_state(1, "up")
        yield running


def test_a_site_is_added_with_errors_at_their_fields_changed_and_undone(
    daemon: Whole, log_in: LogIn
) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/sites")
    page.get_by_role("link", name="Add a site").click()
    page.get_by_label("Name", exact=True).fill("<b>second</b>")
    page.get_by_label("URL", exact=True).fill("ftp://127.0.0.1/")
    page.get_by_role("button", name="Add", exact=True).click()
    error = page.locator('[data-key="url"] .field-error')
    error.filter(has_text="ftp").wait_for()
    assert page.locator("#key-url").get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "key-url"
    page.get_by_label("URL", exact=True).fill(f"{daemon.url}/healthz")
    page.get_by_label("Tags", exact=True).fill("production\nweb")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_selector("h1:has-text('<b>second</b>')")
    made = next(each for each in daemon.get("/job")["items"] if each["name"] == "<b>second</b>")
    assert made["tags"] == ["production", "web"]

    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Interval", exact=True).fill("30")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The site is changed.").wait_for()
    assert daemon.get(f"/job/{made['id']}")["interval"] == 30
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Taken back.").wait_for()
    assert daemon.get(f"/job/{made['id']}")["interval"] == 60


def test_a_copy_has_the_secrets_that_the_form_does_not_show(daemon: Whole, log_in: LogIn) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/sites/1/copy")
    headers = page.locator("#key-headers")
    headers.wait_for(state="attached")
    assert headers.input_value() == ""
    assert daemon.tokens["reader"] not in page.content()
    page.get_by_role("button", name="Add the copy").click()
    page.wait_for_selector("h1:has-text('first (copy)')")
    copy = next(each for each in daemon.get("/job")["items"] if each["name"] == "first (copy)")
    # The mock site wants the token that is in the header.
    daemon.wait_for_state(copy["id"], "up")


def test_a_site_is_checked_now_and_deleted_after_a_question_and_comes_back(
    daemon: Whole, log_in: LogIn
) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/sites/1")
    before = daemon.get("/job/1")["last"]["checked_at"]
    page.get_by_role("button", name="Check now").click()
    wait_for(lambda: daemon.get("/job/1")["last"]["checked_at"] > before, "a check now")
    assert str(page.locator("link[rel=icon]").get_attribute("href")).endswith("icon.svg")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Keep it").click()
    assert daemon.request("GET", "/job/1").status_code == 200
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete it").click()
    page.get_by_text("first is deleted.").wait_for()
    assert daemon.request("GET", "/job/1").status_code == 404
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("first is back.").wait_for()
    assert page.locator("h1").inner_text() == "first"
    assert daemon.get("/job/1")["name"] == "first"


def test_a_stop_can_be_undone(daemon: Whole, log_in: LogIn) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/sites/1")
    page.get_by_role("button", name="Stop", exact=True).click()
    daemon.wait_for_state(1, "stopped")
    page.get_by_role("button", name="Undo").click()
    daemon.wait_for_state(1, "up")


def test_a_site_is_paused_until_a_time_and_that_can_be_undone(daemon: Whole, log_in: LogIn) -> None:
    page = log_in(timezone_id="Asia/Tokyo")
    page.goto(f"{daemon.url}/#/sites/1")
    page.get_by_role("button", name="Pause the checks").click()
    page.get_by_role("button", name="for 4 hours").click()
    entry = daemon.wait_for_state(1, "stopped")
    assert entry["stopped_until"] == pytest.approx(time.time() + 4 * 3600, abs=60)
    page.get_by_role("button", name="Undo").click()
    daemon.wait_for_state(1, "up")
    page.get_by_text("Taken back.").wait_for()

    page.get_by_role("button", name="Pause the checks").click()
    page.get_by_role("button", name="until a time…").click()
    page.get_by_label("Pause until").fill("2020-01-01T00:00")
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_text("Choose a time that is still to come.").wait_for()
    page.get_by_label("Pause until").fill("2094-05-06T07:08")
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_text("until 2094-05-06 07:08").first.wait_for()
    at = datetime(2094, 5, 6, 7, 8, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()
    assert daemon.wait_for_state(1, "stopped")["stopped_until"] == at
    # Started too early: the pause comes back with its end.
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("checks are started").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Taken back.").wait_for()
    assert daemon.get("/job/1")["stopped_until"] == at
    assert daemon.request("POST", "/job/1/start").status_code == 200
    daemon.wait_for_state(1, "up")


def test_a_heartbeat_shows_its_address_once(daemon: Whole, log_in: LogIn) -> None:
    page = log_in()
    page.goto(f"{daemon.url}/#/sites/new")
    page.get_by_label("Kind", exact=True).select_option("heartbeat")
    page.get_by_label("Name", exact=True).fill("backup")
    assert page.locator("#key-url").count() == 0
    page.get_by_role("button", name="Add", exact=True).click()
    command = page.locator("pre").inner_text()
    assert f"{daemon.url}/heartbeat/" in command
    beat = command.removeprefix('curl -fsS "').removesuffix('"').removeprefix(daemon.url)
    assert daemon.request("GET", beat, role=None).status_code == 200


def test_a_reader_sees_why_not(daemon: Whole, log_in: LogIn) -> None:
    page = log_in("reader")
    page.goto(f"{daemon.url}/#/sites/1")
    page.get_by_text("log in with the token of an administrator").wait_for()
    assert page.get_by_role("button", name="Delete", exact=True).count() == 0
    page.goto(f"{daemon.url}/#/sites/new")
    page.get_by_text("log in with the token of an administrator").wait_for()
    assert daemon.request("GET", "/job/1/keys", role="reader").status_code == 403


def test_sites_are_grouped_by_tags_and_the_address_has_it(daemon: Whole, log_in: LogIn) -> None:
    made = {}
    for name, tags in (("one", ["<i>a</i>", "b"]), ("two", ["b"])):
        body = {"name": name, "tags": tags, **daemon.mock(), "interval": 3600, "active": False}
        made[name] = daemon.request("POST", "/job", json=body).json()["id"]
    page = log_in()
    page.goto(f"{daemon.url}/#/sites")
    page.get_by_label("Tags", exact=True).select_option("Grouped by tag")
    group = page.get_by_role("button", name="<i>a</i> 1 site")
    group.wait_for()
    # A site is in the group of each of its tags.
    assert page.locator(f'.sites li[data-id="{made["one"]}"]').count() == 2
    page.get_by_role("button", name="b 2 sites").click()
    page.locator(f'.sites li[data-id="{made["two"]}"]').wait_for(state="detached")
    assert page.locator(f'.sites li[data-id="{made["one"]}"]').count() == 1
    page.reload()
    group.wait_for()
    assert page.locator(f'.sites li[data-id="{made["two"]}"]').count() == 0
    assert page.locator(f'.sites li[data-id="{made["one"]}"]').count() == 1

    page.goto(f"{daemon.url}/#/sites/{made['one']}")
    page.get_by_role("link", name="<i>a</i>").click()
    page.locator(f'.sites li[data-id="{made["one"]}"]').wait_for()
    assert page.locator(".sites li").count() == 1
    assert page.get_by_label("Tags", exact=True).input_value() == "tag:<i>a</i>"
    for each in made.values():
        assert daemon.request("DELETE", f"/job/{each}").status_code == 204


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_form_fits_and_can_be_used_by_all(
    daemon: Whole, log_in: LogIn, width: int, scheme: str
) -> None:
    page = log_in(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        bypass_csp=True,  # for axe alone
    )
    page.goto(f"{daemon.url}/#/sites/new")
    page.get_by_label("Name", exact=True).wait_for()
    for fold in page.locator("details summary").all():
        fold.click()
    assert_usable(page)

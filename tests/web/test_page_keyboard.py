"""Every task on the page by keyboard alone: nothing is clicked, and the focus is never lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.commands.test_job_import import GATUS
from tests.waiting import wait_for
from tests.web.conftest import LogIn
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import FileChooser, Page

pytestmark = pytest.mark.end_to_end

# More presses of Tab than any view has places for.
MOST = 150
NAME = """() => {
    const at = document.activeElement;
    const labels = [...(at.labels ?? [])].map(each => each.innerText).join(' ');
    return (at.ariaLabel || labels || at.innerText || at.id).trim();
}"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    rule = {"name": "site down", "watch": "site", "failures": 1, "receivers": ["hook"]}
    alerts = {
        "receivers": [{"name": "hook", "webhook": "http://127.0.0.1:9/"}],
        "rules": [rule],
    }
    with whole(tokens=True, alerts=alerts) as running:
        body = {"name": "ill", **running.mock("status=503&delay=0")}
        assert running.request("POST", "/job", json=body).status_code == 201
        running.wait_for_state(1, "down")
        wait_for(lambda: running.get("/incident")["items"], "an incident")
        with sqlite3.connect(running.folder / "monitor.db") as database:
            database.execute(
                'INSERT INTO rejected_message (topic, partition, "offset", rejected_at, reason,'
                " payload) VALUES ('website_availability', 0, 999999, 1.7e9, 'not-json', ?)",
                (b"x",),
            )
        database.close()
        yield running


@pytest.fixture
def page(log_in: LogIn) -> Page:
    return log_in(forced_colors="active", reduced_motion="reduce")


def go(page: Page, name: str) -> None:
    """Press Tab until something of this name has the focus, and it can be seen."""
    passed = []
    for _ in range(MOST):
        page.keyboard.press("Tab")
        passed.append(page.evaluate(NAME))
        if passed[-1].startswith(name):
            assert page.evaluate(
                "() => { const style = getComputedStyle(document.activeElement);"
                " return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0; }"
            ), f"{name} does not show that it has the focus"
            return
    raise AssertionError(f"{name} is not reached: {passed}")


def press(page: Page, name: str, *keys: str) -> None:
    go(page, name)
    for key in keys or ("Enter",):
        page.keyboard.press(key)


def write(page: Page, name: str, text: str) -> None:
    press(page, name, "Control+a")
    page.keyboard.type(text)


def test_a_site_is_added_changed_and_paused(daemon: Whole, page: Page) -> None:
    press(page, "Sites")
    press(page, "Add a site")
    write(page, "Name", "by hand")
    write(page, "URL", f"{daemon.url}/healthz")
    press(page, "Add")
    page.wait_for_selector("h1:has-text('by hand')")
    made = next(each for each in daemon.get("/job")["items"] if each["name"] == "by hand")["id"]

    press(page, "Edit")
    write(page, "Interval", "30")
    press(page, "Save")
    page.get_by_text("The site is changed.").wait_for()
    # What was done is taken back from wherever one is.
    page.keyboard.press("Control+z")
    page.get_by_text("Taken back.").wait_for()
    assert daemon.get(f"/job/{made}")["interval"] == 60

    # An arrow key moves, and does nothing before Enter.
    press(page, "Pause the checks", "Enter", "Escape", "Enter", "ArrowDown", "ArrowDown", "ArrowUp")
    assert daemon.get(f"/job/{made}")["state"] != "stopped"
    assert page.evaluate(NAME) == "for 4 hours"
    page.keyboard.press("Enter")
    until = daemon.wait_for_state(made, "stopped")["stopped_until"]
    assert until == pytest.approx(time.time() + 4 * 3600, abs=600)
    page.get_by_text("checks are paused").wait_for()
    page.keyboard.press("Control+z")
    page.get_by_text("Taken back.").wait_for()
    assert daemon.get(f"/job/{made}")["stopped_until"] is None


def test_sites_are_imported(daemon: Whole, page: Page) -> None:
    choosers: list[FileChooser] = []

    def chosen(chooser: FileChooser) -> None:
        choosers.append(chooser)

    # From the beginning: the browser needs some time before it reports choosers.
    page.on("filechooser", chosen)
    press(page, "Sites")
    press(page, "Import")
    press(page, "A backup of Uptime Kuma")
    wait_for(lambda: page.evaluate("true") and choosers, "a file chooser")
    choosers[0].set_files({"name": "g.yml", "mimeType": "", "buffer": GATUS.encode()})
    before = len(daemon.get("/job")["items"])
    press(page, "Add 5 sites")
    page.get_by_text("5 sites are added").first.wait_for()
    page.keyboard.press("Control+z")
    wait_for(lambda: len(daemon.get("/job")["items"]) == before, "the sites as before")


def test_an_incident_is_acknowledged_and_silenced(daemon: Whole, page: Page) -> None:
    press(page, "Incidents")
    press(page, "Acknowledge ill")
    page.locator(".incidents li.known", has_text="ill is down").wait_for()
    # Its row is another one now, and still has the focus.
    page.wait_for_selector(".incidents li.known a:focus")
    press(page, "Silence ill", "Enter", "Enter")
    page.get_by_text("silent for 1 hour").wait_for()
    (silence,) = daemon.get("/silence")["items"]
    assert silence["match"]["jobs"] == [1]
    page.keyboard.press("Control+z")
    page.get_by_text("Taken back.").wait_for()
    assert daemon.get("/silence")["items"] == []


def test_maintenance_is_planned(daemon: Whole, page: Page) -> None:
    press(page, "Incidents")
    press(page, "Maintenance")
    go(page, "Of")
    page.keyboard.type("everything")
    press(page, "Plan maintenance")
    page.get_by_role("button", name="End now").wait_for()
    (silence,) = daemon.get("/silence")["items"]
    press(page, "End now")
    wait_for(lambda: daemon.get("/silence")["items"] == [], f"silence {silence['id']} ended")


def test_a_rejected_message_is_tried_again(daemon: Whole, page: Page) -> None:
    press(page, "Topics")
    page.get_by_label("Rejected messages").locator("summary").first.wait_for()
    press(page, "not-json")
    press(page, "Try again")
    page.get_by_text("0 counted").wait_for()

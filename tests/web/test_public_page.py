"""The public status page in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.servers.browser import assert_usable
from tests.web.public import HOSTILE, TITLE, public_daemon
from tests.web.whole import Whole

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.end_to_end

LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with public_daemon(tmp_path_factory.mktemp("public")) as running:
        yield running


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_page_fits_can_be_used_by_all_and_shows_names_as_text(
    daemon: Whole, browser: Browser, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if scheme == "dark" else "light",
        bypass_csp=True,  # for axe alone
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{daemon.url}/status")
    page.wait_for_selector("text=1 of 4 sites is down")
    assert page.title() == f"(1 down) {TITLE}"
    assert str(page.locator("link[rel=icon]").get_attribute("href")).endswith("icons/down.svg")
    assert page.locator("#site-2 h3").inner_text() == HOSTILE.replace("\u202e", "")
    assert_usable(page, impacts="minor moderate serious critical")
    assert said == []
    context.close()


def test_the_page_is_read_without_scripts_and_badges_are_shown_elsewhere(
    daemon: Whole, browser: Browser
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{daemon.url}/status")
    assert "UTC" in page.locator(".verdict").inner_text()
    assert page.locator("svg.days").count() == 4
    context.close()
    elsewhere = browser.new_page()
    # Its origin is another one, as that of a README on a hosting service is.
    elsewhere.set_content(f'<img src="{daemon.url}/badge/1/state.svg">')
    assert elsewhere.locator("img").evaluate(
        "image => image.decode().then(() => image.naturalWidth > 20)"
    )
    elsewhere.close()


def test_an_open_page_renews_itself_and_says_when_it_cannot(
    daemon: Whole, browser: Browser
) -> None:
    context = browser.new_context(timezone_id="America/New_York")
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.clock.install()
    page.goto(f"{daemon.url}/status")
    # The reader's own clock, named.
    assert "GMT-" in page.locator(".verdict time").inner_text()
    page.locator("main").evaluate("each => { each.dataset.old = 'yes' }")
    page.clock.fast_forward(31_000)
    page.wait_for_selector("main:not([data-old])")
    assert "GMT-" in page.locator(".verdict time").inner_text()
    context.set_offline(True)
    page.clock.fast_forward(31_000)
    page.wait_for_selector("text=This page cannot be renewed")
    context.set_offline(False)
    page.clock.fast_forward(31_000)
    page.wait_for_selector(".stale", state="hidden")
    context.close()


def test_the_live_page_can_be_installed(
    daemon: Whole, browser: Browser, program: Callable[..., str]
) -> None:
    # Without windows, nothing is ever installed.
    found = program("chromium", "chromium-browser", "google-chrome", package="chromium")
    whole = browser.browser_type.launch(executable_path=found, args=["--no-sandbox"])
    page = whole.new_page()
    page.goto(daemon.url)
    session = page.context.new_cdp_session(page)
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert '"recodex-monitor"' in manifest["data"]
    problems = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # The browser of a test is private, and so installs nothing.
    assert [each["errorId"] for each in problems] == ["in-incognito"]
    whole.close()

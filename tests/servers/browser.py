"""A headless Chromium of the system, driven by playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


LIMIT_MS = 60_000


class Watched:
    """A page, and everything that it said or asked for that it should not have."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.console: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(LIMIT_MS)
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        host = self.url.removeprefix("http://")
        if not request.url.startswith((self.url, f"ws://{host}", "blob:", "data:")):
            self.foreign.append(request.url)

    def open(self, fragment: str = "#/") -> Page:
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector('body[data-connection="live"]')
        return self.page

    def assert_quiet(self) -> None:
        assert self.console == []
        assert self.foreign == []


def assert_usable(page: Page, where: str = "", *, impacts: str = "serious critical") -> None:
    """Check that a page fits the screen, and that axe finds nothing of these impacts.

    Its context has to bypass the policy, for axe alone.
    """
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{where} is {wide} px wider than the screen"
    if page.evaluate("!window.axe"):
        page.add_script_tag(content=(files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate(
        "impacts => axe.run(document, {resultTypes: ['violations']})"
        ".then(result => result.violations"
        ".filter(each => impacts.includes(each.impact))"
        ".map(each => [each.id, each.nodes.slice(0, 3).map(node => node.html)]))",
        impacts.split(),
    )
    assert found == [], where


Open = Callable[..., Watched]


def wait_for_count(found: Locator, count: int) -> None:
    # The page's policy forbids the expressions of wait_for_function().
    from playwright.sync_api import expect

    expect(found).to_have_count(count, timeout=LIMIT_MS)


# Not for longer than a module: while playwright runs, this thread has a running event loop,
# in which no other test could start its own.
@pytest.fixture(scope="module")
def browser(program: Callable[..., str]) -> Iterator[Browser]:
    """Return a running Chromium."""
    executable = program("chromium", "chromium-browser", "google-chrome", package="chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a fresh page."""
    context = browser.new_context()
    context.set_default_timeout(LIMIT_S * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    contexts = []

    def make(url: str, **options: Any) -> Watched:
        context = browser.new_context(**options)
        contexts.append(context)
        return Watched(context.new_page(), url)

    yield make
    for context in contexts:
        context.close()

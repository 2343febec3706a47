"""A headless Chromium of the system, driven by playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.waiting import LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


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

"""A page of this daemon's, opened by somebody with a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.web.whole import Whole

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIMIT_MS = 60_000


class LogIn(Protocol):
    def __call__(
        self, role: str = "admin", *, path: str = "", whole: Whole | None = None, **options: Any
    ) -> Page:
        """Log in with a token of this role; ``options`` are those of the browser's context."""
        ...


@pytest.fixture
def log_in(browser: Browser, daemon: Whole) -> Iterator[LogIn]:
    """Return a function that opens pages of the module's daemon, or of another one."""
    contexts = []

    def make(
        role: str = "admin", *, path: str = "", whole: Whole | None = None, **options: Any
    ) -> Page:
        whole = whole or daemon
        context = browser.new_context(**options)
        contexts.append(context)
        # The form for it has a test of its own.
        answer = context.request.post(f"{whole.url}/session", data={"token": whole.tokens[role]})
        assert answer.ok, answer.status_text
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.goto(f"{whole.url}{path}")
        page.wait_for_selector('body[data-connection="live"]')
        return page

    yield make
    for context in contexts:
        context.close()

"""What the README says of a checkout, done in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.book import CHECKOUT, fences_of
from tests.docs.places import checkout
from tests.docs.story import Story
from tests.docs.unrun import NOT_IN_A_CHECKOUT

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]


@pytest.mark.parametrize("page", CHECKOUT)
def test_the_page_is_true(page: str, tmp_path: Path) -> None:
    with checkout(tmp_path) as place, Story(place, NOT_IN_A_CHECKOUT).telling() as story:
        for fence in fences_of(page):
            story.tell(fence)

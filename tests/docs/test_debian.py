"""What the pages say of an installed daemon, done in a booted Debian 13."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.distro.built import Built
from tests.docs.book import DEBIAN, NOT_INSTALLED, fences_of
from tests.docs.places import DebianPlace
from tests.docs.scenes import Servers, scene
from tests.docs.story import Story
from tests.docs.world import World, world
from tests.servers.kafka import Kafka

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def around(built: Built) -> Iterator[World]:
    """Boot the machine and start everybody around it."""
    with world(built) as found:
        yield found


@pytest.mark.parametrize("page", DEBIAN)
def test_the_page_is_true(page: str, around: World, make_kafka: Callable[..., Kafka]) -> None:
    around.begin(installed=page not in NOT_INSTALLED)
    with (
        scene(page)(around, Servers(make_kafka)) as instead,
        Story(DebianPlace(around.debian), instead).telling() as story,
    ):
        for fence in fences_of(page):
            story.tell(fence)
    assert "Traceback" not in around.debian.journal("recodex-monitor*")

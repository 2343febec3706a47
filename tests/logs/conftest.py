from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from monitor.logs.part import Logs
from monitor.store import Store
from tests.logs.running import Clock, running


@pytest.fixture
async def logs(store: Store) -> AsyncIterator[Logs]:
    """The part on each kind of database, with a clock that stands still."""
    async with running(store, Clock()) as logs:
        yield logs

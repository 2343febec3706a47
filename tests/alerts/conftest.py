from __future__ import annotations

import pytest

from monitor.alerts import notifier, reader, schedule, watching
from monitor.store import sqlite


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less until something is looked at, or tried, again."""
    monkeypatch.setattr(schedule, "_FIRST_S", 0.1)
    monkeypatch.setattr(watching, "_LONGEST_S", 0.1)
    monkeypatch.setattr(notifier, "_LOOK_S", 0.1)
    monkeypatch.setattr(reader, "_POLL_S", 0.1)
    monkeypatch.setattr(sqlite, "_BUSY_S", 0.5)

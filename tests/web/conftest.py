from __future__ import annotations

from pathlib import Path

import pytest

from monitor.store import DatabaseSettings


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration_test)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """Settings of an empty database, in turn of each kind."""
    if request.param == "sqlite":
        return DatabaseSettings(file=str(tmp_path / "monitor.db"))
    return DatabaseSettings(url=request.getfixturevalue("postgres_url"))

"""What the configs of packaging/kubernetes and packaging/helm read."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A directory with the files of the secret."""
    (tmp_path / "database-password").write_text("not this one\n")
    (tmp_path / "tokens.yml").write_text("tokens: []\n")
    return tmp_path

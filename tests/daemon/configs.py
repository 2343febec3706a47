"""Reads the text of a config, or the error that it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.daemon.config import Config, load
from monitor.errors import ConfigError

__all__ = ["complaint", "read"]


def read(file: Path, text: str, **environ: str) -> Config:
    file.write_text(text)
    return load(str(file), environ=environ).config


def complaint(file: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file, text, **environ)
    said = str(caught.value)
    assert "\n" not in said
    return said.removeprefix(f"{file}")

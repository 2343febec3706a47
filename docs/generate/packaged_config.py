"""The packaged config names every key: a new one joins its section, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.generate.config import config_fields

__all__ = ["PACKAGED_CONFIG", "with_every_key"]

PACKAGED_CONFIG = Path(__file__).resolve().parents[2] / "install" / "config.yml"

_COMMENT_COLUMN = 32


def with_every_key(text: str) -> str:
    """Return the config with the keys that its sections lack, where those have no keys below."""
    for name, fields in config_fields().items():
        # A section that is off is commented out, and ends at the next empty line.
        found = re.search(rf"^(#?){name}:.*\n(?:.+\n)*", text, re.M)
        if found is not None:
            lines = _lines(found[0], found[1], fields)
            text = text[: found.end()] + lines + text[found.end() :]
    return text


def _lines(section: str, mark: str, fields: Iterable[Any]) -> str:
    lines = ""
    for field in fields:
        if field.section is None and not re.search(rf"^{mark}  #?{field.name}:", section, re.M):
            key = f"{mark}  {field.name}: {field.default or 'null'}"
            meaning = field.text.partition(";")[0]
            lines += f"{key:<{_COMMENT_COLUMN - 1}} # {meaning}\n" if meaning else f"{key}\n"
    return lines

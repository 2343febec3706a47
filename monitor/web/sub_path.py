"""Serves page and API below a path of a proxy, such as ``/monitor``."""

from __future__ import annotations

import re

from monitor.errors import SettingError

__all__ = ["inner_path", "verify_root_path"]

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def inner_path(root_path: str, path: str) -> str:
    """Return ``path`` without the sub-path, which a proxy may have removed already."""
    if root_path and path.startswith(root_path + "/"):
        return path[len(root_path) :]
    return path


def verify_root_path(root_path: str) -> None:
    """Raise SettingError unless it is empty or a path such as ``/monitor``."""
    if not _ROOT_PATH.fullmatch(root_path):
        raise SettingError(
            ("root_path",), "expected a path such as /monitor, without a / at its end"
        )

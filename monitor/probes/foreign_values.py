"""Values in the files of other programs, and what their jobs here have of them; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "DAY_S",
    "bracketed",
    "drop_idle_tls",
    "glob",
    "header_texts",
    "number",
    "seconds",
    "take_seconds",
    "text",
    "truth",
    "with_content_type",
]

_UNITS_S = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0,
    "d": 86400.0, "w": 7 * 86400.0, "y": 365 * 86400.0,
}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w|y)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+|0")
DAY_S = _UNITS_S["d"]


def seconds(text: Any) -> float:
    """Return a duration such as ``1m30s`` in s; raise ValueError."""
    if not _DURATIONS.fullmatch(str(text).strip()):
        raise ValueError(f"{text!r} is not a duration")
    found = _DURATION.findall(str(text))
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in found))


def take_seconds(given: Any, key: str, name: str, job: dict[str, Any], lost: list[str]) -> None:
    """Set a job's ``key`` to a duration, or add to ``lost`` that ``name`` is not one."""
    try:
        job[key] = seconds(given)
    except ValueError as error:
        lost.append(f"{name}: {error}")


def bracketed(host: str) -> str:
    """Return a host as URLs have it."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def drop_idle_tls(job: dict[str, Any]) -> None:
    """Leave out that certificates are not verified where there are none; it is refused there."""
    scheme = str(job["url"]).partition(":")[0].lower()
    leads = job.get("follow_redirects", True) and job.get("max_redirects", 10) > 0
    if scheme in ("ws", "grpc") or (scheme == "http" and not leads):
        job.pop("verify_tls", None)


def text(value: Any) -> str:
    """Return a value as text: a number, a truth value or nothing as files have it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def truth(value: Any) -> bool:
    """Return whether a value, or a text that stands for one, is true."""
    return text(value).lower() in ("true", "yes", "on", "y", "1")


def glob(pattern: str) -> str:
    """Return the regular expression for a text with stars."""
    return re.escape(pattern).replace(r"\*", ".*")


def number(entry: Mapping[str, Any], key: str) -> float:
    """Return the number of a key; raise ValueError."""
    try:
        return float(entry[key])
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number") from None


def header_texts(given: Any) -> dict[str, str]:
    """Return headers whose values are text; raise ValueError for anything else."""
    if not isinstance(given, dict):
        raise ValueError("headers must be an object")  # noqa: TRY004 - the file is wrong
    return {text(name): text(value) for name, value in given.items()}


def with_content_type(job: dict[str, Any], content_type: str) -> None:
    """Say of what type the job's body is, unless its own headers do."""
    headers = job.setdefault("headers", {})
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = content_type

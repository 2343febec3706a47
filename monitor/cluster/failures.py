"""Why requests of the Kubernetes API fail."""

from __future__ import annotations

import enum

from monitor.errors import MonitorError

__all__ = ["ApiError", "Reason", "one_line"]


class Reason(enum.StrEnum):
    """Why a request or a watch ended; the label of cluster_watch_restarts_total."""

    ENDED = "ended"
    EXPIRED = "expired"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    THROTTLED = "throttled"
    SERVER_ERROR = "server-error"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    REJECTED = "rejected"


class ApiError(MonitorError):
    """A request failed. ``retry_after_s`` is how long the server asks to wait."""

    def __init__(self, reason: Reason, problem: str, *, retry_after_s: float | None = None) -> None:
        self.reason = reason
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.problem


def one_line(what: object) -> str:
    """Return the beginning of an untrusted text as one line."""
    return " ".join(str(what).split())[:300]

"""What a kind of check is to the runner, and what a check found."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from monitor.messages import Phases

if TYPE_CHECKING:
    from monitor.probes.job import Job
    from monitor.probes.matching import Matcher
    from monitor.probes.resolver import Resolver

__all__ = ["OS_REASONS", "REASONS", "Attempt", "Check", "Outcome"]

# The first word of every result's ``error``, which operators group by.
REASONS = {
    "no-such-host": "the name does not resolve, or not in the IP version asked for",
    "resolve-failed": "the name server did not answer, or said that it failed",
    "refused": "nothing listens there",
    "unreachable": "no route to the host or its network",
    "reset": "the connection was cut before a whole answer had come",
    "timeout": "no whole answer within the job's timeout",
    "tls": "no TLS connection could be made",
    "bad-certificate": "the certificate is expired, not trusted, or another host's",
    "bad-answer": "what came is not the protocol, or breaks off, or can't be decompressed",
    "bad-status": "a whole answer with a status that is not among the expected",
    "body-mismatch": "a whole answer that body_regexp does not match",
    "body-too-large": "the decompressed body is longer than max_body_bytes",
    "too-many-redirects": "more redirects than max_redirects",
    "bad-redirect": "a redirect to something that is no web address",
    "proxy": "the proxy could not be found, reached or used",
    "internal": "the check itself failed; the log says how",
}
# Which of them an error of the operating system is.
OS_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
}


_NO_PHASES = Phases()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one attempt found; the fields are those of a Result. Times are in seconds."""

    up: bool
    duration: float
    error: str | None = None
    status: int | None = None
    response_time: float | None = None
    matched: bool | None = None
    phases: Phases = _NO_PHASES
    certificate_expires_at: float | None = None


# One attempt at a job, prepared; never raises but for cancellation, ends within its timeout.
Attempt = Callable[[], Coroutine[Any, Any, Outcome]]


class Check(ABC):
    """Checks all jobs of one kind; made once a runner, in its loop."""

    kind: ClassVar[str]
    # of the URLs of its jobs
    schemes: ClassVar[tuple[str, ...]]

    def __init__(self, *, resolver: Resolver, matcher: Matcher) -> None:
        self.resolver = resolver
        self.matcher = matcher

    @classmethod
    @abstractmethod
    def verify(cls, job: Job) -> None:
        """Raise SettingError for a job that this kind can't check; no I/O but the job's files."""

    @abstractmethod
    def prepare(self, job: Job) -> Attempt:
        """Return what makes one attempt at a verified job; all that can be done once is done."""

    async def close(self) -> None:  # noqa: B027
        """Let go of everything; attempts under way have been cancelled before."""

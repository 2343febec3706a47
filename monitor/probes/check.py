"""What a kind of check is to the runner, and why checks fail."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from monitor.messages import Outcome
from monitor.probes.job import Job, Option

if TYPE_CHECKING:
    from monitor.probes.beats import Beats
    from monitor.probes.matching import Matcher
    from monitor.probes.network import Network

__all__ = ["ERRORS", "OS_ERRORS", "Attempt", "Check", "Outcome"]

# The first word of a result's ``error``, which operators group by. These are shared by several
# kinds; a kind adds its own.
ERRORS = {
    "no-such-host": "the name does not resolve, or not in the IP version asked for",
    "resolve-failed": "the name server did not answer, or reported a failure",
    "refused": "nothing listens there",
    "unreachable": "no route to the host or its network",
    "reset": "the connection was closed before a whole answer had come",
    "timeout": "no whole answer within the job's timeout",
    "tls": "the TLS handshake failed",
    "bad-certificate": "the certificate is expired, not trusted, or for another host",
    "bad-answer": "the answer is not of the protocol, breaks off, or cannot be decompressed",
    "bad-status": "a whole answer with an unexpected status",
    "body-mismatch": "a whole answer whose text is not what the job expects",
}
# Which of them an error of the operating system is.
OS_ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    # No IPv6 here; a link-local address without its interface; a rule of this host's firewall.
    errno.EAFNOSUPPORT: "unreachable",
    errno.EINVAL: "unreachable",
    errno.EACCES: "unreachable",
    errno.EPERM: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
}


# One attempt at a job, prepared; raises only when cancelled, ends within the job's timeout.
Attempt = Callable[[], Coroutine[Any, Any, Outcome]]


J = TypeVar("J", bound=Job)


class Check(ABC, Generic[J]):
    """Checks all jobs of one kind; made once a runner, in its loop."""

    job: ClassVar[type[Job]]
    """The keys of the kind's jobs; ``J`` is the same type."""
    errors: ClassVar[Mapping[str, str]] = {}
    """First words of ``error`` that this kind adds, with their explanations."""
    options: ClassVar[tuple[Option, ...]] = ()

    beats: Beats
    """The last heartbeats; set before the first prepare()."""

    def __init__(self, *, network: Network, matcher: Matcher) -> None:
        self.network = network
        self.matcher = matcher

    @classmethod
    def load(cls) -> None:
        """Import the libraries that the kind needs; raise ModuleNotFoundError without them.

        They are imported here and not with the module, which every daemon imports.
        """

    @abstractmethod
    def prepare(self, job: J) -> Attempt:
        """Return what makes one attempt at a verified job; do here all that is done only once.

        If this raises anything, the job is left out and the other jobs keep running.
        """

    async def close(self) -> None:
        """Close what is open; running attempts have been cancelled before."""

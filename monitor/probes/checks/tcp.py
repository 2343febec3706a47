"""The kind ``tcp``: a connection, and optionally a banner (SSH, SMTP) that must match."""

from __future__ import annotations

from typing import ClassVar

from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.job import Job
from monitor.probes.matching import REGEXP_OPTION, verify_expression
from monitor.probes.urls import host_and_port

__all__ = ["TcpCheck", "TcpJob"]

_BANNER_BYTES = 4096


class TcpJob(Job, frozen=True, kw_only=True, tag="tcp"):
    """A TCP port that accepts connections, and what it says first."""

    schemes: ClassVar[tuple[str, ...]] = ("tcp",)

    # must match the first 4096 bytes that the server sends, in Python's syntax (re.search)
    body_regexp: str | None = None

    def verify(self) -> None:
        """Check the URL, ``tcp://host:port`` and nothing more, and the regular expression."""
        super().verify()
        host_and_port(self.url, self.schemes)
        verify_expression(self.body_regexp, ("body_regexp",))


class TcpCheck(Check[TcpJob]):
    """Connects; with ``body_regexp``, reads until it matches the server's first bytes."""

    job = TcpJob
    options = (REGEXP_OPTION,)

    def prepare(self, job: TcpJob) -> Attempt:
        """Return what connects to the job's host and port."""
        host, port = host_and_port(job.url, job.schemes)

        async def attempt() -> Outcome:
            async with Connection(job, self.resolver) as connection:
                reader, _ = await connection.open(host, port, tls=None)
                connection.matched = True
                if job.body_regexp is not None:
                    connection.matched = None
                    banner = b""
                    while not connection.matched:
                        piece = await reader.read(_BANNER_BYTES)
                        if not piece:
                            raise ProbeError(f"body-mismatch: the banner was {banner[:80]!r}")
                        banner += piece
                        connection.matched = await self.matcher.search(
                            job.body_regexp,
                            banner,
                            charset="",
                            job_id=job.id,
                            timeout_s=connection.left_s,
                        )
                        if not connection.matched and len(banner) >= _BANNER_BYTES:
                            raise ProbeError(f"body-mismatch: the banner was {banner[:80]!r}")
            return connection.outcome()

        return attempt

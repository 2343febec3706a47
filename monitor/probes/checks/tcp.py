"""The kind ``tcp``: a connection, and optionally a banner (SSH, SMTP) that must match."""

from __future__ import annotations

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.job import Job, split_url

__all__ = ["TcpCheck"]

_BANNER_BYTES = 4096


class TcpCheck(Check):
    """Connects; with ``body_regexp``, reads until it matches what the peer says first."""

    kind = "tcp"
    schemes = ("tcp",)

    @classmethod
    def verify(cls, job: Job) -> None:
        """Check the URL: ``tcp://host:port`` and nothing more."""
        parts = split_url(job.url, ("tcp",), port=True)
        if parts.path not in ("", "/") or parts.query or "@" in parts.netloc:
            raise SettingError(("url",), "must be tcp://host:port and nothing more")

    def prepare(self, job: Job) -> Attempt:
        """Return what connects to the job's host and port."""
        parts = split_url(job.url, ("tcp",), port=True)
        host, port = parts.hostname or "", parts.port or 0

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

"""The kind ``tls``: the TLS handshake and the server's certificate alone."""

from __future__ import annotations

from typing import ClassVar

from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.checks.tcp import STARTTLS_OPTION
from monitor.probes.connection import Connection, converse
from monitor.probes.starttls import StartTls, start_tls
from monitor.probes.tls import TLS_OPTIONS, TlsClient, TlsKeys
from monitor.probes.urls import host_and_port
from monitor.settings import verify_each

__all__ = ["TlsCheck", "TlsJob"]


class TlsJob(TlsKeys, frozen=True, kw_only=True, tag="tls"):
    """A TLS server with a valid certificate, for any protocol over it."""

    schemes: ClassVar[tuple[str, ...]] = ("tls",)

    # the protocol in which the server is asked for TLS; by default TLS from the first byte
    starttls: StartTls | None = None

    def verify(self) -> None:
        """Check the URL, ``tls://host:port`` and nothing more."""
        verify_each(super().verify, lambda: host_and_port(self.url, self.schemes))


class TlsCheck(Check[TlsJob]):
    """Shakes hands, and closes the connection."""

    job = TlsJob
    options = (STARTTLS_OPTION, *TLS_OPTIONS)

    def prepare(self, job: TlsJob) -> Attempt:
        """Return what makes the handshake with the job's host."""
        host, port = host_and_port(job.url, job.schemes)
        tls = TlsClient.of(job, host)

        async def establish(connection: Connection) -> None:
            plain = await connection.connect(host, port)
            if job.starttls is not None:
                await start_tls(job.starttls, plain)
            await connection.secure(tls)

        async def talk(connection: Connection) -> None:
            connection.matched = True

        async def attempt() -> Outcome:
            return await converse(job, self.network, establish, talk)

        return attempt

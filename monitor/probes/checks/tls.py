"""The kind ``tls``: the TLS handshake and the server's certificate alone."""

from __future__ import annotations

import ssl
from typing import ClassVar, Literal

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection
from monitor.probes.job import Option
from monitor.probes.tls import TLS_OPTIONS, TlsKeys, own_context, tls_context
from monitor.probes.urls import ascii_host, host_and_port
from monitor.settings import read_pem

__all__ = ["TlsCheck", "TlsJob"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsJob(TlsKeys, frozen=True, kw_only=True, tag="tls"):
    """A TLS server with a valid certificate, for any protocol over it."""

    schemes: ClassVar[tuple[str, ...]] = ("tls",)

    # the name to ask for (SNI) and to verify, if it is not the URL's host
    server_name: str | None = None
    # the lowest version of TLS that is accepted
    tls_min_version: Literal["1.2", "1.3"] = "1.2"
    # PEM file of the client's certificate, for servers that ask for one
    client_certificate: str | None = None
    # PEM file of its key, without a passphrase, if not in the same file
    client_key: str | None = None

    def verify(self) -> None:
        """Check the URL, ``tls://host:port`` and nothing more, the name and the files."""
        super().verify()
        host_and_port(self.url, self.schemes)
        if self.server_name is not None:
            try:
                if not ascii_host(self.server_name).strip("."):
                    raise ValueError
            except ValueError:
                problem = f"{self.server_name!r} is not a host name"
                raise SettingError(("server_name",), problem) from None
        if self.client_certificate is not None:
            for key in ("client_certificate", "client_key"):
                if (file := getattr(self, key)) is not None:
                    read_pem(file, path=(key,))
            _load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self)
        elif self.client_key is not None:
            raise SettingError(("client_key",), "needs client_certificate")


class TlsCheck(Check[TlsJob]):
    """Shakes hands, and closes the connection."""

    job = TlsJob
    options = (
        Option("--server-name", "server_name", "the name to ask for and to verify", "NAME"),
        *TLS_OPTIONS,
    )

    def prepare(self, job: TlsJob) -> Attempt:
        """Return what makes the handshake with the job's host."""
        host, port = host_and_port(job.url, job.schemes)
        name = ascii_host(job.server_name or host)
        context = _context(job)
        unverified = _context(job.replace(verify_tls=False))

        async def attempt() -> Outcome:
            async with Connection(job, self.resolver) as connection:
                await connection.open(host, port, tls=context, server_name=name)
                connection.matched = True
            if connection.certificate_refused:
                # Python does not show the certificate of a failed handshake.
                async with Connection(job, self.resolver, timeout_s=connection.left_s) as again:
                    await again.open(host, port, tls=unverified, server_name=name)
                connection.expiry = again.expiry
            return connection.outcome()

        return attempt


def _context(job: TlsJob) -> ssl.SSLContext:
    if job.client_certificate is None and job.tls_min_version == "1.2":
        return tls_context(job)
    context = own_context(job.ca_file, verify=job.verify_tls)
    context.minimum_version = _VERSIONS[job.tls_min_version]
    if job.client_certificate is not None:
        _load_certificate(context, job)
    return context


def _load_certificate(context: ssl.SSLContext, job: TlsJob) -> None:
    """Load the client's certificate; raise SettingError where that fails."""
    assert job.client_certificate is not None
    try:
        # With a passphrase of our own OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(job.client_certificate, job.client_key, password="")
    except ssl.SSLError:
        problem = "no PEM certificate with its key, or the key has a passphrase"
        raise SettingError(("client_certificate",), problem) from None
    except OSError as error:
        files = " or ".join(filter(None, (job.client_certificate, job.client_key)))
        problem = f"cannot read {files}: {error.strerror}"
        raise SettingError(("client_certificate",), problem) from None

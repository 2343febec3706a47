"""A connection for the kinds that speak over plain sockets, with its phases timed."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from monitor.messages import Phases
from monitor.probes.chains import expiries
from monitor.probes.check import OS_ERRORS, Outcome
from monitor.probes.job import Job
from monitor.probes.network import Network
from monitor.probes.no_result import own_trouble
from monitor.probes.racing import connect_first
from monitor.probes.resolver import ResolveError, address_version
from monitor.probes.tls import TlsClient, sent_certificates

__all__ = ["Connection", "ProbeError", "Streams", "converse"]

_PLACE = re.compile(r" \(_ssl[.]c:\d+\)")
_ABOUT_WHOLE_ANSWERS = ("bad-status", "bad-rcode", "body-mismatch")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ProbeError(Exception):
    """What a check found wrong; ``str()`` is a result's error text."""


class Connection:
    """One attempt's connection to its host: resolve, connect, tls, and the dialogue.

    ``async with`` bounds everything by the timeout (s, the job's by default), turns failures
    into :attr:`error`, and closes the connection. With ``verify`` false any certificate will do.
    """

    def __init__(
        self, job: Job, network: Network, *, timeout_s: float | None = None, verify: bool = True
    ) -> None:
        self._job = job
        self._network = network
        self._verify = verify
        # Not the loop's clock: uvloop's has whole milliseconds only.
        self._began = self._mark = time.monotonic()
        self._spent = {"resolve": 0.0, "connect": 0.0, "tls": 0.0, "processing": 0.0}
        self._phase = "resolve"
        self._limit = asyncio.timeout(job.timeout if timeout_s is None else timeout_s)
        self._socket: socket.socket | None = None
        self._streams: Streams | None = None
        self.error: str | None = None
        self.status: int | None = None
        self.matched: bool | None = None
        self.expiry: float | None = None
        self.chain_expiry: float | None = None
        self.certificate_refused = False
        self._ran_out = False
        # What to say instead of "timeout", of an answer that came and was not what is expected.
        self.if_late: str | None = None

    @property
    def left_s(self) -> float:
        """How much of the job's timeout is left."""
        return self._began + self._job.timeout - time.monotonic()

    def _enter(self, phase: str) -> None:
        now = time.monotonic()
        self._spent[self._phase] += now - self._mark
        self._mark, self._phase = now, phase

    async def open(self, host: str, port: int, *, tls: TlsClient | None) -> Streams:
        """Connect to the first of the host's addresses that accepts, with or without TLS."""
        await self.connect(host, port)
        if tls is not None:
            await self.secure(tls)
        return await self.streams()

    async def addresses(self, host: str) -> list[str]:
        """Resolve only, for datagrams."""
        found = await self._network.resolver.resolve(host, str(self._job.ip_version))
        self._enter("processing")
        return found

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect only. The socket stays this object's."""
        addresses = await self.addresses(host)
        self._enter("connect")
        self._socket = await connect_first(self._network.sockets, addresses, port)
        self._enter("processing")
        return self._socket

    async def secure(self, tls: TlsClient) -> None:
        """Shake hands over the connection, and look at the server's certificates."""
        assert self._socket is not None
        self._enter("tls")
        context = tls.verified if self._verify else tls.unverified
        _, writer = self._streams = await asyncio.open_connection(
            sock=self._socket, ssl=context, server_hostname=tls.name
        )
        self._enter("processing")
        secured = writer.get_extra_info("ssl_object")
        self.expiry, self.chain_expiry = expiries(sent_certificates(secured), tls.trusted)
        # As libcurl does, and unlike Python, do not take the subject for a name where the
        # certificate names addresses.
        named = {kind for kind, _ in (secured.getpeercert() or {}).get("subjectAltName", ())}
        if "IP Address" in named and "DNS" not in named and not address_version(tls.name):
            raise ProbeError(f"bad-certificate: it is for addresses only, not for {tls.name!r}")

    async def streams(self) -> Streams:
        """Return reader and writer of the connection."""
        if self._streams is None:
            assert self._socket is not None
            self._streams = await asyncio.open_connection(sock=self._socket)
        return self._streams

    async def __aenter__(self) -> Connection:
        await self._limit.__aenter__()
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if self._streams is not None:
            # No goodbye: no peer may make us wait.
            self._streams[1].transport.abort()
        elif self._socket is not None:
            self._socket.close()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            error = timeout
        self._enter("done")
        if error is None:
            return True
        self.certificate_refused = isinstance(error, ssl.SSLCertVerificationError)
        self._ran_out = isinstance(error, TimeoutError)
        text = _describe(error, self._job.timeout)
        if text is not None and text.startswith("timeout") and self.if_late is not None:
            text = self.if_late
        if text is not None:
            self.error = text
        return text is not None

    def outcome(self) -> Outcome:
        """Return what the attempt found, after the ``async with``."""
        spent = [self._spent[phase] for phase in ("resolve", "connect", "tls", "processing")]
        # Some errors are about a whole answer, unless more of it was waited for.
        whole = self.error is None or (
            not self._ran_out and self.error.partition(":")[0] in _ABOUT_WHOLE_ANSWERS
        )
        return Outcome(
            up=self.error is None,
            duration=self._mark - self._began,
            error=self.error,
            status=self.status,
            response_time=sum(spent) if whole else None,
            matched=self.matched,
            phases=Phases(*spent),
            certificate_expires_at=self.expiry,
            chain_expires_at=self.chain_expiry,
        )


async def converse(
    job: Job,
    network: Network,
    establish: Callable[[Connection], Awaitable[None]],
    talk: Callable[[Connection], Awaitable[None]],
) -> Outcome:
    """Make an attempt: establish a connection, and talk over it.

    After a certificate that is refused it connects again and says nothing, for its expiry: Python
    does not show the certificate of a failed handshake.
    """
    async with Connection(job, network) as connection:
        await establish(connection)
        await talk(connection)
    left_s = connection.left_s
    if connection.certificate_refused and left_s > 0:
        again = Connection(job, network, timeout_s=left_s, verify=False)
        try:
            async with again:
                await establish(again)
        except Exception as error:
            # That the certificate is refused is known, all the same.
            if own_trouble(error) is None:
                raise
        connection.expiry, connection.chain_expiry = again.expiry, again.chain_expiry
    return connection.outcome()


def _describe(error: BaseException, timeout_s: float) -> str | None:
    """Return a result's error text for a failure; None for what is not the site's fault."""
    if own_trouble(error) is not None:
        return None
    if isinstance(error, (ResolveError, ProbeError)):
        return str(error)
    if isinstance(error, TimeoutError) and not error.errno:
        return f"timeout: {timeout_s:g} s ran out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"bad-certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        # OpenSSL has no name for some alerts, and Python then names its own source.
        return f"tls: {error.reason or _PLACE.sub('', error.strerror or str(error))}"
    if isinstance(error, EOFError):
        return "reset: the connection was closed"
    if isinstance(error, socket.gaierror):
        return f"no-such-host: {error.strerror}"
    if isinstance(error, OSError):
        word = OS_ERRORS.get(error.errno or 0, "reset")
        # asyncio's own texts name addresses, or are empty; the system's can be grouped by.
        said = os.strerror(error.errno) if error.errno else str(error)
        return f"{word}: {said or 'the connection was closed'}"
    return None

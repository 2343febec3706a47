"""A connection for the kinds that speak over plain sockets, with its phases timed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from typing import Any

from monitor.messages import Phases
from monitor.probes.check import OS_ERRORS, Outcome
from monitor.probes.job import Job
from monitor.probes.resolver import ResolveError, Resolver
from monitor.probes.tls import expiry

__all__ = ["Connection", "ProbeError"]


class ProbeError(Exception):
    """What a check found wrong; ``str()`` is a result's error text."""


class Connection:
    """One attempt's connection to its host: resolve, connect, tls, and the dialogue.

    ``async with`` bounds everything by the timeout (s, the job's by default), turns failures
    into :attr:`error`, and closes the connection.
    """

    def __init__(self, job: Job, resolver: Resolver, *, timeout_s: float | None = None) -> None:
        self._job = job
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()
        # Not the loop's clock: uvloop's has whole milliseconds only.
        self._began = self._mark = time.monotonic()
        self._spent = {"resolve": 0.0, "connect": 0.0, "tls": 0.0, "processing": 0.0}
        self._phase = "resolve"
        self._limit = asyncio.timeout(job.timeout if timeout_s is None else timeout_s)
        self._writer: asyncio.StreamWriter | None = None
        self.error: str | None = None
        self.status: int | None = None
        self.matched: bool | None = None
        self.expiry: float | None = None
        self.certificate_refused = False

    @property
    def left_s(self) -> float:
        """How much of the job's timeout is left."""
        return self._began + self._job.timeout - time.monotonic()

    def _enter(self, phase: str) -> None:
        now = time.monotonic()
        self._spent[self._phase] += now - self._mark
        self._mark, self._phase = now, phase

    async def open(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, server_name: str | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first of the host's addresses that accepts.

        With ``tls``, the certificate must be for ``server_name``, by default the host.
        """
        addresses = await self._resolver.resolve(host, str(self._job.ip_version))
        self._enter("connect")
        connection = await self._connect(addresses, port)
        self._enter("processing" if tls is None else "tls")
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl": tls, "server_hostname": server_name or host}
        try:
            reader, self._writer = await asyncio.open_connection(sock=connection, **options)
        except BaseException:
            connection.close()
            raise
        if tls is not None:
            self._enter("processing")
            certificate = self._writer.get_extra_info("ssl_object").getpeercert(True)
            if certificate:
                self.expiry = expiry(certificate)
        return reader, self._writer

    async def _connect(self, addresses: list[str], port: int) -> socket.socket:
        error: OSError | None = None
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                await self._loop.sock_connect(connection, (address, port))
                return connection
            except OSError as failure:
                connection.close()
                error = failure
            except BaseException:
                connection.close()
                raise
        assert error is not None
        raise error

    async def __aenter__(self) -> Connection:
        await self._limit.__aenter__()
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if self._writer is not None:
            # No goodbye: no peer may make us wait.
            self._writer.transport.abort()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            error = timeout
        self._enter("done")
        if error is None:
            return True
        self.certificate_refused = isinstance(error, ssl.SSLCertVerificationError)
        text = _describe(error, self._job.timeout)
        if text is not None:
            self.error = text
        return text is not None

    def outcome(self) -> Outcome:
        """Return what the attempt found, after the ``async with``."""
        spent = [self._spent[phase] for phase in ("resolve", "connect", "tls", "processing")]
        # A mismatch or a wrong status is a whole answer too.
        whole = self.error is None or self.matched is False or self.status is not None
        return Outcome(
            up=self.error is None,
            duration=self._mark - self._began,
            error=self.error,
            status=self.status,
            response_time=sum(spent) if whole else None,
            matched=self.matched,
            phases=Phases(*spent),
            certificate_expires_at=self.expiry,
        )


def _describe(error: BaseException, timeout_s: float) -> str | None:
    """Return a result's error text for a failure; None for a defect or a cancellation."""
    if isinstance(error, (ResolveError, ProbeError)):
        return str(error)
    if isinstance(error, TimeoutError) and not error.errno:
        return f"timeout: {timeout_s:g} s ran out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"bad-certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error.strerror or error}"
    if isinstance(error, EOFError):
        return "reset: the connection was closed"
    if isinstance(error, OSError):
        word = OS_ERRORS.get(error.errno or 0, "reset")
        # asyncio's own texts name addresses; the system's can be grouped by.
        return f"{word}: {os.strerror(error.errno) if error.errno else error}"
    return None

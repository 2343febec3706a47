"""The kind ``ping``: a host that answers ICMP echo requests. Sources: RFC 792, RFC 4443.

Linux has sockets for this that need no privilege: the kernel adds the id and passes on only the
answers to it (icmp(7), net.ipv4.ping_group_range).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from typing import Annotated, ClassVar

import msgspec

from monitor.errors import SettingError
from monitor.messages import Phases
from monitor.probes.check import OS_ERRORS, Attempt, Check, Outcome
from monitor.probes.job import Job, Option
from monitor.probes.network import Network
from monitor.probes.no_result import own_trouble
from monitor.probes.racing import interleaved
from monitor.probes.resolver import ResolveError
from monitor.probes.urls import parse_url

__all__ = ["PingCheck", "PingJob"]

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_PAYLOAD_BYTES = 48
# Between two requests of one attempt, in s.
_PAUSE_S = 0.2
_MOST_ADDRESSES = 4


class PingJob(Job, frozen=True, kw_only=True, tag="ping"):
    """A host that answers echo requests."""

    schemes: ClassVar[tuple[str, ...]] = ("ping",)

    # echo requests in an attempt; up if one is answered, and degraded if one is not
    count: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1

    def verify(self) -> None:
        """Check the URL, ``ping://host`` and nothing more."""
        super().verify()
        url = parse_url(self.url, self.schemes)
        more = url.query or url.user or url.password or "#" in self.url
        if url.port or url.path != "/" or more:
            raise SettingError(("url",), "must be ping://host and nothing more")


class PingCheck(Check[PingJob]):
    """Sends echo requests, one after the other."""

    job = PingJob
    errors: ClassVar = {
        "not-permitted": "the system does not let the daemon ping; set net.ipv4.ping_group_range"
    }
    options = (Option("--count", "count", "echo requests (1)", "N", type=int),)

    def prepare(self, job: PingJob) -> Attempt:
        """Return what pings the job's host."""
        host = parse_url(job.url, job.schemes).host

        async def attempt() -> Outcome:
            return await _Ping(job, self.network).run(host)

        return attempt


class _NotPermittedError(Exception):
    """The system permits no such sockets to the daemon; a single address is refused otherwise."""


class _Ping:
    """One attempt."""

    def __init__(self, job: PingJob, network: Network) -> None:
        self._job = job
        self._network = network
        self._began = time.monotonic()
        self._resolve_s = 0.0
        self._answers_s: list[float] = []

    async def run(self, host: str) -> Outcome:
        job, error = self._job, None
        try:
            async with asyncio.timeout(job.timeout):
                addresses = await self._network.resolver.resolve(host, str(job.ip_version))
                self._resolve_s = time.monotonic() - self._began
                await self._ping(interleaved(addresses)[:_MOST_ADDRESSES])
        except ResolveError as failure:
            error = str(failure)
        except TimeoutError:
            error = f"timeout: {job.timeout:g} s ran out"
        except _NotPermittedError:
            error = "not-permitted: set net.ipv4.ping_group_range to include the daemon's group"
        except OSError as failure:
            if own_trouble(failure) is not None:
                raise
            number = failure.errno or 0
            # That is how an ICMP error of the host or of a router is reported.
            word = "unreachable" if number == errno.ECONNREFUSED else OS_ERRORS.get(number)
            error = f"{word or 'unreachable'}: {os.strerror(number)}"
        answered = len(self._answers_s)
        # Some answers are enough; those that are missing make it degraded.
        error = None if answered else error
        mean_s = sum(self._answers_s) / answered if answered else 0.0
        ended = time.monotonic()
        waited_s = mean_s if answered else max(0.0, ended - self._began - self._resolve_s)
        return Outcome(
            up=error is None,
            duration=ended - self._began,
            error=error,
            response_time=self._resolve_s + mean_s if answered else None,
            matched=True if answered else None,
            phases=Phases(resolve=self._resolve_s, processing=waited_s),
            degraded=0 < answered < job.count,
        )

    async def _ping(self, addresses: list[str]) -> None:
        """Ping the first address that can be reached."""
        for number, address in enumerate(addresses, 1):
            last = number == len(addresses)
            share_s = self._job.timeout / len(addresses) / self._job.count
            try:
                await self._ping_address(address, self._job.timeout if last else share_s)
            except OSError as error:
                # TimeoutError, too
                if last or self._answers_s or own_trouble(error) is not None:
                    raise
            if self._answers_s:
                return

    async def _ping_address(self, address: str, most_s: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sockets = self._network.sockets
        wait_s = min(most_s, self._job.timeout / self._job.count)
        try:
            made = socket.socket(
                family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _PROTOCOL[family]
            )
        except PermissionError:
            raise _NotPermittedError from None
        with made as connection:
            await sockets.connect(connection, address, 0)
            for number in range(1, self._job.count + 1):
                payload = os.urandom(_PAYLOAD_BYTES)
                request = _HEADER.pack(_REQUEST[family], 0, 0, 0, number) + payload
                sent_at = time.monotonic()
                await sockets.send(connection, request)
                try:
                    async with asyncio.timeout(wait_s):
                        while True:
                            answer = await sockets.receive(connection, 1500)
                            if answer[:1] == bytes([_REPLY[family]]) and answer[8:] == payload:
                                break
                except TimeoutError:
                    if number == self._job.count and not self._answers_s:
                        raise
                    continue
                self._answers_s.append(time.monotonic() - sent_at)
                if number < self._job.count:
                    await asyncio.sleep(_PAUSE_S)

"""A page fetched with libcurl, on a fresh connection with every phase timed.

Redirects are followed here, one transfer each, and not by libcurl, which adds up some phases of
the hops and shows the certificate of the last host only.
"""

from __future__ import annotations

import asyncio
import time
from itertools import zip_longest
from typing import Any

import pycurl

from monitor.errors import SettingError
from monitor.messages import Phases
from monitor.probes.chains import expiries
from monitor.probes.check import Outcome
from monitor.probes.checks.http.answer_headers import is_whole
from monitor.probes.checks.http.assertions import mismatch
from monitor.probes.checks.http.body import Body
from monitor.probes.checks.http.curl_answer import (
    error_text,
    hop_phases,
    lacking,
    no_common_group,
    sent_chain,
)
from monitor.probes.checks.http.curl_loop import CurlHandles
from monitor.probes.checks.http.job import HttpJob, expected_codes
from monitor.probes.checks.http.proxy import proxy_error
from monitor.probes.checks.http.request import Request, proxy_of
from monitor.probes.checks.http.setup import Setup
from monitor.probes.matching import Matcher
from monitor.probes.no_result import OwnTroubleError
from monitor.probes.resolver import ResolveError, Resolver
from monitor.probes.tls import trusted_in

__all__ = ["Fetch", "Visit"]

# libcurl prints the whole chain as text, which costs a third of the handshake. So a good chain
# is inspected this often, in s, and after every failure.
_CERTIFICATE_LOOK_S = 300.0
_E_HTTP2 = 16

# When the verified path and the whole chain expire.
_Expiries = tuple[float | None, float | None]


class Fetch:
    """One job's page; holds what is the same for every attempt."""

    def __init__(
        self, job: HttpJob, *, handles: CurlHandles, resolver: Resolver, matcher: Matcher
    ) -> None:
        self._job = job
        self._handles = handles
        self._resolver = resolver
        self._matcher = matcher
        self._curl = handles.loop(job.ca_file)
        self._request = Request.of(job)
        self._proxy = None if job.proxy is None else proxy_of(job.proxy)
        self._set_up = Setup(job, self._proxy)
        self._trusted = trusted_in(job.ca_file)
        self._expected = expected_codes(job.expected_status)
        self._ip_version = str(job.ip_version)
        self._asserts = (
            job.body_regexp is not None
            or job.body_absent_regexp is not None
            or job.json is not None
        )
        self._keep_body = self._asserts
        # by host: when its certificates expire, and when they were inspected
        self._expiries: dict[tuple[str, int], tuple[_Expiries, float]] = {}

    async def attempt(self) -> Outcome:
        """Fetch the page and its redirects."""
        began = time.monotonic()
        visit = Visit(began + self._job.timeout)
        easy = self._handles.take()
        whole = False
        try:
            whole = await self._follow(visit, easy)
        except (TimeoutError, ResolveError) as error:
            # Both are of name resolution; libcurl raises nothing for its timeouts.
            ran_out = isinstance(error, TimeoutError)
            visit.error = f"timeout: {self._job.timeout:g} s ran out" if ran_out else str(error)
            visit.add(time.monotonic() - began - sum(visit.spent))
        finally:
            self._handles.give(easy)
        if whole:
            await self._check_answer(visit)
        spent = [max(value, 0.0) for value in visit.spent]
        return Outcome(
            up=visit.error is None,
            duration=max(time.monotonic() - began, 0.0),
            error=visit.error,
            status=visit.status,
            response_time=sum(spent) if whole else None,
            matched=visit.matched,
            phases=Phases(*spent),
            certificate_expires_at=visit.expiry,
            chain_expires_at=visit.chain_expiry,
        )

    async def _follow(self, visit: Visit, easy: Any) -> bool:
        """Fetch hop by hop; return whether the last answer is whole, with no error so far."""
        job, request, redirects = self._job, self._request, 0
        while True:
            await self._hop(visit, easy, request)
            if visit.error is not None:
                return False
            assert visit.body is not None
            assert visit.status is not None
            target = visit.body.target
            if target is None:
                return True
            if redirects == job.max_redirects:
                visit.error = f"too-many-redirects: more than {redirects}"
                return False
            redirects += 1
            try:
                request = request.redirected(visit.status, target)
            except SettingError as error:
                visit.error = f"bad-redirect: {ascii(error.problem)[1:-1]}"
                return False
            easy.reset()

    async def _hop(self, visit: Visit, easy: Any, request: Request) -> None:
        pinned = await self._pinned(visit, request)
        left = visit.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        site = (request.place.host, request.place.port)
        known = self._expiries.get(site)
        look = request.secure and (
            known is None or time.monotonic() - known[1] > _CERTIFICATE_LOOK_S
        )
        job = self._job
        body = visit.body = Body(
            job.max_body_bytes,
            keep=self._keep_body,
            decode=job.decode,
            stream=job.stream,
            follow=job.follow_redirects,
        )
        self._set_up(easy, request, body, left_s=left, pinned=pinned)
        if look:
            easy.setopt(pycurl.OPT_CERTINFO, 1)
        errno, message = await self._curl.perform(easy, body.write)
        if errno and (trouble := lacking(errno, easy)) is not None:
            raise OwnTroubleError(trouble)
        visit.add(*hop_phases(easy))
        if no_common_group(errno, message) and self._set_up.with_all_groups():
            easy.reset()
            await self._hop(visit, easy, request)
            return
        visit.status = easy.getinfo(pycurl.RESPONSE_CODE) or None
        visit.lines = body.lines
        if body.streaming or body.target is not None:
            errno = 0
        if request.secure:
            found = self._certificates(easy) if look else known[0] if known and not errno else None
            if found is None and errno == pycurl.E_PEER_FAILED_VERIFICATION:
                found = await self._refused(request, visit.until, pinned)
            if look and not errno and found is not None:
                self._remember(site, found)
            elif errno:
                self._expiries.pop(site, None)
            visit.expires(found)
        visit.error = self._hop_error(visit, easy, request, errno, message)

    def _hop_error(
        self, visit: Visit, easy: Any, request: Request, errno: int, message: str
    ) -> str | None:
        assert visit.body is not None
        if visit.body.error is not None:
            return visit.body.error
        if self._proxy is not None:
            problem = proxy_error(
                self._proxy,
                easy,
                errno,
                secure=request.secure,
                status=visit.status,
                lines=visit.lines,
            )
            if problem is not None:
                if errno == 0 or easy.getinfo(pycurl.HTTP_CONNECTCODE):
                    return f"proxy: {problem}"
                detail = error_text(errno, message, easy, timeout_s=self._job.timeout)
                return f"proxy: {problem}: {detail}"
        if errno == _E_HTTP2 and self._job.http_version == "2" and visit.status is None:
            return "bad-answer: not HTTP/2"
        if errno:
            return error_text(errno, message, easy, timeout_s=self._job.timeout)
        if not is_whole(visit.lines):
            return "reset: the connection was closed in the header"
        version = easy.getinfo(pycurl.INFO_HTTP_VERSION)
        if self._job.http_version == "2" and version != pycurl.CURL_HTTP_VERSION_2_0:
            return "bad-answer: not HTTP/2"
        return None if self._job.stream else visit.body.finish()

    def _certificates(self, easy: Any) -> _Expiries | None:
        chain = sent_chain(easy)
        return expiries(chain, self._trusted) if chain else None

    def _remember(self, site: tuple[str, int], found: _Expiries) -> None:
        if len(self._expiries) > self._job.max_redirects:
            self._expiries.clear()
        self._expiries[site] = (found, time.monotonic())

    async def _pinned(self, visit: Visit, request: Request) -> list[str]:
        """Resolve the host or the proxy; return an entry for libcurl's RESOLVE."""
        place = request.place if self._proxy is None else self._proxy
        if self._proxy is None and request.address_version:
            if self._ip_version not in ("any", request.address_version):
                raise ResolveError(
                    f"no-such-host: {place.host} is not an IPv{self._ip_version} address"
                )
            return []
        began = time.monotonic()
        async with asyncio.timeout(visit.until - began):
            try:
                found = await self._resolver.resolve(place.host, self._ip_version)
            except ResolveError as error:
                if self._proxy is not None:
                    raise ResolveError(f"proxy: {error}") from None
                raise
        visit.add(time.monotonic() - began)
        if found == [place.host]:
            return []
        numbers = ",".join(f"[{address}]" if ":" in address else address for address in found)
        return [f"{place.host}:{place.port}:{numbers}"]

    async def _refused(self, request: Request, until: float, pinned: list[str]) -> _Expiries | None:
        """Return the expiries of refused certificates, from a connection that carries nothing.

        Some builds of libcurl do not show the certificates of a failed handshake.
        """
        easy = self._handles.take()
        try:
            left = until - time.monotonic()
            if left <= 0:
                return None
            nothing = Body(0, keep=False, decode=False, stream=False)
            self._set_up(easy, request, nothing, left_s=left, pinned=pinned)
            easy.setopt(pycurl.CONNECT_ONLY, 1)
            easy.setopt(pycurl.OPT_CERTINFO, 1)
            easy.setopt(pycurl.SSL_VERIFYPEER, 0)
            easy.setopt(pycurl.SSL_VERIFYHOST, 0)
            await self._curl.perform(easy, nothing.write)
            return self._certificates(easy)
        finally:
            self._handles.give(easy)

    async def _check_answer(self, visit: Visit) -> None:
        """Compare a whole answer with what the job expects."""
        assert visit.status is not None
        assert visit.body is not None
        visit.matched = True
        problem = None
        if self._asserts or self._job.header_regexps:
            problem = await mismatch(
                self._job,
                self._matcher,
                lines=visit.lines,
                body=visit.body.content(),
                until=visit.until,
            )
            ended = problem is None or not problem.startswith("timeout: ")
            visit.matched = problem is None if ended else None
        if self._job.stream and not visit.body.streaming:
            problem = "bad-answer: the answer ended without a body"
        if not any(visit.status in codes for codes in self._expected):
            problem = f"bad-status: {visit.status}"
        visit.error = problem


class Visit:
    """The findings so far, over all hops."""

    __slots__ = (
        "body", "chain_expiry", "error", "expiry", "lines", "matched", "spent", "status", "until",
    )  # fmt: skip

    def __init__(self, until: float) -> None:
        self.until = until
        self.status: int | None = None
        self.error: str | None = None
        self.matched: bool | None = None
        self.expiry: float | None = None
        self.chain_expiry: float | None = None
        self.body: Body | None = None
        self.lines: list[bytes] = []
        # resolve, connect, tls, processing, transfer
        self.spent = [0.0, 0.0, 0.0, 0.0, 0.0]

    def add(self, *phases: float) -> None:
        """Add a hop's phases, or the first of them."""
        self.spent = [sum(pair) for pair in zip_longest(self.spent, phases, fillvalue=0.0)]

    def expires(self, found: _Expiries | None) -> None:
        """Take a hop's expiries; the earliest ones count."""
        path, chain = found or (None, None)
        self.expiry = min(filter(None, (path, self.expiry)), default=None)
        self.chain_expiry = min(filter(None, (chain, self.chain_expiry)), default=None)

"""A page fetched with libcurl, on a fresh connection with every phase timed.

Redirects are followed here, one transfer each, and not by libcurl, which adds up some phases of
the hops and shows the certificate of the last host only.
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

import pycurl

from monitor.errors import SettingError
from monitor.messages import Phases
from monitor.probes.check import Outcome
from monitor.probes.checks.http.curl_answer import (
    Body,
    certificate_expiry,
    charset_of,
    error_text,
    hop_phases,
    system_authorities,
)
from monitor.probes.checks.http.curl_loop import CurlHandles
from monitor.probes.checks.http.job import HttpJob, expected_codes
from monitor.probes.checks.http.request import Request, proxy_url
from monitor.probes.matching import Matcher
from monitor.probes.resolver import ResolveError, Resolver

__all__ = ["Fetch"]

# libcurl prints the whole chain as text, which costs a third of the handshake. So a good chain
# is inspected this often, in s, and after every failure.
_CERTIFICATE_LOOK_S = 300.0
_REDIRECTS = (301, 302, 303, 307, 308)
_VERSIONS = {
    "any": pycurl.CURL_HTTP_VERSION_2TLS,
    "1.1": pycurl.CURL_HTTP_VERSION_1_1,
    "2": pycurl.CURL_HTTP_VERSION_2_0,
}


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
        self._expected = expected_codes(job.expected_status)
        self._ip_version = str(job.ip_version)
        proxy = None if job.proxy is None else proxy_url(job.proxy)
        self._proxy = None if proxy is None else urlsplit(proxy)
        family = {"any": pycurl.IPRESOLVE_WHATEVER, "4": pycurl.IPRESOLVE_V4}
        self._options: list[tuple[int, Any]] = [
            (pycurl.NOSIGNAL, 1),
            (pycurl.FRESH_CONNECT, 1),
            (pycurl.FORBID_REUSE, 1),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            # An empty one also turns off the environment's.
            (pycurl.PROXY, proxy or ""),
            (pycurl.HTTP_VERSION, _VERSIONS[job.http_version]),
            (pycurl.ACCEPT_ENCODING, ""),
            (pycurl.IPRESOLVE, family.get(self._ip_version, pycurl.IPRESOLVE_V6)),
        ]
        self._tls_options: list[tuple[int, Any]] = [
            (pycurl.SSL_SESSIONID_CACHE, 0),
            (pycurl.SSL_VERIFYPEER, int(job.verify_tls)),
            (pycurl.SSL_VERIFYHOST, 2 if job.verify_tls else 0),
        ]
        # by host: when its chain expires, and when it was inspected
        self._expiries: dict[tuple[str, int], tuple[float | None, float]] = {}
        authorities = job.ca_file or system_authorities()
        if authorities is not None:
            self._tls_options.append((pycurl.CAINFO, os.fsencode(authorities)))

    async def attempt(self) -> Outcome:
        """Fetch the page and its redirects."""
        began = time.monotonic()
        visit = _Visit(began + self._job.timeout)
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
        )

    async def _follow(self, visit: _Visit, easy: Any) -> bool:
        """Fetch hop by hop; return whether the last answer is whole, with no error so far."""
        job, request, redirects = self._job, self._request, 0
        while True:
            await self._hop(visit, easy, request)
            if visit.error is not None:
                return False
            # Raw: a server may send bytes that are not UTF-8.
            location = easy.getinfo_raw(pycurl.REDIRECT_URL)
            if visit.status not in _REDIRECTS or not location or not job.follow_redirects:
                return True
            if redirects == job.max_redirects:
                visit.error = f"too-many-redirects: more than {redirects}"
                return False
            redirects += 1
            assert visit.status is not None
            try:
                request = request.redirected(
                    visit.status, location.decode("utf-8", "surrogateescape")
                )
            except SettingError as error:
                visit.error = f"bad-redirect: {error.problem}"
                return False
            easy.reset()

    async def _hop(self, visit: _Visit, easy: Any, request: Request) -> None:
        pinned: list[str] = []
        if self._proxy is not None or not request.address_version:
            began = time.monotonic()
            pinned = await self._addresses(request, visit.until)
            visit.add(time.monotonic() - began)
        elif self._ip_version not in ("any", request.address_version):
            raise ResolveError(
                f"no-such-host: {request.host} is not an IPv{self._ip_version} address"
            )
        left = visit.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        site = (request.host, request.port)
        known = self._expiries.get(site)
        look = request.secure and (
            known is None or time.monotonic() - known[1] > _CERTIFICATE_LOOK_S
        )
        visit.body = Body(self._job.max_body_bytes, keep=self._job.body_regexp is not None)
        self._set_up(easy, request, visit.body, left_s=left, pinned=pinned)
        if look:
            easy.setopt(pycurl.OPT_CERTINFO, 1)
        errno, message = await self._curl.perform(easy)
        visit.add(*hop_phases(easy))
        visit.status = easy.getinfo(pycurl.RESPONSE_CODE) or None
        if self._job.body_regexp is not None:
            visit.charset = charset_of(easy)
        if request.secure:
            expiry = certificate_expiry(easy) if look else known[0] if known and not errno else None
            if expiry is None and errno == pycurl.E_PEER_FAILED_VERIFICATION:
                expiry = await self._refused_certificate(request, visit.until, pinned)
            if look and not errno:
                self._remember(site, expiry)
            elif errno:
                self._expiries.pop(site, None)
            if expiry is not None:
                visit.expiry = min(expiry, visit.expiry or expiry)
        if visit.body.too_large:
            visit.error = f"body-too-large: longer than {self._job.max_body_bytes} bytes"
        elif errno:
            visit.error = error_text(errno, message, easy, timeout_s=self._job.timeout)
        elif self._job.http_version == "2" and (
            easy.getinfo(pycurl.INFO_HTTP_VERSION) != pycurl.CURL_HTTP_VERSION_2_0
        ):
            visit.error = "bad-answer: not HTTP/2"

    def _remember(self, site: tuple[str, int], expiry: float | None) -> None:
        if len(self._expiries) > self._job.max_redirects:
            self._expiries.clear()
        self._expiries[site] = (expiry, time.monotonic())

    async def _addresses(self, request: Request, until: float) -> list[str]:
        """Resolve the host or the proxy; return an entry for libcurl's RESOLVE."""
        host, port = request.host, request.port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or 0
        async with asyncio.timeout_at(until):
            try:
                found = await self._resolver.resolve(host, self._ip_version)
            except ResolveError as error:
                if self._proxy is not None:
                    raise ResolveError(f"proxy: {error}") from None
                raise
        if found == [host]:
            return []
        numbers = ",".join(f"[{address}]" if ":" in address else address for address in found)
        return [f"{host}:{port}:{numbers}"]

    def _set_up(
        self, easy: Any, request: Request, body: Body, *, left_s: float, pinned: list[str]
    ) -> None:
        for option, value in self._options:
            easy.setopt(option, value)
        if request.secure:
            for option, value in self._tls_options:
                easy.setopt(option, value)
        if pinned:
            easy.setopt(pycurl.RESOLVE, pinned)
        easy.setopt(pycurl.URL, request.url)
        easy.setopt(pycurl.HTTPHEADER, request.headers)
        easy.setopt(pycurl.TIMEOUT_MS, max(1, round(left_s * 1000)))
        easy.setopt(pycurl.WRITEFUNCTION, body.write)
        if request.method == "HEAD":
            easy.setopt(pycurl.NOBODY, 1)
        elif request.body is not None:
            easy.setopt(pycurl.POSTFIELDS, request.body)
        if request.method not in ("GET", "HEAD") or request.body is not None:
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.user is not None:
            easy.setopt(pycurl.USERNAME, request.user)
            easy.setopt(pycurl.PASSWORD, request.password or "")

    async def _refused_certificate(
        self, request: Request, until: float, pinned: list[str]
    ) -> float | None:
        """Return the expiry of a refused certificate, from a connection that carries nothing.

        Some builds of libcurl do not show the certificates of a failed handshake.
        """
        easy = self._handles.take()
        try:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._set_up(easy, request, Body(0, keep=False), left_s=left, pinned=pinned)
            easy.setopt(pycurl.CONNECT_ONLY, 1)
            easy.setopt(pycurl.OPT_CERTINFO, 1)
            easy.setopt(pycurl.SSL_VERIFYPEER, 0)
            easy.setopt(pycurl.SSL_VERIFYHOST, 0)
            await self._curl.perform(easy)
            return certificate_expiry(easy)
        finally:
            self._handles.give(easy)

    async def _check_answer(self, visit: _Visit) -> None:
        """Compare a whole answer with what the job expects."""
        job = self._job
        visit.matched = True
        if job.body_regexp is not None:
            visit.matched = None
            assert visit.body is not None
            try:
                visit.matched = await self._matcher.search(
                    job.body_regexp,
                    visit.body.content(),
                    charset=visit.charset,
                    job_id=job.id,
                    timeout_s=visit.until - time.monotonic(),
                )
            except TimeoutError:
                visit.error = "timeout: body_regexp takes too long"
        assert visit.status is not None
        if visit.status not in self._expected:
            visit.error = f"bad-status: {visit.status}"
        elif visit.matched is False:
            visit.error = "body-mismatch: body_regexp does not match"


class _Visit:
    """The findings so far, over all hops."""

    __slots__ = ("body", "charset", "error", "expiry", "matched", "spent", "status", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.status: int | None = None
        self.error: str | None = None
        self.matched: bool | None = None
        self.expiry: float | None = None
        self.body: Body | None = None
        self.charset = ""
        # resolve, connect, tls, processing, transfer
        self.spent = [0.0, 0.0, 0.0, 0.0, 0.0]

    def add(self, *phases: float) -> None:
        """Add a hop's phases, or the first of them."""
        self.spent = [sum(pair) for pair in zip_longest(self.spent, phases, fillvalue=0.0)]

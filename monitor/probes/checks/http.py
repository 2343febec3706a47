"""The kind ``http``: a web page, fetched on a fresh connection with every phase timed."""

from __future__ import annotations

from urllib.parse import urlsplit

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check
from monitor.probes.connection import verify_authorities
from monitor.probes.curl_handles import CurlHandles
from monitor.probes.http_fetch import Fetch
from monitor.probes.http_request import SCHEMES
from monitor.probes.job import Job, split_url
from monitor.probes.matching import Matcher
from monitor.probes.resolver import Resolver

__all__ = ["HttpCheck"]

_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_METHOD_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-_")


class HttpCheck(Check):
    """Fetches pages with libcurl in the loop."""

    kind = "http"
    schemes = SCHEMES

    def __init__(self, *, resolver: Resolver, matcher: Matcher) -> None:
        super().__init__(resolver=resolver, matcher=matcher)
        self._handles = CurlHandles()

    @classmethod
    def verify(cls, job: Job) -> None:
        """Check URL, method, proxy and certificate authorities."""
        split_url(job.url, SCHEMES)
        if not job.method or not set(job.method) <= _METHOD_LETTERS:
            raise SettingError(("method",), f"{job.method!r} is not a method such as GET")
        if job.proxy is not None:
            try:
                parts = urlsplit(job.proxy)
                good = parts.scheme in _PROXY_SCHEMES and parts.hostname and parts.port
            except ValueError:
                good = False
            if not good:
                schemes = ", ".join(_PROXY_SCHEMES)
                raise SettingError(("proxy",), f"must be SCHEME://HOST:PORT with one of {schemes}")
        if job.ca_file is not None:
            verify_authorities(job.ca_file)

    def prepare(self, job: Job) -> Attempt:
        """Return what fetches the job's page."""
        return Fetch(
            job, handles=self._handles, resolver=self.resolver, matcher=self.matcher
        ).attempt

    async def close(self) -> None:
        """Let go of libcurl."""
        self._handles.close()

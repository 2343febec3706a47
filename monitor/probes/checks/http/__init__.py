"""The kind ``http``: a web page, fetched on a fresh connection with every phase timed."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from monitor.probes.check import Attempt, Check
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.job import Option
from monitor.probes.matching import REGEXP_OPTION, Matcher
from monitor.probes.network import Network
from monitor.probes.tls import TLS_OPTIONS

if TYPE_CHECKING:
    from monitor.probes.checks.http.curl_loop import CurlHandles

__all__ = ["HttpCheck", "HttpJob"]


class HttpCheck(Check[HttpJob]):
    """Fetches pages with libcurl in the loop."""

    job = HttpJob
    errors: ClassVar = {
        "body-too-large": "the decompressed body is longer than max_body_bytes",
        "too-many-redirects": "more redirects than max_redirects",
        "header-mismatch": "a whole answer without a header that header_regexps asks for",
        "bad-redirect": "a redirect to something that is not a web address",
        "proxy": "the proxy could not be found, reached or used",
    }
    options = (
        Option("--method", "method", "the request's method (GET)", "M"),
        Option("--status", "expected_status", "expected, as 200-299", "CODES", many=True),
        REGEXP_OPTION,
        *TLS_OPTIONS,
    )

    def __init__(self, *, network: Network, matcher: Matcher) -> None:
        super().__init__(network=network, matcher=matcher)
        self._handles: CurlHandles | None = None

    @classmethod
    def load(cls) -> None:
        import pycurl  # noqa: F401 - for what it raises

    def prepare(self, job: HttpJob) -> Attempt:
        from monitor.probes.checks.http.curl_loop import CurlHandles
        from monitor.probes.checks.http.fetch import Fetch

        if self._handles is None:
            self._handles = CurlHandles(self.network)
        return Fetch(
            job, handles=self._handles, resolver=self.network.resolver, matcher=self.matcher
        ).attempt

    async def close(self) -> None:
        if self._handles is not None:
            self._handles.close()

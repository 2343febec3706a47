"""The kind ``grpc``: the standard health service of a gRPC server."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check
from monitor.probes.matching import Matcher
from monitor.probes.network import Network
from monitor.probes.tls import TLS_OPTIONS, TlsKeys
from monitor.probes.urls import parse_url
from monitor.settings import verify_each

if TYPE_CHECKING:
    from monitor.probes.checks.http.curl_loop import CurlHandles

__all__ = ["GrpcCheck", "GrpcJob"]


class GrpcJob(TlsKeys, frozen=True, kw_only=True, tag="grpc"):
    """A gRPC service that says it is serving."""

    schemes: ClassVar[tuple[str, ...]] = ("grpc", "grpcs")

    def verify(self) -> None:
        """Check the URL, ``grpc://host:port/service``; without a service, it is the server."""
        verify_each(super().verify, self._verify_url, self._verify_tls)

    def _verify_tls(self) -> None:
        if parse_url(self.url, self.schemes, port=True).scheme == "grpc":
            self.refuse_without_tls("use grpcs://")

    def _verify_url(self) -> None:
        url = parse_url(self.url, self.schemes, port=True)
        if url.query or url.user or url.password or "#" in self.url:
            raise SettingError(("url",), f"must be {url.scheme}://host:port/service")
        try:
            unquote(url.path, errors="strict")
        except UnicodeDecodeError:
            raise SettingError(("url",), "has a service whose name is not UTF-8") from None


class GrpcCheck(Check[GrpcJob]):
    """Asks the health service with libcurl's HTTP/2."""

    job = GrpcJob
    errors: ClassVar = {"not-serving": "the service says that it is not serving, or is not known"}
    options = TLS_OPTIONS

    def __init__(self, *, network: Network, matcher: Matcher) -> None:
        super().__init__(network=network, matcher=matcher)
        self._handles: CurlHandles | None = None

    @classmethod
    def load(cls) -> None:
        import pycurl  # noqa: F401 - for what it raises

    def prepare(self, job: GrpcJob) -> Attempt:
        from monitor.probes.checks.grpc.health import HealthFetch
        from monitor.probes.checks.http.curl_loop import CurlHandles

        if self._handles is None:
            self._handles = CurlHandles()
        return HealthFetch(
            job, handles=self._handles, resolver=self.network.resolver, matcher=self.matcher
        ).attempt

    async def close(self) -> None:
        if self._handles is not None:
            self._handles.close()

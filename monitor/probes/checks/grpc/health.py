"""A request to grpc.health.v1.Health/Check, and what its answer means.

Sources: the gRPC protocol over HTTP/2, the gRPC health checking protocol, and the encoding of
protocol buffers. Two messages of one field each need no generated code.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote, unquote_to_bytes

from monitor.probes.checks.grpc import GrpcJob
from monitor.probes.checks.http.answer_headers import header_values
from monitor.probes.checks.http.curl_loop import CurlHandles
from monitor.probes.checks.http.fetch import Fetch, Visit
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.matching import Matcher
from monitor.probes.resolver import Resolver
from monitor.probes.urls import parse_url

__all__ = ["HealthFetch", "serving_status"]

_METHOD = "/grpc.health.v1.Health/Check"
_MOST_ANSWER_BYTES = 65536
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVING = 1
_NOT_FOUND = "5"
# Source: the gRPC protocol's status codes, from 1 on.
_CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_FIELD_1_TEXT, _FIELD_1_NUMBER = 0x0A, 0x08
_PREFIX_BYTES = 5
_LONGEST_VARINT = 10


class HealthFetch(Fetch):
    """Asks for the health of a job's service."""

    def __init__(
        self, job: GrpcJob, *, handles: CurlHandles, resolver: Resolver, matcher: Matcher
    ) -> None:
        url = parse_url(job.url, job.schemes)
        web = url.scheme.replace("grpc", "http")
        request = HttpJob(
            id=job.id,
            url=f"{web}://{url.netloc}{_METHOD}",
            method="POST",
            headers={"Content-Type": "application/grpc", "TE": "trailers"},
            http_version="2",
            follow_redirects=False,
            max_body_bytes=_MOST_ANSWER_BYTES,
            decode=False,
            timeout=job.timeout,
            ip_version=job.ip_version,
            **{key: getattr(job, key) for key in _tls_keys()},
        )
        super().__init__(request, handles=handles, resolver=resolver, matcher=matcher)
        self._keep_body = True
        message = _request(unquote(url.path.strip("/")).encode())
        self._request = replace(self._request, body=message)

    async def _check_answer(self, visit: Visit) -> None:
        assert visit.body is not None
        visit.matched = None
        if visit.status != 200:
            visit.error = f"bad-status: {visit.status}"
            return
        status, visit.status = header_values(visit.lines, "grpc-status"), None
        code = status[-1].decode("ascii", "replace") if status else ""
        if code == _NOT_FOUND:
            visit.matched, visit.error = False, "not-serving: the service is not known"
        elif not code:
            visit.error = "bad-answer: the answer has no gRPC status"
        elif code != "0":
            said = header_values(visit.lines, "grpc-message")
            visit.error = _failure(code, unquote_to_bytes(said[-1]) if said else b"")
        else:
            serving = serving_status(visit.body.content())
            visit.matched = serving == "SERVING"
            if serving is None:
                visit.matched, visit.error = None, "bad-answer: not a health check's answer"
            elif not visit.matched:
                visit.error = f"not-serving: {serving}"


def _failure(code: str, message: bytes) -> str:
    number = int(code) if code.isascii() and code.isdigit() and len(code) < 3 else 0
    name = _CODES[number - 1] if 0 < number <= len(_CODES) else ""
    # A server without the method has no health service.
    word = "bad-status" if name not in ("", "UNIMPLEMENTED") else "bad-answer"
    text = f"gRPC status {code[:20]!a}{name and f' {name}'}"
    return f"{word}: {text}{f': {message[:200]!r}' if message else ''}"


def _tls_keys() -> tuple[str, ...]:
    from monitor.probes.tls import TlsKeys

    return tuple(TlsKeys.__annotations__)


def _request(service: bytes) -> bytes:
    """Return the framed message ``HealthCheckRequest{service}``."""
    field = bytes([_FIELD_1_TEXT]) + _varint(len(service)) + service if service else b""
    return b"\0" + len(field).to_bytes(4, "big") + field


def _varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def serving_status(framed: bytes) -> str | None:
    """Return the status in a framed ``HealthCheckResponse``; None for something else."""
    if len(framed) < _PREFIX_BYTES or framed[0] != 0:
        return None
    message = framed[_PREFIX_BYTES:]
    if int.from_bytes(framed[1:_PREFIX_BYTES], "big") != len(message):
        return None
    if not message:
        return _STATUSES[0]  # the default is not sent
    if message[0] != _FIELD_1_NUMBER or len(message) < 2:
        return None
    number = shift = 0
    for byte in message[1 : _LONGEST_VARINT + 1]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return _STATUSES[number] if number < len(_STATUSES) else f"status {number}"
    return None

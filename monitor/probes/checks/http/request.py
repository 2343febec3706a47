"""A job's HTTP request, and the requests that follow redirects; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from monitor import __version__
from monitor.probes.checks.http.decoding import ACCEPTED
from monitor.probes.checks.http.job import PROXY_SCHEMES, HttpJob
from monitor.probes.resolver import address_version
from monitor.probes.urls import Url, joined_url, parse_url

__all__ = ["Request", "proxy_of"]

# What another host must not get with a redirect: credentials, and this host's name.
_OWN_HEADERS = (b"authorization", b"host", b"proxy-authorization")
# Fetch, 4.4 step 13: they describe the body, which is dropped.
_BODY_HEADERS = (b"content-encoding", b"content-language", b"content-location", b"content-type")
# Their requests have a body, if an empty one. Source: RFC 9110, 8.6.
_WITH_BODY = ("POST", "PUT", "PATCH")


@dataclass(frozen=True, slots=True)
class Request:
    """One hop's request, all in bytes as it is sent.

    ``cookie`` is the job's own; those of earlier answers are libcurl's. ``address_version`` is "4"
    or "6" if the host is an address, else "".
    """

    place: Url
    method: str
    headers: tuple[bytes, ...]
    cookie: bytes | None
    body: bytes | None
    credentials: tuple[bytes, bytes] | None
    address_version: str
    # The place without credentials.
    url: str
    # The request for the job's own URL, if this one follows a redirect.
    first: Request | None = None

    @property
    def secure(self) -> bool:
        """Whether it is sent over TLS."""
        return self.place.scheme == "https"

    @classmethod
    def of(cls, job: HttpJob) -> Request:
        """Return the request for a verified job."""
        headers = {name.lower(): f"{name}: {value}" for name, value in job.headers.items()}
        cookie = headers.pop("cookie", None)
        defaults = {
            # No "Expect: 100-continue": old servers answer it with an error.
            "expect": "Expect:",
            "user-agent": f"User-Agent: recodex-monitor/{__version__}",
        }
        if job.decode:
            defaults["accept-encoding"] = f"Accept-Encoding: {ACCEPTED}"
        if job.stream:
            defaults["accept"] = "Accept: text/event-stream, */*"
        lines = tuple(
            line.encode() if line.partition(":")[2].strip() or name == "expect"
            # libcurl's syntax for an empty header
            else line.partition(":")[0].encode() + b";"
            for name, line in {**defaults, **headers}.items()
        )  # fmt: skip
        body = job.body.encode() if job.body is not None else None
        if body is None and job.method in _WITH_BODY:
            body = b""
        own = None if cookie is None else cookie.partition(":")[2].strip().encode()
        place = parse_url(job.url, HttpJob.schemes)
        return cls(place, job.method, lines, own, body, None, "", "").at(place)

    def at(self, place: Url) -> Request:
        """Return the same request for another place, with the credentials of its URL."""
        return replace(
            self,
            place=place,
            credentials=place.credentials,
            address_version=address_version(place.host),
            url=place.bare,
        )

    def redirected(self, status: int, location: bytes) -> Request:
        """Return the request after a redirect; raise SettingError if it leads to no web page.

        Credentials, the job's cookies and its Host header stay with the host of the job's URL: with
        its port and scheme, or from http to https, even after a visit to another host. Source:
        RFC 9110 15.4; browsers do the same.
        """
        first = self.first or self
        found = replace(
            self.at(parse_url(joined_url(self.place, location), HttpJob.schemes)), first=first
        )
        if _same_host(first.place, found.place):
            stayed = self if _same_host(first.place, self.place) else first
            found = replace(
                found,
                headers=first.headers,
                cookie=first.cookie,
                credentials=found.credentials or stayed.credentials,
            )
            if first.place.netloc != found.place.netloc:
                found = found.without(b"host")
            if self.body is None and first.body is not None:
                found = found.without(*_BODY_HEADERS)
        else:
            found = replace(found.without(*_OWN_HEADERS), cookie=None)
        if (status == 303 and self.method not in ("GET", "HEAD")) or (
            status in (301, 302) and self.method == "POST"
        ):
            found = replace(found.without(*_BODY_HEADERS), method="GET", body=None)
        return found

    def without(self, *names: bytes) -> Request:
        """Return the request without some headers, named in lower case."""
        kept = (
            line
            for line in self.headers
            if line.partition(b":")[0].rstrip(b";").lower() not in names
        )
        return replace(self, headers=tuple(kept))


def _same_host(first: Url, other: Url) -> bool:
    """Return whether a place gets what is meant for the first one."""
    return first.host == other.host and (
        (first.port, first.scheme) == (other.port, other.scheme)
        or (first.scheme, other.scheme) == ("http", "https")
    )


def proxy_of(url: str) -> Url:
    """Return a proxy's URL in its parts; raise SettingError."""
    return parse_url(url, PROXY_SCHEMES, port=True)

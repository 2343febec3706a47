"""A job's HTTP request, and the requests that follow redirects; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from monitor import __version__
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.resolver import address_version
from monitor.probes.urls import ascii_host, ascii_text, split_url

__all__ = ["Request", "proxy_url"]

_PORTS = {"http": 80, "https": 443}
# What another host must not get with a redirect: credentials, and this host's name.
_OWN_HEADERS = ("authorization", "cookie", "host", "proxy-authorization")


@dataclass(frozen=True, slots=True)
class Request:
    """One hop's request, all in ASCII except the credentials, which are in UTF-8.

    ``address_version`` is "4" or "6" if the host is an address, else "".
    """

    url: str
    host: str
    port: int
    method: str
    headers: tuple[bytes, ...]
    body: bytes | None
    user: bytes | None
    password: bytes | None
    secure: bool
    address_version: str

    @classmethod
    def of(cls, job: HttpJob) -> Request:
        """Return the request for a verified job."""
        headers = {name.lower(): f"{name}: {value}" for name, value in job.headers.items()}
        headers = {"user-agent": f"User-Agent: recodex-monitor/{__version__}", **headers}
        # No "Expect: 100-continue": old servers answer it with an error.
        headers = {"expect": "Expect:", **headers}
        lines = tuple(
            line.encode() if line.partition(":")[2].strip() or name == "expect"
            # libcurl's syntax for an empty header
            else line.partition(":")[0].encode() + b";"
            for name, line in headers.items()
        )  # fmt: skip
        body = None if job.body is None else job.body.encode()
        return cls("", "", 0, job.method, lines, body, None, None, False, "").to(job.url)

    def to(self, url: str) -> Request:
        """Return the same request for another URL; raise SettingError if it is not HTTP."""
        parts = split_url(url, HttpJob.schemes)
        host = parts.hostname or ""
        if not host.isascii():
            host = ascii_host(host)
        shown_host = f"[{host}]" if ":" in host else host
        port = parts.port or _PORTS[parts.scheme]
        netloc = shown_host if port == _PORTS[parts.scheme] else f"{shown_host}:{port}"
        user = None if parts.username is None else unquote_to_bytes(parts.username)
        password = None if parts.password is None else unquote_to_bytes(parts.password)
        path, query = ascii_text(parts.path or "/"), ascii_text(parts.query)
        bare = urlunsplit((parts.scheme, netloc, path, query, ""))
        return replace(
            self,
            url=bare,
            host=host,
            port=port,
            user=user,
            password=password,
            secure=parts.scheme == "https",
            address_version=address_version(host),
        )

    def redirected(self, status: int, url: str) -> Request:
        """Return the request after a redirect. Source: RFC 9110 15.4; browsers do the same."""
        found = self.to(url)
        if (found.host, found.port, found.secure) == (self.host, self.port, self.secure):
            if found.user is None:
                found = replace(found, user=self.user, password=self.password)
        else:
            kept = tuple(
                line
                for line in found.headers
                if line.partition(b":")[0].decode().lower() not in _OWN_HEADERS
            )
            found = replace(found, headers=kept)
        if (status == 303 and self.method != "HEAD") or (
            status in (301, 302) and self.method == "POST"
        ):
            found = replace(found, method="GET", body=None)
        return found


def proxy_url(url: str) -> str:
    """Return a proxy's URL as libcurl takes it."""
    parts = urlsplit(url)
    host = ascii_host(parts.hostname or "")
    credentials, at, _ = parts.netloc.rpartition("@")
    shown_host = f"[{host}]" if ":" in host else host
    netloc = f"{ascii_text(credentials)}{at}{shown_host}:{parts.port}"
    return urlunsplit((parts.scheme, netloc, "", "", ""))

"""libcurl's options for a request of a job."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import pycurl

from monitor.probes.checks.http.body import Body
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.checks.http.proxy import TLS_VERSIONS, proxy_options
from monitor.probes.checks.http.request import Request
from monitor.probes.tls import authorities
from monitor.probes.urls import Url, ascii_host

__all__ = ["Setup"]

# What libcurl reads at once. It reads ten times in a row, and calls for each chunk of a body.
_BUFFER_BYTES = 2048
_VERSIONS = {
    "any": pycurl.CURL_HTTP_VERSION_2TLS,
    "1.1": pycurl.CURL_HTTP_VERSION_1_1,
    "2": pycurl.CURL_HTTP_VERSION_2_0,
}
# OpenSSL's own groups without the post-quantum one. By itself OpenSSL makes keys for two groups in
# each handshake, which takes a seventh of its CPU, and few servers need the second.
_GROUPS = "?X25519:?secp256r1:?X448:?secp384r1:?secp521r1:?ffdhe2048:?ffdhe3072"
# From this version on it does so, and knows the question marks: a group may be missing.
_TWO_KEYS = (3, 5)
_OPENSSL = re.compile(r"OpenSSL/(\d+)\.(\d+)")
_FAMILIES = {
    "any": pycurl.IPRESOLVE_WHATEVER,
    "4": pycurl.IPRESOLVE_V4,
    "6": pycurl.IPRESOLVE_V6,
}


class Setup:
    """Sets the options of a handle for a request; holds those that are always the same."""

    def __init__(self, job: HttpJob, proxy: Url | None) -> None:
        self._job = job
        self._first = Request.of(job).place
        self._server_name = None if job.server_name is None else ascii_host(job.server_name)
        self._options: list[tuple[int, Any]] = [
            (pycurl.NOSIGNAL, 1),
            (pycurl.FRESH_CONNECT, 1),
            (pycurl.FORBID_REUSE, 1),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.BUFFERSIZE, _BUFFER_BYTES),
            (pycurl.HTTP_VERSION, _VERSIONS[job.http_version]),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.IPRESOLVE, _FAMILIES[str(job.ip_version)]),
            *proxy_options(proxy, job),
        ]
        if job.follow_redirects:
            # An empty file's name turns the cookie engine on.
            self._options.append((pycurl.COOKIEFILE, ""))
        self._tls_options: list[tuple[int, Any]] = [
            (pycurl.SSL_SESSIONID_CACHE, 0),
            (pycurl.SSL_VERIFYPEER, int(job.verify_tls)),
            (pycurl.SSL_VERIFYHOST, 2 if job.verify_tls else 0),
            (pycurl.SSLVERSION, TLS_VERSIONS[job.tls_min_version]),
        ]
        file = authorities(job.ca_file)
        if file is not None:
            self._tls_options.append((pycurl.CAINFO, os.fsencode(file)))
        found = _OPENSSL.match(pycurl.version_info()[5] or "")
        self._few_groups = found is not None and (int(found[1]), int(found[2])) >= _TWO_KEYS

    def with_all_groups(self) -> bool:
        """Offer all groups of TLS from now on; return whether that is a change."""
        before, self._few_groups = self._few_groups, False
        return before

    def __call__(
        self, easy: Any, request: Request, body: Body, *, left_s: float, pinned: list[str]
    ) -> None:
        """Set the options for a request whose answer goes to ``body``."""
        job, place = self._job, request.place
        for option, value in self._options:
            easy.setopt(option, value)
        url, headers = request.url, list(request.headers)
        own = place.host == self._first.host
        if request.secure:
            for option, value in self._tls_options:
                easy.setopt(option, value)
            if self._few_groups:
                easy.setopt(pycurl.SSL_EC_CURVES, _GROUPS)
            if job.client_certificate is not None and own:
                # Another host does not get to know it.
                easy.setopt(pycurl.SSLCERT, os.fsencode(job.client_certificate))
                easy.setopt(pycurl.SSLKEY, os.fsencode(job.client_key or job.client_certificate))
            if self._server_name is not None and own:
                # libcurl asks for the host of the URL.
                name = f"[{self._server_name}]" if ":" in self._server_name else self._server_name
                host = f"[{place.host}]" if ":" in place.host else place.host
                url = replace(place, host=self._server_name).bare
                easy.setopt(pycurl.CONNECT_TO, [f"{name}:{place.port}:{host}:{place.port}"])
                if not any(line.lower().startswith(b"host:") for line in headers):
                    headers.append(f"Host: {place.netloc}".encode())
        elif job.http_version == "2":
            easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
        if pinned:
            easy.setopt(pycurl.RESOLVE, pinned)
        easy.setopt(pycurl.URL, url)
        easy.setopt(pycurl.TIMEOUT_MS, max(1, round(left_s * 1000)))
        easy.setopt(pycurl.HEADERFUNCTION, body.header)
        if request.method == "HEAD":
            easy.setopt(pycurl.NOBODY, 1)
        elif request.body is not None:
            easy.setopt(pycurl.POSTFIELDS, request.body)
            if not request.body and not any(
                line.lower().startswith(b"content-type:") for line in headers
            ):
                # libcurl's own is for a body.
                headers.append(b"Content-Type:")
        if request.method not in ("GET", "HEAD") or request.body is not None:
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
        easy.setopt(pycurl.HTTPHEADER, headers)
        if request.cookie is not None:
            easy.setopt(pycurl.COOKIE, request.cookie)
        if request.credentials is not None:
            user, password = request.credentials
            easy.setopt(pycurl.USERNAME, user)
            easy.setopt(pycurl.PASSWORD, password)

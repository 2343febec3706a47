"""What is different through a proxy: libcurl's options, and whose failure it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pycurl

from monitor.probes.checks.http.answer_headers import header_values
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.tls import authorities
from monitor.probes.urls import Url

__all__ = ["TLS_VERSIONS", "proxy_error", "proxy_options"]

TLS_VERSIONS = {"1.2": pycurl.SSLVERSION_TLSv1_2, "1.3": pycurl.SSLVERSION_TLSv1_3}
"""libcurl's names for the values of ``tls_min_version``."""

# CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl has no name for.
_SUPPRESS_CONNECT_HEADERS = 265
_TLS_ERRORS = (
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_ISSUER_ERROR,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
)
_CLOSED = (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING)
_AUTHENTICATION_REQUIRED = 407


def proxy_options(proxy: Url | None, job: HttpJob) -> list[tuple[int, Any]]:
    """Return the options for a job's proxy; without one, the environment's is turned off."""
    if proxy is None:
        return [(pycurl.PROXY, "")]
    options: list[tuple[int, Any]] = [
        (pycurl.PROXY, f"{proxy.scheme}://{proxy.netloc}"),
        # They are not the site's.
        (_SUPPRESS_CONNECT_HEADERS, 1),
    ]
    if proxy.credentials is not None:
        user, password = proxy.credentials
        options += [(pycurl.PROXYUSERNAME, user), (pycurl.PROXYPASSWORD, password)]
    if proxy.scheme == "https":
        options += [
            (pycurl.PROXY_SSL_VERIFYPEER, int(job.verify_tls)),
            (pycurl.PROXY_SSL_VERIFYHOST, 2 if job.verify_tls else 0),
            (pycurl.PROXY_SSLVERSION, TLS_VERSIONS[job.tls_min_version]),
        ]
        file = authorities(job.ca_file)
        if file is not None:
            options.append((pycurl.PROXY_CAINFO, os.fsencode(file)))
    return options


def proxy_error(
    proxy: Url, easy: Any, errno: int, *, secure: bool, status: int | None, lines: Sequence[bytes]
) -> str | None:
    """Return why the proxy failed, if it did and not the site; ``secure``: the site speaks TLS."""
    answered = easy.getinfo(pycurl.HTTP_CONNECTCODE)
    if errno == 0:
        asked = status == _AUTHENTICATION_REQUIRED and header_values(lines, "proxy-authenticate")
        return f"the proxy answered {status}" if asked and not secure else None
    if errno in (pycurl.E_OPERATION_TIMEDOUT, pycurl.E_WRITE_ERROR):
        return None
    if answered and not 200 <= answered < 300:
        return f"the proxy answered {answered}"
    if errno == pycurl.E_COULDNT_CONNECT:
        return "cannot connect to the proxy"
    if errno in _TLS_ERRORS and proxy.scheme == "https" and not answered:
        return "TLS with the proxy failed"
    through = proxy.scheme in ("http", "https") and secure and not answered
    if errno in _CLOSED and (through or not easy.getinfo(pycurl.CONNECT_TIME)):
        return "the proxy closed the connection"
    return "the proxy does not answer as one" if through else None

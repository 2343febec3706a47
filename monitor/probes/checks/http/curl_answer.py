"""The results of a libcurl transfer: body, phases, certificate, and the text of its error."""

from __future__ import annotations

import errno as os_errors
import os
import re
import ssl
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pycurl

from monitor.probes.check import OS_ERRORS

__all__ = [
    "Body",
    "certificate_expiry",
    "charset_of",
    "error_text",
    "hop_phases",
    "system_authorities",
]

# Where distributions keep the trusted authorities; the first one that exists is used.
_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_WORDS = {
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy",
    pycurl.E_COULDNT_RESOLVE_HOST: "no-such-host",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "bad-certificate",
    pycurl.E_SSL_ISSUER_ERROR: "bad-certificate",
    pycurl.E_SEND_ERROR: "reset",
    97: "proxy",  # CURLE_PROXY, since 7.73
}
# RFC 9110, 8.3.1; names of charsets are tokens (RFC 2978, 2.3).
_CHARSET = re.compile(
    rb';\s*charset\s*=\s*"?([\w.:+-]{1,64})(?:["\s;]|$)', re.ASCII | re.IGNORECASE
)


class Body:
    """Takes a decompressed body piece by piece, up to a limit in bytes."""

    __slots__ = ("_keep", "_limit", "_pieces", "_size", "too_large")

    def __init__(self, limit: int, *, keep: bool) -> None:
        self._limit = limit
        self._keep = keep
        self._pieces: list[bytes] = []
        self._size = 0
        self.too_large = False

    def write(self, piece: bytes) -> int | None:
        """Take a piece; a result other than its size or None makes libcurl stop."""
        self._size += len(piece)
        if self._size > self._limit:
            self.too_large = True
            return -1
        if self._keep:
            self._pieces.append(piece)
        return None

    def content(self) -> bytes:
        """Return the whole body, if it was to be kept."""
        return b"".join(self._pieces)


def hop_phases(easy: Any) -> tuple[float, float, float, float, float]:
    """Return how long resolve, connect, tls, processing and transfer took, in s.

    The time up to a failure belongs to the phase in which it failed.
    """
    total = easy.getinfo(pycurl.TOTAL_TIME)
    resolved = easy.getinfo(pycurl.NAMELOOKUP_TIME)
    connected = easy.getinfo(pycurl.CONNECT_TIME)
    if not connected:
        return resolved, total - resolved, 0.0, 0.0, 0.0
    secured = easy.getinfo(pycurl.APPCONNECT_TIME)
    started = easy.getinfo(pycurl.STARTTRANSFER_TIME)
    ready = secured or connected
    if not started:
        if secured or not easy.getinfo(pycurl.EFFECTIVE_URL).startswith("https:"):
            return resolved, connected - resolved, ready - connected, total - ready, 0.0
        return resolved, connected - resolved, total - connected, 0.0, 0.0
    return resolved, connected - resolved, ready - connected, started - ready, total - started


def certificate_expiry(easy: Any) -> float | None:
    """Return when the first certificate of the chain expires, in epoch s; None without one."""
    dates = [
        _certificate_date(value.decode("ascii", "replace"))
        # Raw: names in a certificate may be in any encoding.
        for certificate in easy.getinfo_raw(pycurl.INFO_CERTINFO)
        for name, value in certificate
        # "Expire date" with OpenSSL, "Expire Date" with GnuTLS
        if name.lower() == b"expire date"
    ]
    return min((date for date in dates if date is not None), default=None)


@lru_cache(maxsize=1024)
def _certificate_date(text: str) -> float | None:
    try:
        # OpenSSL: "Jan  1 00:00:00 3000 GMT"; GnuTLS: "3000-01-01 00:00:00 GMT"
        if text[:4].isdigit():
            return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()
        return float(ssl.cert_time_to_seconds(text))
    except ValueError:
        return None


def charset_of(easy: Any) -> str:
    """Return the charset of the answer's Content-Type; "" without one, or with an invalid one."""
    # Raw: a server may send bytes that are not text at all.
    found = _CHARSET.search(easy.getinfo_raw(pycurl.CONTENT_TYPE) or b"")
    return found[1].decode("ascii") if found else ""


def error_text(errno: int, message: str, easy: Any, *, timeout_s: float) -> str:
    """Return the error of a result for libcurl's: a stable word, then the details."""
    word = _WORDS.get(errno)
    system = easy.getinfo(pycurl.OS_ERRNO)
    if errno == pycurl.E_OPERATION_TIMEDOUT:
        return f"timeout: {timeout_s:g} s ran out"
    if errno == pycurl.E_COULDNT_CONNECT or (
        errno in (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING)
    ):
        word = OS_ERRORS.get(system, "unreachable" if errno == pycurl.E_COULDNT_CONNECT else None)
    if errno == pycurl.E_SSL_CONNECT_ERROR and system == os_errors.ECONNRESET:
        word = "reset"
    detail = os.strerror(system) if word in ("refused", "unreachable", "reset") and system else ""
    return f"{word or 'bad-answer'}: {detail or message or f'libcurl error {errno}'}"


@cache
def system_authorities() -> str | None:
    """Return the file of the authorities that the system trusts, if found."""
    found = ssl.get_default_verify_paths().cafile
    candidates = (*((found,) if found else ()), *_AUTHORITIES)
    return next((file for file in candidates if Path(file).is_file()), None)

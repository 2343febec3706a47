"""What a transfer of libcurl's came to: body, phases, certificates, and errors in our words."""

from __future__ import annotations

import errno as os_errors
import os
import ssl
from datetime import UTC, datetime
from email.message import Message
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pycurl

from monitor.probes.check import OS_REASONS

__all__ = [
    "Body",
    "certificate_expiry",
    "charset_of",
    "error_text",
    "hop_phases",
    "system_authorities",
]

# Where distributions keep what the system trusts; the first that is there is taken.
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


class Body:
    """Takes a decompressed body piece by piece, and no more of it than allowed."""

    __slots__ = ("_keep", "_limit", "_pieces", "_size", "too_large")

    def __init__(self, limit: int, *, keep: bool) -> None:
        self._limit = limit
        self._keep = keep
        self._pieces: list[bytes] = []
        self._size = 0
        self.too_large = False

    def write(self, piece: bytes) -> int | None:
        """Take a piece; anything but its size or None makes libcurl stop."""
        self._size += len(piece)
        if self._size > self._limit:
            self.too_large = True
            return -1
        if self._keep:
            self._pieces.append(piece)
        return None

    def content(self) -> bytes:
        """Return what was kept."""
        return b"".join(self._pieces)


def hop_phases(easy: Any) -> tuple[float, float, float, float, float]:
    """Return how long resolve, connect, tls, processing and transfer took, in s.

    Of a failed transfer, the time up to the failure belongs to the phase that it ended in.
    """
    total = easy.getinfo(pycurl.TOTAL_TIME)
    resolved = easy.getinfo(pycurl.NAMELOOKUP_TIME)
    connected = easy.getinfo(pycurl.CONNECT_TIME)
    if not connected:
        return resolved, total - resolved, 0.0, 0.0, 0.0
    secured = easy.getinfo(pycurl.APPCONNECT_TIME)
    started = easy.getinfo(pycurl.STARTTRANSFER_TIME)
    if not started:
        if secured or not easy.getinfo(pycurl.EFFECTIVE_URL).startswith("https:"):
            ready = secured or connected
            return resolved, connected - resolved, ready - connected, total - ready, 0.0
        return resolved, connected - resolved, total - connected, 0.0, 0.0
    ready = secured or connected
    return resolved, connected - resolved, ready - connected, started - ready, total - started


def certificate_expiry(easy: Any) -> float | None:
    """Return when the first certificate of the chain expires, in epoch s; None without one."""
    dates = [
        _certificate_date(value)
        for certificate in easy.getinfo(pycurl.INFO_CERTINFO)
        for name, value in certificate
        # OpenSSL says "Expire date", GnuTLS "Expire Date".
        if name.lower() == "expire date"
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
    """Return the charset that the answer says to be in, or ""."""
    message = Message()
    message["content-type"] = easy.getinfo(pycurl.CONTENT_TYPE) or ""
    found = message.get_param("charset")
    return found[:64] if isinstance(found, str) else ""


def error_text(errno: int, message: str, easy: Any, *, timeout_s: float) -> str:
    """Write libcurl's error as a result's: a stable word, then the details."""
    word = _WORDS.get(errno)
    system = easy.getinfo(pycurl.OS_ERRNO)
    if errno == pycurl.E_OPERATION_TIMEDOUT:
        return f"timeout: {timeout_s:g} s ran out"
    if errno == pycurl.E_COULDNT_CONNECT or (
        errno in (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING)
    ):
        word = OS_REASONS.get(system, "unreachable" if errno == pycurl.E_COULDNT_CONNECT else None)
    if errno == pycurl.E_SSL_CONNECT_ERROR and system == os_errors.ECONNRESET:
        word = "reset"
    detail = os.strerror(system) if word in ("refused", "unreachable", "reset") and system else ""
    return f"{word or 'bad-answer'}: {detail or message or f'libcurl error {errno}'}"


@cache
def system_authorities() -> str | None:
    """Return the file of certificate authorities that the system trusts, where it is known."""
    found = ssl.get_default_verify_paths().cafile
    candidates = (*((found,) if found else ()), *_AUTHORITIES)
    return next((file for file in candidates if Path(file).is_file()), None)

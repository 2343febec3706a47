"""The results of a libcurl transfer: phases, certificates, and the text of its error."""

from __future__ import annotations

import errno as os_errors
import os
import re
import ssl
from typing import Any

import pycurl

from monitor.probes.check import OS_ERRORS
from monitor.probes.no_result import own_trouble, short_of_descriptors

__all__ = ["error_text", "hop_phases", "lacking", "no_common_group", "sent_chain"]

_WORDS = {
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy",
    pycurl.E_COULDNT_RESOLVE_HOST: "no-such-host",
    # URLs are parsed before, so what libcurl refuses is a host that no name server has.
    pycurl.E_URL_MALFORMAT: "no-such-host",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "bad-certificate",
    pycurl.E_SSL_ISSUER_ERROR: "bad-certificate",
    pycurl.E_SEND_ERROR: "reset",
    97: "proxy",  # CURLE_PROXY, since 7.73
    98: "tls",  # CURLE_SSL_CLIENTCERT, since 7.77
}
# CURLE_TOO_LARGE, since 8.6; before, it was out of memory.
_E_TOO_LARGE = 100
# Around OpenSSL's words, which are the same in all kinds.
_VERIFY_RESULT = re.compile(
    r"SSL certificate (?:problem|OpenSSL verify result): (.*?)(?: \(\d+\))?"
)
# Errors with files that the daemon has read before.
_FILES = (pycurl.E_SSL_CACERT_BADFILE, pycurl.E_SSL_CERTPROBLEM)
_NETWORK = (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING)
# libcurl's text for an alert of the server that the client's certificate has expired.
_CLIENT_EXPIRED = "SSL certificate verification failed"


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


def sent_chain(easy: Any) -> list[bytes]:
    """Return the certificates in DER that the server sent, its own first."""
    found = []
    # Raw: names in a certificate may be in any encoding.
    for certificate in easy.getinfo_raw(pycurl.INFO_CERTINFO):
        for name, value in certificate:
            if name == b"Cert":
                try:
                    found.append(ssl.PEM_cert_to_DER_cert(value.decode("ascii").strip()))
                except ValueError:
                    break
    return found


def lacking(errno: int, easy: Any) -> str | None:
    """Return what the daemon lacks, if that is why a transfer failed; else None."""
    if errno == pycurl.E_OUT_OF_MEMORY:
        return own_trouble(MemoryError())
    if errno in _FILES:
        return short_of_descriptors()
    if errno != pycurl.E_COULDNT_CONNECT:
        return None
    system = easy.getinfo(pycurl.OS_ERRNO)
    if system:
        return own_trouble(OSError(system, ""))
    if easy.getinfo(pycurl.CONNECT_TIME):
        return None  # a proxy refused to connect to the site
    # Not even a socket could be made; any connection that fails has a number.
    return short_of_descriptors() or "no socket could be made"


def no_common_group(errno: int, message: str) -> bool:
    """Return whether a handshake may have failed because the server wants another group.

    Such a server sends the alert handshake_failure. Source: RFC 8446, 4.1.1.
    """
    return errno == pycurl.E_SSL_CONNECT_ERROR and "handshake failure" in message


def error_text(errno: int, message: str, easy: Any, *, timeout_s: float) -> str:
    """Return the error of a result for libcurl's: a stable word, then the details."""
    word = _WORDS.get(errno)
    system = easy.getinfo(pycurl.OS_ERRNO)
    if errno == pycurl.E_OPERATION_TIMEDOUT:
        return f"timeout: {timeout_s:g} s ran out"
    if errno == pycurl.E_COULDNT_CONNECT or errno in _NETWORK:
        word = OS_ERRORS.get(system, "unreachable" if errno == pycurl.E_COULDNT_CONNECT else word)
    if errno == pycurl.E_SSL_CONNECT_ERROR and system in (os_errors.ECONNRESET, os_errors.EPIPE):
        word = "reset"
    if errno in (pycurl.E_SSL_CONNECT_ERROR, *_NETWORK) and "unexpected eof" in message:
        return "reset: the connection was closed"  # as in the other kinds
    if errno in _NETWORK and " alert " in message:
        # With TLS 1.3 a server refuses the client's certificate after the handshake.
        word = "tls"
    if errno == pycurl.E_PEER_FAILED_VERIFICATION and message == _CLIENT_EXPIRED:
        return "tls: the server says that the client's certificate has expired"
    detail = os.strerror(system) if word in ("refused", "unreachable", "reset") and system else ""
    if errno == _E_TOO_LARGE:
        detail = "its header is too long"
    elif (verified := _VERIFY_RESULT.fullmatch(message)) is not None:
        detail = verified[1]
    elif errno == pycurl.E_PARTIAL_FILE and not message:
        detail = "the body breaks off"
    # libcurl's words may have bytes of the answer that are not text.
    said = (detail or message or f"libcurl error {errno}").encode("ascii", "backslashreplace")
    return f"{word or 'bad-answer'}: {said.decode()}"

"""When the certificates of a TLS server expire; pure.

A server may send more certificates than the ones that lead to an authority: an alternative chain,
for clients with other authorities. What counts is the path that was verified: from the server's
own certificate to the first authority that is trusted, as OpenSSL looks for it
(X509_V_FLAG_TRUSTED_FIRST). Source: RFC 5280, 4.1 and 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from monitor.transport.certificate import Certificate

__all__ = ["Trusted", "expiries", "trusted_by_name"]

_LONGEST_PATH = 20

Trusted = Mapping[bytes, float]
"""The expiry of each trusted authority, by its name in DER."""


def trusted_by_name(authorities: Iterable[bytes]) -> Trusted:
    """Return what :func:`expiries` needs of trusted authorities in DER."""
    found: dict[bytes, float] = {}
    for each in authorities:
        read = Certificate.read(each)
        if read is not None:
            found[read.subject] = max(read.expires_at, found.get(read.subject, 0.0))
    return found


def expiries(sent: Sequence[bytes], trusted: Trusted) -> tuple[float | None, float | None]:
    """Return the earliest expiry on the verified path, and of all certificates that were sent.

    ``sent`` are the certificates in DER as the server sent them, its own first.
    """
    certificates = [read for read in map(Certificate.read, sent) if read is not None]
    if not certificates:
        return None, None
    earliest = min(certificate.expires_at for certificate in certificates)
    step = certificates[0]
    path = step.expires_at
    for _ in range(_LONGEST_PATH):
        if step.issuer in trusted:
            if step.issuer != step.subject:
                path = min(path, trusted[step.issuer])
            break
        issuers = [each for each in certificates if each.subject == step.issuer and each != step]
        if not issuers:
            break
        # Of several, OpenSSL prefers a valid one.
        step = max(issuers, key=lambda each: each.expires_at)
        path = min(path, step.expires_at)
    return path, earliest

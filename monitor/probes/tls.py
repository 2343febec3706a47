"""TLS for the kinds that speak it: their common keys, whom they trust, and expiry dates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from monitor.errors import SettingError
from monitor.probes.job import Job, Option
from monitor.settings import read_pem

__all__ = ["TLS_OPTIONS", "TlsKeys", "expiry", "own_context", "tls_context"]

TLS_OPTIONS = (
    Option("--ca-file", "ca_file", "authorities that sign the site's certificate", "PEM"),
    Option("--insecure", "verify_tls", "accept any certificate", value=False),
)


class TlsKeys(Job, frozen=True, kw_only=True):
    """The keys of jobs that may speak TLS."""

    # whether the certificate must be valid and name the host
    verify_tls: bool = True
    # PEM file of the authorities that sign the site's certificate, instead of the system's
    ca_file: str | None = None

    def verify(self) -> None:
        """Check the certificate authorities, too."""
        super().verify()
        if self.ca_file is not None:
            _verify_authorities(self.ca_file)


def _verify_authorities(file: str) -> None:
    read_pem(file, path=("ca_file",))
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise SettingError(("ca_file",), f"{file} holds no PEM certificates") from None
    except OSError as error:
        raise SettingError(("ca_file",), f"cannot read {file}: {error.strerror}") from None


def tls_context(job: TlsKeys) -> ssl.SSLContext:
    """Return the context for the job's keys; jobs with the same keys share it."""
    changed = None if job.ca_file is None else Path(job.ca_file).stat().st_mtime_ns
    return _shared_context(job.ca_file, changed, job.verify_tls)


@lru_cache(maxsize=64)
def _shared_context(ca_file: str | None, changed: int | None, verify: bool) -> ssl.SSLContext:
    # Reading the system's authorities takes milliseconds, which add up over a thousand jobs.
    del changed
    return own_context(ca_file, verify=verify)


def own_context(ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    """Return a context for one job alone, which may be changed further."""
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def expiry(certificate: bytes) -> float | None:
    """Return when a DER certificate expires, in epoch s; None if it has no valid date.

    Python decodes verified certificates only. Source: RFC 5280, 4.1.
    """
    try:
        ((_, whole),) = _elements(certificate)
        (_, signed), *_ = _elements(whole)
        # After the version, which may be absent: serial number, signature, issuer, validity.
        fields = [content for tag, content in _elements(signed) if tag != 0xA0]
        _, (tag, text) = _elements(fields[3])
        date = text.decode("ascii")
        if tag == 0x17:  # UTCTime has two digits of the year, from 1950 on
            date = f"{'19' if date >= '50' else '20'}{date}"
        return datetime.strptime(date, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element in DER ``data``."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        yield tag, data[start : start + length]
        data = data[start + length :]

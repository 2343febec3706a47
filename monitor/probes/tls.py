"""TLS for the kinds that speak it: their common keys, and whom they trust."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from monitor.errors import SettingError
from monitor.probes.chains import Trusted, trusted_by_name
from monitor.probes.job import Job, Option
from monitor.probes.urls import ascii_host
from monitor.settings import read_pem, verify_each

__all__ = ["TLS_OPTIONS", "TlsClient", "TlsKeys", "authorities", "sent_certificates", "trusted_in"]

TLS_OPTIONS = (
    Option("--ca-file", "ca_file", "authorities that sign the site's certificate", "FILE"),
    Option("--server-name", "server_name", "the name to ask for and to verify", "NAME"),
    Option("--insecure", "verify_tls", "accept any certificate", value=False),
)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Where distributions keep the trusted authorities; the first one that exists is used.
_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class TlsKeys(Job, frozen=True, kw_only=True):
    """The keys of jobs that may speak TLS."""

    # whether the certificate must be valid and name the host
    verify_tls: bool = True
    # PEM file of the authorities that sign the site's certificate, instead of the system's
    ca_file: str | None = None
    # PEM file of the client's certificate, for servers that ask for one
    client_certificate: str | None = None
    # PEM file of its key, without a passphrase, if not in the same file
    client_key: str | None = None
    # the lowest version of TLS that is accepted
    tls_min_version: Literal["1.2", "1.3"] = "1.2"
    # the name to ask for (SNI) and to verify, if it is not the URL's host
    server_name: str | None = None
    # a certificate with fewer days left is degraded
    certificate_days: Annotated[float, msgspec.Meta(gt=0, le=36500)] | None = None

    def verify(self) -> None:
        """Check the name and the files, too."""
        verify_each(
            super().verify,
            self._verify_authorities,
            self._verify_certificate,
            self._verify_server_name,
        )

    def _verify_authorities(self) -> None:
        if self.ca_file is not None:
            _verify_authorities(self.ca_file)

    def _verify_certificate(self) -> None:
        if self.client_certificate is not None:
            for key in ("client_certificate", "client_key"):
                if (file := getattr(self, key)) is not None:
                    read_pem(file, path=(key,))
            _load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self)
        elif self.client_key is not None:
            raise SettingError(("client_key",), "needs client_certificate")

    def _verify_server_name(self) -> None:
        if self.server_name is not None:
            try:
                ascii_host(self.server_name)
            except ValueError:
                problem = f"{self.server_name!r} is not a host name"
                raise SettingError(("server_name",), problem) from None

    def refuse_without_tls(self, secure: str) -> None:
        """Raise SettingError for a key of TLS, which would have no effect.

        ``secure`` says how to turn TLS on. A key with its default is as good as none.
        """
        problem = f"the job does not speak TLS: {secure}"
        verify_each(*(partial(self._refuse, *each, problem) for each in _defaults()))

    def _refuse(self, name: str, default: object, problem: str) -> None:
        if getattr(self, name) != default:
            raise SettingError((name,), problem)


@cache
def _defaults() -> list[tuple[str, Any]]:
    """Return the keys of TLS with their defaults; msgspec takes as long for it as for a job."""
    fields = msgspec.structs.fields(TlsKeys)
    return [(each.name, each.default) for each in fields if each.name in TlsKeys.__annotations__]


def _verify_authorities(file: str) -> None:
    read_pem(file, path=("ca_file",))
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise SettingError(("ca_file",), f"{file} holds no PEM certificates") from None
    except OSError as error:
        raise SettingError(("ca_file",), f"cannot read {file}: {error.strerror}") from None


def _load_certificate(context: ssl.SSLContext, job: TlsKeys) -> None:
    """Load the client's certificate; raise SettingError if that fails."""
    assert job.client_certificate is not None
    try:
        # With a passphrase of our own OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(job.client_certificate, job.client_key, password="")
    except ssl.SSLError:
        problem = "no PEM certificate with its key, or the key has a passphrase"
        raise SettingError(("client_certificate",), problem) from None
    except OSError as error:
        files = " or ".join(filter(None, (job.client_certificate, job.client_key)))
        problem = f"cannot read {files}: {error.strerror}"
        raise SettingError(("client_certificate",), problem) from None


@dataclass(frozen=True, slots=True)
class TlsClient:
    """How a job speaks TLS over plain sockets: as whom it asks, and whom it trusts."""

    name: str
    verified: ssl.SSLContext
    unverified: ssl.SSLContext
    trusted: Trusted

    @classmethod
    def of(cls, job: TlsKeys, host: str) -> TlsClient:
        """Return it for a job's host; reads the files, so that attempts do not."""
        files = (job.ca_file, job.client_certificate, job.client_key)
        changes = tuple(0 if file is None else Path(file).stat().st_mtime_ns for file in files)
        verified, unverified = (
            _context(files, changes, job.tls_min_version, verify) for verify in (True, False)
        )
        name = host if job.server_name is None else ascii_host(job.server_name)
        return cls(
            # Without the dot at the end of a full name. Source: RFC 6066, 3.
            name.removesuffix("."),
            verified if job.verify_tls else unverified,
            unverified,
            trusted_in(job.ca_file),
        )


_Files = tuple[str | None, str | None, str | None]


@lru_cache(maxsize=64)
def _context(files: _Files, changes: tuple[int, ...], version: str, verify: bool) -> ssl.SSLContext:
    # Reading the system's authorities takes milliseconds, which add up over a thousand jobs.
    del changes
    ca_file, certificate, key = files
    context = ssl.create_default_context(cafile=authorities(ca_file))
    context.minimum_version = _VERSIONS[version]
    # As libcurl does it, in all versions of Python: an authority in the file may be any certificate
    # of the chain, and need not keep to all of RFC 5280.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key, password="")
    return context


def authorities(ca_file: str | None) -> str | None:
    """Return the file of the authorities to trust: the job's, or else the system's, if found."""
    return ca_file or _system_authorities()


@cache
def _system_authorities() -> str | None:
    found = ssl.get_default_verify_paths().cafile
    candidates = (*((found,) if found else ()), *_AUTHORITIES)
    return next((file for file in candidates if Path(file).is_file()), None)


def trusted_in(ca_file: str | None) -> Trusted:
    """Return the authorities in a job's file, or the system's."""
    file = authorities(ca_file)
    return {} if file is None else _trusted(file, Path(file).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _trusted(file: str, changed: int) -> Trusted:
    del changed
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    return trusted_by_name(context.get_ca_certs(binary_form=True))


def sent_certificates(connection: ssl.SSLObject) -> list[bytes]:
    """Return the certificates in DER that the server sent, its own first."""
    # Public since Python 3.13, and the same since 3.10.
    chain = getattr(getattr(connection, "_sslobj", connection), "get_unverified_chain", None)
    if chain is not None and (found := chain()):
        return [
            each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes())
            for each in found
        ]
    own = connection.getpeercert(binary_form=True)
    return [own] if own else []

"""TLS of a server: its section of the config, and its certificate.

New files are picked up by a reload, and when they change.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from monitor.errors import SettingError
from monitor.files.threads import call_aside
from monitor.metrics import Metric
from monitor.settings import Reloadable, Section, read_pem, verify_each
from monitor.transport.certificate import Certificate

__all__ = ["Certificates", "ClientTLSSettings", "ServerContext", "TLSSettings", "read_tls"]


# s between looks at the files.
_LOOK_S = 5.0
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_CHAIN = re.compile(r"-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


class TLSSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate chain and private key of a server, PEM files."""

    # the chain, the host's own certificate first
    certificate: Reloadable[str]
    # without a passphrase
    key: Reloadable[str]


class ClientTLSSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, and the authorities that sign the clients' certificates."""

    # the chain, the host's own certificate first
    certificate: Reloadable[str]
    # without a passphrase
    key: Reloadable[str]
    # a PEM file; if set, clients need a certificate of one of its authorities
    client_ca: Reloadable[str | None] = None


class ServerContext(ssl.SSLContext):
    """A server's TLS context; ``expires_at`` is when the first of its certificates expires."""

    expires_at: float | None = None


def read_tls(settings: TLSSettings | ClientTLSSettings) -> ServerContext:
    """Return a server's TLS context, or raise SettingError below its section."""
    whole: dict[str, re.Match[str]] = {}

    def read(key: str, file: str, block: re.Pattern[str]) -> None:
        whole[key] = _whole(read_pem(file, path=("tls", key)), block, file, key)

    verify_each(
        lambda: read("certificate", settings.certificate, _CHAIN),
        lambda: read("key", settings.key, _KEY),
    )
    chain, key = whole["certificate"], whole["key"]
    if "ENCRYPTED" in key[0]:
        problem = f"{settings.key} has a passphrase, which nobody could enter; store it without one"
        raise SettingError(("tls", "key"), problem)
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.expires_at = _expiry(chain.string)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask for one at the terminal; a daemon has no terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except ssl.SSLError as error:
        reason = (error.reason or "not valid PEM").replace("_", " ").lower()
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = "the key is another certificate's"
        raise SettingError(
            ("tls",), f"cannot use {settings.certificate} with {settings.key}: {reason}"
        ) from None
    if isinstance(settings, ClientTLSSettings):
        # A session that is resumed would skip the check of the client's certificate.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if settings.client_ca is not None:
            _require_certificates(context, settings.client_ca)
    return context


def _whole(content: bytes, form: re.Pattern[str], file: str, key: str) -> re.Match[str]:
    found = form.search(content.decode("ascii", "replace"))
    if found is None:
        raise SettingError(("tls", key), f"{file} has no complete {key} in PEM")
    return found


def _expiry(chain: str) -> float | None:
    found = []
    for pem in _PEM.findall(chain):
        try:
            read = Certificate.read(ssl.PEM_cert_to_DER_cert(pem))
        except ValueError:
            continue
        if read is not None:
            found.append(read.expires_at)
    return min(found, default=None)


def _require_certificates(context: ssl.SSLContext, file: str) -> None:
    path = ("tls", "client_ca")
    # OpenSSL passes over text around the certificates, but Python takes nothing beyond ASCII.
    text = read_pem(file, path=path).decode("ascii", "ignore")
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise SettingError(path, f"{file} has no PEM certificate of an authority") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _stamps(settings: TLSSettings | ClientTLSSettings | None) -> list[tuple[int, ...]]:
    """Return what changes when one of the files is written or replaced."""
    if settings is None:
        return []
    found: list[tuple[int, ...]] = []
    for file in (settings.certificate, settings.key, getattr(settings, "client_ca", None)):
        try:
            stat = Path(file or "").stat()
        except OSError:
            found.append((0,))
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found


class Certificates:
    """A TLS context to serve with, whose certificate a reload can change."""

    def __init__(self, first: ServerContext) -> None:
        self.served = first
        self._newest = first
        # OpenSSL asks at each handshake, also where the client names no host.
        first.sni_callback = self._choose

    def adopt(self, context: ServerContext) -> None:
        """Use the files of another context for new handshakes; connections stay."""
        # Everything else is looked up in the context that _choose() returns.
        self.served.verify_mode = context.verify_mode
        self._newest = context

    @property
    def summary(self) -> str:
        """When the first certificate expires, for the state of a part."""
        at = self._newest.expires_at
        if at is None:
            return "certificate of unknown expiry"
        verb = "expired" if self.has_expired else "expires"
        return f"certificate {verb} {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def has_expired(self) -> bool:
        """Whether clients refuse the certificate by now, or one that it depends on."""
        at = self._newest.expires_at
        return at is not None and at <= time.time()

    def metrics(self, name: str) -> Iterable[Metric]:
        """Return when the certificate expires, as a metric of this name."""
        at = self._newest.expires_at
        yield Metric(
            name,
            "gauge",
            "When the first certificate of the listener's chain expires, in s since the epoch",
            [] if at is None else [({}, at)],
        )

    async def follow(
        self,
        settings: Callable[[], TLSSettings | ClientTLSSettings | None],
        *,
        renewed: Callable[[], object],
        failed: Callable[[str], object],
    ) -> None:
        """Take up the files again whenever they have changed, until cancelled.

        ``settings`` returns the section in force. What cannot be used, such as a certificate
        whose key is not there yet, is reported and tried again; the last good files stay in use.
        """
        seen = await call_aside(_stamps, settings())
        while True:
            await asyncio.sleep(_LOOK_S)
            section = settings()
            stamps = await call_aside(_stamps, section)
            if section is None or stamps == seen:
                continue
            try:
                self.adopt(await call_aside(read_tls, section))
            except SettingError as error:
                failed(error.problem)
                continue
            seen = stamps
            renewed()

    def _choose(self, handshake: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        del host
        handshake.context = self._newest

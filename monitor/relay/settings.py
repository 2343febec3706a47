"""The section ``relay`` of the config."""

from __future__ import annotations

import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from monitor.errors import SettingError
from monitor.files.reading import file_names
from monitor.settings import Count, Reloadable, Seconds, Section, read_pem, read_secret

if TYPE_CHECKING:
    from monitor.transport.router import CurveKeys

__all__ = [
    "CurveSettings",
    "RelaySettings",
    "TLSSettings",
    "curve_key_in",
    "read_curve_keys",
    "read_tls",
]

_Z85_KEY_LENGTH = 40


class TLSSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate chain and private key of the WebSocket, PEM files."""

    # the chain, the host's own certificate first
    certificate: Reloadable[str]
    # without a passphrase
    key: Reloadable[str]


class CurveSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ZeroMQ's CURVE: the relay's own secret key, and the public keys that may connect.

    The files are those that ``zmq.auth.create_certificates`` writes. The secret key's file may
    also contain only the 40 characters of the key; the public key is derived from it.
    """

    # a file of zmq.auth.create_certificates, or the 40 characters of the key alone
    secret_key_file: str
    # a directory of *.key files; peers with one of these keys may connect
    public_keys_dir: Reloadable[str]


class RelaySettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the relay keeps, for how long, and what it allows."""

    # s that an ended channel stays for late subscribers
    keep_finished: Reloadable[Seconds] = 300.0
    # s that a channel without FINISHED stays after its last message
    keep_idle: Reloadable[Seconds] = 21600.0
    # s after a FAILED that nothing follows (the broker gave up) until the channel ends
    end_after_failed: Reloadable[Seconds] = 60.0
    # messages in the history of one channel; the oldest are dropped first
    max_messages: Reloadable[Count] = 100_000
    # bytes of all histories with bookkeeping; finished, then idle channels are dropped first
    max_history_bytes: Reloadable[Annotated[int, msgspec.Meta(ge=65536, le=2**40)]] = 268_435_456
    # s that a client may read nothing while messages wait, before close 1013
    client_stall: Reloadable[Seconds] = 30.0
    # subscribers at once; more are refused
    max_clients: Reloadable[Count] = 10_000
    # s for a client to name its channel
    subscribe_timeout: Reloadable[Seconds] = 30.0
    # bytes of one frame of a ZeroMQ message
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 65_536
    # allowed Origin headers; empty allows all
    origins: Reloadable[tuple[str, ...]] = ()
    # wss:// instead of ws://
    tls: TLSSettings | None = None
    # encrypts ZeroMQ, and accepts only known brokers
    curve: CurveSettings | None = None
    # where histories survive a restart
    history_file: str | None = None
    # the old channel "0", command "exit"
    allow_remote_exit: Reloadable[bool] = False

    def verify(self) -> None:
        """Read the certificates and keys that the section names."""
        if self.tls is not None:
            read_tls(self.tls)
        if self.curve is not None:
            read_curve_keys(self.curve)


def read_tls(settings: TLSSettings) -> ssl.SSLContext:
    """Return a server's TLS context, or raise SettingError below ``relay``."""
    for key, file in (("certificate", settings.certificate), ("key", settings.key)):
        read_pem(file, path=("tls", key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask for one at the terminal; a daemon has no terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM certificate and key").replace("_", " ").lower()
        raise SettingError(
            ("tls",), f"cannot use {settings.certificate} with {settings.key}: {reason}"
        ) from None
    return context


def read_curve_keys(settings: CurveSettings) -> CurveKeys:
    """Read the relay's key and the allowed ones, or raise SettingError below ``relay``."""
    path = ("curve", "secret_key_file")
    text = read_secret(settings.secret_key_file, path=path)
    secret = curve_key_in(text, "secret-key") or text.strip()
    if len(secret) != _Z85_KEY_LENGTH:
        raise SettingError(
            path,
            f"{settings.secret_key_file} has no CURVE secret key ({_Z85_KEY_LENGTH} characters)",
        )
    if not _is_curve_key(secret):
        raise SettingError(path, f"{settings.secret_key_file} has no valid CURVE key")
    import zmq

    from monitor.transport.router import CurveKeys

    public = zmq.curve_public(secret.encode("ascii"))
    return CurveKeys(public, secret.encode("ascii"), _allowed_keys(settings.public_keys_dir))


def curve_key_in(text: str, name: str) -> str | None:
    """Return a key of a file by zmq.auth.create_certificates: ``public-key`` or ``secret-key``."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.strip() == name:
            return value.strip(" \t'\"")
    return None


def _allowed_keys(directory: str) -> frozenset[bytes]:
    path = ("curve", "public_keys_dir")
    try:
        names = file_names(directory)
    except OSError as error:
        raise SettingError(path, f"cannot read {directory}: {error.strerror}") from None
    files = [
        Path(directory) / name
        for name in names
        if name.endswith(".key") and not name.startswith(".")
    ]
    if not files:
        raise SettingError(path, f"{directory} has no *.key file: nobody could connect")
    allowed = set()
    for file in files:
        key = curve_key_in(read_secret(str(file), path=path), "public-key")
        if key is None or not _is_curve_key(key):
            raise SettingError(
                path, f"{file} has no CURVE public key ({_Z85_KEY_LENGTH} characters)"
            )
        allowed.add(key.encode("ascii"))
    return frozenset(allowed)


def _is_curve_key(key: str) -> bool:
    from zmq.utils import z85

    if len(key) != _Z85_KEY_LENGTH or not set(key.encode()) <= set(z85.Z85CHARS):
        return False
    try:
        z85.decode(key.encode("ascii"))
    except (ValueError, struct.error):
        # Five characters may say more than 32 bits.
        return False
    return True

"""ZeroMQ's CURVE: the section ``curve`` of the relay and the logs, and the keys in its files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import SettingError
from monitor.files.reading import file_names
from monitor.settings import Reloadable, Section, read_secret

__all__ = ["CurveKeys", "CurveSettings", "curve_key_in", "keys_after_reload", "read_curve_keys"]

_Z85_KEY_LENGTH = 40


class CurveSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ZeroMQ's CURVE: the server's own secret key, and the public keys that may connect.

    The files are those that ``zmq.auth.create_certificates`` writes. The secret key's file may
    also contain only the 40 characters of the key; the public key is derived from it.
    """

    # a file of zmq.auth.create_certificates, or the 40 characters of the key alone
    secret_key_file: str
    # a directory of *.key files; peers with one of these keys may connect
    public_keys_dir: Reloadable[str]


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Keys in Z85: the server's own, and the public ones of peers that may connect."""

    public: bytes
    secret: bytes
    allowed: frozenset[bytes]


def read_curve_keys(settings: CurveSettings) -> CurveKeys:
    """Read the own key and the allowed ones; raises SettingError below the section ``curve``."""
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

    public = zmq.curve_public(secret.encode("ascii"))
    return CurveKeys(public, secret.encode("ascii"), _allowed_keys(settings.public_keys_dir))


def keys_after_reload(adopted: CurveSettings | None, new: CurveSettings | None) -> CurveKeys | None:
    """Return the keys of a reload, None to keep the current ones; raises SettingError.

    ``new`` is the section in the file, ``adopted`` the one that is in effect after the reload: a
    restart must not be the first to reject the new one.
    """
    if new is None:
        return None
    keys = read_curve_keys(new)
    if adopted == new:
        return keys
    return None if adopted is None else read_curve_keys(adopted)


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

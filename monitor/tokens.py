"""API tokens and their roles, stored as hashes in a file that ``token create`` writes.

::

    tokens:
      - {name: ops, role: admin, hash: "sha256:..."}
      - {name: addon-1, role: sender, hash: "sha256:..."}

A token has 256 random bits, so one round of SHA-256 is enough.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import ipaddress
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import yaml

from monitor.errors import ConfigError, SettingError
from monitor.files.reading import read_file
from monitor.files.yaml_nodes import compose, construct, decode
from monitor.settings import address_text
from monitor.validation import decoding_problem

__all__ = [
    "ANYONE",
    "Principal",
    "Role",
    "TokenFile",
    "Tokens",
    "create_token",
    "is_loopback",
    "require_tokens",
]

_PREFIX: Final = "rmt_"
_HASH_PREFIX: Final = "sha256:"
_FILE_LIMIT_BYTES: Final = 4 * 1024 * 1024
_MODE: Final = 0o640


class Role(enum.StrEnum):
    """The role of a token.

    An admin may do everything, a reader may see everything except channels, and a sender may
    upload as the sender with its name.
    """

    ADMIN = "admin"
    READER = "reader"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a token. ``sender`` is the only sender it may use; None for any or none."""

    name: str
    role: Role

    @property
    def sender(self) -> str | None:
        """The sender of all its uploads; None if it may use any."""
        return self.name if self.role is Role.SENDER else None

    @property
    def may_read(self) -> bool:
        """Whether it may query and follow."""
        return self.role is not Role.SENDER

    @property
    def may_upload(self) -> bool:
        """Whether it may upload log entries and notifications."""
        return self.role is not Role.READER


ANYONE: Final = Principal("anyone", Role.ADMIN)
"""The principal on loopback if there are no tokens."""

_NAME_PATTERN: Final = r"^[^\x00-\x1f\x7f]{1,255}$"


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]
    role: Role
    hash: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[_Line] = []


class Tokens:
    """The tokens of the file at one time."""

    def __init__(self, hashes: Iterable[tuple[str, Principal]] = ()) -> None:
        """Take pairs of the SHA-256 of a token, in hexadecimal, and its owner."""
        # The time of a lookup depends on the hash of a guess, which an attacker cannot choose.
        self._principals = dict(hashes)

    def __len__(self) -> int:
        return len(self._principals)

    def identify(self, token: str | None) -> Principal | None:
        """Return the owner of a token, None for an unknown one; ANYONE if there are no tokens."""
        if not self._principals:
            return ANYONE
        if not token:
            return None
        return self._principals.get(_digest(token))


class TokenFile:
    """The tokens file and its tokens when last read; a missing file has none.

    All parts that check tokens share one instance and use :attr:`current` each time, so that a
    reload applies at once, also to removed tokens.
    """

    def __init__(self, file: str | os.PathLike[str] | None) -> None:
        self.file = None if file is None else Path(file)
        self.current = Tokens()
        # The file of a reload that is being prepared; all parts check with its tokens.
        self.next: TokenFile | None = None

    def read(self, *, after: Tokens | None = None) -> Tokens:
        """Read the file without adopting it; raises SettingError for an invalid file.

        ``after`` are the current tokens. If there are some, an empty or missing file is an error,
        too: it may be empty for a moment while it is written, and without tokens everyone could do
        everything. Only ``tokens: []`` removes the last token.
        """
        if self.file is None:
            return Tokens()
        lines = _lines(self.file)
        if lines is None and after:
            raise _wrong(
                f"{self.file} is empty or missing, but there were tokens; use `tokens: []` for none"
            )
        return Tokens(
            (line.hash.removeprefix(_HASH_PREFIX), Principal(line.name, line.role))
            for line in lines or []
        )

    def load(self) -> None:
        """Read the file and adopt it."""
        self.current = self.read()


def create_token(file: str | os.PathLike[str], name: str, role: Role) -> str:
    """Add the hash of a new token to ``file``, and return the token, which is stored nowhere.

    The file is created if necessary (0640, group recodex if possible) and replaced atomically, so
    that a daemon never reads part of it. Raises SettingError for an invalid or unwritable file,
    and for an invalid or existing name.
    """
    path = Path(file)
    if not re.match(_NAME_PATTERN, name):
        raise SettingError(("name",), "expected 1 to 255 characters, without control characters")
    with _locked(path):
        lines = _lines(path) or []
        if any(line.name == name for line in lines):
            raise SettingError(("name",), f"{path} already has a token named {name!r}")
        token = _PREFIX + secrets.token_urlsafe(32)
        lines.append(_Line(name, role, _HASH_PREFIX + _digest(token)))
        _write(path, lines)
    return token


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file, so that concurrent `token create` commands lose no token."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unusable(path, "write", error) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _write(path: Path, lines: list[_Line]) -> None:
    """Replace the file atomically."""
    text = yaml.safe_dump(
        {"tokens": [msgspec.to_builtins(line) for line in lines]},
        sort_keys=False,
        allow_unicode=True,
    )
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("# Hashes of API tokens, from `recodex-monitor token create`.\n" + text)
            os.fchmod(stream.fileno(), _MODE)
            # Users who are neither root nor in the group keep their own group.
            with contextlib.suppress(LookupError, PermissionError):
                shutil.chown(name, group="recodex")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise _unusable(path, "write", error) from None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _unusable(path: Path, verb: str, error: OSError) -> SettingError:
    return _wrong(f"cannot {verb} {path}: {error.strerror}")


def _wrong(problem: str) -> SettingError:
    return SettingError(("api", "tokens_file"), problem, whole=True)


def _lines(path: Path) -> list[_Line] | None:
    """Return the entries of the file; None if it is missing or empty."""
    try:
        content = read_file(path, max_bytes=_FILE_LIMIT_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from None
    file = str(path)
    try:
        found = construct(file, compose(file, decode(file, content)))
    except ConfigError as error:
        # The error of the parser would quote the file, which might contain a token by mistake.
        place = file if error.line is None else f"{file}:{error.line}"
        raise _wrong(f"{place}: not valid YAML") from None
    if found is None:
        return None
    try:
        lines = msgspec.convert(found, _File).tokens
    except msgspec.ValidationError as error:
        raise _wrong(f"{path}: {decoding_problem(error)}") from None
    if len({line.hash for line in lines}) < len(lines):
        raise _wrong(f"{path} has the same hash twice")
    return lines


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def require_tokens(address: tuple[str, int], tokens: Tokens, *, key: str) -> None:
    """Raise SettingError at ``key`` if others can connect and there are no tokens."""
    if not tokens and not is_loopback(address[0]):
        raise SettingError(
            (key,),
            f"{address_text(address)} is open to other hosts, but there are no tokens;"
            " create one with `recodex-monitor token create`, or listen on 127.0.0.1",
        )

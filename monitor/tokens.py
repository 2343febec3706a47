"""API tokens: who may do what. Kept hashed in a file that ``token create`` writes.

::

    tokens:
      - {name: ops, role: admin, hash: "sha256:..."}
      - {name: addon-1, role: sender, hash: "sha256:..."}

A token is 256 random bits, so one round of SHA-256 is all that hiding it takes.
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
    """What a token is good for.

    An admin may do everything, a reader may see everything but channels, a sender may upload
    as the one sender that it is named after.
    """

    ADMIN = "admin"
    READER = "reader"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``sender`` is the only one that it may write as; None for any or none."""

    name: str
    role: Role

    @property
    def sender(self) -> str | None:
        """The sender that everything it uploads is from; None where it may name any."""
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
"""Who asks where no tokens are configured, on loopback."""

_NAME_PATTERN: Final = r"^[^\x00-\x1f\x7f]{1,255}$"


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]
    role: Role
    hash: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[_Line] = []


class Tokens:
    """The tokens of one reading of the file."""

    def __init__(self, hashes: Iterable[tuple[str, Principal]] = ()) -> None:
        """Take pairs of a token's SHA-256, in hexadecimal, and its principal."""
        # The time of a lookup depends on the hash of a guess, which the guesser cannot steer.
        self._principals = dict(hashes)

    def __len__(self) -> int:
        return len(self._principals)

    def identify(self, token: str | None) -> Principal | None:
        """Return whose token it is; None for no or an unknown one. Without tokens: ANYONE."""
        if not self._principals:
            return ANYONE
        if not token:
            return None
        return self._principals.get(_digest(token))


class TokenFile:
    """The tokens file and what it held when last read; a missing file has no tokens.

    Everyone who checks tokens shares one of these and asks :attr:`current` each time, so
    that a reload takes effect at once and a removed token ends with it.
    """

    def __init__(self, file: str | os.PathLike[str] | None) -> None:
        self.file = None if file is None else Path(file)
        self.current = Tokens()
        # What a reload that is being prepared will read; by its tokens every part judges.
        self.next: TokenFile | None = None

    def read(self, *, after: Tokens | None = None) -> Tokens:
        """Read the file without adopting it; raises SettingError if it is wrong.

        ``after`` are the tokens in force. If there are some, an empty or missing file is wrong,
        too: without tokens everyone may do everything. Only ``tokens: []`` removes the last one.
        """
        if self.file is None:
            return Tokens()
        lines = _lines(self.file)
        if lines is None and after:
            problem = "is empty or gone, and there were tokens; `tokens: []` means none"
            raise _wrong(f"{self.file} {problem}")
        return Tokens(
            (line.hash.removeprefix(_HASH_PREFIX), Principal(line.name, line.role))
            for line in lines or []
        )

    def load(self) -> None:
        """Read the file and adopt it."""
        self.current = self.read()


def create_token(file: str | os.PathLike[str], name: str, role: Role) -> str:
    """Add a new token's hash to ``file`` and return the token, which is stored nowhere.

    The file is made where it is missing (0640, group recodex where that exists and we may)
    and replaced at once, so that a daemon never reads half of it. Raises SettingError for a
    file that is wrong or can't be written, a bad name, or a name that is taken.
    """
    path = Path(file)
    if not re.match(_NAME_PATTERN, name):
        raise SettingError(("name",), "expected 1 to 255 characters, none of them a control")
    with _locked(path):
        lines = _lines(path) or []
        if any(line.name == name for line in lines):
            raise SettingError(("name",), f"{path} has a token called {name!r} already")
        token = _PREFIX + secrets.token_urlsafe(32)
        lines.append(_Line(name, role, _HASH_PREFIX + _digest(token)))
        _write(path, lines)
    return token


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two `token create` from losing each other's token."""
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
    """Replace the file at once."""
    text = yaml.safe_dump(
        {"tokens": [msgspec.to_builtins(line) for line in lines]},
        sort_keys=False,
        allow_unicode=True,
    )
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("# Hashes of API tokens; made by `recodex-monitor token create`.\n" + text)
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
    """Return what the file lists; None for one that is missing, or says nothing."""
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
        # More words would quote the file, which might hold a token by mistake.
        place = file if error.line is None else f"{file}:{error.line}"
        raise _wrong(f"{place}: not YAML as a tokens file has it") from None
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
    """Return whether only this machine can reach what listens on ``host``."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def require_tokens(address: tuple[str, int], tokens: Tokens, *, key: str) -> None:
    """Refuse, by SettingError at ``key``, to be open to others where there are no tokens."""
    if not tokens and not is_loopback(address[0]):
        raise SettingError(
            (key,),
            f"{address_text(address)} is open to others, and there are no tokens;"
            " make one with `recodex-monitor token create`, or listen on 127.0.0.1",
        )

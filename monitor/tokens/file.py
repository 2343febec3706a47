"""API tokens and their roles, stored as hashes in a file that ``token create`` writes.

::

    tokens:
      - {name: ops, role: admin, hash: "sha256:..."}
      - {name: addon-1, role: sender, hash: "sha256:...", expires: "2027-02-27T13:00:00+00:00"}

A token has 256 random bits, so one round of SHA-256 is enough.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import yaml

from monitor.errors import ConfigError, SettingError
from monitor.files.reading import read_file
from monitor.files.writing import replace_file
from monitor.files.yaml_nodes import compose, construct, decode
from monitor.tokens.last_use import LastUse
from monitor.tokens.principals import Principal, Role, Tokens, digest
from monitor.validation import decoding_problem

__all__ = ["TokenFile", "TokenLine", "create_token", "listed_tokens", "revoke_token"]

_PREFIX: Final = "rmt_"
_HASH_PREFIX: Final = "sha256:"
_FILE_LIMIT_BYTES: Final = 4 * 1024 * 1024
_MODE: Final = 0o640


_NAME_PATTERN: Final = r"^[^\x00-\x1f\x7f]{1,255}$"


class TokenLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A token of the file; ``expires`` is the time from which it is not valid, in ISO 8601."""

    name: Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]
    role: Role
    hash: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]
    expires: str | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of the token, in hexadecimal."""
        return self.hash.removeprefix(_HASH_PREFIX)

    def end(self) -> float | None:
        """Return ``expires`` in s since the epoch; raises ValueError."""
        if self.expires is None:
            return None
        at = datetime.fromisoformat(self.expires)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[TokenLine] = []


class TokenFile:
    """The tokens file and its tokens when last read; a missing file has none.

    All parts that check tokens share one instance and use :attr:`current` each time, so that a
    reload applies at once, even to removed tokens.
    """

    def __init__(self, file: str | os.PathLike[str] | None) -> None:
        self.file = None if file is None else Path(file)
        self.uses = LastUse()
        self._current = Tokens()
        # The file of a reload that is being prepared; all parts check with its tokens.
        self.next: TokenFile | None = None

    @property
    def current(self) -> Tokens:
        """The tokens that are valid now; another object once one of them has expired."""
        if time.time() >= self._current.next_end:
            self._current = self._current.without_expired(time.time())
        return self._current

    @current.setter
    def current(self, tokens: Tokens) -> None:
        tokens.used = self.uses.note
        self._current = tokens

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
        lines = lines or []
        return Tokens(
            ((line.digest, Principal(line.name, line.role)) for line in lines),
            ends={line.digest: end for line in lines if (end := line.end()) is not None},
        )

    def load(self) -> None:
        """Read the file and adopt it; also read when its tokens were last used."""
        self.uses.load()
        self.current = self.read()


def create_token(
    file: str | os.PathLike[str], name: str, role: Role, *, expires: float | None = None
) -> str:
    """Add the hash of a new token to ``file``, and return the token, which is stored nowhere.

    ``expires`` is the time from which it is not valid, in s since the epoch.

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
        end = None if expires is None else datetime.fromtimestamp(expires, UTC)
        text = None if end is None else end.isoformat(timespec="seconds")
        lines.append(TokenLine(name, role, _HASH_PREFIX + digest(token), text))
        _write(path, lines)
    return token


def listed_tokens(file: str | os.PathLike[str]) -> list[TokenLine]:
    """Return the tokens of ``file``; raises SettingError for an invalid file."""
    return _lines(Path(file)) or []


def revoke_token(file: str | os.PathLike[str], name: str) -> int:
    """Remove the token of this name, and return how many are left; raises SettingError."""
    path = Path(file)
    with _locked(path):
        lines = _lines(path) or []
        kept = [line for line in lines if line.name != name]
        if len(kept) == len(lines):
            raise SettingError(("name",), f"{path} has no token named {name!r}")
        _write(path, kept)
    return len(kept)


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


def _write(path: Path, lines: list[TokenLine]) -> None:
    """Replace the file atomically."""
    text = yaml.safe_dump(
        {"tokens": [msgspec.to_builtins(line) for line in lines]},
        sort_keys=False,
        allow_unicode=True,
    )
    content = "# Hashes of API tokens, from `recodex-monitor token create`.\n" + text
    try:
        replace_file(path, content.encode(), mode=_MODE, group="recodex")
    except OSError as error:
        raise _unusable(path, "write", error) from None


def _unusable(path: Path, verb: str, error: OSError) -> SettingError:
    return _wrong(f"cannot {verb} {path}: {error.strerror}")


def _wrong(problem: str) -> SettingError:
    return SettingError(("api", "tokens_file"), problem, whole=True)


def _lines(path: Path) -> list[TokenLine] | None:
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
    except UnicodeEncodeError:
        raise _wrong(f"{path}: not valid Unicode: half of a surrogate pair") from None
    for line in lines:
        try:
            line.end()
        except (ValueError, OverflowError):
            problem = f"{path}: expires of {line.name!r} is not a date and time in ISO 8601"
            raise _wrong(problem) from None
    if len({line.hash for line in lines}) < len(lines):
        raise _wrong(f"{path} has the same hash twice")
    return lines

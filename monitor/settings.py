"""What a part's section of the config is made of.

Every part has a ``settings.py`` with a frozen :class:`Section`; ``config.py`` gathers them.
A section checks each value's type and range by its annotations, and what annotations
can't say in :meth:`Section.verify`, which may read the files that the section names. The
comment above a field is what the manual says of it; its annotation says whether a reload takes
the key (:data:`Reloadable`) and whether its value is a :data:`secret`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import unquote_plus, urlsplit, urlunsplit

import msgspec

from monitor.errors import SettingError
from monitor.files.reading import read_file

__all__ = [
    "Address",
    "Bytes",
    "Count",
    "Port",
    "Reloadable",
    "Seconds",
    "Section",
    "address_text",
    "hide_url_secrets",
    "is_marked",
    "read_pem",
    "read_secret",
    "secret",
    "state_directory",
]

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Address = tuple[str, Port]
# Bounds that no use reaches (a century, 1 TiB), but within what clocks, sockets and
# libraries take; they keep .inf and .nan out, too.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_200_000_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**40)]

# Annotation for a value that check-config must not print: Annotated[str, secret].
secret = msgspec.Meta(extra={"secret": True})

T = TypeVar("T")
# The type of a key that a reload takes: Reloadable[Seconds]. A change of any other key waits for a
# restart, and the log names it. The mark of a section that is always there holds for its keys.
Reloadable = Annotated[T, msgspec.Meta(extra={"reload": True})]

_SECRET_LIMIT_BYTES = 65536
# The bundles of all public authorities have a quarter of a megabyte.
_PEM_LIMIT_BYTES = 4 * 1024 * 1024

# Of a query (RFC 3986, 3.4) or a fragment; a value ends where its text may go on in words.
_PARAMETER = re.compile(r"([?&;#])([^?&;#=\s]*)=([^&#\s]+)")
_SECRET_NAME = re.compile("password|passwd|secret|token|key", re.IGNORECASE)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One section of the config, immutable once read."""

    def verify(self) -> None:
        """Check what annotations can't say; raise SettingError with the path below this section."""

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return the section's raw data with what may be left out but is needed to read it."""
        return data

    def replace(self, **changes: Any) -> Any:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def adopting(self, new: Self) -> Self:
        """Return what is in force after a reload: ``new``, but for what waits for a restart."""
        kept = {}
        for field in _fields(self):
            mine, other = getattr(self, field.name), getattr(new, field.name)
            if mine == other or is_marked(field.type, "reload"):
                continue
            same = isinstance(mine, Section) and type(mine) is type(other)
            kept[field.name] = mine.adopting(other) if same else mine
        adopted: Self = new.replace(**kept)
        return adopted

    def differences(self, other: Self) -> Iterator[str]:
        """Yield the keys whose values differ, such as ``tls.certificate``."""
        for field in _fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, Section) and type(mine) is type(theirs):
                for key in mine.differences(theirs):
                    yield f"{field.encode_name}.{key}"
            elif mine != theirs:
                yield field.encode_name


def _fields(section: Section) -> tuple[msgspec.inspect.Field, ...]:
    kind = msgspec.inspect.type_info(type(section))
    assert isinstance(kind, msgspec.inspect.StructType)
    return kind.fields


def is_marked(kind: msgspec.inspect.Type, mark: str) -> bool:
    """Return whether a field's type, or an option of it, carries a mark: ``secret``, ``reload``."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return bool(kind.extra and kind.extra.get(mark)) or is_marked(kind.type, mark)
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(is_marked(option, mark) for option in kind.types)
    return False


def state_directory() -> Path:
    """Return where state lives: $STATE_DIRECTORY, which systemd sets, or the default."""
    # systemd separates several directories by colons; the first is ours.
    return Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "/var/lib/recodex-monitor")


def read_secret(file: str, *, path: tuple[str | int, ...]) -> str:
    """Read a secret from ``file``, without the newline that editors leave at its end.

    A relative name is looked for in $CREDENTIALS_DIRECTORY first, where systemd mounts
    LoadCredential= files. ``path`` is the setting that names the file; a file that is
    missing, unreadable, empty or longer than 64 KiB raises SettingError with it.
    """
    found = Path(file)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not found.is_absolute() and (Path(credentials) / found).exists():
        found = Path(credentials) / found
    try:
        text = read_file(found, max_bytes=_SECRET_LIMIT_BYTES).decode("utf-8")
    except OSError as error:
        raise SettingError(path, f"cannot read {found}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingError(path, f"{found} is not UTF-8 text") from None
    text = text.rstrip("\r\n")
    if not text:
        raise SettingError(path, f"{found} is empty")
    return text


def read_pem(file: str, *, path: tuple[str | int, ...]) -> bytes:
    """Read a file of certificates or keys before a library opens it, which might never return.

    Raises SettingError at ``path``, the setting that names the file, unless it is a regular file
    of at most 4 MiB that can be read.
    """
    try:
        return read_file(file, max_bytes=_PEM_LIMIT_BYTES)
    except OSError as error:
        raise SettingError(path, f"cannot read {file}: {error.strerror}") from None


def address_text(address: tuple[str, int]) -> str:
    """Write an address as ``host:port``, IPv6 in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hide_url_secrets(url: str) -> str:
    """Return ``url``, or a text with one in it, without the secrets in it.

    These are the password in its user information, and the values of its query whose names
    say what they are, such as ``sslpassword`` or ``access_token``.
    """
    url = _PARAMETER.sub(_hide_parameter, url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    user, colon, _ = userinfo.partition(":")
    hidden = f"{user}:***" if colon else user
    return urlunsplit(parts._replace(netloc=f"{hidden}@{host}"))


def _hide_parameter(match: re.Match[str]) -> str:
    before, name, _ = match.groups()
    return f"{before}{name}=***" if _SECRET_NAME.search(unquote_plus(name)) else match[0]

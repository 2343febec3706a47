"""The building blocks of the sections of the config.

Each part has a ``settings.py`` with a frozen :class:`Section`; ``config.py`` collects them.
Annotations check the type and range of each value; :meth:`Section.verify` checks the rest, and may
read the files that the section names. The comment above a field is its text in the manual. The
annotation states whether a reload applies the key (:data:`Reloadable`) and whether the value is a
:data:`secret`.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import unquote_plus, urlsplit, urlunsplit

import msgspec

from monitor.errors import SettingError
from monitor.files.reading import read_file
from monitor.validation import printable

__all__ = [
    "Address",
    "Bytes",
    "Count",
    "ListenAddress",
    "Port",
    "Reloadable",
    "Seconds",
    "Section",
    "address_text",
    "check_host",
    "hide_url_secrets",
    "is_marked",
    "raise_all",
    "read_pem",
    "read_secret",
    "secret",
    "state_directory",
    "verify_each",
]

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Address = tuple[str, Port]
# One host, or several that are all listened on.
ListenAddress = tuple[str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)], Port]
# Generous bounds (a century, 1 TiB) within the limits of clocks, sockets and libraries; they also
# exclude .inf and .nan.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_200_000_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**40)]

# Annotation for a value that check-config must not print: Annotated[str, secret].
secret = msgspec.Meta(extra={"secret": True})

T = TypeVar("T")
# The type of a key that a reload applies: Reloadable[Seconds]. A change of any other key needs a
# restart, and the log names it. For a section that always exists, the mark applies to its keys.
Reloadable = Annotated[T, msgspec.Meta(extra={"reload": True})]

_LABEL = re.compile(r"[\w-]{1,63}")

_SECRET_LIMIT_BYTES = 65536
# The bundles of all public authorities have a quarter of a megabyte.
_PEM_LIMIT_BYTES = 4 * 1024 * 1024

# Parameters of a query (RFC 3986, 3.4) or fragment; a value ends where other text may follow.
_PARAMETER = re.compile(r"([?&;#])([^?&;#=\s]*)=([^&#\s]+)")
_SECRET_NAME = re.compile("password|passwd|secret|token|key", re.IGNORECASE)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One section of the config; immutable."""

    def verify(self) -> None:
        """Check what annotations cannot; raises SettingError with the path in this section."""

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return the raw data of the section, with missing keys that decoding requires."""
        return data

    def replace(self, **changes: Any) -> Any:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def adopting(self, new: Self) -> Self:
        """Return the settings after a reload: ``new``, except for keys that need a restart."""
        kept = {}
        for name, _, reload in _fields(type(self)):
            mine, other = getattr(self, name), getattr(new, name)
            if mine == other or reload:
                continue
            same = isinstance(mine, Section) and type(mine) is type(other)
            kept[name] = mine.adopting(other) if same else mine
        adopted: Self = new.replace(**kept)
        return adopted

    def differences(self, other: Self) -> Iterator[str]:
        """Yield the keys with different values, such as ``tls.certificate``."""
        for name, key, _ in _fields(type(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Section) and type(mine) is type(theirs):
                for below in mine.differences(theirs):
                    yield f"{key}.{below}"
            elif mine != theirs:
                yield key


@functools.cache
def _fields(section: type[Section]) -> tuple[tuple[str, str, bool], ...]:
    """Return the name, the key and whether a reload takes it, of each field."""
    kind = msgspec.inspect.type_info(section)
    assert isinstance(kind, msgspec.inspect.StructType)
    return tuple(
        (field.name, field.encode_name, is_marked(field.type, "reload")) for field in kind.fields
    )


def is_marked(kind: msgspec.inspect.Type, mark: str) -> bool:
    """Return whether the type of a field, or an option of it, has the mark (secret, reload)."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return bool(kind.extra and kind.extra.get(mark)) or is_marked(kind.type, mark)
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(is_marked(option, mark) for option in kind.types)
    return False


def verify_each(*checks: Callable[[], object]) -> None:
    """Run all checks, which do not depend on each other; raise their SettingErrors as one."""
    errors: list[SettingError] = []
    for check in checks:
        try:
            check()
        except SettingError as error:
            errors += [error, *error.others]
    raise_all(errors)


def raise_all(errors: Iterable[SettingError]) -> None:
    """Raise the errors as one, if there are any."""
    # A check may need what another one has refused.
    different = list({(error.path, error.problem): error for error in errors}.values())
    if different:
        first, *others = different
        first.others = others
        raise first


def state_directory() -> Path:
    """Return the state directory: $STATE_DIRECTORY, which systemd sets, or the default."""
    # systemd separates several directories by colons.
    return Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "/var/lib/recodex-monitor")


def read_secret(file: str, *, path: tuple[str | int, ...]) -> str:
    """Read a secret from ``file``, without a trailing newline.

    A relative path is first looked up in $CREDENTIALS_DIRECTORY, for LoadCredential= of systemd.
    Raises SettingError at ``path``, the setting of the file, if the file is missing, unreadable,
    empty or larger than 64 KiB.
    """
    found = Path(file)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not found.is_absolute() and (Path(credentials) / found).exists():
        found = Path(credentials) / found
    try:
        text = read_file(found, max_bytes=_SECRET_LIMIT_BYTES).decode("utf-8")
    except OSError as error:
        hint = "" if found.is_absolute() else _credentials_hint(credentials)
        raise SettingError(path, f"cannot read {found}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise SettingError(path, f"{found} is not UTF-8 text") from None
    text = text.rstrip("\r\n")
    if not text:
        raise SettingError(path, f"{found} is empty")
    return text


def _credentials_hint(credentials: str | None) -> str:
    if credentials:
        return f", neither here nor in {credentials}"
    return (
        "; a relative path is also looked up in $CREDENTIALS_DIRECTORY, which systemd sets for the"
        " service; set it to check such a config by hand"
    )


def read_pem(file: str, *, path: tuple[str | int, ...]) -> bytes:
    """Read a file of certificates or keys before a library opens it, which might never return.

    Raises SettingError at ``path``, the setting that names the file, unless it is a regular file
    of at most 4 MiB that can be read.
    """
    try:
        return read_file(file, max_bytes=_PEM_LIMIT_BYTES)
    except OSError as error:
        raise SettingError(path, f"cannot read {printable(file)}: {error.strerror}") from None


def address_text(address: tuple[str, int]) -> str:
    """Return an address as ``host:port``, with IPv6 in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_host(host: str) -> str:
    """Return why nothing can listen on ``host``; empty if something may.

    A host is an IP address, a name of this machine, or the name of an interface; ``*`` and an
    empty one are all addresses.
    """
    if host in ("", "*"):
        return ""
    if host.startswith("[") and host.endswith("]"):
        return f"expected an IPv6 address without brackets: {host[1:-1]!r}"
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return ""
    if "://" in host:
        return f"expected a host without a scheme, not {host!r}"
    if ":" in host:
        return f"expected a host, and its port after it, not {host!r}"
    labels = host.removesuffix(".").split(".")
    named = len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    number = all(label.isdecimal() for label in labels)
    if not named or (number and not _is_old_address(host)):
        return f"expected an IP address or a name, not {host!r}"
    return ""


def _is_old_address(host: str) -> bool:
    """Return whether C libraries read it as IPv4: ``127.1`` is ``127.0.0.1``."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def hide_url_secrets(url: str) -> str:
    """Return ``url``, or a text that contains one, without secrets.

    These are the password, and the values of parameters such as ``sslpassword`` or
    ``access_token``.
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

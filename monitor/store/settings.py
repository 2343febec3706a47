"""The ``database`` section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.settings import Seconds, Section, read_secret, state_directory, verify_each

__all__ = ["DatabaseSettings"]

SchemaName = Annotated[str, msgspec.Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Connections = Annotated[int, msgspec.Meta(ge=1, le=100)]


class DatabaseSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the tables are; without a ``url`` they are in one SQLite file."""

    # `postgresql://user@host:port/database`, as libpq reads it
    url: str | None = None
    # file with the password of the URL's user
    password_file: str | None = None
    # the PostgreSQL schema that holds the tables and nothing else; SQLite has none
    schema: SchemaName = "website_availability"
    # the SQLite file; a relative name is in the state directory
    file: str = "monitor.db"
    # most connections of one daemon to PostgreSQL; each has its own thread
    connections: Connections = 4
    # s without a response until a PostgreSQL server counts as unavailable
    connect_timeout: Seconds = 5.0

    def verify(self) -> None:
        """Reject a URL that libpq cannot parse, and a password file that cannot be read."""
        verify_each(self._verify_url, self._verify_place, self.password)

    def _verify_url(self) -> None:
        if self.url is not None:
            try:
                parts = urlsplit(self.url)
            except ValueError:
                raise SettingError(("url",), "is not a URL") from None
            if parts.scheme not in {"postgresql", "postgres"}:
                raise SettingError(
                    ("url",), "must start with postgresql://; leave it out to use SQLite"
                )
            if not parts.path.strip("/"):
                raise SettingError(
                    ("url",), "must name a database: postgresql://user@host:port/NAME"
                )
            _check_url(self.url)

    def _verify_place(self) -> None:
        if self.url is not None:
            if self.schema.startswith("pg_") or self.schema == "information_schema":
                raise SettingError(("schema",), f"{self.schema} is reserved by PostgreSQL")
        elif not self.file:
            raise SettingError(("file",), "must name a file")

    def password(self) -> str | None:
        """Return the password in the file, or None without a file."""
        if self.password_file is None:
            return None
        return read_secret(self.password_file, path=("password_file",))

    def sqlite_file(self) -> Path:
        """Return the full path of the SQLite file."""
        return state_directory() / self.file


def _check_url(url: str) -> None:
    """Reject what libpq cannot parse. Errors do not repeat the URL, which may contain a secret."""
    try:
        from psycopg2 import Error
        from psycopg2.extensions import parse_dsn
    except ImportError:  # open_store() reports the missing package
        return
    try:
        ports = parse_dsn(url).get("port", "").split(",")
    except Error:
        ports = ["none"]
    if not all(not port or (port.isdecimal() and 0 < int(port[:6]) < 65536) for port in ports):
        raise SettingError(
            ("url",),
            "is not a URL that libpq can parse; special characters of a password must be"
            " percent-encoded",
        )

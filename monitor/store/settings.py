"""The ``database`` section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.settings import Seconds, Section, read_secret, state_directory

__all__ = ["DatabaseSettings"]

SchemaName = Annotated[str, msgspec.Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Connections = Annotated[int, msgspec.Meta(ge=1, le=100)]


class DatabaseSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the tables are; without a ``url`` they are in one SQLite file."""

    # `postgresql://user@host:port/database`, as libpq reads it
    url: str | None = None
    # holds the password for the URL's user
    password_file: str | None = None
    # the PostgreSQL schema that holds the tables and nothing else; SQLite has none
    schema: SchemaName = "website_availability"
    # the SQLite file; a relative name is in the state directory
    file: str = "monitor.db"
    # to PostgreSQL at once, from one daemon; each has a thread of its own
    connections: Connections = 4
    # s until a PostgreSQL server that does not answer counts as away
    connect_timeout: Seconds = 5.0

    def verify(self) -> None:
        """Refuse a URL that libpq would not take, and a password file that can't be read."""
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
                raise SettingError(("url",), "names no database: postgresql://user@host:port/NAME")
            _check_url(self.url)
            if self.schema.startswith("pg_") or self.schema == "information_schema":
                raise SettingError(("schema",), f"{self.schema} belongs to PostgreSQL itself")
        elif not self.file:
            raise SettingError(("file",), "must name a file")
        self.password()

    def password(self) -> str | None:
        """Return the password that the file holds, or None where no file is named."""
        if self.password_file is None:
            return None
        return read_secret(self.password_file, path=("password_file",))

    def sqlite_file(self) -> Path:
        """Return the SQLite file's whole path."""
        return state_directory() / self.file


def _check_url(url: str) -> None:
    """Refuse what libpq can't parse. Nothing of a URL is repeated: any piece may be a secret."""
    try:
        parts = urlsplit(url)
        ports = [host.rpartition("]")[2] for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        raise SettingError(("url",), "is not a URL") from None
    wanted = [port.rpartition(":")[2] for port in ports]
    wanted = [port for port, text in zip(wanted, ports, strict=True) if ":" in text]
    try:
        from psycopg2 import Error
        from psycopg2.extensions import parse_dsn
    except ImportError:  # whoever opens the store says which package is missing
        pass
    else:
        try:
            wanted += parse_dsn(url).get("port", "").split(",")
        except Error as error:
            raise SettingError(("url",), _parse_problem(str(error))) from None
    for port in wanted:
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise SettingError(
                ("url",),
                "has a port that is no number from 1 to 65535 (is a special character of the"
                " password not percent-encoded?)",
            )


def _parse_problem(said: str) -> str:
    # What libpq says repeats pieces of the URL, a password's among them.
    if "query parameter" in said:
        return "has a parameter after ? that libpq does not know or cannot read"
    if "percent-encoded" in said:
        return "has a % that begins no percent-encoded character; write %25 for it"
    return "is no URL that libpq can parse"

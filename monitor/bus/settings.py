"""The sections ``bus`` and ``kafka`` of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from monitor.errors import SettingError
from monitor.settings import Bytes, Count, Section, read_pem, read_secret, state_directory

__all__ = ["BusSettings", "KafkaSettings"]

_LEAST_SPOOL_BYTES = 1_048_576
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class BusSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``bus``: the spool, which all published messages pass through."""

    # relative to the state directory
    file: str = "spool.db"
    # size of the spool's file; beyond it the oldest messages are deleted and counted
    max_bytes: Bytes = 104_857_600

    def verify(self) -> None:
        """Check the file name and the minimum size."""
        if not self.file:
            raise SettingError(("file",), "must name a file")
        if self.max_bytes < _LEAST_SPOOL_BYTES:
            raise SettingError(("max_bytes",), f"must be at least {_LEAST_SPOOL_BYTES} (1 MiB)")

    def path(self) -> Path:
        """Return the spool's file."""
        return state_directory() / self.file


class KafkaSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``kafka``: the names and values of kafka-python, secrets in files."""

    # host:port of some brokers; they name the others
    bootstrap_servers: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["127.0.0.1:9092"]
    )
    # PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    security_protocol: str = "PLAINTEXT"
    # PEM file of the authorities for the brokers' certificates; the system's by default
    ssl_cafile: str | None = None
    # PEM file of the client certificate; may include the key
    ssl_certfile: str | None = None
    # PEM file of the key of ssl_certfile
    ssl_keyfile: str | None = None
    # whether a broker's certificate must name its host
    ssl_check_hostname: bool = True
    # PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or OAUTHBEARER
    sasl_mechanism: str | None = None
    # user name for PLAIN and SCRAM
    sasl_plain_username: str | None = None
    # file with the password of sasl_plain_username
    sasl_plain_password_file: str | None = None
    # whether missing topics are created
    create_topics: bool = True
    # number of partitions of a created topic
    partitions: Count = 3
    # replication factor of a created topic
    replication_factor: Count = 1

    def verify(self) -> None:
        """Check addresses, protocol, mechanism, and that the files are readable."""
        for number, server in enumerate(self.bootstrap_servers):
            host, colon, port = server.rpartition(":")
            if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise SettingError(("bootstrap_servers", number), f"{server!r} is not host:port")
        if self.security_protocol not in _PROTOCOLS:
            raise SettingError(("security_protocol",), f"must be one of {', '.join(_PROTOCOLS)}")
        sasl = self.security_protocol.startswith("SASL")
        if sasl and self.sasl_mechanism not in _MECHANISMS:
            raise SettingError(("sasl_mechanism",), f"must be one of {', '.join(_MECHANISMS)}")
        for key in ("sasl_plain_username", "sasl_plain_password_file") if sasl else ():
            if not getattr(self, key):
                raise SettingError((key,), f"is required for {self.sasl_mechanism}")
        for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            file = getattr(self, key)
            if file is not None:
                read_pem(file, path=(key,))
        self.password()

    def password(self) -> str | None:
        """Return the SASL password from its file; raise SettingError if it cannot be read."""
        if self.sasl_plain_password_file is None:
            return None
        return read_secret(self.sasl_plain_password_file, path=("sasl_plain_password_file",))

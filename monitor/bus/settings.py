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
    """The section ``bus``: the spool that everything published goes through."""

    # relative to the state directory
    file: str = "spool.db"
    # of the spool's file; past it the oldest messages go and are counted
    max_bytes: Bytes = 104_857_600

    def verify(self) -> None:
        """Check that the spool is large enough to be one."""
        if not self.file:
            raise SettingError(("file",), "must name a file")
        if self.max_bytes < _LEAST_SPOOL_BYTES:
            raise SettingError(("max_bytes",), f"must be at least {_LEAST_SPOOL_BYTES} (1 MiB)")

    def path(self) -> Path:
        """Return the spool's file."""
        return state_directory() / self.file


class KafkaSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``kafka``: names and values as kafka-python has them, secrets from files."""

    # host:port of some brokers; the others are found through them
    bootstrap_servers: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["127.0.0.1:9092"]
    )
    # PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    security_protocol: str = "PLAINTEXT"
    # who signs the brokers' certificates, where the system's authorities do not
    ssl_cafile: str | None = None
    # the client's own certificate, and its key
    ssl_certfile: str | None = None
    # the key of ssl_certfile
    ssl_keyfile: str | None = None
    # that a broker's certificate names its host
    ssl_check_hostname: bool = True
    # PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or OAUTHBEARER
    sasl_mechanism: str | None = None
    # for PLAIN and SCRAM
    sasl_plain_username: str | None = None
    # holds the password for sasl_plain_username
    sasl_plain_password_file: str | None = None
    # whether topics that are missing are made
    create_topics: bool = True
    # of a topic that is made
    partitions: Count = 3
    # of a topic that is made
    replication_factor: Count = 1

    def verify(self) -> None:
        """Check addresses, protocol and mechanism, and that the files can be read."""
        for number, server in enumerate(self.bootstrap_servers):
            host, colon, port = server.rpartition(":")
            if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise SettingError(("bootstrap_servers", number), f"{server!r} is not host:port")
        if self.security_protocol not in _PROTOCOLS:
            raise SettingError(("security_protocol",), f"must be one of {', '.join(_PROTOCOLS)}")
        sasl = self.security_protocol.startswith("SASL")
        if sasl and self.sasl_mechanism not in _MECHANISMS:
            raise SettingError(("sasl_mechanism",), f"must be one of {', '.join(_MECHANISMS)}")
        if sasl:
            if not self.sasl_plain_username:
                raise SettingError(("sasl_plain_username",), f"{self.sasl_mechanism} needs it")
            if not self.sasl_plain_password_file:
                raise SettingError(("sasl_plain_password_file",), f"{self.sasl_mechanism} needs it")
        for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            file = getattr(self, key)
            if file is not None:
                read_pem(file, path=(key,))
        self.password()

    def password(self) -> str | None:
        """Return the SASL password, read from its file; raise SettingError if it can't be."""
        if self.sasl_plain_password_file is None:
            return None
        return read_secret(self.sasl_plain_password_file, path=("sasl_plain_password_file",))

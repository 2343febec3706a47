"""The sections ``bus`` and ``kafka`` of the config."""

from __future__ import annotations

import ipaddress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.settings import (
    Bytes,
    Count,
    Section,
    read_pem,
    read_secret,
    state_directory,
    verify_each,
)

__all__ = ["BusSettings", "KafkaSettings"]

_LEAST_SPOOL_BYTES = 1_048_576
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MECHANISMS = (*_PASSWORD_MECHANISMS, "OAUTHBEARER")
_TOKEN_FILE, _TOKEN_URL = "sasl_oauthbearer_token_file", "sasl_oauthbearer_token_endpoint_url"


IsolationLevel = Literal["read_committed", "read_uncommitted"]


class BusSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``bus``: the spool, which all published messages pass through."""

    # relative to the state directory
    file: str = "spool.db"
    # size of the spool's file; beyond it the oldest messages are deleted and counted
    max_bytes: Bytes = 104_857_600

    def verify(self) -> None:
        """Check the file name and the minimum size."""
        verify_each(self._verify_file, self._verify_max_bytes)

    def _verify_file(self) -> None:
        if not self.file:
            raise SettingError(("file",), "must name a file")

    def _verify_max_bytes(self) -> None:
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
    # PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
    sasl_mechanism: str | None = None
    # user name for PLAIN and SCRAM
    sasl_plain_username: str | None = None
    # file with the password of sasl_plain_username
    sasl_plain_password_file: str | None = None
    # file with the token for OAUTHBEARER; read at each login, so another program may renew it
    sasl_oauthbearer_token_file: str | None = None
    # URL that gives tokens for OAUTHBEARER to client credentials (RFC 6749, 4.4)
    sasl_oauthbearer_token_endpoint_url: str | None = None
    # id of the client at that URL
    sasl_oauthbearer_client_id: str | None = None
    # file with the secret of the client
    sasl_oauthbearer_client_secret_file: str | None = None
    # scope to ask for; some servers need one
    sasl_oauthbearer_scope: str | None = None
    # read_committed or read_uncommitted: whether messages of open and aborted transactions are read
    isolation_level: IsolationLevel = "read_committed"
    # whether missing topics are created
    create_topics: bool = True
    # number of partitions of a created topic
    partitions: Count = 3
    # replication factor of a created topic
    replication_factor: Count = 1

    def verify(self) -> None:
        """Check addresses, protocol, mechanism, and that the files are readable."""
        verify_each(
            self._verify_servers,
            self._verify_protocol,
            *(
                partial(read_pem, file, path=(key,))
                for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
                if (file := getattr(self, key)) is not None
            ),
            self.password,
            self.oauth_token,
            self.oauth_client_secret,
        )

    def _verify_servers(self) -> None:
        for number, server in enumerate(self.bootstrap_servers):
            host, colon, port = server.rpartition(":")
            if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise SettingError(("bootstrap_servers", number), f"{server!r} is not host:port")

    def _verify_protocol(self) -> None:
        if self.security_protocol not in _PROTOCOLS:
            raise SettingError(("security_protocol",), f"must be one of {', '.join(_PROTOCOLS)}")
        sasl = self.security_protocol.startswith("SASL")
        if sasl and self.sasl_mechanism not in _MECHANISMS:
            raise SettingError(("sasl_mechanism",), f"must be one of {', '.join(_MECHANISMS)}")
        if sasl:
            self._verify_sasl()

    def _verify_sasl(self) -> None:
        if self.sasl_mechanism != "OAUTHBEARER":
            self._require("sasl_plain_username", "sasl_plain_password_file")
            return
        url = self.sasl_oauthbearer_token_endpoint_url
        if (url is None) is (self.sasl_oauthbearer_token_file is None):
            raise SettingError(
                (_TOKEN_FILE,), f"OAUTHBEARER needs exactly one of this and {_TOKEN_URL}"
            )
        if url is not None:
            _verify_token_url(url)
            self._require("sasl_oauthbearer_client_id", "sasl_oauthbearer_client_secret_file")

    def _require(self, *keys: str) -> None:
        for key in keys:
            if not getattr(self, key):
                raise SettingError((key,), f"is required for {self.sasl_mechanism}")

    def password(self) -> str | None:
        """Return the SASL password from its file; raise SettingError if it cannot be read."""
        return self._secret("sasl_plain_password_file")

    def oauth_token(self) -> str | None:
        """Return the token from its file; raise SettingError if it cannot be read."""
        return self._secret(_TOKEN_FILE)

    def oauth_client_secret(self) -> str | None:
        """Return the client's secret from its file; raise SettingError if it cannot be read."""
        return self._secret("sasl_oauthbearer_client_secret_file")

    def _secret(self, key: str) -> str | None:
        file = getattr(self, key)
        return None if file is None else read_secret(file, path=(key,))


def _verify_token_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise SettingError((_TOKEN_URL,), "must be an https:// URL without a user name")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingError((_TOKEN_URL,), "must be https://: the client's secret is sent to it")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Tokens for OAUTHBEARER: from a file, or from a token endpoint (RFC 6749, 4.4)."""

from __future__ import annotations

import ssl
import threading
import time
from typing import Any
from urllib.parse import quote_plus

import msgspec
import requests
from kafka.net.sasl.oauth import AbstractTokenProvider
from requests.adapters import HTTPAdapter

from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError

__all__ = ["token_provider"]

_TIMEOUT_S = (5.0, 10.0)
_MAX_ANSWER_BYTES = 65_536
# Of a token's life; after it a new one is fetched.
_USED_FOR = 0.8
_LIFE_S = 300.0


class _Answer(msgspec.Struct):
    """The part of a token endpoint's answer that is used; ``expires_in`` in s."""

    access_token: str
    expires_in: float = _LIFE_S


class _FileTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Reads the file at each login: another program may have renewed it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    def token(self) -> str:
        return self._settings.oauth_token() or ""


class _EndpointTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Fetches a token with the client's credentials, and uses it for most of its life."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until:
                answer = _fetch(self._settings)
                self._token = answer.access_token
                self._until = time.monotonic() + answer.expires_in * _USED_FOR
            return self._token


class _Adapter(HTTPAdapter):
    """Trusts the system's authorities, and those of the brokers."""

    def __init__(self, cafile: str | None) -> None:
        self._context = ssl.create_default_context()
        if cafile is not None:
            self._context.load_verify_locations(cafile)
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)


def token_provider(settings: KafkaSettings) -> Any:
    """Return the provider that kafka-python asks for a token at each login.

    Its ``token()`` blocks for some seconds at most. It raises SettingError if a file cannot be
    read, and UnavailableError if the endpoint gives no token.
    """
    if settings.sasl_oauthbearer_token_file is not None:
        return _FileTokens(settings)
    return _EndpointTokens(settings)


def _fetch(settings: KafkaSettings) -> _Answer:
    url = settings.sasl_oauthbearer_token_endpoint_url or ""
    form = {"grant_type": "client_credentials"}
    if settings.sasl_oauthbearer_scope:
        form["scope"] = settings.sasl_oauthbearer_scope
    client = quote_plus(settings.sasl_oauthbearer_client_id or "")
    secret = quote_plus(settings.oauth_client_secret() or "")
    try:
        with requests.Session() as session:
            session.mount("https://", _Adapter(settings.ssl_cafile))
            with session.post(
                url,
                data=form,
                auth=(client, secret),
                timeout=_TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
                status = response.status_code
    except (requests.RequestException, OSError) as error:
        problem = f"no answer: {type(error).__name__}"
        raise UnavailableError("kafka", f"token endpoint {url}: {problem}") from None
    if status != 200:
        raise UnavailableError("kafka", f"token endpoint {url}: HTTP status {status}")
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnavailableError("kafka", f"token endpoint {url}: no token in the answer") from None
    if not answer.access_token.isascii() or not answer.access_token.isprintable():
        raise UnavailableError("kafka", f"token endpoint {url}: the token is not text")
    return answer

"""A client of the API of a running daemon, for commands."""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Mapping
from typing import Any

import requests

from monitor.commands.api_tls import HttpsAdapter, client_context
from monitor.commands.arguments import server_url
from monitor.commands.found_config import find_config
from monitor.errors import MonitorError, UnavailableError, UsageError
from monitor.settings import address_text, hide_url_secrets
from monitor.transport.environment_proxy import environment_proxy, through
from monitor.web.settings import ApiSettings

__all__ = ["TLS_FAILED", "Api", "add_api_arguments"]

TOKEN_VARIABLE = "RECODEX_MONITOR_TOKEN"  # noqa: S105 - a name
TLS_FAILED = "TLS failed; is the certificate valid, or does the server use plain http://?"
_TIMEOUT_S = 30.0
# The API accepts 16 KiB of request line and headers.
_MAX_URL_BYTES = 15 * 1024
# A client connects to loopback if the daemon listens on all addresses.
_HOME = {"*": "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def add_api_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --api and -c."""
    parser.add_argument("--api", metavar="URL", help="the API, such as http://127.0.0.1:9000")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="read the address of the API from this config (default: the installed one)",
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="authorities that sign the API's certificate"
    )
    parser.add_argument(
        "--client-certificate",
        metavar="FILE",
        help="a certificate and its key, if the API requires one (api.tls.client_ca)",
    )


class Api:
    """The API of a running daemon, with the token in RECODEX_MONITOR_TOKEN."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Use --api, or the address in -c; raises UsageError and ConfigError."""
        self._source = ""
        own: str | None = None
        if args.api is not None:
            given: str = args.api
        else:
            given, own, source = _configured(args.config)
            self._source = f" (the address in {source})"
        self.url = given.rstrip("/")
        parts = server_url("--api", self.url, ("http", "https"))
        self.tls: ssl.SSLContext | None = None
        """For https:// URLs; None for http://."""
        if self.url.startswith("https:"):
            self.tls = client_context(args.ca_file, args.client_certificate, own)
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if any(not "!" <= letter <= "~" for letter in token):
            # RFC 6750, 2.1; a line break would start another header.
            raise UsageError(
                f"{TOKEN_VARIABLE}: a token has no spaces, line breaks or letters beyond ASCII"
            )
        if token and parts.username is not None:
            raise UsageError(
                f"--api: a user in the URL and the token in {TOKEN_VARIABLE} cannot both be sent"
            )
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return hide_url_secrets(self.url)

    @property
    def unauthorized(self) -> str:
        """The error for status 401."""
        if self.headers:
            return f"the token in {TOKEN_VARIABLE} is not valid"
        return f"a valid token is needed; set {TOKEN_VARIABLE}"

    @property
    def websocket_url(self) -> str:
        """The URL of the log actions' WebSocket."""
        return f"ws{self.url.removeprefix('http')}/ws"

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """Return the JSON of a response to a request with JSON; None for a response without any.

        Raises UnavailableError if the daemon is unavailable, MonitorError for an error response,
        and UsageError for parameters that are too long.
        """
        url = self.url + path
        proxy = environment_proxy(url, secret=bool(self.headers))
        try:
            size = len(requests.Request(method, url, params=params).prepare().url or "")
            if size > _MAX_URL_BYTES:
                raise UsageError(
                    f"the request is too long: its URL would have {size} bytes, and the API accepts"
                    f" {_MAX_URL_BYTES}; use shorter texts"
                )
            with requests.Session() as session:
                # No other proxy, and no password of ~/.netrc in place of the token.
                session.trust_env = False
                if proxy is not None:
                    session.proxies = {"http": proxy, "https": proxy}
                if self.tls is not None:
                    session.mount("https://", HttpsAdapter(self.tls))
                headers = {**self.headers, "Accept": "application/json"}
                answer = session.request(
                    method, url, params=params, json=body, headers=headers, timeout=timeout_s
                )
        except requests.RequestException as error:
            problem = _why(error) + through(proxy) + self._source
            raise UnavailableError(self.shown, problem) from None
        if answer.status_code == requests.codes.no_content:
            return None
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.ok and found is not None:
            return found
        detail = found.get("detail") if isinstance(found, dict) else None
        problem = detail or f"status {answer.status_code}, without JSON; is this the API's address?"
        if answer.status_code == 404 and detail == "Not Found":
            problem = f"does not serve {path}; is the part for it in the daemon's config?"
        if answer.status_code == 401:
            problem = self.unauthorized
        if answer.status_code in (502, 503, 504):
            raise UnavailableError(self.shown, f"{problem}{through(proxy)}")
        raise MonitorError(f"{self.shown}: {problem}{through(proxy)}")


def _configured(file: str | None) -> tuple[str, str | None, str]:
    """Return the URL of the API in a config, its certificate, and where the config was found."""
    found = find_config(file, "api.uri", "api.tls.certificate")
    settings = found.loaded.config.api or ApiSettings()
    host, port = settings.uri
    address = address_text((_HOME.get(host, host), port))
    if settings.tls is None:
        return f"http://{address}", None, found.source
    return f"https://{address}", settings.tls.certificate, found.source


def _why(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no response in time"
    if isinstance(error, requests.exceptions.SSLError):
        return TLS_FAILED
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot connect"
    text = str(error)
    if "refused" in text:
        return "connection refused; is the daemon running, with the api section in its config?"
    if "[Errno -" in text:  # of getaddrinfo
        return "cannot connect: the name of the host is not known"
    return "cannot connect"

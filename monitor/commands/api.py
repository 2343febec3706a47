"""A client of the API of a running daemon, for commands."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

import requests

from monitor.commands.arguments import server_url
from monitor.daemon.config import load
from monitor.errors import MonitorError, UnavailableError, UsageError
from monitor.settings import address_text, hide_url_secrets
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
        "-c", "--config", metavar="FILE", help="read the address of the API from this config"
    )


class Api:
    """The API of a running daemon, with the token in RECODEX_MONITOR_TOKEN."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Use --api, or the address in -c; raises UsageError and ConfigError."""
        given = args.api if args.api is not None else _configured(args.config)
        self.url = given.rstrip("/")
        server_url("--api", self.url, ("http", "https"))
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if any(not "!" <= letter <= "~" for letter in token):
            # RFC 6750, 2.1; a line break would start another header.
            raise UsageError(
                f"{TOKEN_VARIABLE}: a token has no spaces, line breaks or letters beyond ASCII"
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

    def request(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a response.

        Raises UnavailableError if the daemon is unavailable, MonitorError for an error response,
        and UsageError for parameters that are too long.
        """
        try:
            size = len(requests.Request(method, self.url + path, params=params).prepare().url or "")
            if size > _MAX_URL_BYTES:
                raise UsageError(
                    f"the request is too long: its URL would have {size} bytes, and the API accepts"
                    f" {_MAX_URL_BYTES}; use shorter texts"
                )
            answer = requests.request(
                method, self.url + path, params=params, headers=self.headers, timeout=_TIMEOUT_S
            )
        except requests.RequestException as error:
            raise UnavailableError(self.shown, _why(error)) from None
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.ok and body is not None:
            return body
        detail = body.get("detail") if isinstance(body, dict) else None
        problem = detail or f"status {answer.status_code}, without JSON"
        if answer.status_code == 404 and detail == "Not Found":
            problem = f"does not serve {path}; is the part for it in the daemon's config?"
        if answer.status_code == 401:
            problem = self.unauthorized
        if answer.status_code in (502, 503, 504):
            raise UnavailableError(self.shown, str(problem))
        raise MonitorError(f"{self.shown}: {problem}")


def _configured(file: str | None) -> str:
    config = load(file).config
    host, port = (config.api or ApiSettings()).uri
    return f"http://{address_text((_HOME.get(host, host), port))}"


def _why(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no response in time"
    if isinstance(error, requests.exceptions.SSLError):
        return TLS_FAILED
    text = str(error)
    if "refused" in text:
        return "connection refused; is the daemon running, with the api section in its config?"
    return "cannot connect"

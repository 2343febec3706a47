"""How the commands that are clients of a running daemon reach its API."""

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

TOKEN_VARIABLE = "RECODEX_MONITOR_TOKEN"  # noqa: S105 - the name of one
TLS_FAILED = "TLS failed; is its certificate valid, or does it speak plain http:// there?"
_TIMEOUT_S = 30.0
# The API takes 16 KiB of a request's line and headers together.
_MAX_URL_BYTES = 15 * 1024
# An address to listen on everywhere is reached at home.
_HOME = {"*": "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def add_api_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --api and -c."""
    parser.add_argument("--api", metavar="URL", help="the API, such as http://127.0.0.1:9000")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="take the API's address from this config"
    )


class Api:
    """A running daemon's API; the token comes from RECODEX_MONITOR_TOKEN."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Take --api, or the address in -c; raises UsageError, ConfigError."""
        given = args.api if args.api is not None else _configured(args.config)
        self.url = given.rstrip("/")
        server_url("--api", self.url, ("http", "https"))
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if any(not "!" <= letter <= "~" for letter in token):
            # RFC 6750, 2.1; in a header a line break would begin another one.
            raise UsageError(
                f"{TOKEN_VARIABLE}: it has characters that no token has, such as spaces, line"
                " breaks, or letters beyond ASCII"
            )
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return hide_url_secrets(self.url)

    @property
    def unauthorized(self) -> str:
        """What is wrong where the API answers 401."""
        if self.headers:
            return f"the token in {TOKEN_VARIABLE} is not valid"
        return f"a valid token is needed; set {TOKEN_VARIABLE}"

    @property
    def websocket_url(self) -> str:
        """The URL of the log actions' WebSocket."""
        return f"ws{self.url.removeprefix('http')}/ws"

    def request(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of an answer.

        Raises UnavailableError where the daemon is away, MonitorError for a refusal, and
        UsageError for parameters that are too long for a request.
        """
        try:
            size = len(requests.Request(method, self.url + path, params=params).prepare().url or "")
            if size > _MAX_URL_BYTES:
                raise UsageError(
                    f"too long for a request: its URL would have {size} bytes, and the API takes"
                    f" {_MAX_URL_BYTES}; shorten what is looked for"
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
        problem = detail or f"status {answer.status_code}, and no JSON"
        if answer.status_code == 404 and detail == "Not Found":
            problem = f"serves no {path}; is the part that it belongs to in the daemon's config?"
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
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return TLS_FAILED
    text = str(error)
    if "refused" in text:
        return "connection refused; is the daemon running, with the api section in its config?"
    return "cannot be reached"

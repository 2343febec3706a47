"""A client of the Kubernetes API that classifies errors by :class:`Reason`. Blocks; for threads.

The ``kubernetes`` package provides credentials, certificates, proxies, exec plugins and the
connection pool. Responses are read raw, with a timeout on every read. The package's own lists,
watches and retries are not used: they wait indefinitely on a silent connection, decode whole
objects, and differ between the versions in use.
"""

from __future__ import annotations

import enum
import http.client
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from monitor.cluster.objects import Page, read_page
from monitor.cluster.settings import read_kubeconfig
from monitor.errors import MonitorError, SettingError

__all__ = ["SERVICE_ACCOUNT", "Api", "ApiError", "Reason"]

logger = logging.getLogger("monitor.cluster")

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_CONNECT_S = 10.0
_READ_S = 30.0
_PAGE_OBJECTS = 200  # decoding a page holds the interpreter lock for a few ms
_MAX_PAGE_BYTES = 64 * 1024 * 1024
_MAX_RETRY_AFTER_S = 300.0
# Three unanswered probes: a lost peer is detected within 30 s.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Reason(enum.StrEnum):
    """Why a request or a watch ended; the label of cluster_watch_restarts_total."""

    ENDED = "ended"
    EXPIRED = "expired"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    THROTTLED = "throttled"
    SERVER_ERROR = "server-error"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    REJECTED = "rejected"


class _Status(msgspec.Struct):
    message: str


class ApiError(MonitorError):
    """A request failed. ``retry_after_s`` is how long the server asks to wait."""

    def __init__(self, reason: Reason, problem: str, *, retry_after_s: float | None = None) -> None:
        self.reason = reason
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.problem


class Api:
    """One API server, for any number of threads.

    Without ``kubeconfig`` it uses the service account of the pod, from the directory
    ``service_account`` and the environment. It reads and contacts nothing before the first request.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        *,
        service_account: Path = SERVICE_ACCOUNT,
        connections: int = 8,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._connections = connections
        self._lock = threading.Lock()
        self._client: Any = None
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._stopping = False

    def stop(self) -> None:
        """Abort all reads, so that the reading threads return."""
        with self._lock:
            self._stopping = True
            for response in self._open:
                with suppress(OSError, ValueError, RuntimeError):
                    response.shutdown()

    def close(self) -> None:
        """Close all connections."""
        self.stop()
        self._forget_client()

    def pages(self, path: str, *, selector: str = "") -> Iterator[Page]:
        """Yield the pages of a list; raises ApiError."""
        query = {"limit": str(_PAGE_OBJECTS)}
        if selector:
            query["labelSelector"] = selector
        while True:
            with self._request(path, query, read_s=_READ_S) as response:
                page = _read_page(response)
            yield page
            if not page.metadata.continue_:
                return
            query["continue"] = page.metadata.continue_

    def items(self, path: str, *, selector: str = "") -> list[msgspec.Raw]:
        """Return all items of a list; raises ApiError."""
        return [item for page in self.pages(path, selector=selector) for item in page.items or ()]

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], *, read_s: float) -> Iterator[Any]:
        """Open a watch and return its response; ``read_s`` limits each read.

        Raises ApiError, also for errors while the watch is open.
        """
        with self._request(path, query, read_s=read_s) as response:
            yield response

    @contextmanager
    def _request(
        self, path: str, query: Mapping[str, str], *, read_s: float
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        response: urllib3.BaseHTTPResponse | None = None
        try:
            response = self._send(path, query, read_s)
            with self._lock:
                self._open.add(response)
                if self._stopping:
                    raise ApiError(Reason.ENDED, "stopping")
            if response.status != 200:
                raise self._refusal(response)
            yield response
        except urllib3.exceptions.HTTPError as error:
            raise _transport_error(error) from None
        except OSError as error:
            raise ApiError(Reason.UNREACHABLE, _os_text(error)) from None
        finally:
            if response is not None:
                with self._lock:
                    self._open.discard(response)
                # The connection of a complete response is already back in the pool, open.
                response.close()

    def _send(self, path: str, query: Mapping[str, str], read_s: float) -> urllib3.BaseHTTPResponse:
        client, headers = self._credentials()
        try:
            sent: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
                "GET",
                f"{client.configuration.host.rstrip('/')}{path}?{urlencode(query)}",
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (ValueError, http.client.HTTPException) as error:
            if isinstance(error, urllib3.exceptions.HTTPError):
                raise
            # The text of these errors has the invalid value, which may be the token.
            self._forget_client()
            raise ApiError(
                Reason.UNAUTHORIZED, "the address of the server or the token has invalid characters"
            ) from None
        return sent

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ApiError:
        status = response.status
        message = _status_message(response.read(8192, decode_content=True))
        text = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        retry_after = _retry_after(response.headers.get("Retry-After"))
        match status:
            case 401:
                # The credentials are outdated; the next request reads them again.
                self._forget_client()
                reason = Reason.UNAUTHORIZED
            case 403:
                reason = Reason.FORBIDDEN
            case 404:
                reason = Reason.MISSING
            case 410:
                reason = Reason.EXPIRED
            case 429:
                reason = Reason.THROTTLED
            case _ if status >= 500:
                reason = Reason.SERVER_ERROR
            case _:
                reason = Reason.REJECTED
        return ApiError(reason, text, retry_after_s=retry_after)

    def _credentials(self) -> tuple[Any, dict[str, str]]:
        """Return the client of the package, and request headers with the current token."""
        from kubernetes.config import ConfigException

        headers = {"Accept": "application/json", "User-Agent": "recodex-monitor"}
        try:
            with self._lock:
                if self._client is None:
                    self._client = self._make_client()
                client = self._client
                # Reads the token of a service account again after a minute.
                settings = client.configuration.auth_settings()
        except (ConfigException, SettingError, LookupError, TypeError, ValueError) as error:
            where = self._kubeconfig or self._service_account
            problem = f"{where}: {_line(getattr(error, 'problem', error))}"
            if self._kubeconfig is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
                problem = "not running in a pod of a cluster; set cluster.kubeconfig"
            raise ApiError(Reason.UNAUTHORIZED, problem) from None
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"].strip()
        return client, headers

    def _forget_client(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.rest_client.pool_manager.clear()

    def _make_client(self) -> Any:
        from kubernetes import client
        from kubernetes.config.incluster_config import InClusterConfigLoader
        from kubernetes.config.kube_config import KubeConfigLoader

        configuration: Any = client.Configuration()
        in_cluster: Any = InClusterConfigLoader
        from_file: Any = KubeConfigLoader
        if self._kubeconfig is None:
            in_cluster(
                token_filename=str(self._service_account / "token"),
                cert_filename=str(self._service_account / "ca.crt"),
            ).load_and_set(configuration)
        else:
            from_file(
                config_dict=read_kubeconfig(self._kubeconfig),
                config_base_path=str(self._kubeconfig.parent),
            ).load_and_set(configuration)
        configuration.connection_pool_maxsize = self._connections
        made = client.ApiClient(configuration)
        made.rest_client.pool_manager.connection_pool_kw["socket_options"] = _KEEPALIVE
        return made


def _read_page(response: urllib3.BaseHTTPResponse) -> Page:
    # By enforce_content_length a truncated body raises IncompleteRead.
    body = response.read(_MAX_PAGE_BYTES + 1, decode_content=True)
    if len(body) > _MAX_PAGE_BYTES:
        raise ApiError(Reason.BROKEN, f"a page of the list exceeds {_MAX_PAGE_BYTES} bytes")
    try:
        return read_page(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError(Reason.BROKEN, "the response is not a list of objects") from None


def _status_message(body: bytes) -> str:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return _line(msgspec.json.decode(body, type=_Status).message)
    return _line(body.decode("utf-8", "replace"))


def _line(what: object) -> str:
    """Return the beginning of an untrusted text as one line."""
    return " ".join(str(what).split())[:300]


def _retry_after(text: str | None) -> float | None:
    """Parse a Retry-After header in seconds, as the API sends it; 300 s at most."""
    return min(float(text), _MAX_RETRY_AFTER_S) if text and text.isdecimal() else None


def _transport_error(error: urllib3.exceptions.HTTPError) -> ApiError:
    exceptions = urllib3.exceptions
    match error:
        case exceptions.NewConnectionError() | exceptions.ConnectTimeoutError():
            return ApiError(Reason.UNREACHABLE, _cause_text(error) or "cannot connect")
        case exceptions.ReadTimeoutError():
            return ApiError(Reason.SILENT, "the server sent nothing in time")
        case exceptions.SSLError():
            return ApiError(Reason.UNREACHABLE, f"TLS: {_cause_text(error) or _line(error)}")
        case exceptions.ProxyError():
            return ApiError(Reason.UNREACHABLE, f"proxy: {_cause_text(error) or 'failed'}")
        case _:
            return ApiError(Reason.BROKEN, _cause_text(error) or "the connection was lost")


def _cause_text(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, OSError) and (error.strerror or error.args):
            return _os_text(error)
        error = error.__cause__ or error.__context__
    return ""


def _os_text(error: OSError) -> str:
    return _line(error.strerror or error)

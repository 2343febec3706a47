"""A client of the Kubernetes API that classifies errors by :class:`Reason`. Blocks; for threads.

Responses are read raw, with a timeout on every read. The ``kubernetes`` package reads the
credentials (:mod:`monitor.cluster.access`); its lists, watches and retries are not used: they wait
indefinitely on a silent connection, decode whole objects, and differ between the versions in use.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from monitor.cluster.access import SERVICE_ACCOUNT, Access
from monitor.cluster.credentials import Credentials
from monitor.cluster.failures import ApiError, Reason, one_line
from monitor.cluster.objects import UNREADABLE, Page, read_page

__all__ = ["SERVICE_ACCOUNT", "Api", "ApiError", "Reason"]

logger = logging.getLogger("monitor.cluster")

_CONNECT_S = 10.0
_READ_S = 30.0
# A page is about this long: decoding it holds the interpreter lock for a few ms.
_PAGE_BYTES = 1024 * 1024
_PAGE_OBJECTS = 200
# A longer page is asked for again with fewer objects. etcd stores objects of up to 1.5 MiB by
# default; JSON may be longer.
_MAX_PAGE_BYTES = 8 * 1024 * 1024
_MAX_RETRY_AFTER_S = 300.0


class _Status(msgspec.Struct):
    message: str


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
        self.server = ""
        """The address of the server, once it is known; a changed kubeconfig may change it."""
        self._credentials = Credentials(
            kubeconfig, service_account=service_account, connections=connections
        )
        self._lock = threading.Lock()
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._renewed: set[urllib3.BaseHTTPResponse] = set()
        self._stopping = False

    @property
    def waiting(self) -> str | None:
        """What the requests wait for, if it is not the server."""
        return self._credentials.waiting

    def stop(self) -> None:
        """Abort all reads, so that the reading threads return."""
        self._credentials.stop()
        with self._lock:
            self._stopping = True
            for response in self._open:
                _shut(response)

    def renew(self) -> None:
        """Load the credentials again; open watches end, and continue with them."""
        self._credentials.forget()
        with self._lock:
            self._renewed |= self._open
            for response in self._open:
                _shut(response)

    def close(self) -> None:
        """Close all connections."""
        self.stop()
        self._credentials.forget()

    def pages(self, path: str, *, selector: str = "") -> Iterator[Page]:
        """Yield the pages of a list, which show one moment; raises ApiError.

        A page has as many objects as fit into about 1 MiB.
        """
        query = {"limit": str(_PAGE_OBJECTS)}
        if selector:
            query["labelSelector"] = selector
        server: str | None = None
        while True:
            limit = int(query["limit"])
            with self._request(path, query, read_s=_READ_S, server=server) as response:
                body = _read_body(response)
            if body is None:
                if limit == 1:
                    raise ApiError(Reason.BROKEN, f"an object exceeds {_MAX_PAGE_BYTES} bytes")
                query["limit"] = str(max(1, limit // 8))
                continue
            page = _decoded_page(body)
            server = self.server
            objects = len(page.items or ())
            yield page
            if not page.metadata.continue_:
                return
            if page.metadata.continue_ == query.get("continue"):
                raise ApiError(Reason.BROKEN, "the list does not end")
            query["continue"] = page.metadata.continue_
            fitting = max(1, objects * _PAGE_BYTES // max(1, len(body)))
            query["limit"] = str(min(_PAGE_OBJECTS, limit * 2, fitting))

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], *, read_s: float) -> Iterator[Any]:
        """Open a watch and return its response; ``read_s`` limits each read.

        Raises ApiError, even for errors while the watch is open.
        """
        with self._request(path, query, read_s=read_s) as response:
            yield response

    @contextmanager
    def _request(
        self, path: str, query: Mapping[str, str], *, read_s: float, server: str | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        response: urllib3.BaseHTTPResponse | None = None
        access = self._credentials.current()
        self.server = access.host
        if server and access.host != server:
            raise ApiError(Reason.EXPIRED, "the kubeconfig names another server")
        try:
            response = self._send(access, path, query, read_s)
            with self._lock:
                self._open.add(response)
                if self._stopping:
                    raise ApiError(Reason.ENDED, "stopping")
            if response.status != 200:
                raise self._refusal(response)
            yield response
        except urllib3.exceptions.HTTPError as error:
            if response in self._renewed:
                raise ApiError(Reason.ENDED, "the credentials are loaded again") from None
            self._credentials.after_failure(error)
            raise _transport_error(error) from None
        except OSError as error:
            self._credentials.forget()
            raise ApiError(Reason.UNREACHABLE, _os_text(error)) from None
        finally:
            if response is not None:
                with self._lock:
                    self._open.discard(response)
                    self._renewed.discard(response)
                # The connection of a complete response is already back in the pool, open.
                response.close()

    def _send(
        self, access: Access, path: str, query: Mapping[str, str], read_s: float
    ) -> urllib3.BaseHTTPResponse:
        try:
            return access.pool.request(
                "GET",
                f"{access.host}{path}?{urlencode(query)}",
                headers=access.headers
                | {"Accept": "application/json", "User-Agent": "recodex-monitor"},
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (ValueError, http.client.HTTPException) as error:
            if isinstance(error, urllib3.exceptions.HTTPError):
                raise
            # The text of these errors has the invalid value, which may be the token.
            self._credentials.forget()
            raise ApiError(
                Reason.UNAUTHORIZED, "the address of the server or the token has invalid characters"
            ) from None

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ApiError:
        status = response.status
        message = _status_message(response.read(8192, decode_content=True))
        text = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        retry_after = _retry_after(response.headers.get("Retry-After"))
        match status:
            case 401:
                # The credentials are outdated; the next request reads them again.
                self._credentials.forget()
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


def _shut(response: urllib3.BaseHTTPResponse) -> None:
    with suppress(OSError, ValueError, RuntimeError):
        response.shutdown()


def _read_body(response: urllib3.BaseHTTPResponse) -> bytes | None:
    """Return the body of a page, or None if it is too long."""
    # By enforce_content_length a truncated body raises IncompleteRead.
    body = response.read(_MAX_PAGE_BYTES + 1, decode_content=True)
    return None if len(body) > _MAX_PAGE_BYTES else body


def _decoded_page(body: bytes) -> Page:
    try:
        return read_page(body)
    except UNREADABLE:
        raise ApiError(Reason.BROKEN, "the response is not a list of objects") from None


def _status_message(body: bytes) -> str:
    with suppress(*UNREADABLE):
        return one_line(msgspec.json.decode(body, type=_Status).message)
    return one_line(body.decode("utf-8", "replace"))


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
            return ApiError(Reason.UNREACHABLE, f"TLS: {_cause_text(error) or one_line(error)}")
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
    return one_line(error.strerror or error)

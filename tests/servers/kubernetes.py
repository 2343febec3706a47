"""A Kubernetes API over HTTP: list in pages, watch, bookmarks, expiry, and all that goes wrong.

PyPI's kmock has neither pages nor resource versions that expire, bookmarks, or a
stream that breaks half-way, so this is a small server of our own. What it does it does as
the API server does it:

- One resource version counts for all objects; every write gets the next one.
- A list's pages show one moment: what is written between two pages shows in neither, and a
  page's ``continue`` token expires with that moment (410, ``Expired``).
- A watch continues after ``resourceVersion`` and sends one JSON line an event in a chunked
  stream. An object that comes to match the label selector is ADDED, one that no longer does
  is DELETED. Versions from before the last compaction are gone: 410, as the answer's status
  or as an ERROR event in the stream.
- Bookmarks come where they are asked for, from time to time and before the stream's end.
- Groups that are not served answer 404 in plain text, refusals are ``Status`` objects.

Faults are asked for with :meth:`KubernetesServer.fail` (the next requests) and
:meth:`KubernetesServer.break_watches` (streams that are open).
"""

from __future__ import annotations

import base64
import copy
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

__all__ = ["Break", "Fault", "KubernetesServer", "Request", "kubernetes_server"]

Object = dict[str, Any]
Backup = tuple[dict[tuple[str, str, str], Object], int]
Break = Literal["end", "reset", "truncate", "silence", "gone", "error", "garbage"]

_KINDS = {
    "deployments": ("apps/v1", "Deployment"),
    "replicasets": ("apps/v1", "ReplicaSet"),
    "pods": ("v1", "Pod"),
    "replicationcontrollers": ("v1", "ReplicationController"),
    "deploymentconfigs": ("apps.openshift.io/v1", "DeploymentConfig"),
    "statefulsets": ("apps/v1", "StatefulSet"),
    "daemonsets": ("apps/v1", "DaemonSet"),
    "rollouts": ("argoproj.io/v1alpha1", "Rollout"),
    "inferenceservices": ("serving.kserve.io/v1beta1", "InferenceService"),
    "services": ("serving.knative.dev/v1", "Service"),
    "modelservers": ("ml.example.org/v1", "ModelServer"),
}
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)$"
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in; ``at`` is monotonic, in s."""

    verb: Literal["list", "watch"]
    plural: str
    namespace: str
    query: dict[str, str]
    at: float


@dataclass(slots=True)
class Fault:
    """What happens to the next ``times`` requests that match.

    ``how`` is an HTTP status, or ``reset`` (RST instead of an answer), ``silence`` (no answer
    at all), ``truncate`` (half an answer), ``garbage`` (an answer that is not JSON), or
    bytes, which are the answer.
    """

    how: int | bytes | Literal["reset", "silence", "truncate", "garbage"]
    verb: Literal["list", "watch"] | None = None
    plural: str | None = None
    times: int = 1
    retry_after: str | None = None


@dataclass(slots=True)
class _Change:
    version: int
    plural: str
    namespace: str
    before: Object | None
    after: Object | None


@dataclass(slots=True)
class _Snapshot:
    version: int
    items: list[Object] = field(default_factory=list)


class KubernetesServer:
    """The cluster's objects, and the HTTP server in front of them; all methods from any thread."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, openshift: bool = True) -> None:
        self.openshift = openshift
        self.gone_as: Literal["status", "event"] = "status"
        self.bookmark_every_s = 60.0
        self.chunk_bytes: int | None = None
        """Where set, lines are cut into chunks of this many bytes."""
        self.page_limit: int | None = None
        """Where set, pages are no longer than this, whatever the client asks for."""
        self.tokens: set[str] | None = None
        """Where set, the bearer tokens that are let in."""
        self.forbidden: set[tuple[str, str]] = set()
        """(plural, namespace) that answer 403; namespace "" is the whole cluster's."""
        self.before_page: Callable[[str, int], None] | None = None
        """Called before each page with the plural and the number of the page's first object."""
        self.requests: list[Request] = []
        self.marked = 0
        """The version of the last bookmark that was sent on any stream."""
        self._changed = threading.Condition()
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._log: list[_Change] = []
        self._version = 100
        self._floor = 100
        self._snapshots: dict[str, _Snapshot] = {}
        self._faults: deque[Fault] = deque()
        self._breaks: list[tuple[int, Break]] = []
        self._break_number = 0
        self._streams = 0
        self._closing = False
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.start()

    # The server's life.

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port again after :meth:`stop`."""
        kubernetes = self

        class Handler(_Handler):
            server_state = kubernetes

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients come and go; what matters shows at the client

        self._closing = False
        server = Server(("127.0.0.1", self.port), Handler, bind_and_activate=True)
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        self.port = server.server_address[1]
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on and reset the open ones; the objects stay."""
        if self._server is None or self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self.wait(lambda: self._streams == 0, "streams still open")
        self._server = None

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
        """Wait until ``condition`` holds; it is looked at after each request and each write."""
        deadline = time.monotonic() + limit_s
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, what
                self._changed.wait(min(left, 0.05))

    @property
    def version(self) -> int:
        """Return the version of the last write."""
        return self._version

    @property
    def streams(self) -> int:
        """Return how many watches are open."""
        return self._streams

    # The objects.

    def write(self, plural: str, item: Object) -> Object:
        """Create or update an object, by namespace and name; return it as stored.

        An update that changes nothing writes nothing, as on the real server.
        """
        api_version, kind = _KINDS[plural]
        stored = copy.deepcopy(item)
        stored.update(apiVersion=api_version, kind=kind)
        metadata = stored.setdefault("metadata", {})
        key = (plural, metadata.get("namespace", "default"), metadata["name"])
        with self._changed:
            before = self._objects.get(key)
            if before is not None:
                metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
                metadata.setdefault("uid", before["metadata"]["uid"])
                if before == stored:
                    return before
            self._version += 1
            metadata.setdefault("uid", f"uid-{self._version}")
            metadata["resourceVersion"] = str(self._version)
            self._objects[key] = stored
            self._log.append(_Change(self._version, plural, key[1], before, stored))
            self._changed.notify_all()
        return stored

    def delete(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object."""
        with self._changed:
            before = self._objects.pop((plural, namespace, name))
            self._version += 1
            self._log.append(_Change(self._version, plural, namespace, before, None))
            self._changed.notify_all()

    def objects(self, plural: str) -> list[Object]:
        """Return all objects of a kind."""
        with self._changed:
            return [item for key, item in self._objects.items() if key[0] == plural]

    def compact(self) -> None:
        """Forget all past versions: old watches and continue tokens get 410 from now on."""
        with self._changed:
            self._version += 1  # so that even a client that has seen everything is behind
            self._floor = self._version
            self._log.clear()
            self._snapshots.clear()
            self._changed.notify_all()

    def compact_to_marked(self) -> None:
        """Forget the versions before the last bookmark."""
        with self._changed:
            self._floor = self.marked
            self._log = [change for change in self._log if change.version > self._floor]

    # Backups.

    def backup(self) -> Backup:
        """Return everything as it is, as a backup of etcd has it."""
        with self._changed:
            return copy.deepcopy((self._objects, self._version))

    def restore(self, backup: Backup) -> None:
        """Go back to a backup: later versions and writes never were."""
        with self._changed:
            self._objects, self._version = copy.deepcopy(backup)
            self._floor = min(self._floor, self._version)
            self._log = [change for change in self._log if change.version <= self._version]
            self._snapshots.clear()
            self._changed.notify_all()

    def replace_silently(self, steps: Iterable[Any]) -> None:
        """Write the objects of the steps without any event of a watch."""
        with self._changed:
            for write in (write for step in steps for write in step if write.item is not None):
                item = copy.deepcopy(write.item)
                item["metadata"]["resourceVersion"] = str(self._version)
                self._objects[(write.plural, write.namespace, write.name)] = item

    # Faults.

    def fail(self, fault: Fault) -> None:
        """Let the next requests that match fail; several faults take effect one after another."""
        with self._changed:
            self._faults.append(fault)

    def pending(self, plural: str) -> int:
        """Return how many requests of a kind are still to fail."""
        with self._changed:
            return sum(fault.times for fault in self._faults if fault.plural == plural)

    def break_watches(self, how: Break) -> None:
        """Break all open streams; ``silence`` leaves them open without another word."""
        with self._changed:
            self._break_number += 1
            self._breaks.append((self._break_number, how))
            self._changed.notify_all()

    def requests_of(self, verb: str, plural: str | None = None) -> list[Request]:
        """Return the requests so far of a kind."""
        return [r for r in self.requests if r.verb == verb and plural in (None, r.plural)]

    # What the handler asks.

    def take_fault(self, request: Request) -> Fault | None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            for fault in self._faults:
                if fault.verb in (None, request.verb) and fault.plural in (None, request.plural):
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None

    def page(self, request: Request) -> tuple[int, Object]:
        """Answer a list."""
        query = request.query
        with self._changed:
            token = query.get("continue")
            if token is None:
                selector = query.get("labelSelector", "")
                snapshot = _Snapshot(
                    self._version,
                    [
                        item
                        for (plural, namespace, _), item in sorted(self._objects.items())
                        if plural == request.plural
                        and request.namespace in ("", namespace)
                        and _matches(item, selector)
                    ],
                )
                start = 0
            else:
                start, name = json.loads(base64.b64decode(token))
                found = self._snapshots.get(name)
                if found is None:
                    return 410, _status(
                        410, "Expired", "The provided continue parameter is too old"
                    )
                snapshot = found
            limits = [n for n in (int(query.get("limit", 0)), self.page_limit) if n]
            end = start + min(limits) if limits else len(snapshot.items)
            metadata: Object = {"resourceVersion": str(snapshot.version)}
            if end < len(snapshot.items):
                name = f"{request.plural}-{snapshot.version}-{len(self._snapshots)}"
                self._snapshots[name] = snapshot
                metadata["continue"] = base64.b64encode(json.dumps([end, name]).encode()).decode()
                metadata["remainingItemCount"] = len(snapshot.items) - end
            api_version, kind = _KINDS[request.plural]
            return 200, {
                "kind": f"{kind}List",
                "apiVersion": api_version,
                "metadata": metadata,
                "items": snapshot.items[start:end],
            }

    def watch(self, request: Request) -> Iterator[bytes | Break | None]:
        """Yield the lines of a watch; None where the client gets the headers, or how it breaks."""
        query = request.query
        selector = query.get("labelSelector", "")
        deadline = time.monotonic() + float(query.get("timeoutSeconds", 1800))
        bookmarks = query.get("allowWatchBookmarks") == "true"
        api_version, kind = _KINDS[request.plural]

        def line(type_: str, item: Object) -> bytes:
            return json.dumps({"type": type_, "object": item}).encode() + b"\n"

        def bookmark() -> bytes:
            self.marked = at
            metadata = {"resourceVersion": str(at), "creationTimestamp": None}
            return line("BOOKMARK", {"kind": kind, "apiVersion": api_version, "metadata": metadata})

        with self._changed:
            at = int(query["resourceVersion"])
            number = self._break_number
            self._streams += 1
            self._changed.notify_all()
        next_bookmark = time.monotonic() + self.bookmark_every_s
        try:
            yield None
            while True:
                lines: list[bytes | Break] = []
                with self._changed:
                    now = time.monotonic()
                    broken = next((how for n, how in self._breaks if n > number), None)
                    if self._closing:
                        broken = "reset"
                    if broken is not None:
                        lines.append(broken)
                    elif at < self._floor:
                        expired = f"too old resource version: {at} ({self._floor})"
                        lines += [line("ERROR", _status(410, "Expired", expired)), "end"]
                    elif at < self._version:
                        lines += self._events(request, selector, at, line)
                        at = self._version
                    elif now >= deadline:
                        lines += [bookmark(), "end"] if bookmarks else ["end"]
                    elif bookmarks and now >= next_bookmark:
                        lines.append(bookmark())
                        next_bookmark = now + self.bookmark_every_s
                    else:
                        limit = min(deadline, next_bookmark if bookmarks else deadline) - now
                        self._changed.wait(max(0.0, limit))
                yield from lines
        finally:
            with self._changed:
                self._streams -= 1
                self._changed.notify_all()

    def _events(
        self, request: Request, selector: str, at: int, line: Callable[[str, Object], bytes]
    ) -> Iterator[bytes]:
        for change in self._log:
            if (
                change.version <= at
                or change.plural != request.plural
                or request.namespace not in ("", change.namespace)
            ):
                continue
            before = change.before is not None and _matches(change.before, selector)
            after = change.after is not None and _matches(change.after, selector)
            if after:
                assert change.after is not None
                yield line("MODIFIED" if before else "ADDED", change.after)
            elif before:
                assert change.before is not None
                last = copy.deepcopy(change.before)
                last["metadata"]["resourceVersion"] = str(change.version)
                yield line("DELETED", last)

    def is_gone(self, version: int) -> bool:
        with self._changed:
            return version < self._floor and self.gone_as == "status"

    def hold(self) -> None:
        """Say nothing until the server stops or other breaks come."""
        with self._changed:
            number = self._break_number
            while not self._closing and self._break_number == number:
                self._changed.wait(0.5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: KubernetesServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        found = _PATH.match(url.path)
        plural = found["plural"] if found else ""
        group = (found["core"] or found["group"]) if found else ""
        if plural not in _KINDS or _KINDS[plural][0] != group:
            return self._text(404, "404 page not found\n")
        if plural == "deploymentconfigs" and not state.openshift:
            return self._text(404, "404 page not found\n")
        assert found is not None
        request = Request(
            verb="watch" if query.get("watch") == "true" else "list",
            plural=plural,
            namespace=found["namespace"] or "",
            query=query,
            at=time.monotonic(),
        )
        fault = state.take_fault(request)
        if fault is not None and isinstance(fault.how, bytes):
            return self._send(200, fault.how, "application/json", {})
        if fault is not None and isinstance(fault.how, str):
            return self._fault(fault.how)
        if fault is not None and isinstance(fault.how, int):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._json(fault.how, _status(fault.how, "Fault", "asked for"), headers)
        if state.tokens is not None:
            word, _, token = (self.headers.get("Authorization") or "").partition(" ")
            if word.lower() != "bearer" or token not in state.tokens:
                return self._json(401, _status(401, "Unauthorized", "Unauthorized"))
        if (plural, request.namespace) in state.forbidden:
            message = f'{plural} is forbidden: User "system:serviceaccount:default:monitor" cannot'
            return self._json(403, _status(403, "Forbidden", message))
        if request.verb == "watch":
            return self._watch(request)
        if state.before_page is not None:
            start = json.loads(base64.b64decode(query["continue"]))[0] if "continue" in query else 0
            state.before_page(plural, start)
        return self._json(*state.page(request))

    def _watch(self, request: Request) -> None:
        state = self.server_state
        if state.is_gone(int(request.query["resourceVersion"])):
            return self._json(410, _status(410, "Expired", "too old resource version"))
        for piece in state.watch(request):
            if piece is None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.flush()
            elif isinstance(piece, bytes):
                step = state.chunk_bytes or len(piece)
                for start in range(0, len(piece), step):
                    self._chunk(piece[start : start + step])
            else:
                return self._break(piece)
        return None

    def _break(self, how: Break) -> None:
        match how:
            case "end":
                self.wfile.write(b"0\r\n\r\n")
                return
            case "gone":
                expired = _status(410, "Expired", "too old resource version: 1 (2)")
                self._chunk(json.dumps({"type": "ERROR", "object": expired}).encode() + b"\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            case "error":
                broken = _status(500, "InternalError", "etcdserver: no leader")
                self._chunk(json.dumps({"type": "ERROR", "object": broken}).encode() + b"\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            case "garbage":
                self._chunk(b'{"type": "ADDED", "object": ]\n')
                self.wfile.write(b"0\r\n\r\n")
                return
            case "silence":
                self.server_state.hold()
            case "truncate":
                self._chunk(b'{"type": "MODIFIED", "object": {"kind": "Depl')
            case "reset":
                pass
        self._reset(linger=how == "truncate")

    def _fault(self, how: str) -> None:
        match how:
            case "silence":
                self.server_state.hold()
            case "truncate":
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"kind": ')
            case "garbage":
                return self._text(200, "<html>proxy error</html>")
        self._reset(linger=how == "truncate")
        return None

    def _reset(self, *, linger: bool) -> None:
        """Close at once: with a RST, or where ``linger`` is set with a FIN after what was sent."""
        self.close_connection = True
        with suppress(OSError):
            if not linger:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.wfile.close()
            self.rfile.close()  # they hold on to the socket, too
            self.connection.close()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, code: int, body: Object, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps(body).encode(), "application/json", headers or {})

    def _text(self, code: int, text: str) -> None:
        self._send(code, text.encode(), "text/plain; charset=utf-8", {})

    def _send(self, code: int, body: bytes, type_: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": type_, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _matches(item: Object, selector: str) -> bool:
    """Match equality and set-based terms, as far as these tests use them."""
    labels = item["metadata"].get("labels") or {}
    for term in re.split(r",(?![^(]*\))", selector) if selector else ():
        listed = re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term.strip())
        key, equals, value = term.strip().partition("=")
        if listed:
            if (labels.get(listed[1]) in listed[3].split(",")) != (listed[2] == "in"):
                return False
        elif equals:
            if labels.get(key) != value.removeprefix("="):
                return False
        elif key.startswith("!"):
            if key[1:] in labels:
                return False
        elif key not in labels:
            return False
    return True


@pytest.fixture
def kubernetes_server() -> Iterator[KubernetesServer]:
    """Return a cluster with OpenShift's group, without TLS or tokens."""
    server = KubernetesServer()
    yield server
    server.stop()

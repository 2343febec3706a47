"""The objects of a cluster, with their versions: pages of lists, events of watches, and faults."""

from __future__ import annotations

import base64
import bisect
import copy
import functools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["KINDS", "PATH", "Break", "Fault", "KubernetesObjects", "Object", "Request", "status_of"]

Object = dict[str, Any]
Backup = tuple[dict[tuple[str, str, str], Object], int]
Break = Literal["end", "reset", "truncate", "silence", "gone", "error", "garbage"]

KINDS = {
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
PATH = re.compile(
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
    groups: tuple[str, ...] = ()
    """The groups that the user impersonates."""


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


class KubernetesObjects:
    """The cluster's objects, as lists and watches see them; all methods from any thread."""

    def __init__(self, *, openshift: bool = True) -> None:
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
        api_version, kind = KINDS[plural]
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
                        for _, item in sorted(
                            (key, item)
                            for key, item in self._objects.items()
                            if key[0] == request.plural
                            and request.namespace in ("", key[1])
                            and _matches(item, selector)
                        )
                    ],
                )
                start = 0
            else:
                start, name = json.loads(base64.b64decode(token))
                found = self._snapshots.get(name)
                if found is None:
                    return 410, status_of(
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
            api_version, kind = KINDS[request.plural]
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
        api_version, kind = KINDS[request.plural]

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
                        lines += [line("ERROR", status_of(410, "Expired", expired)), "end"]
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
        start = bisect.bisect_right(self._log, at, key=lambda change: change.version)
        for change in self._log[start:]:
            if change.plural != request.plural or request.namespace not in ("", change.namespace):
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


def status_of(code: int, reason: str, message: str) -> Object:
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
    for key, values, wanted in _terms(selector):
        if (key in labels if values is None else labels.get(key) in values) != wanted:
            return False
    return True


@functools.lru_cache
def _terms(selector: str) -> list[tuple[str, list[str] | None, bool]]:
    """Return for each term the key, its values (None: any), and whether it is to have one."""
    found: list[tuple[str, list[str] | None, bool]] = []
    for term in re.split(r",(?![^(]*\))", selector) if selector else ():
        listed = re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term.strip())
        key, equals, value = term.strip().partition("=")
        if listed:
            found.append((listed[1], listed[3].split(","), listed[2] == "in"))
        elif equals:
            found.append((key, [value.removeprefix("=")], True))
        else:
            found.append((key.removeprefix("!"), None, not key.startswith("!")))
    return found

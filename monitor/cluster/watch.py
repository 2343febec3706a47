"""Lists and watches one kind of object in one namespace, as client-go's informers do.

A :class:`Watch` lists in pages, watches from the resource version of the list with bookmarks, and
continues from the last version whenever the watch ends. Only if the server no longer has that
version (410), it lists again, and its :class:`Follower` compares the list with what it knows. So it
does now and then, and when the server has gone back to an older version: a fresh list is the truth.
A version counts as seen when the follower has committed its changes.

Every wait is bounded: the request limits how long the server keeps a watch open, and a connection
that is silent for a little longer is closed. A failure is followed by a pause that doubles from
0.8 s to 30 s (as in client-go), with jitter, or by what Retry-After asks for. So is a stream that
ends again and again.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from monitor.backoff import Backoff, jittered
from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.kinds import KINDS, Resource
from monitor.cluster.objects import UNREADABLE, WatchEvent, read_watch_event
from monitor.log_limits import OutageLog

__all__ = ["Follower", "Scope", "Timing", "Watch"]

logger = logging.getLogger("monitor.cluster")

# By default etcd stores objects of up to 1.5 MiB; JSON may be longer.
_MAX_LINE_BYTES = 16 * 1024 * 1024
_READ_BYTES = 65536
# After so many watches in a row that end within so many s, nothing is really watched.
_HASTY = 3
_HASTY_S = 1.0
# Errors that need an administrator; retried rarely.
_LASTING = {Reason.FORBIDDEN, Reason.MISSING, Reason.REJECTED}
# Errors after which a server may have been restored from a backup.
_DOUBTFUL = {Reason.UNREACHABLE, Reason.SERVER_ERROR, Reason.BROKEN, Reason.SILENT}


@dataclass(frozen=True, slots=True)
class Scope:
    """What one watch covers; the namespace "" means all."""

    kind: str
    namespace: str
    selector: str = ""
    resource: Resource | None = None
    """The collection of a kind that the config describes; others are known by name."""

    @property
    def path(self) -> str:
        """The path of the collection."""
        return (self.resource or KINDS[self.kind].resource).path(self.namespace)

    def covers(self, kind: str, namespace: str) -> bool:
        """Return whether objects of a kind in a namespace, or in all (""), are part of it."""
        return self.kind == kind and self.namespace in {"", namespace}

    def __str__(self) -> str:
        return f"{self.kind} in {self.namespace or 'all namespaces'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All waits of a watch, in s."""

    watch_s: float = 55.0
    """How long the server should keep a watch open (less up to a fifth, as jitter)."""
    silence_s: float = 65.0
    """How long a watch may be silent; longer than ``watch_s``, so it means a dead connection."""
    pause_s: float = 0.8
    """The first pause after a failure; each further one doubles."""
    longest_pause_s: float = 30.0
    """The longest pause after a failure."""
    healthy_s: float = 10.0
    """A watch that was open for this long restarts without a pause, and resets it."""
    lasting_s: float = 120.0
    """The pause while access is forbidden, or the kind is not served."""
    doubt_s: float = 30.0
    """How soon after a broken connection the server's version is compared with ours."""
    relist_s: float = 900.0
    """How long a watch continues before a fresh list (more or less by up to a fifth, as jitter)."""


class Follower(Protocol):
    """Receives the objects of one scope, in the thread of the watch; may block until committed."""

    def begin_list(self) -> None:
        """Begin a list with its first page; an unfinished list before it is void."""

    def take_page(self, items: Sequence[msgspec.Raw]) -> None:
        """Process the objects of a page."""

    def end_list(self) -> None:
        """End the list: known objects that were not in it are gone."""

    def take_events(self, events: Sequence[WatchEvent]) -> None:
        """Process ADDED, MODIFIED and DELETED events, in order."""


class Watch:
    """Keeps a follower up to date; :meth:`run` is the main function of a thread.

    ``problem`` describes the current problem, ``reason`` classifies it; None if there is none.
    ``restarts`` counts the ends of lists and watches by reason.
    """

    def __init__(
        self,
        api: Api,
        scope: Scope,
        follower: Follower,
        *,
        stop: threading.Event,
        timing: Timing | None = None,
    ) -> None:
        self.scope = scope
        self.problem: str | None = "not listed yet"
        self.reason: Reason | None = None
        self.restarts: Counter[Reason] = Counter()
        self._outage = OutageLog(logger, subject=str(scope))
        self._api = api
        self._follower = follower
        self._stop = stop
        self._timing = timing or Timing()
        self._path = scope.path
        self._version: str | None = None
        # The server may have come back with an older state.
        self._doubt_at = math.inf
        self._relist_at = 0.0
        self._backoff = Backoff(self._timing.pause_s, self._timing.longest_pause_s)
        self._listed_at = 0.0
        self._server = ""
        # How many watches in a row ended at once, without an event.
        self._hasty = 0
        # The version after which the stream had a line that is not an event.
        self._unreadable_after: str | None = None

    def run(self) -> None:
        """List and watch until the stop event; raises only unexpected errors."""
        while not self._stop.is_set():
            began = time.monotonic()
            if began >= self._relist_at:
                self._version = None
            try:
                if self._version is not None and began >= self._doubt_at:
                    self._compare_versions(self._version)
                if self._version is None:
                    self._list()
                self._watch()
                error = None
            except ApiError as caught:
                error = caught
            if self._stop.is_set():
                return
            reason = error.reason if error is not None else Reason.ENDED
            self.restarts[reason] += 1
            lived_s = time.monotonic() - began
            if lived_s >= self._timing.healthy_s:
                self._backoff.reset()
                self._hasty = 0
            if error is not None:
                self._after_error(error)
            elif lived_s < min(self._timing.healthy_s, self._timing.watch_s / 2):
                self._after_early_end(lived_s)
                self._stop.wait(self._backoff.next_delay())

    def _list(self) -> None:
        self._listed_at = time.monotonic()
        self._follower.begin_list()
        version = ""
        for page in self._api.pages(self._path, selector=self.scope.selector):
            if self._stop.is_set():
                raise ApiError(Reason.ENDED, "stopping")
            self._follower.take_page(page.items or ())
            version = page.metadata.resource_version
        if not version:
            raise ApiError(Reason.BROKEN, "the list has no resourceVersion")
        self._follower.end_list()
        self._version, self._server, self._doubt_at = version, self._api.server, math.inf
        self._relist_at = self._listed_at + self._timing.relist_s * random.uniform(0.8, 1.2)  # noqa: S311

    def _compare_versions(self, version: str) -> None:
        """List again if the server's version is lower than ours: it was restored from a backup."""
        page = next(iter(self._api.pages(self._path, selector=self.scope.selector)), None)
        self._doubt_at = math.inf
        if page is not None and _is_lower(page.metadata.resource_version, version):
            logger.info("%s: the cluster went back to an older state; listing again", self.scope)
            self._version = None

    def _watch(self) -> None:
        if self._version is None:
            return  # stopped while listing
        seconds = self._timing.watch_s * random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        until = min(self._relist_at, self._doubt_at)
        seconds = min(seconds, max(1.0, until - time.monotonic()))
        if self._hasty >= _HASTY:
            # Soon known whether it stays open now.
            seconds = min(seconds, 5 * _HASTY_S)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        if self.scope.selector:
            query["labelSelector"] = self.scope.selector
        with self._api.stream(self._path, query, read_s=self._timing.silence_s) as response:
            if self._api.server != self._server:
                # The version is one of another server.
                raise ApiError(Reason.EXPIRED, "the kubeconfig names another server")
            if self._hasty < _HASTY:
                self._well()
            for lines in _lines(response):
                if self._stop.is_set():
                    return
                self._take(lines)
                self._hasty = 0
                self._well()

    def _take(self, lines: Sequence[bytes]) -> None:
        """Process events that arrived together; those before an ERROR count."""
        version = self._version
        changes: list[WatchEvent] = []
        error: ApiError | None = None
        for line in lines:
            try:
                event = read_watch_event(line)
                if event.type == "ERROR":
                    error = _stream_error(*event.status())
                    break
                seen = event.metadata().resource_version
                if _is_lower(seen, version):
                    error = ApiError(Reason.EXPIRED, "the cluster went back to an older state")
                    break
                version = seen or version
            except UNREADABLE:
                error = self._unreadable(version)
                break
            if event.type != "BOOKMARK":
                changes.append(event)
        if changes:
            self._follower.take_events(changes)
        self._version = version
        if error is not None:
            raise error
        self._backoff.reset()

    def _unreadable(self, version: str | None) -> ApiError:
        """Continue from ``version`` once; if the same line comes again, a list goes past it."""
        text = "the stream has a line that is not an event"
        if version == self._unreadable_after:
            return ApiError(Reason.EXPIRED, f"{text}, again")
        self._unreadable_after = version
        return ApiError(Reason.BROKEN, text)

    def _well(self) -> None:
        if self.problem is not None and self.reason is None:
            logger.info("watching %s", self.scope)
        self._outage.recovered("watching again")
        self.problem = self.reason = None

    def _after_early_end(self, lived_s: float) -> None:
        """Count watches that the server ends at once, without an event: they show nothing."""
        self._hasty = self._hasty + 1 if lived_s < _HASTY_S else 0
        if self._hasty >= _HASTY:
            self.problem, self.reason = "the server ends each watch at once", Reason.ENDED
            self._outage.failed(self.problem)

    def _after_error(self, error: ApiError) -> None:
        if error.reason is Reason.EXPIRED:
            # The server no longer has our version: list again, without a pause if the last list
            # was some time ago.
            self._version = None
            if time.monotonic() - self._listed_at >= self._timing.healthy_s:
                logger.info("%s: %s; listing again", self.scope, error)
                return
        if error.reason in _LASTING:
            self._version = None
        if error.reason in _DOUBTFUL:
            # A connection that was refused is the likeliest sign; one that broke may be anything.
            doubt_s = 0.0 if error.reason is Reason.UNREACHABLE else self._timing.doubt_s
            self._doubt_at = min(self._doubt_at, time.monotonic() + doubt_s)
        match error.reason:
            case Reason.MISSING:
                self._outage.failed(f"not served by this cluster ({error})", level=logging.INFO)
            case Reason.FORBIDDEN:
                self._outage.failed(f"forbidden ({error})")
            case _:
                self._outage.failed(str(error))
        self.problem, self.reason = str(error), error.reason
        pause = self._backoff.next_delay()
        if error.reason in _LASTING:
            pause = jittered(self._timing.lasting_s)
        self._stop.wait(max(pause, error.retry_after_s or 0.0))


def _is_lower(version: str | None, other: str | None) -> bool:
    """Return whether a resource version is from before another one, if both are numbers."""
    if not version or not other or not (version.isdecimal() and other.isdecimal()):
        return False
    return int(version) < int(other)


def _stream_error(code: int, message: str) -> ApiError:
    if code == 410:
        return ApiError(Reason.EXPIRED, message)
    return ApiError(Reason.SERVER_ERROR, f"the stream ended with {code}: {message}")


def _lines(response: Any) -> Iterator[list[bytes]]:
    """Yield complete lines as they arrive, independent of the chunks."""
    waiting: list[bytes] = []
    waiting_bytes = 0
    for chunk in _chunks(response):
        waiting.append(chunk)
        waiting_bytes += len(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(waiting).split(b"\n")
            waiting, waiting_bytes = [rest], len(rest)
            if whole := [line for line in lines if line.strip()]:
                yield whole
        elif waiting_bytes > _MAX_LINE_BYTES:
            raise ApiError(Reason.BROKEN, f"an event exceeds {_MAX_LINE_BYTES} bytes")
    if b"".join(waiting).strip():
        raise ApiError(Reason.BROKEN, "the stream ended within an event")


def _chunks(response: Any) -> Iterator[bytes]:
    if response.chunked:
        # Each chunk as it arrives; read() would wait for a full buffer.
        yield from response.stream(_READ_BYTES, decode_content=True)
        return
    while chunk := response.read1(_READ_BYTES, decode_content=True):
        yield chunk

"""Follows the objects of one scope and compares each observation with the reported state.

A tracker belongs to the thread of its watch. It holds the reported states encoded, a few hundred
bytes per object. It passes new states and events to ``commit``, which returns when they are in the
database; only then does the tracker take them over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from monitor.cluster.api import ApiError
from monitor.cluster.changes import (
    Change,
    compare_gone,
    compare_pod,
    compare_service,
    needs_facts,
)
from monitor.cluster.events import Context, Event
from monitor.cluster.lookup import Lookup, RunningDigests
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.objects import WatchEvent, read_metadata
from monitor.cluster.pods import read_pod
from monitor.cluster.reported import Facts, Reported
from monitor.cluster.services import Service, read_service
from monitor.cluster.watch import Scope
from monitor.log_limits import RateLimitedLog

__all__ = ["Known", "Row", "ScopeChanges", "Tracker"]

logger = logging.getLogger("monitor.cluster")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Reported).decode
_BATCH = 200  # rows per transaction: some ms on SQLite, where all other writers wait
_ATTEMPTS = 3  # to find facts, before continuing without


@dataclass(frozen=True, slots=True)
class Row:
    """The reported state of an object, None if it is to be deleted, for the table cluster_state."""

    uid: str
    kind: str
    namespace: str
    name: str
    state: bytes | None


@dataclass(slots=True)
class ScopeChanges:
    """Rows and events of a scope, committed together.

    ``listed`` is true if they complete the first list of the scope with its selector.
    """

    scope: Scope
    rows: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    listed: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows or self.events or self.listed)


@dataclass(slots=True)
class Known:
    """What the database has of a scope: reported states by uid, and the selector of the last list.

    ``selector``: None if the scope was never completely listed.
    """

    states: dict[str, bytes]
    selector: str | None


class Tracker:
    """The follower of one watch; see :class:`monitor.cluster.watch.Follower`."""

    def __init__(
        self,
        scope: Scope,
        known: Known,
        *,
        cluster: str,
        mapping: MappingSettings,
        lookup: Lookup,
        commit: Callable[[ScopeChanges], None],
        clock: Callable[[], float],
        keep_removed_s: float,
    ) -> None:
        self._scope = scope
        self._cluster = cluster
        self._mapping = mapping
        self._lookup = lookup
        self._commit = commit
        self._clock = clock
        self._keep_removed_s = keep_removed_s
        self._states = known.states
        # Never listed, or with another selector: the objects found are not changes of the cluster.
        self._baseline = known.selector != scope.selector
        self._selector_changed = known.selector is not None and self._baseline
        self._catch_up = True
        self._names = {
            (reported.namespace, reported.name): uid
            for uid, state in self._states.items()
            if (reported := _decode(state)).phase != "removed"
        }
        # Compared, but not committed yet.
        self._changes = ScopeChanges(scope)
        self._new_states: dict[str, Reported | None] = {}
        self._new_names: dict[tuple[str, str], str | None] = {}
        self._seen: set[str] = set()
        self._running: RunningDigests | None = None
        self._attempts = 0
        self._log = RateLimitedLog(logger)

    def __len__(self) -> int:
        """Return the number of objects that exist."""
        return len(self._names)

    def begin_list(self) -> None:
        """Start comparing with a new list."""
        self._begin()
        self._seen = set()
        self._running = None

    def take_page(self, items: Sequence[msgspec.Raw]) -> None:
        """Compare the objects of a page with their reported states."""
        for item in items:
            self._seen.add(self._look(item))
        self._flush()

    def end_list(self) -> None:
        """Report known objects that were not in the list as removed."""
        context = self._context()
        for uid in [uid for uid in self._states if uid not in self._seen]:
            reported = _decode(self._states[uid])
            if reported.phase == "removed":
                if (reported.removed_at or 0) < context.now - self._keep_removed_s:
                    self._keep(uid, reported, Change(None))
            elif self._selector_changed:
                # The config excludes it now; it was not removed from the cluster.
                self._keep(uid, reported, Change(None))
            else:
                self._keep(uid, reported, compare_gone(reported, uid, context))
            if len(self._changes.rows) >= _BATCH:
                self._flush()
        self._changes.listed = self._baseline
        self._flush()
        self._baseline = self._selector_changed = self._catch_up = False
        self._seen = set()
        self._running = None

    def take_events(self, events: Sequence[WatchEvent]) -> None:
        """Compare the events of a watch, in order, and commit all of them at once."""
        self._begin()
        for event in events:
            if event.type == "DELETED":
                self._gone(event.metadata().uid)
            else:
                self._look(event.object)
        self._flush()

    def _look(self, body: msgspec.Raw) -> str:
        """Compare one observation of an object and return its uid."""
        try:
            if self._scope.kind == "Pod":
                pod = read_pod(body)
                self._replace(pod.namespace, pod.name, pod.uid)
                reported = self._reported(pod.uid)
                self._keep(pod.uid, reported, compare_pod(reported, pod, self._context()))
                return pod.uid
            service = read_service(self._scope.kind, body)
        except msgspec.DecodeError as error:
            metadata = read_metadata(body)
            self._log.warning(
                "unreadable", "%s: cannot read %s: %s", self._scope, metadata.name, error
            )
            return metadata.uid
        self._replace(service.namespace, service.name, service.uid)
        context = self._context()
        reported = self._reported(service.uid)
        facts = self._facts(service) if needs_facts(reported, service, context) else None
        self._keep(service.uid, reported, compare_service(reported, service, context, facts))
        return service.uid

    def _replace(self, namespace: str, name: str, uid: str) -> None:
        """Report the previous object of this name as removed: names are unique."""
        former = self._named((namespace, name))
        if former is not None and former != uid:
            self._gone(former)

    def _named(self, name: tuple[str, str]) -> str | None:
        return self._new_names[name] if name in self._new_names else self._names.get(name)

    def _gone(self, uid: str) -> None:
        reported = self._reported(uid)
        if reported is not None:
            self._keep(uid, reported, compare_gone(reported, uid, self._context()))

    def _facts(self, service: Service) -> Facts:
        """Find facts; after three failures in a row continue without them."""
        try:
            if self._baseline:
                # One list, instead of two requests for each of thousands of services.
                if self._running is None:
                    self._running = self._lookup.running(self._scope)
                key = (service.namespace, service.kind, service.name)
                facts = Facts(self._running.get(key, {}))
            else:
                facts = self._lookup.facts(service)
        except ApiError as error:
            self._attempts += 1
            if self._attempts < _ATTEMPTS:
                raise
            logger.warning("%s: events lack digests and old revisions: %s", self._scope, error)
            facts = Facts()
            if self._baseline:
                self._running = {}
        self._attempts = 0
        return facts

    def _reported(self, uid: str) -> Reported | None:
        if uid in self._new_states:
            return self._new_states[uid]
        state = self._states.get(uid)
        return None if state is None else _decode(state)

    def _keep(self, uid: str, before: Reported | None, change: Change) -> None:
        """Collect the new reported state, to be committed with its event."""
        reported = change.reported
        if change.event is not None:
            self._changes.events.append(change.event)
        if reported is before:
            return
        self._new_states[uid] = reported
        known = reported if reported is not None else before
        assert known is not None
        name = (known.namespace, known.name)
        if reported is not None and reported.phase != "removed":
            self._new_names[name] = uid
        elif self._named(name) == uid:
            self._new_names[name] = None
        self._changes.rows.append(
            Row(uid, known.kind, *name, None if reported is None else _encode(reported))
        )

    def _begin(self) -> None:
        """Drop changes that were not committed; they will be observed again."""
        self._changes = ScopeChanges(self._scope)
        self._new_states = {}
        self._new_names = {}

    def _flush(self) -> None:
        """Commit the changes, then take them over."""
        if self._changes:
            self._commit(self._changes)
        for row in self._changes.rows:
            if row.state is None:
                self._states.pop(row.uid, None)
            else:
                self._states[row.uid] = row.state
        for name, uid in self._new_names.items():
            if uid is None:
                self._names.pop(name, None)
            else:
                self._names[name] = uid
        self._begin()

    def _context(self) -> Context:
        return Context(
            cluster=self._cluster,
            mapping=self._mapping,
            now=self._clock(),
            baseline=self._baseline,
            catch_up=self._catch_up,
        )

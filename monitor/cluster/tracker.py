"""Follows the objects of one scope: compares each look with what was told.

A tracker belongs to its watch's thread. It holds the told states encoded, a few hundred bytes
an object, and hands changed states and events to ``commit``, which returns only once they are
in the database. Only then are they what is known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from monitor.cluster.api import ApiError
from monitor.cluster.changes import (
    Verdict,
    judge_gone,
    judge_pod,
    judge_service,
    wants_facts,
)
from monitor.cluster.events import Context, Event
from monitor.cluster.lookup import RunningDigests
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.objects import WatchEvent, read_metadata
from monitor.cluster.pods import read_pod
from monitor.cluster.services import Service, read_service
from monitor.cluster.told import Facts, Told
from monitor.cluster.watch import Scope

__all__ = ["Known", "Row", "ScopeChanges", "Tracker"]

logger = logging.getLogger("monitor.cluster")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Told).decode
_BATCH = 200  # one transaction: some ms on SQLite, where all others wait
_ATTEMPTS = 3  # to find facts, before going on without
_UNREADABLE = 1000  # objects that were said to be unreadable


@dataclass(frozen=True, slots=True)
class Row:
    """The told state of an object, or its end (``state`` None), for the table cluster_state."""

    uid: str
    kind: str
    namespace: str
    name: str
    state: bytes | None


@dataclass(slots=True)
class ScopeChanges:
    """Rows and events of a scope, committed together.

    ``listed`` is true when they come from a complete list of the scope.
    """

    scope: Scope
    rows: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    listed: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows or self.events or self.listed)


@dataclass(slots=True)
class Known:
    """What the database knows of a scope: told states by uid, and with which selector it was.

    ``selector`` is None where the scope was never listed whole.
    """

    states: dict[str, bytes]
    selector: str | None


class FactFinder(Protocol):
    """Where a tracker gets facts from."""

    def facts(self, service: Service) -> Facts:
        """Return the facts on one service."""

    def running(self, scope: Scope) -> RunningDigests:
        """Return the digests of all running services."""


class Tracker:
    """The follower of one watch; see :class:`monitor.cluster.watch.Follower`."""

    def __init__(
        self,
        scope: Scope,
        known: Known,
        *,
        cluster: str,
        mapping: MappingSettings,
        lookup: FactFinder,
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
        # Never listed, or with other labels: then what stands there is no change of the cluster.
        self._baseline = known.selector != scope.selector
        self._selector_changed = known.selector is not None and self._baseline
        self._catch_up = True
        self._names = {
            (told.namespace, told.name): uid
            for uid, state in self._states.items()
            if (told := _decode(state)).phase != "removed"
        }
        # Judged, but not committed yet.
        self._changes = ScopeChanges(scope)
        self._new_states: dict[str, Told | None] = {}
        self._new_names: dict[tuple[str, str], str | None] = {}
        self._seen: set[str] = set()
        self._running: RunningDigests | None = None
        self._attempts = 0
        self._unreadable: set[str] = set()

    def __len__(self) -> int:
        """Return how many objects stand."""
        return len(self._names)

    def begin_list(self) -> None:
        """Start to compare with a new list."""
        self._begin()
        self._seen = set()
        self._running = None

    def take_page(self, items: Sequence[msgspec.Raw]) -> None:
        """Compare the objects of a page with what was told."""
        for item in items:
            self._seen.add(self._look(item))
        self._flush()

    def end_list(self) -> None:
        """Tell as gone what was known and did not come."""
        context = self._context()
        for uid in [uid for uid in self._states if uid not in self._seen]:
            told = _decode(self._states[uid])
            if told.phase == "removed":
                if (told.removed_at or 0) < context.now - self._keep_removed_s:
                    self._keep(uid, told, Verdict(None))
            elif self._selector_changed:
                # It left our sight because the config did, not because it was removed.
                self._keep(uid, told, Verdict(None))
            else:
                self._keep(uid, told, judge_gone(told, uid, context))
            if len(self._changes.rows) >= _BATCH:
                self._flush()
        self._changes.listed = self._baseline
        self._flush()
        self._baseline = self._selector_changed = self._catch_up = False
        self._seen = set()
        self._running = None

    def take_events(self, events: Sequence[WatchEvent]) -> None:
        """Judge what a watch brought, in order; all of it is committed at once."""
        self._begin()
        for event in events:
            if event.type == "DELETED":
                self._gone(event.uid())
            else:
                self._look(event.object)
        self._flush()

    def _look(self, body: msgspec.Raw) -> str:
        """Judge one look at an object and return its uid."""
        try:
            if self._scope.kind == "Pod":
                pod = read_pod(body)
                self._replace(pod.namespace, pod.name, pod.uid)
                told = self._told(pod.uid)
                self._keep(pod.uid, told, judge_pod(told, pod, self._context()))
                return pod.uid
            service = read_service(self._scope.kind, body)
        except msgspec.DecodeError as error:
            metadata = read_metadata(body)
            if metadata.uid not in self._unreadable and len(self._unreadable) < _UNREADABLE:
                self._unreadable.add(metadata.uid)
                logger.warning("%s %s can't be read: %s", self._scope, metadata.name, error)
            return metadata.uid
        self._replace(service.namespace, service.name, service.uid)
        context = self._context()
        told = self._told(service.uid)
        facts = self._facts(service) if wants_facts(told, service, context) else None
        self._keep(service.uid, told, judge_service(told, service, context, facts))
        return service.uid

    def _replace(self, namespace: str, name: str, uid: str) -> None:
        """Tell as gone whatever had this name before: names are given once at a time."""
        former = self._named((namespace, name))
        if former is not None and former != uid:
            self._gone(former)

    def _named(self, name: tuple[str, str]) -> str | None:
        return self._new_names[name] if name in self._new_names else self._names.get(name)

    def _gone(self, uid: str) -> None:
        told = self._told(uid)
        if told is not None:
            self._keep(uid, told, judge_gone(told, uid, self._context()))

    def _facts(self, service: Service) -> Facts:
        """Find facts; where that fails three times over, do without them."""
        try:
            if self._baseline:
                # All at once, rather than two requests for each of thousands.
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
            logger.warning("%s: telling without digests and old revisions: %s", self._scope, error)
            facts = Facts()
            if self._baseline:
                self._running = {}
        self._attempts = 0
        return facts

    def _told(self, uid: str) -> Told | None:
        if uid in self._new_states:
            return self._new_states[uid]
        state = self._states.get(uid)
        return None if state is None else _decode(state)

    def _keep(self, uid: str, before: Told | None, verdict: Verdict) -> None:
        """Note what is told from now on, to be committed with its event."""
        told = verdict.told
        if verdict.event is not None:
            self._changes.events.append(verdict.event)
        if told is before:
            return
        self._new_states[uid] = told
        known = told if told is not None else before
        assert known is not None
        name = (known.namespace, known.name)
        if told is not None and told.phase != "removed":
            self._new_names[name] = uid
        elif self._named(name) == uid:
            self._new_names[name] = None
        self._changes.rows.append(
            Row(uid, known.kind, *name, None if told is None else _encode(told))
        )

    def _begin(self) -> None:
        """Forget what was judged and never committed; it comes again."""
        self._changes = ScopeChanges(self._scope)
        self._new_states = {}
        self._new_names = {}

    def _flush(self) -> None:
        """Commit the changes; only then are they known."""
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

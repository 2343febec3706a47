"""Follows the objects of one scope and compares each observation with the reported state.

A tracker belongs to the thread of its watch. It passes new states and events to ``commit``, which
returns when they are in the database; only then does the tracker take them over. If a lookup fails
before that, the watch shows the same objects again, and all of them are compared again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from monitor.cluster.api import ApiError
from monitor.cluster.canaries import compare_canary, is_canary_news
from monitor.cluster.changes import (
    Change,
    compare_gone,
    compare_pod,
    compare_service,
    needs_facts,
)
from monitor.cluster.events import Context
from monitor.cluster.groups import GroupKey, Groups, group_uid
from monitor.cluster.kinds import KINDS, Kind
from monitor.cluster.kinds.pod import pod_service
from monitor.cluster.lookup import Lookup, RunningDigests
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.objects import UNREADABLE, WatchEvent, read_metadata, read_uid
from monitor.cluster.pods import read_pod
from monitor.cluster.reported import Facts, Reported, same_rollout
from monitor.cluster.services import Service
from monitor.cluster.states import Known, ScopeChanges, States
from monitor.cluster.watch import Scope
from monitor.log_limits import RateLimitedLog
from monitor.yielding import in_slices

__all__ = ["Tracker"]

logger = logging.getLogger("monitor.cluster")

_BATCH = 200  # rows per transaction: some ms on SQLite, where all other writers wait
_ATTEMPTS = 3  # to find facts, before continuing without
_ASKED = 3  # times to look for digests that a service lacks, for each template


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
        kind: Kind | None = None,
        link: str | None = None,
    ) -> None:
        self._scope = scope
        self._kind = kind or KINDS[scope.kind]
        self._link = link
        self._cluster = cluster
        self._mapping = mapping
        self._lookup = lookup
        self._clock = clock
        self._keep_removed_s = keep_removed_s
        # Another way to group the objects makes other services of them, as another selector does.
        selector = f"{scope.selector} by {mapping.group}" if mapping.group else scope.selector
        self._states = States(scope, known.states, selector=selector, commit=commit)
        # Never listed, or with another selector: the objects found are not changes of the cluster.
        self._baseline = known.selector != selector
        self._selector_changed = known.selector is not None and self._baseline
        self._catch_up = True
        self._seen: set[str] = set()
        self._listing = False
        # An object of the list could not even be identified.
        self._gaps = False
        # A hash of each object in the last list: the next one skips what is the same and committed.
        self._bytes: dict[str, int] = {}
        self._new_bytes: dict[str, int] = {}
        # The template that is being rolled out, and since when; ends that are not committed yet.
        self._began: dict[str, tuple[str, float]] = {}
        self._ended: dict[str, tuple[str, float]] = {}
        self._asked: dict[str, tuple[str, int]] = {}
        self._groups = Groups(mapping)
        # Groups that have changed since what was committed of them, and those compared since then.
        self._stale: set[GroupKey] = set()
        self._compared: set[GroupKey] = set()
        self._running: RunningDigests | None = None
        self._attempts = 0
        self._log = RateLimitedLog(logger)

    def __len__(self) -> int:
        """Return the number of objects that exist."""
        return len(self._states)

    def begin_list(self) -> None:
        """Start comparing with a new list."""
        self._begin()
        self._seen = set()
        self._running = None
        self._listing, self._gaps = True, False

    def take_page(self, items: Sequence[msgspec.Raw]) -> None:
        """Compare the objects of a page with their reported states."""
        changed: set[GroupKey] = set()
        for item in in_slices(items):
            try:
                uid = read_uid(item)
            except UNREADABLE as error:
                self._gaps = True
                self._log.warning("unreadable", "%s: cannot read an object: %s", self._scope, error)
                continue
            self._seen.add(uid)
            content = hash(bytes(item))
            if self._bytes.get(uid) != content:
                changed |= self._look(item)
                self._new_bytes[uid] = content
        self._stale |= changed
        if not self._catch_up:
            # During the first list a group is only compared when it is complete.
            self._compare_groups(changed)
        self._flush()

    def end_list(self) -> None:
        """Report known objects that were not in the list as removed."""
        if self._gaps:
            self._seen.update(self._states.uids)
        self._stale |= self._groups.keep(self._seen)
        if self._catch_up:
            self._stale |= self._groups.all
        self._compare_groups(set(self._stale))
        groups = {group_uid(self._kind.name, key) for key in self._groups.all}
        context = self._context()
        for uid in self._states.uids:
            reported = self._states.get(uid)
            if uid in self._seen or uid in groups or reported is None:
                continue
            if reported.phase == "removed":
                if (reported.removed_at or 0) < context.now - self._keep_removed_s:
                    self._states.keep(uid, reported, Change(None))
            elif self._selector_changed:
                # The config excludes it now; it was not removed from the cluster.
                self._states.keep(uid, reported, Change(None))
            else:
                self._states.keep(uid, reported, compare_gone(reported, uid, context))
            if len(self._states.waiting.rows) >= _BATCH:
                self._flush()
        self._states.waiting.listed = True
        self._flush()
        self._baseline = self._selector_changed = self._catch_up = self._listing = False
        for known in (self._bytes, self._began, self._asked):
            for uid in [uid for uid in known if uid not in self._seen and uid not in groups]:
                del known[uid]
        self._seen = set()
        self._running = None

    def take_events(self, events: Sequence[WatchEvent]) -> None:
        """Compare the events of a watch, in order, and commit all of them at once."""
        self._begin()
        self._listing = False
        for event in events:
            if event.type == "DELETED":
                uid = event.metadata().uid
                self._bytes.pop(uid, None)
                self._gone(uid)
            else:
                self._compare_groups(self._look(event.object, forget=True))
        # What a failure has left over of events that are not shown again as changes.
        self._compare_groups(self._stale - self._compared)
        self._flush()

    def _look(self, body: msgspec.Raw, *, forget: bool = False) -> set[GroupKey]:
        """Compare one observation of an object, and return the groups that it changes."""
        try:
            if forget:
                self._bytes.pop(read_uid(body), None)
            if self._scope.kind == "Pod":
                pod = read_pod(body)
                if pod.owner is not None:
                    self._replace(pod.namespace, pod.name, pod.uid)
                    reported = self._states.get(pod.uid)
                    self._states.keep(
                        pod.uid, reported, compare_pod(reported, pod, self._context())
                    )
                    return set()
                service: Service | None = pod_service(pod)
            else:
                service = self._kind.read(body)
        except UNREADABLE as error:
            name = "an object"
            with suppress(*UNREADABLE):
                name = read_metadata(body).name
            self._log.warning("unreadable", "%s: cannot read %s: %s", self._scope, name, error)
            return set()
        if service is None:
            # It belongs to another object, perhaps only since now.
            self._gone(read_metadata(body).uid)
            return set()
        self._replace(service.namespace, service.name, service.uid)
        changed = self._groups.observe(service)
        if self._groups.key_of(service) is None:
            self._compare(service)
        elif self._states.get(service.uid) is not None:
            # It was a service of its own before mapping.group was set; it is no longer one.
            self._states.keep(service.uid, self._states.get(service.uid), Change(None))
        return changed

    def _compare(self, service: Service, *, member: Service | None = None) -> None:
        """Compare a service; ``member`` is the object that has its facts, if it is a group."""
        reported = self._states.get(service.uid)
        context = self._context()
        self._note_begin(reported, service, context)
        context = self._context(service)
        facts = None
        if needs_facts(reported, service, context) and not self._is_stuck(reported, service):
            facts = self._facts(member or service)
            self._note_asked(reported, service)
            if member is not None:
                # The revisions of a member are not those of the group.
                facts = Facts(facts.digests)
        change = compare_service(reported, service, context, facts)
        if change.event is not None:
            self._note_end(service.uid)
        self._states.keep(service.uid, reported, change)

    def _compare_groups(self, keys: set[GroupKey]) -> None:
        self._stale |= keys
        self._compared |= keys
        for key in sorted(keys):
            uid = group_uid(self._kind.name, key)
            group = self._groups.group(key, self._states.get(uid))
            if group is None:
                self._gone(uid)
                continue
            self._compare(group.service, member=group.main)
            if group.failing is not None:
                self._compare(group.failing)
            reported = self._states.get(uid)
            if reported is not None and group.settled and is_canary_news(reported, group.canary):
                member = group.canary_member
                facts = Facts() if member is None else self._facts(member)
                change = compare_canary(reported, uid, group.canary, self._context(), facts)
                self._states.keep(uid, reported, change)

    def _note_begin(self, reported: Reported | None, service: Service, context: Context) -> None:
        """Note when a rollout was first seen, unless it may have begun before the first list."""
        is_new = reported is None or reported.fingerprint != service.fingerprint
        begun = self._began.get(service.uid, ("", 0.0))[0] == service.fingerprint
        if is_new and not begun and not service.complete and not self._catch_up:
            self._began[service.uid] = (service.fingerprint, context.now)

    def _note_end(self, uid: str) -> None:
        if uid in self._began:
            self._ended[uid] = self._began[uid]

    def _is_stuck(self, reported: Reported | None, service: Service) -> bool:
        """Return whether its facts were found several times, and still lack something."""
        if _is_news(reported, service):
            return False
        asked, count = self._asked.get(service.uid, ("", 0))
        return asked == _template_of(service) and count >= _ASKED

    def _note_asked(self, reported: Reported | None, service: Service) -> None:
        if not _is_news(reported, service):
            asked, count = self._asked.get(service.uid, ("", 0))
            template = _template_of(service)
            self._asked[service.uid] = (template, count + 1 if asked == template else 1)

    def _replace(self, namespace: str, name: str, uid: str) -> None:
        """Report the previous object of this name as removed: names are unique."""
        former = self._states.named((namespace, name))
        if former is not None and former != uid:
            self._gone(former)

    def _gone(self, uid: str) -> None:
        self._note_end(uid)
        self._asked.pop(uid, None)
        self._compare_groups(self._groups.gone(uid))
        reported = self._states.get(uid)
        if reported is not None:
            self._states.keep(uid, reported, compare_gone(reported, uid, self._context()))

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

    def _begin(self) -> None:
        """Drop what was not committed; it will be observed again."""
        self._states.drop()
        self._new_bytes, self._ended, self._compared = {}, {}, set()

    def _flush(self) -> None:
        """Commit what was compared, then take it over."""
        self._states.flush()
        self._bytes |= self._new_bytes
        for uid, begin in self._ended.items():
            if self._began.get(uid) == begin:
                del self._began[uid]
        self._stale -= self._compared
        self._begin()

    def _context(self, service: Service | None = None) -> Context:
        fingerprint, began = "", None
        if service is not None:
            fingerprint, began = self._began.get(service.uid, ("", None))
        return Context(
            cluster=self._cluster,
            mapping=self._mapping,
            now=self._clock(),
            baseline=self._baseline,
            catch_up=self._catch_up,
            listed=self._listing,
            began=began if service is not None and fingerprint == service.fingerprint else None,
            link=self._link,
            plural=self._kind.resource.plural,
        )


def _is_news(reported: Reported | None, service: Service) -> bool:
    """Return whether the facts are those of a rollout, and not only looked for again."""
    if reported is None or reported.phase != "told":
        return True
    return not same_rollout(reported, service) and service.revision != reported.revision


def _template_of(service: Service) -> str:
    return f"{service.number} {service.fingerprint}"

"""A tracker on plays, with no server between: what is written is looked at at once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.events import Event
from monitor.cluster.kinds import KINDS as BUILT_IN
from monitor.cluster.kinds import Kind
from monitor.cluster.lookup import Lookup
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.objects import Page, WatchEvent
from monitor.cluster.states import Known, ScopeChanges
from monitor.cluster.tracker import Tracker
from monitor.cluster.watch import Scope
from tests.cluster.play import Object, Step

KINDS = {kind.resource.plural: name for name, kind in BUILT_IN.items()}

Backup = dict[tuple[str, str, str], Object]


def matches(item: Object, selector: str) -> bool:
    """Say whether an object carries the labels of a selector of ``key=value`` terms."""
    labels = item["metadata"].get("labels") or {}
    terms = [term.split("=") for term in filter(None, selector.split(","))]
    return all(labels.get(key) == value for key, value in terms)


class MemoryApi(Api):
    """Answers lists from the objects that were written; the rest of an Api is not needed."""

    def __init__(self) -> None:
        super().__init__(None)
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.forbidden: set[str] = set()
        self.failing = 0
        """How many of the next lookups of facts fail."""

    def pages(self, path: str, *, selector: str = "") -> Iterator[Page]:
        if path.rpartition("/")[2] in self.forbidden:
            raise ApiError(Reason.FORBIDDEN, "HTTP 403: forbidden")
        if self.failing:
            self.failing -= 1
            raise ApiError(Reason.SERVER_ERROR, "HTTP 500: etcdserver: no leader")
        yield Page(items=self.found(path, selector=selector))

    def found(self, path: str, *, selector: str = "") -> list[msgspec.Raw]:
        """Return what a list has."""
        plural = path.rpartition("/")[2]
        return [
            msgspec.Raw(msgspec.json.encode(item))
            for (kind, _, _), item in self.objects.items()
            if kind == plural and matches(item, selector)
        ]


class MemoryCluster:
    """Plays, and a tracker for each kind that follows them; ``restart`` is the daemon's.

    ``events`` has what was published, ``states`` what the table would hold.
    """

    def __init__(
        self, *kinds: str, mapping: MappingSettings | None = None, custom: Kind | None = None
    ) -> None:
        self.kinds = kinds or (("Deployment",) if custom is None else (custom.name,))
        self.custom = custom
        self.plurals = KINDS if custom is None else KINDS | {custom.resource.plural: custom.name}
        self.api = MemoryApi()
        self.events: list[Event] = []
        self.states: dict[str, dict[str, bytes]] = {kind: {} for kind in self.kinds}
        self.selectors: dict[str, str | None] = dict.fromkeys(self.kinds)
        self.selector = "app.kubernetes.io/component=model"
        self.page_objects = 200
        self.link: str | None = None
        self.now = 1612839600.0
        self.mapping = mapping or MappingSettings()
        self.trackers: dict[str, Tracker] = {}
        self.up = False

    def start(self) -> None:
        """Start the daemon: list everything and follow from there."""
        self.up = True
        for kind in self.kinds:
            self.trackers[kind] = Tracker(
                Scope(kind, "", self.selector),
                Known(dict(self.states[kind]), self.selectors[kind]),
                cluster="test",
                mapping=self.mapping,
                lookup=Lookup(self.api),
                commit=self._commit,
                clock=lambda: self.now,
                keep_removed_s=86400.0,
                kind=None if kind in BUILT_IN else self.custom,
                link=self.link,
            )
        self.relist()

    def stop(self) -> None:
        """Stop the daemon; the cluster keeps running."""
        self.up = False

    def relist(self) -> None:
        """List everything again, as after 410; again from the first page where a lookup fails."""
        for kind, tracker in self.trackers.items():
            plural = next(p for p, k in self.plurals.items() if k == kind)
            _insisting(functools.partial(self._list, tracker, plural))

    def _list(self, tracker: Tracker, plural: str) -> None:
        tracker.begin_list()
        items = self.api.found(f"/{plural}", selector=self.selector)
        for start in range(0, len(items), self.page_objects):
            tracker.take_page(items[start : start + self.page_objects])
        tracker.end_list()

    def backup(self) -> Backup:
        """Return the objects as they are."""
        return copy.deepcopy(self.api.objects)

    def restore(self, backup: Backup) -> None:
        """Put back the objects, unseen by the watches."""
        self.api.objects = copy.deepcopy(backup)

    def play(self, *acts: Iterable[Step]) -> None:
        """Play acts to their end; each write is looked at where the daemon is up."""
        for act in acts:
            for step in act:
                self.step(step)

    def step(self, step: Step) -> None:
        for write in step:
            key = (write.plural, write.namespace, write.name)
            before = self.api.objects.pop(key, None)
            if write.item is not None:
                self.api.objects[key] = write.item
            kind = self.plurals.get(write.plural)
            if not self.up or kind not in self.trackers:
                continue
            if not matches(write.item or before or {}, self.selector):
                continue
            type_ = "DELETED" if write.item is None else "MODIFIED" if before else "ADDED"
            body = msgspec.Raw(msgspec.json.encode(write.item or before))
            # A watch continues from before what was not committed.
            event = WatchEvent(type=type_, object=body)
            _insisting(functools.partial(self.trackers[kind].take_events, [event]))

    def _commit(self, changes: ScopeChanges) -> None:
        kind = changes.scope.kind
        for row in changes.rows:
            if row.state is None:
                self.states[kind].pop(row.uid, None)
            else:
                self.states[kind][row.uid] = row.state
        if changes.listed:
            self.selectors[kind] = changes.selector
        ids = {event.id for event in self.events}
        self.events += [event for event in changes.events if event.id not in ids]


def _insisting(act: Callable[[], None]) -> None:
    """Do it until no lookup fails, as a watch does."""
    while True:
        try:
            return act()
        except ApiError:
            continue


def told(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Return the last word of each event's type, and its cause."""
    return [(event.type.rpartition(".")[2], event.data.cause) for event in events]

"""A tracker on plays, with no server between: what is written is looked at at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.events import Event
from monitor.cluster.lookup import Lookup
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.objects import WatchEvent
from monitor.cluster.tracker import Known, ScopeChanges, Tracker
from monitor.cluster.watch import Scope
from tests.cluster.plays import Object, Step

KINDS = {"deployments": "Deployment", "deploymentconfigs": "DeploymentConfig", "pods": "Pod"}


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

    def items(self, path: str, *, selector: str = "") -> list[msgspec.Raw]:
        plural = path.rpartition("/")[2]
        if plural in self.forbidden:
            raise ApiError(Reason.FORBIDDEN, "HTTP 403: forbidden")
        return [
            msgspec.Raw(msgspec.json.encode(item))
            for (kind, _, _), item in self.objects.items()
            if kind == plural and matches(item, selector)
        ]


class MemoryCluster:
    """Plays, and a tracker for each kind that follows them; ``restart`` is the daemon's.

    ``events`` has what was published, ``states`` what the table would hold.
    """

    def __init__(self, *kinds: str, mapping: MappingSettings | None = None) -> None:
        self.kinds = kinds or ("Deployment",)
        self.api = MemoryApi()
        self.events: list[Event] = []
        self.states: dict[str, dict[str, bytes]] = {kind: {} for kind in self.kinds}
        self.selectors: dict[str, str | None] = dict.fromkeys(self.kinds)
        self.selector = "app.kubernetes.io/component=model"
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
            )
        self.relist()

    def stop(self) -> None:
        """Stop the daemon; the cluster keeps running."""
        self.up = False

    def relist(self) -> None:
        """List everything again, as after 410."""
        for kind, tracker in self.trackers.items():
            tracker.begin_list()
            plural = next(p for p, k in KINDS.items() if k == kind)
            tracker.take_page(self.api.items(f"/{plural}", selector=self.selector))
            tracker.end_list()

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
            kind = KINDS.get(write.plural)
            if not self.up or kind not in self.trackers:
                continue
            if not matches(write.item or before or {}, self.selector):
                continue
            type_ = "DELETED" if write.item is None else "MODIFIED" if before else "ADDED"
            body = msgspec.Raw(msgspec.json.encode(write.item or before))
            self.trackers[kind].take_events([WatchEvent(type=type_, object=body)])

    def _commit(self, changes: ScopeChanges) -> None:
        kind = changes.scope.kind
        for row in changes.rows:
            if row.state is None:
                self.states[kind].pop(row.uid, None)
            else:
                self.states[kind][row.uid] = row.state
        if changes.listed:
            self.selectors[kind] = changes.scope.selector
        ids = {event.id for event in self.events}
        self.events += [event for event in changes.events if event.id not in ids]


def told(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Return the last word of each event's type, and its cause."""
    return [(event.type.rpartition(".")[2], event.data.cause) for event in events]

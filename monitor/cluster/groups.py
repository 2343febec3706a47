"""Makes one service of the objects of a kind with the same value of ``mapping.group``; pure.

A :class:`Groups` keeps the members as they were last seen, and makes one
:class:`~monitor.cluster.services.Service` of each group. What the group runs is what most of its
replicas run, or the newest member where several have as many. A newer member with fewer replicas is
a canary. Knative makes a member for each revision, so there the newest that is rolled out counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monitor.cluster.mapping import MappingSettings, group_of
from monitor.cluster.reported import Reported
from monitor.cluster.services import Service

__all__ = ["Group", "Groups", "group_uid"]

_NEWEST_COUNTS = "label:serving.knative.dev/"

GroupKey = tuple[str, str]  # namespace and name


def group_uid(key: GroupKey) -> str:
    """Return the uid of a group; it has no object of its own."""
    return f"group:{key[0]}/{key[1]}"


@dataclass(frozen=True, slots=True)
class Group:
    """A group as a service; ``main`` is the member whose version that is."""

    service: Service
    main: Service
    failing: Service | None = None
    canary: Service | None = None


class Groups:
    """The groups of one scope."""

    def __init__(self, mapping: MappingSettings) -> None:
        self._mapping = mapping
        self._newest_counts = (mapping.group or "").startswith(_NEWEST_COUNTS)
        self._members: dict[str, Service] = {}
        self._keys: dict[str, GroupKey] = {}
        self._groups: dict[GroupKey, set[str]] = {}

    def key_of(self, service: Service) -> GroupKey | None:
        """Return the group of an object, if it is in one."""
        name = group_of(self._mapping, service.labels, service.annotations)
        return None if name is None else (service.namespace, name)

    def observe(self, service: Service) -> set[GroupKey]:
        """Take over a member, or an object outside groups, as it is now; return what changed."""
        key = self.key_of(service)
        changed = set()
        if self._keys.get(service.uid) != key:
            changed |= self.gone(service.uid)
        if key is not None:
            self._members[service.uid] = service
            self._keys[service.uid] = key
            self._groups.setdefault(key, set()).add(service.uid)
            changed.add(key)
        return changed

    def gone(self, uid: str) -> set[GroupKey]:
        """Forget an object; return the changed groups."""
        key = self._keys.pop(uid, None)
        self._members.pop(uid, None)
        if key is None:
            return set()
        members = self._groups[key]
        members.discard(uid)
        if not members:
            del self._groups[key]
        return {key}

    def keep(self, uids: Iterable[str]) -> set[GroupKey]:
        """Forget all others, after a list; return the changed groups."""
        kept = set(uids)
        changed: set[GroupKey] = set()
        for uid in [uid for uid in self._members if uid not in kept]:
            changed |= self.gone(uid)
        return changed

    @property
    def all(self) -> set[GroupKey]:
        """The groups that have members."""
        return set(self._groups)

    def group(self, key: GroupKey, reported: Reported | None) -> Group | None:
        """Return a group, or None if it has no members."""
        members = sorted(
            (self._members[uid] for uid in self._groups.get(key, ())),
            key=lambda member: (member.created, member.name),
            reverse=True,
        )
        if not members:
            return None
        newest = members[0]
        told = reported.fingerprint if reported is not None else None
        done = [
            member
            for member in members
            # What was reported is rolled out, even while it is scaled.
            if member.complete or member.rolled_out or member.fingerprint == told
        ]
        running = [member for member in done if member.replicas_wanted != 0]
        main = self._main(running) if running else _current(done, reported) or newest
        canary = next(
            (
                member
                for member in running
                if member is not main
                and member.created > main.created
                and dict(member.images) != dict(main.images)
            ),
            None,
        )
        failing = newest if newest.failure is not None and newest is not main else None
        return Group(
            service=_as_group(key, main, members, reported),
            main=main,
            failing=failing
            and _as_group(key, failing, members, reported)._replace(
                complete=False, rolled_out=False
            ),
            canary=canary and _as_group(key, canary, members, reported),
        )

    def _main(self, running: list[Service]) -> Service:
        if self._newest_counts:
            return running[0]
        replicas: dict[str, int] = {}
        for member in running:
            count = 1 if member.replicas_wanted is None else member.replicas_wanted
            replicas[_runs(member)] = replicas.get(_runs(member), 0) + count
        # The first of the largest is the newest.
        return max(running, key=lambda member: replicas[_runs(member)])


def _runs(member: Service) -> str:
    return "\n".join(member.images.values())


def _current(done: list[Service], reported: Reported | None) -> Service | None:
    """Return what was reported, if it is still there: all are scaled to zero."""
    same = [m for m in done if reported is not None and m.fingerprint == reported.fingerprint]
    return next(iter(same or done), None)


def _as_group(
    key: GroupKey, member: Service, members: list[Service], reported: Reported | None
) -> Service:
    number, fingerprint = 0, ""
    if reported is not None:
        number = max(reported.generation, reported.failed_revision or 0)
        fingerprint = reported.fingerprint
    return member._replace(
        uid=group_uid(key),
        name=key[1],
        revision=None,
        # A number that grows with each change, as the generation of an object does.
        generation=number + (member.fingerprint != fingerprint),
        replicas_wanted=sum(each.replicas_wanted or 0 for each in members),
        replicas_ready=sum(each.replicas_ready or 0 for each in members),
        created=min(each.created for each in members),
    )

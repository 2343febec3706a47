"""Makes one service of the objects of a kind with the same value of ``mapping.group``; pure.

A :class:`Groups` keeps the members as they were last seen, and makes one
:class:`~monitor.cluster.services.Service` of each group. What the group runs is what most of its
replicas run, or the newest member where several have as many. A newer member with fewer replicas is
a canary. Knative makes a member for each revision, so there the newest that is rolled out counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monitor.cluster.containers import counted_images
from monitor.cluster.mapping import MappingSettings, group_of, map_object
from monitor.cluster.objects import fingerprint_of_text
from monitor.cluster.reported import Reported
from monitor.cluster.services import Service

__all__ = ["Group", "Groups", "group_uid", "is_group"]

_PREFIX = "group:"
_NEWEST_COUNTS = "label:serving.knative.dev/"

GroupKey = tuple[str, str]  # namespace and name


def group_uid(kind: str, key: GroupKey) -> str:
    """Return the uid of a group of objects of a kind; it has no object of its own."""
    return f"{_PREFIX}{kind}/{key[0]}/{key[1]}"


def is_group(uid: str) -> bool:
    """Return whether a uid is that of a group."""
    return uid.startswith(_PREFIX)


@dataclass(frozen=True, slots=True)
class Group:
    """A group as a service; ``main`` is the member whose version that is.

    ``canary`` is the group with the version of ``canary_member``.
    ``settled`` is false while a member is being rolled out, so that canaries come and go.
    """

    service: Service
    main: Service
    failing: Service | None = None
    canary: Service | None = None
    canary_member: Service | None = None
    settled: bool = True


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
        told = reported.fingerprint if reported is not None else None
        done = [
            member
            for member in members
            # What was reported is rolled out, even while it is scaled.
            if member.complete or member.rolled_out or member.fingerprint == told
        ]
        running = [member for member in done if member.replicas_wanted != 0]
        main = self._main(running, told) if running else _current(done, reported) or members[0]
        newer = [each for each in members if each is not main and self._is_newer(each, main)]
        failing = next((member for member in newer if member.failure is not None), None)
        canary = next(
            (
                member
                for member in newer
                if member in running and self._runs(member) != self._runs(main)
            ),
            None,
        )
        rolling = [
            member for member in members if member not in done and member.replicas_wanted != 0
        ]
        service = _as_group(key, main, members, reported)
        # What most replicas run is only known after the rollout, and so is the end of a failure.
        most = not self._newest_counts and _replicas(rolling) > self._replicas_like(main, running)
        failed = reported is not None and reported.failed_revision is not None
        # Where all is deleted one by one, a former member without replicas is not rolled back to.
        idle = not running and reported is not None and reported.phase == "told"
        idle = idle and main.fingerprint != told
        if most or idle or (failed and rolling and main.fingerprint == told):
            service = service._replace(complete=False, rolled_out=False)
        return Group(
            service=service,
            main=main,
            failing=failing
            and _as_group(key, failing, members, reported)._replace(
                complete=False, rolled_out=False
            ),
            canary=canary
            and _as_group(key, canary, members, reported)._replace(
                fingerprint=fingerprint_of_text("\n".join(map(str, self._runs(canary))))
            ),
            canary_member=canary,
            settled=not rolling,
        )

    def _main(self, running: list[Service], told: str | None) -> Service:
        if self._newest_counts:
            return running[0]
        # The first of the largest is the newest.
        most = max(running, key=lambda member: self._replicas_like(member, running))
        same = [member for member in running if self._runs(member) == self._runs(most)]
        # Labels may tell even those apart that run the same: what was reported stays, or else the
        # largest counts, not a canary that it has caught up with.
        return next(
            (member for member in same if member.fingerprint == told),
            max(reversed(same), key=lambda member: member.replicas_wanted or 0),
        )

    def _replicas_like(self, member: Service, running: list[Service]) -> int:
        runs = self._runs(member)
        return _replicas(each for each in running if self._runs(each) == runs)

    def _is_newer(self, member: Service, other: Service) -> bool:
        """Return whether a member was changed later, or made later where that is not known.

        Knative's are never changed but by its controllers.
        """
        if not self._newest_counts and None not in (member.changed_at, other.changed_at):
            return (member.changed_at or 0.0) > (other.changed_at or 0.0)
        return member.created > other.created

    def _runs(self, member: Service) -> tuple[str | None, ...]:
        """Return what tells members apart: their version, and the images whose change is news."""
        mapped = map_object(
            self._mapping,
            name=member.name,
            labels=member.labels,
            annotations=member.annotations,
            images=member.images,
            template=member.template,
            version=member.version,
        )
        return mapped.version, *counted_images(member.images, self._mapping.container).values()


def _replicas(members: Iterable[Service]) -> int:
    return sum(1 if each.replicas_wanted is None else each.replicas_wanted for each in members)


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
        uid=group_uid(member.kind, key),
        name=key[1],
        revision=None,
        # A number that grows with each change, as the generation of an object does.
        generation=number + (member.fingerprint != fingerprint),
        replicas_wanted=sum(each.replicas_wanted or 0 for each in members),
        replicas_ready=sum(each.replicas_ready or 0 for each in members),
        created=min(each.created for each in members),
    )

"""The reported states of one scope, with what was compared but is not committed yet.

The states are kept encoded, a few hundred bytes per object. A change counts when ``commit`` has
stored it with its event; until then :meth:`States.drop` forgets it, and the object has to be
compared again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from monitor.cluster.changes import Change
from monitor.cluster.events import Event
from monitor.cluster.groups import is_group
from monitor.cluster.reported import Reported
from monitor.cluster.watch import Scope

__all__ = ["Known", "Row", "ScopeChanges", "States"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Reported).decode


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

    ``listed`` is true if they complete a list of the scope.
    """

    scope: Scope
    selector: str = ""
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


class States:
    """The states by uid, and the uids by name; ``waiting`` are the changes to be committed."""

    def __init__(
        self,
        scope: Scope,
        known: dict[str, bytes],
        *,
        selector: str,
        commit: Callable[[ScopeChanges], None],
    ) -> None:
        self._scope = scope
        self._selector = selector
        self._commit = commit
        self._states = known
        self._names = {
            _name_of(uid, reported): uid
            for uid, state in known.items()
            if (reported := _decode(state)).phase != "removed"
        }
        self.drop()

    def __len__(self) -> int:
        """Return the number of objects that exist."""
        return len(self._names)

    @property
    def uids(self) -> list[str]:
        """All that have a committed state."""
        return list(self._states)

    def get(self, uid: str) -> Reported | None:
        """Return the state of an object as it was last compared."""
        if uid in self._new_states:
            return self._new_states[uid]
        state = self._states.get(uid)
        return None if state is None else _decode(state)

    def named(self, name: tuple[str, str]) -> str | None:
        """Return the object that has the namespace and name."""
        return self._new_names[name] if name in self._new_names else self._names.get(name)

    def keep(self, uid: str, before: Reported | None, change: Change) -> None:
        """Collect the new reported state, to be committed with its event."""
        reported = change.reported
        if change.event is not None:
            self.waiting.events.append(change.event)
        if reported is before:
            return
        self._new_states[uid] = reported
        known = reported if reported is not None else before
        assert known is not None
        name = _name_of(uid, known)
        if reported is not None and reported.phase != "removed":
            self._new_names[name] = uid
        elif self.named(name) == uid:
            self._new_names[name] = None
        self.waiting.rows.append(
            Row(
                uid,
                known.kind,
                known.namespace,
                known.name,
                None if reported is None else _encode(reported),
            )
        )

    def drop(self) -> None:
        """Forget what is not committed."""
        self.waiting = ScopeChanges(self._scope, self._selector)
        self._new_states: dict[str, Reported | None] = {}
        self._new_names: dict[tuple[str, str], str | None] = {}

    def flush(self) -> None:
        """Commit the changes, then take them over."""
        if self.waiting:
            self._commit(self.waiting)
        for row in self.waiting.rows:
            if row.state is None:
                self._states.pop(row.uid, None)
            else:
                self._states[row.uid] = row.state
        for name, uid in self._new_names.items():
            if uid is None:
                self._names.pop(name, None)
            else:
                self._names[name] = uid
        self.drop()


def _name_of(uid: str, reported: Reported) -> tuple[str, str]:
    """Return what no other object has: its name, or for a group its uid, as a member may have its
    name."""
    return reported.namespace, uid if is_group(uid) else reported.name

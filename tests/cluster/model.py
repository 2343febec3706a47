"""A cluster as its watchers see it: what has to be published of it, and nothing else.

The model knows services by name, each with a template (image and settings), a revision and
whether its rollout succeeded. :meth:`Model.look` compares that with what was published; it is
called after every act that is seen, and once after a gap, in which only the end is seen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.cluster.group_play import GroupPlay
from tests.cluster.play import Object, Play, Step
from tests.cluster.plays import (
    DaemonSetPlay,
    DeploymentConfigPlay,
    DeploymentPlay,
    RolloutPlay,
    StatefulSetPlay,
)
from tests.cluster.resource_plays import (
    CustomPlay,
    InferenceServicePlay,
    KnativePlay,
    ResourcePlay,
)

Template = tuple[str, str, str]  # image, settings, restart

# Their controllers give no numbers to rollouts; those of workloads never give up.
UNNUMBERED = (StatefulSetPlay, DaemonSetPlay, ResourcePlay, GroupPlay)
ENDLESS = (StatefulSetPlay, DaemonSetPlay, GroupPlay)
PLAYS: Mapping[str, type[Play]] = {
    "Deployment": DeploymentPlay,
    "DeploymentConfig": DeploymentConfigPlay,
    "StatefulSet": StatefulSetPlay,
    "DaemonSet": DaemonSetPlay,
    "Rollout": RolloutPlay,
    "InferenceService": InferenceServicePlay,
    "KnativeService": KnativePlay,
    "ModelServer": CustomPlay,
    "group of Deployments": GroupPlay,
}
# As many former revisions are remembered of what was published.
REMEMBERED = 12


@dataclass
class Service:
    """A service as it is; ``former`` has the revisions by template, as the cluster has them."""

    play: Play
    template: Template
    complete: bool
    rollouts: int = 1
    former: dict[Template, set[int]] = field(default_factory=dict)
    specs: dict[Template, Object] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return self.play.uid

    @property
    def is_numbered(self) -> bool:
        return not isinstance(self.play, UNNUMBERED)

    @property
    def revision(self) -> int:
        return self.rollouts if self.is_numbered else self.play.generation


@dataclass
class Told:
    """What was published of a name: of which uid, and of which complete and failed revisions."""

    uid: str
    revision: int | None = None
    template: Template = ("", "", "")
    failed: tuple[int, Template] | None = None
    history: dict[int, Template] = field(default_factory=dict)

    def take(self, service: Service) -> None:
        """Note that the service is published as it is."""
        if service.is_numbered:
            for template, numbers in service.former.items():
                self.history |= dict.fromkeys(numbers, template)
        self.revision, self.template, self.failed = service.revision, service.template, None
        self.history[self.revision] = self.template
        self.go_back(self.revision)

    def go_back(self, revision: int) -> None:
        """Forget all later revisions: they never were."""
        self.revision = revision
        kept = [number for number in sorted(self.history) if number <= revision]
        self.history = {number: self.history[number] for number in kept[-REMEMBERED:]}


Backup = dict[str, Service]


class Model:
    """Acts on services, and the events that they must make, by name.

    ``kinds`` has the kinds of the services by name; the others are Deployments.
    """

    def __init__(self, kinds: Mapping[str, str] | None = None) -> None:
        self.kinds = kinds or {}
        self.services: dict[str, Service] = {}
        self.told: dict[str, Told] = {}
        self.expected: dict[str, list[tuple[str, str, str | None]]] = {}
        self._births = 0
        self._day = 9

    @property
    def count(self) -> int:
        return sum(map(len, self.expected.values()))

    # Backups.

    def backup(self) -> Backup:
        """Return the cluster as it is."""
        return copy.deepcopy(self.services)

    def restore(self, backup: Backup) -> None:
        """Go back to a backup; what was published stays published."""
        self.services = copy.deepcopy(backup)
        self._day += 1
        for service in self.services.values():
            service.play.day = self._day

    # Acts: each returns the steps to play, or None where it makes no sense now.

    def act(self, name: str, what: str, value: int) -> Iterator[Step] | None:
        """Do something to a service."""
        service = self.services.get(name)
        image = f"models/{name}:{value}"
        if what in {"create", "create_and_fail"}:
            kind = PLAYS[self.kinds.get(name, "Deployment")]
            if service is not None:
                return None
            if what == "create_and_fail" and issubclass(kind, ENDLESS):
                # In a first list one whose only pod is not ready is like one that has lost it.
                return None
            self._births += 1
            # A group is its name: one that is made again is the same one.
            uid = name if issubclass(kind, GroupPlay) else f"{name}-{self._births}"
            play = kind(name, uid=uid, replicas=1 + value % 2)
            play.day = self._day
            template = (image, "", "")
            self.services[name] = service = Service(play, template, what == "create")
            service.former[template] = {1}
            steps = play.create(image) if what == "create" else play.create_and_fail(image)
            return self._remembering(service, steps)
        if service is None:
            return None
        play = service.play
        match what:
            case "delete":
                del self.services[name]
                return play.delete()
            case "scale" if service.complete:
                return play.scale(value)
            case "flap" if service.complete and play.replicas:
                return play.flap()
            case "annotate":
                return play.annotate("note", str(value))
            case "set_image" if image != service.template[0]:
                self._roll(service, (image, *service.template[1:]), complete=True)
                return self._remembering(service, play.set_image(image))
            case "fail" if image != service.template[0]:
                # The only pod of a DaemonSet may be lost or not ready yet: it does not say which.
                if play.replicas <= isinstance(play, DaemonSetPlay) or isinstance(play, GroupPlay):
                    return None
                self._roll(service, (image, *service.template[1:]), complete=False)
                return self._remembering(service, play.fail(image))
            case "set_environment" if str(value) != service.template[1]:
                if isinstance(play, CustomPlay):
                    return None  # it has none
                self._roll(
                    service,
                    (service.template[0], str(value), service.template[2]),
                    complete=True,
                )
                return self._remembering(service, play.set_environment(str(value)))
            case "undo":
                known = sorted(t for t in service.specs if t != service.template)
                if not known:
                    return None
                template = known[value % len(known)]
                self._roll(service, template, complete=True)
                return play.undo(service.specs[template])
            case "recover" if not service.complete:
                service.complete = True
                return play.recover()
        return None

    def _roll(self, service: Service, template: Template, *, complete: bool) -> None:
        service.rollouts += 1
        service.template = template
        service.complete = complete
        service.former.setdefault(template, set()).add(service.rollouts)

    @staticmethod
    def _remembering(service: Service, steps: Iterator[Step]) -> Iterator[Step]:
        """Play the first step, which writes the template, and keep that to go back to."""
        first = next(steps)
        service.specs.setdefault(service.template, service.play.template)
        yield first
        yield from steps

    # What must be published.

    def look(self, *, cause: str = "created") -> None:
        """Note what must be published of the services as they are now."""
        for name in {*self.told, *self.services}:
            self._look(name, cause)

    def _look(self, name: str, cause: str) -> None:
        told, service = self.told.get(name), self.services.get(name)
        events = self.expected.setdefault(name, [])
        if told is not None and (service is None or service.uid != told.uid):
            if told.revision is not None:
                events.append(("removed", "deleted", None))
            del self.told[name]
            told = None
        if service is None:
            return
        if told is None:
            told = self.told[name] = Told(service.uid)
        if isinstance(service.play, GroupPlay):
            # It counts what was published of it.
            service.play.generation = (told.revision or 0) + (service.template != told.template)
        if service.complete:
            self._look_at_rollout(told, service, events, cause)
            return
        if told.revision is not None and service.revision < told.revision:
            told.go_back(service.revision)
        now, failed = (service.revision, service.template), told.failed
        was_told = now == (told.revision, told.template) and (failed is None or failed[0] <= now[0])
        if not service.is_numbered:
            # Without numbers only another template is another rollout.
            was_told = now[1] == told.template and failed is None
            if failed is not None and failed[1] == now[1]:
                return
        if not isinstance(service.play, ENDLESS) and now != failed and not was_told:
            events.append(("failed", "failed", service.template[0]))
            told.failed = now

    @staticmethod
    def _look_at_rollout(
        told: Told, service: Service, events: list[tuple[str, str, str | None]], cause: str
    ) -> None:
        image, revision = service.template[0], service.revision
        if told.revision is None:
            events.append(("deployed", cause, image))
            told.history = {}
        elif (
            service.template != told.template
            or (service.is_numbered and revision != told.revision)
            or told.failed is not None
        ):
            former = {n for n, template in told.history.items() if template == service.template}
            if service.is_numbered:
                former |= service.former[service.template]
            latest = max(told.revision, told.failed[0] if told.failed else 0)
            if revision >= latest:
                # What goes back to a lower number was restored.
                former -= {revision}
            changed = image != told.template[0]
            if changed or told.failed is not None:
                if any(number < latest for number in former):
                    events.append(("rolledback", "rollback", image))
                else:
                    why = service.play.change if changed else "recovered"
                    events.append(("upgraded", why, image))
        else:
            if revision < told.revision:
                told.go_back(revision)
            return
        told.take(service)

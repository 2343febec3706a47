"""A cluster as its watchers see it: what has to be published of it, and nothing else.

The model knows services by name, each with a template (image and settings), a revision and
whether its rollout succeeded. :meth:`Model.look` compares that with what was published; it is
called after every act that is seen, and once after a gap, in which only the end is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.cluster.plays import DeploymentPlay, Object, Step

Template = tuple[str, str, str]  # image, settings, restart


@dataclass
class Service:
    """A service as it is; ``former`` has the revisions by template."""

    play: DeploymentPlay
    template: Template
    complete: bool
    revision: int = 1
    former: dict[Template, set[int]] = field(default_factory=dict)
    specs: dict[Template, Object] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return self.play.uid


@dataclass
class Told:
    """What was published of a name: of which uid, and of which complete and failed revisions."""

    uid: str
    revision: int | None = None
    template: Template = ("", "", "")
    failed: int | None = None


class Model:
    """Acts on services, and the events that they must make, by name."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.told: dict[str, Told] = {}
        self.expected: dict[str, list[tuple[str, str, str | None]]] = {}
        self._births = 0

    @property
    def count(self) -> int:
        return sum(map(len, self.expected.values()))

    # Acts: each returns the steps to play, or None where it makes no sense now.

    def act(self, name: str, what: str, value: int) -> Iterator[Step] | None:
        """Do something to a service."""
        service = self.services.get(name)
        image = f"models/{name}:{value}"
        if what in {"create", "create_and_fail"}:
            if service is not None:
                return None
            self._births += 1
            play = DeploymentPlay(name, uid=f"{name}-{self._births}", replicas=1 + value % 2)
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
                if not play.replicas:
                    return None
                self._roll(service, (image, *service.template[1:]), complete=False)
                return self._remembering(service, play.fail(image))
            case "set_environment" if str(value) != service.template[1]:
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
        service.revision += 1
        service.template = template
        service.complete = complete
        service.former.setdefault(template, set()).add(service.revision)

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
        image = service.template[0]
        if told is None:
            told = self.told[name] = Told(service.uid)
        if not service.complete:
            if service.revision not in (told.failed, told.revision):
                events.append(("failed", "failed", image))
                told.failed = service.revision
        elif told.revision is None:
            events.append(("deployed", cause, image))
            told.revision, told.template, told.failed = service.revision, service.template, None
        elif told.revision != service.revision:
            changed = image != told.template[0]
            former = service.former[service.template] - {service.revision}
            back = any(number < max(told.revision, told.failed or 0) for number in former)
            if changed or told.failed is not None:
                if back:
                    events.append(("rolledback", "rollback", image))
                else:
                    why = "image-changed" if changed else "recovered"
                    events.append(("upgraded", why, image))
            told.revision, told.template, told.failed = service.revision, service.template, None

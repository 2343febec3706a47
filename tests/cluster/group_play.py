"""A service of several Deployments, one for each revision, as Knative makes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.cluster.play import Object, Play, Step
from tests.cluster.plays import DeploymentPlay

__all__ = ["GROUP", "GroupPlay"]

GROUP = "serving.knative.dev/service"


class _Revision(DeploymentPlay):
    def __init__(self, group: Play, number: int, environment: list[Object]) -> None:
        labels = {"app": group.name, GROUP: group.name}
        replicas = max(1, group.replicas)
        super().__init__(
            f"{group.name}-{number:05}", uid=f"revision-{number}", labels=labels, replicas=replicas
        )
        self.created = f"2021-02-08T{number // 60:02}:{number % 60:02}:00Z"
        self._environment = environment

    def _selector(self) -> Object:
        return {"matchLabels": {"app": self.labels["app"]}}

    def _created(self, image: str) -> Step:
        super()._created(image)
        if self._environment:
            self.item["spec"]["template"]["spec"]["containers"][0]["env"] = self._environment
        return [self._write()]


class GroupPlay(Play):
    """Each template is a Deployment of its own; those of before stay, without replicas."""

    numbers = itertools.count(1)
    """What was made after a backup is never made again."""

    def create(self, image: str) -> Iterator[Step]:
        self.members: list[_Revision] = []
        yield from self._run(image, [])

    def set_image(self, image: str) -> Iterator[Step]:
        container = self.template["spec"]["containers"][0]
        yield from self._run(image, container.get("env", []))

    def set_environment(self, value: str) -> Iterator[Step]:
        image = self.template["spec"]["containers"][0]["image"]
        yield from self._run(image, [{"name": "THREADS", "value": value}])

    def undo(self, template: Object) -> Iterator[Step]:
        """Give the traffic back to a former revision."""
        former = next(member for member in self.members if member.template == template)
        current = self.members[-1]
        self.members.remove(former)
        self.members.append(former)
        yield from former.scale(max(1, self.replicas))
        yield from current.scale(0)

    def scale(self, replicas: int) -> Iterator[Step]:
        self.replicas = replicas
        yield from self.members[-1].scale(replicas)

    def annotate(self, key: str, value: str) -> Iterator[Step]:
        yield from self.members[-1].annotate(key, value)

    def flap(self) -> Iterator[Step]:
        yield from self.members[-1].flap()

    def delete(self) -> Iterator[Step]:
        for member in reversed(self.members):
            yield from member.delete()

    @property
    def template(self) -> Object:
        return self.members[-1].template

    def _run(self, image: str, environment: list[Object]) -> Iterator[Step]:
        former = self.members[-1:]
        self.replicas = max(1, self.replicas)
        self.members.append(_Revision(self, next(self.numbers), environment))
        yield from self.members[-1].create(image)
        for member in former:
            yield from member.scale(0)

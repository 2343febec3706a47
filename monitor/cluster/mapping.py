"""Which model a service serves, and in which version; pure.

This is the one place that says how an object maps to a model. Each of the two is a list of
sources, of which the first that gives something wins:

    label:KEY          a label of the Deployment, DeploymentConfig or Pod
    annotation:KEY     an annotation of it
    image-name         the last part of the image's name: models/churn:1.4 gives churn
    image-tag          the image's tag: models/churn:1.4 gives 1.4
    image-digest       the image's digest, sha256:...
    name               the object's own name

The image is that of the container named by ``container``, else of the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from monitor.errors import SettingError
from monitor.settings import Section

__all__ = ["ImageName", "Mapped", "MappingSettings", "map_object"]

_WORDS = ("image-name", "image-tag", "image-digest", "name")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A model and its version; None where no source gives it."""

    model: str | None
    version: str | None


class MappingSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cluster.mapping``: where a model and its version are read from."""

    # the first of these that an object has is its model: label:NAME, annotation:NAME or name
    model: tuple[str, ...] = (
        "label:app.kubernetes.io/name",
        "label:app",
        "name",
    )
    # the same for the version; image-tag and image-digest read the container's image
    version: tuple[str, ...] = (
        "label:app.kubernetes.io/version",
        "label:version",
        "image-tag",
        "image-digest",
    )
    # whose image counts; without a name the first container's
    container: str | None = None

    def verify(self) -> None:
        """Check that every source is one of the known kinds."""
        for key, sources in (("model", self.model), ("version", self.version)):
            for index, source in enumerate(sources):
                word, colon, rest = source.partition(":")
                known = word in {"label", "annotation"} if colon else word in _WORDS
                if not known or (colon and not rest):
                    raise SettingError(
                        (key, index),
                        f"{source!r} is none of label:KEY, annotation:KEY, {', '.join(_WORDS)}",
                    )


class ImageName(NamedTuple):
    """An image reference taken apart: ``registry:5000/models/churn:1.4@sha256:...``."""

    name: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, reference: str) -> ImageName:
        """Take a reference apart; the registry and the folders before the name are dropped."""
        rest, _, digest = reference.partition("@")
        last = rest.rpartition("/")[2]
        name, _, tag = last.partition(":")
        return cls(name, tag or None, digest or None)


def map_object(
    settings: MappingSettings,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    images: Mapping[str, str],
) -> Mapped:
    """Say which model an object serves, and in which version.

    ``images`` has by container a reference, with its digest where that is known.
    """
    reference = next(iter(images.values()), "")
    if settings.container is not None:
        reference = images.get(settings.container, reference)
    image = ImageName.parse(reference)

    def first(sources: Sequence[str]) -> str | None:
        for source in sources:
            word, _, key = source.partition(":")
            match word:
                case "label":
                    found = labels.get(key)
                case "annotation":
                    found = annotations.get(key)
                case "image-name":
                    found = image.name
                case "image-tag":
                    found = image.tag
                case "image-digest":
                    found = image.digest
                case _:
                    found = name
            if found:
                return found
        return None

    return Mapped(first(settings.model), first(settings.version))

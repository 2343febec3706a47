"""Maps a service to the model that it serves, and its version; pure.

For each of the two there is a list of sources; the first that gives a value wins:

    label:KEY          a label of the Deployment, DeploymentConfig or Pod
    annotation:KEY     an annotation of it
    image-name         the last part of the image's name: models/churn:1.4 gives churn
    image-tag          the image's tag: models/churn:1.4 gives 1.4
    image-digest       the image's digest, sha256:...
    name               the object's own name

The image is that of the container ``container``, or else of the first container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.errors import SettingError
from monitor.settings import Section

__all__ = ["Mapped", "MappingSettings", "image_parts", "map_object"]

_WORDS = ("image-name", "image-tag", "image-digest", "name")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A model and its version; None if no source gives it."""

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
        """Check that every source is of a known kind."""
        for key, sources in (("model", self.model), ("version", self.version)):
            for index, source in enumerate(sources):
                word, colon, rest = source.partition(":")
                known = word in {"label", "annotation"} if colon else word in _WORDS
                if not known or (colon and not rest):
                    raise SettingError(
                        (key, index),
                        f"expected label:KEY, annotation:KEY, {', '.join(_WORDS[:-1])} or"
                        f" {_WORDS[-1]}, not {source!r}",
                    )


def image_parts(reference: str) -> tuple[str, str, str]:
    """Return name, tag and digest of ``registry:5000/models/churn:1.4@sha256:...``; "" if absent.

    Registry and path are dropped.
    """
    rest, _, digest = reference.partition("@")
    name, _, tag = rest.rpartition("/")[2].partition(":")
    return name, tag, digest


def map_object(
    settings: MappingSettings,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    images: Mapping[str, str],
) -> Mapped:
    """Return the model that an object serves, and its version.

    ``images`` maps containers to image references, with digests if they are known.
    """
    reference = next(iter(images.values()), "")
    if settings.container is not None:
        reference = images.get(settings.container, reference)
    values = dict(zip(_WORDS, (*image_parts(reference), name), strict=True))

    def first(sources: Sequence[str]) -> str | None:
        for source in sources:
            word, _, key = source.partition(":")
            match word:
                case "label":
                    found = labels.get(key)
                case "annotation":
                    found = annotations.get(key)
                case _:
                    found = values[word]
            if found:
                return found
        return None

    return Mapped(first(settings.model), first(settings.version))

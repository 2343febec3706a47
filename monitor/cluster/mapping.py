"""Maps a service to the model that it serves, and its version; pure.

For each of the two there is a list of sources; the first that gives a value wins:

    label:KEY                 a label of the object
    annotation:KEY            an annotation of it
    template-label:KEY        a label of its pod template
    template-annotation:KEY   an annotation of its pod template
    env:NAME                  a variable of the container: env:MODEL_VERSION
    arg:--FLAG                an argument of the container, as --FLAG=x or --FLAG x
    image-name                the last part of the image's name: models/churn:1.4 gives churn
    image-tag                 the image's tag: models/churn:1.4 gives 1.4
    image-digest              the image's digest, sha256:...
    name                      the object's own name

If none gives a version, that which the kind itself has counts, such as KServe's storageUri.
:mod:`monitor.cluster.containers` says which container counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.cluster.containers import argument, main_container, variable
from monitor.cluster.objects import Container, Template
from monitor.errors import SettingError
from monitor.settings import Section

__all__ = ["Mapped", "MappingSettings", "group_of", "image_parts", "map_object"]

_WORDS = ("image-name", "image-tag", "image-digest", "name")
_KEYED = ("label", "annotation", "template-label", "template-annotation", "env", "arg")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A model and its version; None if no source gives it."""

    model: str | None
    version: str | None


class MappingSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cluster.mapping``: where a model and its version are read from."""

    # the first of these that an object has is its model: label:KEY, annotation:KEY,
    # template-label:KEY, template-annotation:KEY, env:NAME, arg:--FLAG, image-name or name
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
    # the container that counts, and the only one whose image is news; without a name the one of the
    # annotation kubectl.kubernetes.io/default-container, or the first that is not a known sidecar
    container: str | None = None
    # objects with the same value, label:KEY or annotation:KEY, are one service
    group: str | None = None

    def verify(self) -> None:
        """Check that every source is of a known kind."""
        for key, sources in (("model", self.model), ("version", self.version)):
            for index, source in enumerate(sources):
                word, colon, rest = source.partition(":")
                known = word in _KEYED if colon else word in _WORDS
                if not known or (colon and not rest):
                    raise SettingError(
                        (key, index),
                        f"expected label:KEY, annotation:KEY, {', '.join(_WORDS[:-1])},"
                        f" {_WORDS[-1]}, template-label:KEY, template-annotation:KEY, env:NAME or"
                        f" arg:--FLAG, not {source!r}",
                    )
                if word == "arg" and not rest.startswith("-"):
                    raise SettingError((key, index), f"expected arg:--FLAG, not {source!r}")
        if self.group is not None:
            word, _, rest = self.group.partition(":")
            if word not in {"label", "annotation"} or not rest:
                raise SettingError(
                    ("group",), f"expected label:KEY or annotation:KEY, not {self.group!r}"
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
    template: Template | None = None,
    version: str | None = None,
) -> Mapped:
    """Return the model that an object serves, and its version.

    ``images`` maps containers to image references, with digests if they are known. ``version`` is
    what the kind itself has.
    """
    template = template or Template()
    template_labels = template.metadata.labels or {}
    template_annotations = template.metadata.annotations or {}
    chosen = main_container(
        list(images),
        template_annotations,
        annotations,
        wanted=settings.container,
        inits={each.name for each in template.spec.init_containers or ()},
    )
    container = next(
        (each for each in template.spec.all_containers() if each.name == chosen), Container()
    )
    words = dict(zip(_WORDS, (*image_parts(images.get(chosen, "")), name), strict=True))

    def value(source: str) -> str | None:
        word, _, key = source.partition(":")
        match word:
            case "label":
                return labels.get(key)
            case "annotation":
                return annotations.get(key)
            case "template-label":
                return template_labels.get(key)
            case "template-annotation":
                return template_annotations.get(key)
            case "env":
                return variable(container, key)
            case "arg":
                return argument(container, key)
            case _:
                return words[word]

    def first(sources: Sequence[str]) -> str | None:
        return next((found for source in sources if (found := value(source))), None)

    return Mapped(first(settings.model), first(settings.version) or version)


def group_of(
    settings: MappingSettings, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> str | None:
    """Return the name of the service that an object is a part of, if it has one."""
    if settings.group is None:
        return None
    word, _, key = settings.group.partition(":")
    return (labels if word == "label" else annotations).get(key) or None

"""Pod templates and selectors of workloads and of their copies; pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

__all__ = [
    "CONFIG_NAME",
    "CONFIG_VERSION",
    "NOTHING",
    "TEMPLATE_HASH",
    "Lenient",
    "PodSpec",
    "fingerprint_of",
    "selector_text",
    "template_images",
]

NOTHING = msgspec.Raw(b"null")

TEMPLATE_HASH = "pod-template-hash"
CONFIG_NAME = "openshift.io/deployment-config.name"
CONFIG_VERSION = "openshift.io/deployment-config.latest-version"
# Labels and annotations that controllers add to the template of a copy.
_ADDED_LABELS = frozenset({TEMPLATE_HASH, "deployment", "deploymentconfig"})
_ADDED_ANNOTATIONS = frozenset({CONFIG_NAME, CONFIG_VERSION, "openshift.io/deployment.name"})


class Lenient(msgspec.Struct, rename="camel", kw_only=True):
    """A struct of the API: empty fields are missing, or sometimes null."""


class _Container(Lenient):
    name: str = ""
    image: str | None = None


class PodSpec(Lenient):
    """The spec of a pod or of its template."""

    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None

    def images(self) -> dict[str, str]:
        """Return the images by container, init containers last."""
        containers = [*(self.containers or ()), *(self.init_containers or ())]
        return {container.name: container.image or "" for container in containers}


class _TemplateMetadata(Lenient):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Template(Lenient):
    metadata: _TemplateMetadata | None = None
    spec: PodSpec | None = None


class _LabelSelector(Lenient):
    match_labels: dict[str, str] | None = None


_template_decoder = msgspec.json.Decoder(_Template | None)
_whole_decoder = msgspec.json.Decoder(dict[str, Any] | None)
_selector_decoder = msgspec.json.Decoder(_LabelSelector | None)
_map_decoder = msgspec.json.Decoder(dict[str, str] | None)


def template_images(body: msgspec.Raw) -> dict[str, str]:
    """Return the images of a template by container; raises msgspec.DecodeError."""
    template = _template_decoder.decode(body)
    return template.spec.images() if template is not None and template.spec is not None else {}


def fingerprint_of(body: msgspec.Raw) -> str:
    """Return a digest of a pod template, without the additions of controllers in its copies.

    Raises msgspec.DecodeError.
    """
    template = _template_decoder.decode(body)
    plain = _whole_decoder.decode(body) or {}
    metadata = dict(plain.pop("metadata", None) or {})
    metadata.pop("creationTimestamp", None)
    known = (template.metadata if template is not None else None) or _TemplateMetadata()
    for key, values, added in (
        ("labels", known.labels, _ADDED_LABELS),
        ("annotations", known.annotations, _ADDED_ANNOTATIONS),
    ):
        metadata.pop(key, None)
        kept = {name: value for name, value in (values or {}).items() if name not in added}
        if kept:
            metadata[key] = kept
    if metadata:
        plain["metadata"] = metadata
    content = msgspec.json.encode(plain, order="deterministic")
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def selector_text(kind: str, body: msgspec.Raw) -> str:
    """Return the labels a workload selects, as the API's ``labelSelector`` parameter.

    In a Deployment they are in a LabelSelector, in a DeploymentConfig a map. The expressions of a
    LabelSelector are left out: the result only narrows lists whose objects name their owner. Raises
    msgspec.DecodeError.
    """
    if kind == "DeploymentConfig":
        labels = _map_decoder.decode(body)
    else:
        labels = (_selector_decoder.decode(body) or _LabelSelector()).match_labels
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items())

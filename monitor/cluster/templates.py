"""Pod templates and selectors, which workloads and their copies of them share; pure."""

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
# What the controllers add to the template of the ReplicaSet or ReplicationController.
_ADDED_LABELS = frozenset({TEMPLATE_HASH, "deployment", "deploymentconfig"})
_ADDED_ANNOTATIONS = frozenset({CONFIG_NAME, CONFIG_VERSION, "openshift.io/deployment.name"})


class Lenient(msgspec.Struct, rename="camel", kw_only=True):
    """What comes from the API: it leaves out what is empty, and sometimes says null."""


class _Container(Lenient):
    name: str = ""
    image: str | None = None


class PodSpec(Lenient):
    """A pod's spec, or its template's."""

    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None

    def images(self) -> dict[str, str]:
        """Return the images by container, the containers that run on first."""
        containers = [*(self.containers or ()), *(self.init_containers or ())]
        return {container.name: container.image or "" for container in containers}


class _TemplateMetadata(Lenient):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Template(Lenient):
    metadata: _TemplateMetadata | None = None
    spec: PodSpec | None = None


class _Expression(Lenient):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class _LabelSelector(Lenient):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Expression] | None = None


_template_decoder = msgspec.json.Decoder(_Template | None)
_whole_decoder = msgspec.json.Decoder(dict[str, Any] | None)
_selector_decoder = msgspec.json.Decoder(_LabelSelector | None)
_map_decoder = msgspec.json.Decoder(dict[str, str] | None)


def template_images(body: msgspec.Raw) -> dict[str, str]:
    """Return a template's images by container; raise msgspec.DecodeError for no template."""
    template = _template_decoder.decode(body)
    return template.spec.images() if template is not None and template.spec is not None else {}


def fingerprint_of(body: msgspec.Raw) -> str:
    """Name a pod template by its content, less what controllers add to copies of it.

    Raises msgspec.DecodeError for no template.
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
    """Write a workload's selector the way the API's ``labelSelector`` parameter takes it.

    It is a LabelSelector in a Deployment, a plain map in a DeploymentConfig. Raises
    msgspec.DecodeError for what is neither.
    """
    if kind == "DeploymentConfig":
        return ",".join(
            f"{key}={value}" for key, value in (_map_decoder.decode(body) or {}).items()
        )
    selector = _selector_decoder.decode(body) or _LabelSelector()
    terms = [f"{key}={value}" for key, value in (selector.match_labels or {}).items()]
    for expression in selector.match_expressions or ():
        values = ",".join(expression.values or ())
        match expression.operator:
            case "In":
                terms.append(f"{expression.key} in ({values})")
            case "NotIn":
                terms.append(f"{expression.key} notin ({values})")
            case "Exists":
                terms.append(expression.key)
            case "DoesNotExist":
                terms.append(f"!{expression.key}")
            case _:
                pass  # newer than this program; the owner's uid decides in any case
    return ",".join(terms)

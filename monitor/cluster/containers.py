"""Which container of a pod serves the model, and what its variables and arguments say; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from monitor.cluster.objects import Container

__all__ = ["argument", "counted_images", "main_container", "variable"]

_DEFAULT = "kubectl.kubernetes.io/default-container"
# Containers that meshes, secret stores and the like inject, by name.
_SIDECARS = frozenset(
    {
        "aws-guardduty-agent",
        "cloud-sql-proxy",
        "cloudsql-proxy",
        "config-reloader",
        "consul-dataplane",
        "daprd",
        "envoy",
        "envoy-sidecar",
        "filebeat",
        "fluent-bit",
        "fluentd",
        "gke-gcsfuse-sidecar",
        "istio-init",
        "istio-proxy",
        "istio-validation",
        "jaeger-agent",
        "kube-rbac-proxy",
        "kuma-sidecar",
        "linkerd-init",
        "linkerd-proxy",
        "oauth-proxy",
        "oauth2-proxy",
        "opa-istio",
        "otc-container",
        "otel-collector",
        "promtail",
        "queue-proxy",
        "storage-initializer",
        "vault-agent",
        "vault-agent-init",
    }
)
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


def main_container(
    names: Sequence[str], *annotations: Mapping[str, str], wanted: str | None = None
) -> str:
    """Return the container that counts; "" if there is none.

    That is ``wanted`` (``mapping.container``), or what an annotation names as the default, or the
    first that is not a known sidecar.
    """
    for name in (wanted, *(found.get(_DEFAULT) for found in annotations)):
        if name and name in names:
            return name
    return next((name for name in names if name not in _SIDECARS), next(iter(names), ""))


def counted_images(images: Mapping[str, str], wanted: str | None) -> Mapping[str, str]:
    """Return the images whose change is news: that of ``mapping.container``, or all of them."""
    return {wanted: images[wanted]} if wanted is not None and wanted in images else images


def variable(container: Container, name: str) -> str | None:
    """Return the value of an environment variable, if the template has it."""
    values = {each.name: each.value for each in container.env or ()}
    found = values.get(name)
    return None if found is None else _expanded(found, values)


def argument(container: Container, flag: str) -> str | None:
    """Return what follows ``flag`` in the command or its arguments, as --flag=x or --flag x."""
    values = {each.name: each.value for each in container.env or ()}
    words = list(_words([*(container.command or ()), *(container.args or ())]))
    found = None
    for index, word in enumerate(words):
        # As most programs do, the last one wins.
        if word.startswith(f"{flag}="):
            found = word[len(flag) + 1 :]
        elif word == flag and index + 1 < len(words):
            found = words[index + 1]
    return None if found is None else _expanded(found, values)


def _words(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, and those within the text of a shell command."""
    for before, text in zip(("", *arguments), arguments, strict=False):
        if re.fullmatch(r"-[a-z]*c", before) and re.search(r"\s", text):
            try:
                yield from shlex.split(text, comments=True)
            except ValueError:
                yield from text.split()
        else:
            yield text


def _expanded(text: str, values: Mapping[str, str | None]) -> str:
    """Replace $(NAME) as the kubelet does, if the variable is known."""
    return _REFERENCE.sub(lambda found: values.get(found[1]) or found[0], text)

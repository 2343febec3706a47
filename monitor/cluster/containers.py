"""Which container of a pod serves the model, and what its variables and arguments say; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

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
# $(NAME) in a template, where $$ is a dollar; $NAME, ${NAME} and ${NAME:-x} in a shell.
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]+)\))")
_IN_SHELL = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^{}]*))?\})")
_COMMENT = re.compile(r"(?<!\S)#.*")


def main_container(
    names: Sequence[str],
    *annotations: Mapping[str, str],
    wanted: str | None = None,
    inits: Collection[str] = (),
) -> str:
    """Return the container that counts; "" if there is none.

    That is ``wanted`` (``mapping.container``), or what an annotation names as the default, or the
    first that is neither a known sidecar nor among ``inits``, the init containers.
    """
    for name in (wanted, *(found.get(_DEFAULT) for found in annotations)):
        if name and name in names:
            return name
    regular = [name for name in names if name not in inits] or names
    return next((name for name in regular if name not in _SIDECARS), next(iter(regular), ""))


def counted_images(images: Mapping[str, str], wanted: str | None) -> Mapping[str, str]:
    """Return the images whose change is news: that of ``mapping.container``, or all of them."""
    return {wanted: images[wanted]} if wanted is not None and wanted in images else images


def variable(container: Container, name: str) -> str | None:
    """Return the value of an environment variable, if the template has it."""
    return _environment(container).get(name)


def argument(container: Container, flag: str) -> str | None:
    """Return what follows ``flag`` in the command or its arguments, as --flag=x or --flag x."""
    values = _environment(container)
    given = [*(container.command or ()), *(container.args or ())]
    words = list(_words([_expanded(text, values) for text in given], values))
    found = None
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        # As most programs do, the last one wins.
        if word.startswith(f"{flag}="):
            found = word[len(flag) + 1 :]
        elif word == flag and not following.startswith("-"):
            found = following
    return found


def _environment(container: Container) -> dict[str, str]:
    """Return the variables whose values are in the template; each may name those before it."""
    values: dict[str, str] = {}
    for each in container.env or ():
        if each.value is None:
            values.pop(each.name, None)
        else:
            values[each.name] = _expanded(each.value, values)
    return values


def _words(arguments: Sequence[str], values: Mapping[str, str]) -> Iterator[str]:
    """Yield the arguments, and those within the text of a shell command."""
    for before, text in zip(("", *arguments), arguments, strict=False):
        if re.fullmatch(r"-[a-z]*c", before) and re.search(r"\s", text):
            for word in _shell_words(text):
                yield _IN_SHELL.sub(lambda found: _shell_value(found, values), word)
        else:
            yield text


def _shell_words(text: str) -> list[str]:
    text = _COMMENT.sub("", text.replace("\\\n", ""))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return text.split()


def _shell_value(found: re.Match[str], values: Mapping[str, str]) -> str:
    name, default = found[1] or found[2], found[3]
    return values.get(name) or (found[0] if default is None else default)


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace $(NAME) as the kubelet does, if the variable is known."""
    return _REFERENCE.sub(
        lambda found: "$" if found[1] is None else values.get(found[1], found[0]), text
    )

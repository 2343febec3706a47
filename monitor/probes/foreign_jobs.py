"""Jobs from the files of other programs; pure.

Understood are a target list of Prometheus (file_sd) whose label ``__param_module`` or ``module``
names one of blackbox_exporter's usual modules, a config of Gatus, and a backup of Uptime Kuma.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from monitor.probes.foreign_values import bracketed, take_seconds, text
from monitor.probes.gatus_jobs import external_job, gatus_job, no_job
from monitor.probes.kuma_jobs import group_names, kuma_job

__all__ = ["Found", "foreign_jobs"]

# A job's keys without its id, or what could not be taken; and where it is from.
Found = tuple[str, dict[str, Any] | None, list[str]]

_MODULES: Mapping[str, dict[str, Any]] = {
    "http_2xx": {"kind": "http"},
    "http_post_2xx": {"kind": "http", "method": "POST"},
    "tcp_connect": {"kind": "tcp"},
    "tcp_connect_tls": {"kind": "tls"},
    "ssh_banner": {"kind": "tcp", "body_regexp": "^SSH-2.0-"},
    "ssh_banner_extract": {"kind": "tcp", "body_regexp": "^SSH-2.0-"},
    "pop3s_banner": {"kind": "tcp", "tls": True, "body_regexp": r"^\+OK"},
    "icmp": {"kind": "ping"},
    "grpc": {"kind": "grpc"},
    "grpc_plain": {"kind": "grpc"},
}
# Where it is not the kind's name.
_SCHEMES = {"grpc": "grpcs"}
_OF_GATUS = ("endpoints", "external-endpoints", "suites")
_TIMES_OF_LABELS = {"__scrape_interval__": "interval", "__scrape_timeout__": "timeout"}


def foreign_jobs(data: Any) -> Iterator[Found]:
    """Yield what each entry of a file becomes; raise ValueError for a file of another kind."""
    if isinstance(data, list) and (
        not data or any(isinstance(each, dict) and "targets" in each for each in data)
    ):
        return _prometheus(data)
    if isinstance(data, dict) and any(isinstance(data.get(name), list) for name in _OF_GATUS):
        return chain(
            _each("endpoint", _listed(data, "endpoints"), gatus_job),
            _each("external endpoint", _listed(data, "external-endpoints"), external_job),
            _each("suite", _listed(data, "suites"), no_job),
            _sections(data, *_OF_GATUS),
        )
    if isinstance(data, dict) and isinstance(data.get("monitorList"), list):
        monitors = data["monitorList"]
        return chain(
            _each("monitor", monitors, partial(kuma_job, groups=group_names(monitors))),
            _sections(data, "monitorList", "version"),
        )
    raise ValueError(
        "not a target list of Prometheus, a config of Gatus or a backup of Uptime Kuma"
    )


def _listed(data: dict[str, Any], key: str) -> list[Any]:
    found = data.get(key) or []
    return found if isinstance(found, list) else [found]


def _sections(data: dict[str, Any], *known: str) -> Iterator[Found]:
    """Say which sections are not about checks, such as those about alerts."""
    for name, value in data.items():
        if value and name not in known:
            yield f"section {text(name)}", None, ["only checks are"]


def _each(what: str, entries: list[Any], read: Any) -> Iterator[Found]:
    for number, entry in enumerate(entries, 1):
        place = f"{what} {number}"
        if not isinstance(entry, dict):
            yield place, None, ["is not an object"]
            continue
        lost: list[str] = []
        try:
            job = read(entry, lost)
        except KeyError as error:
            yield f"{place} ({text(entry.get('name'))})", None, [f"it has no {error.args[0]}"]
        except ValueError as error:
            yield f"{place} ({text(entry.get('name'))})", None, [f"cannot be read: {error}"]
        except (TypeError, AttributeError, OverflowError):
            problem = "cannot be read: one of its values is of another type than there"
            yield f"{place} ({text(entry.get('name'))})", None, [problem]
        else:
            yield f"{place} ({text(entry.get('name'))})", job, lost


def _prometheus(groups: list[Any]) -> Iterator[Found]:
    for number, group in enumerate(groups, 1):
        if not isinstance(group, dict):
            yield f"group {number}", None, ["is not an object"]
            continue
        labels, targets = group.get("labels") or {}, group.get("targets")
        if not isinstance(labels, dict) or not isinstance(targets, list):
            yield f"group {number}", None, ["targets must be a list and labels an object"]
            continue
        for name in group.keys() - {"labels", "targets"}:
            yield f"group {number}", None, [f"the key {text(name)}"]
        for target in map(text, targets):
            lost: list[str] = []
            yield f"group {number}: {target}", _prometheus_job(target, labels, lost), lost


def _prometheus_job(
    target: str, labels: Mapping[str, Any], lost: list[str]
) -> dict[str, Any] | None:
    module = text(labels.get("__param_module") or labels.get("module") or "http_2xx")
    keys = _MODULES.get(module)
    if keys is None:
        lost.append(f"its module {module} is not known")
        return None
    scheme = _SCHEMES.get(module, keys["kind"])
    url = target if "://" in target else f"{scheme}://{bracketed(target)}"
    job: dict[str, Any] = {"name": target, "url": url, **keys, "tags": []}
    for name, value in labels.items():
        if name in _TIMES_OF_LABELS:
            take_seconds(value, _TIMES_OF_LABELS[name], f"the label {name}", job, lost)
        elif name in ("module", "__param_module"):
            continue
        elif text(name).startswith("__"):
            lost.append(f"the label {name}")
        elif value is not None:
            job["tags"].append(f"{text(name)}={text(value)}")
    return job

"""Jobs from the files of other programs; pure.

Understood are a target list of Prometheus (file_sd) whose label ``__param_module`` or ``module``
names one of blackbox_exporter's usual modules, a config of Gatus, and a backup of Uptime Kuma.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from monitor.probes.foreign_values import (
    bracketed,
    drop_idle_tls,
    header_texts,
    seconds,
    text,
    with_content_type,
)
from monitor.probes.gatus_jobs import external_job, gatus_job, no_job

__all__ = ["Found", "foreign_jobs"]

# A job's keys without its id, or what could not be taken; and where it is from.
Found = tuple[str, dict[str, Any] | None, list[str]]

_MODULES: Mapping[str, dict[str, Any]] = {
    "http_2xx": {"kind": "http"},
    "http_post_2xx": {"kind": "http", "method": "POST"},
    "tcp_connect": {"kind": "tcp"},
    "tcp_connect_tls": {"kind": "tls"},
    "ssh_banner": {"kind": "tcp", "body_regexp": "^SSH-2.0-"},
    "pop3s_banner": {"kind": "tcp", "tls": True, "body_regexp": r"^\+OK"},
    "icmp": {"kind": "ping"},
    "grpc": {"kind": "grpc"},
    "grpc_plain": {"kind": "grpc"},
}
_SCHEMES = {"http": "http", "tcp": "tcp", "tls": "tls", "ping": "ping", "grpc": "grpc"}
_TIMES_OF_LABELS = {"__scrape_interval__": "interval", "__scrape_timeout__": "timeout"}
_LEAST_INTERVAL_S = 1.0
_MOST_RETRIES = 10
# What Uptime Kuma sends with a body of these encodings.
_KUMA_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "xml": "text/xml; charset=utf-8",
}
# Keys of Uptime Kuma that change what is checked; most others are in every backup.
_KUMA_LOST = ("proxyId", "tlsCert", "tlsKey", "tlsCa", "oauth_client_id", "expectedValue")


def foreign_jobs(data: Any) -> Iterator[Found]:
    """Yield what each entry of a file becomes; raise ValueError for a file of another kind."""
    if isinstance(data, list) and all(
        isinstance(each, dict) and "targets" in each for each in data
    ):
        return _prometheus(data)
    if isinstance(data, dict) and isinstance(data.get("endpoints"), list):
        return chain(
            _each("endpoint", data["endpoints"], gatus_job),
            _each("external endpoint", _listed(data, "external-endpoints"), external_job),
            _each("suite", _listed(data, "suites"), no_job),
            _sections(data, "endpoints", "external-endpoints", "suites"),
        )
    if isinstance(data, dict) and isinstance(data.get("monitorList"), list):
        monitors = data["monitorList"]
        groups = {
            each.get("id"): text(each.get("name"))
            for each in monitors
            if isinstance(each, dict) and each.get("type") == "group"
        }
        return chain(
            _each("monitor", monitors, partial(_kuma, groups=groups)),
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
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            yield f"{place} ({entry.get('name', '')})", None, [f"cannot be read: {error}"]
        else:
            yield f"{place} ({entry.get('name', '')})", job, lost


def _prometheus(groups: list[dict[str, Any]]) -> Iterator[Found]:
    for number, group in enumerate(groups, 1):
        labels, targets = group.get("labels") or {}, group["targets"]
        if not isinstance(labels, dict) or not isinstance(targets, list):
            yield f"group {number}", None, ["targets must be a list and labels an object"]
            continue
        for target in map(str, targets):
            lost: list[str] = []
            yield f"group {number}: {target}", _prometheus_job(target, labels, lost), lost


def _prometheus_job(
    target: str, labels: Mapping[str, Any], lost: list[str]
) -> dict[str, Any] | None:
    module = str(labels.get("__param_module") or labels.get("module") or "http_2xx")
    keys = _MODULES.get(module)
    if keys is None:
        lost.append(f"its module {module} is not known")
        return None
    url = target if "://" in target else f"{_SCHEMES[keys['kind']]}://{target}"
    job: dict[str, Any] = {"name": target, "url": url, **keys, "tags": []}
    for name, value in labels.items():
        if name in _TIMES_OF_LABELS:
            try:
                job[_TIMES_OF_LABELS[name]] = seconds(value)
            except ValueError:
                lost.append(f"the label {name}")
        elif name in ("module", "__param_module"):
            continue
        elif str(name).startswith("__"):
            lost.append(f"the label {name}")
        elif value is not None:
            job["tags"].append(f"{text(name)}={text(value)}")
    return job


def _kuma(
    entry: dict[str, Any], lost: list[str], *, groups: Mapping[Any, str]
) -> dict[str, Any] | None:
    kind, host, port = str(entry["type"]), entry.get("hostname"), entry.get("port")
    job: dict[str, Any] = {"name": str(entry.get("name") or "")}
    if kind in ("http", "keyword", "json-query"):
        job |= {"kind": "http", "url": str(entry["url"])}
        if entry.get("method"):
            job["method"] = entry["method"]
        if entry.get("body"):
            job["body"] = entry["body"]
        if entry.get("headers"):
            headers = entry["headers"]
            job["headers"] = header_texts(
                json.loads(headers) if isinstance(headers, str) else headers
            )
        if entry.get("body"):
            encoding = entry.get("httpBodyEncoding") or "json"
            with_content_type(job, _KUMA_TYPES.get(encoding, encoding))
        if entry.get("accepted_statuscodes"):
            job["expected_status"] = entry["accepted_statuscodes"]
        if entry.get("ignoreTls"):
            job["verify_tls"] = False
        if entry.get("maxredirects") is not None:
            job["max_redirects"] = int(entry["maxredirects"])
        drop_idle_tls(job)
        if kind == "keyword" and entry.get("keyword"):
            key = "body_absent_regexp" if entry.get("invertKeyword") else "body_regexp"
            job[key] = re.escape(entry["keyword"])
        if kind == "json-query":
            lost.append("its JSON query, which is JSONata: write it as json")
        if entry.get("basic_auth_user"):
            lost.append("its credentials: write them in the URL")
    elif kind == "port":
        job |= {"kind": "tcp", "url": f"tcp://{bracketed(str(host))}:{port}"}
    elif kind == "ping":
        job |= {"kind": "ping", "url": f"ping://{bracketed(str(host))}"}
    elif kind == "dns":
        server = f"{bracketed(str(entry['dns_resolve_server']))}:{port or 53}"
        job |= {"kind": "dns", "url": f"dns://{server}/{host}?type={entry['dns_resolve_type']}"}
    elif kind == "push":
        job["kind"] = "heartbeat"
        lost.append("its push token: make a key with POST /job/ID/key")
    elif kind == "group":
        lost.append("a group: its name is a tag of its monitors")
        return None
    else:
        lost.append(f"the type {kind} has no kind of check")
        return None
    lost += [f"the key {key}" for key in _KUMA_LOST if entry.get(key)]
    if entry.get("upsideDown"):
        lost.append("upside down: it is imported without")
    if entry.get("interval"):
        job["interval"] = max(_LEAST_INTERVAL_S, float(entry["interval"]))
    if entry.get("timeout") and job["kind"] != "heartbeat":
        job["timeout"] = float(entry["timeout"])
    if entry.get("maxretries") and job["kind"] != "heartbeat":
        job["retries"] = min(_MOST_RETRIES, int(entry["maxretries"]))
        if int(entry["maxretries"]) > _MOST_RETRIES:
            lost.append(f"more than {_MOST_RETRIES} retries")
    if entry.get("active") in (False, 0):
        job["active"] = False
    tags = [
        f"{each['name']}={text(each['value'])}" if each.get("value") else each["name"]
        for each in entry.get("tags") or ()
        if isinstance(each, dict)
    ]
    if groups.get(entry.get("parent")):
        tags.append(groups[entry["parent"]])
    return {**job, "tags": tags} if tags else job
